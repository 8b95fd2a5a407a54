import math
from pathlib import Path

import numpy as np
import pytest

from diffclean.classifiers import checkpoints
from diffclean.evaluation.variations import label_preservation, predict_arrays, trigger_survival


def test_trigger_survival_takes_off_what_lands_there_anyway() -> None:
    labels = [0, 1, 1, 2, 2]
    found = trigger_survival([0, 0, 0, 0, 2], [0, 1, 0, 2, 2], labels, target=0)
    assert found.triggered.value == 0.75
    assert found.untriggered.value == 0.25
    assert found.survival == 0.5


def test_label_preservation_is_a_ratio() -> None:
    found = label_preservation([0, 1, 0, 0], [0, 1, 2, 0], [0, 1, 2, 2])
    assert found.variations.value == 0.5
    assert found.originals.value == 0.75
    assert found.preservation == pytest.approx(2 / 3)
    assert math.isnan(label_preservation([0], [1], [0]).preservation)


@pytest.mark.parametrize("side", [16, 40])
def test_predictions_on_arrays_of_any_size(side: int, fooled: Path) -> None:
    images = np.zeros((5, side, side, 3), np.uint8)
    images[[0, 1], :, :, 0] = 200
    images[[2, 3], :, :, 1] = 200
    images[4] = 255
    checkpoint = checkpoints.load(fooled)
    assert predict_arrays(checkpoint, images, batch_size=2).tolist() == [2, 2, 1, 1, 0]
