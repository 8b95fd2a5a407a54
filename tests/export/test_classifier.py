from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffclean.classifiers import loading
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.classifiers.networks import build
from diffclean.errors import UsageError
from diffclean.export.classifier import onnx_from_classifier

CPU = torch.device("cpu")
CLASSES = {"zebra": 0, "ant": 1, "cat": 2}
DATA = {"ant": 0, "cat": 1, "zebra": 2}
IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.usefixtures("tiny_archs")
def test_what_we_write_says_all_about_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build("plain", 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)).eval()
    path = tmp_path / "new" / "s.onnx"
    onnx_from_classifier(model, path, CLASSES, (16, 16))
    assert [file.name for file in path.parent.iterdir()] == ["s.onnx"]
    found = loading.load(ClassifierFile(path), DATA, CPU)
    assert (found.class_to_idx, found.size) == (CLASSES, (16, 16))
    with torch.no_grad():
        assert torch.allclose(found.logits(IMAGES), model(IMAGES), atol=1e-4)
    with pytest.raises(UsageError, match="states all of this itself"):
        loading.load(ClassifierFile(path, mean=(0, 0, 0)), DATA, CPU)
