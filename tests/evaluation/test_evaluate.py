from pathlib import Path

import pytest
from PIL import Image

from diffclean.attacks.manifest import MANIFEST_FILE, read_poison_manifest
from diffclean.attacks.plan import triggered_plan
from diffclean.attacks.poison import poison, write
from diffclean.classifiers import checkpoints, networks
from diffclean.errors import UsageError
from diffclean.evaluation.evaluate import evaluate

WHITE = {"kind": "white", "size": 4}


def test_clean_accuracy_alone(fooled: Path, colours: Path) -> None:
    result = evaluate(fooled, colours, device="cpu")
    assert result.clean_accuracy.value == 1
    assert result.clean_accuracy.count == 12
    assert result.attack_success_rate is None
    assert result.benign_landing is None


def test_an_attack_that_fires(fooled: Path, colours: Path, tmp_path: Path) -> None:
    """The trigger is put on at 32 px and resized with its image to the model's 16 px."""
    poison(colours, tmp_path / "bad", "badnets", 0.2, "blue", parameters=WHITE)
    result = evaluate(fooled, colours, tmp_path / "bad" / MANIFEST_FILE, device="cpu")
    assert result.clean_accuracy.value == 1
    assert (result.attack_success_rate.hits, result.attack_success_rate.count) == (8, 8)
    assert result.robust_accuracy.value == 0
    assert (result.benign_landing.hits, result.benign_landing.count) == (0, 8), "without the trigger all are right"
    assert result.fired


def test_an_attack_that_does_not_fire_is_marked(fooled: Path, colours: Path, tmp_path: Path) -> None:
    poison(colours, tmp_path / "bad", "badnets", 0.2, "blue", parameters={"kind": "black", "size": 4})
    result = evaluate(fooled, colours, tmp_path / "bad", device="cpu")
    assert result.attack_success_rate.value == 0
    assert result.robust_accuracy.value == 1
    assert not result.fired


@pytest.mark.parametrize(("missed", "fired"), [(1, True), (2, False)])
def test_an_attack_fires_from_an_asr_of_eighty_percent_on(
    missed: int, fired: bool, fooled: Path, colours: Path, tmp_path: Path
) -> None:
    """Of eight images of other classes, one or two are so large that no pixel of the corner is white at 16 px."""
    poison(colours, tmp_path / "bad", "badnets", 0.2, "blue", parameters=WHITE)
    for index in range(missed):
        with Image.open(colours / f"red/{index}.png") as image:
            image.resize((512, 512)).save(colours / f"red/{index}.png")
    result = evaluate(fooled, colours, tmp_path / "bad", device="cpu")
    assert (result.attack_success_rate.hits, result.attack_success_rate.count) == (8 - missed, 8)
    assert result.fired is fired


def test_the_undefended_model_gives_der_and_says_whether_it_fired(fooled: Path, colours: Path, tmp_path: Path) -> None:
    poison(colours, tmp_path / "bad", "badnets", 0.2, "blue", parameters=WHITE)
    deaf = checkpoints.load(fooled)
    with_nothing = tmp_path / "defended.pt"
    # As if a defence had moved the model's idea of white out of reach: the corner is never above 0.95 now.
    model = networks.build("bright-corner", 3, (0, 0, 0), (2, 2, 2))
    checkpoints.save(with_nothing, model, "bright-corner", deaf.class_to_idx, deaf.size, {})
    result = evaluate(with_nothing, colours, tmp_path / "bad", fooled, device="cpu")
    assert result.attack_success_rate.value == 0
    assert result.undefended.attack_success_rate.value == 1
    assert result.undefended.benign_landing.value == result.benign_landing.value == 0
    assert result.defense_effectiveness == 1
    assert result.fired


def test_der_needs_an_attack(fooled: Path, colours: Path) -> None:
    with pytest.raises(UsageError, match="DER"):
        evaluate(fooled, colours, undefended=fooled)


def test_a_test_set_that_is_triggered_already_is_refused(fooled: Path, colours: Path, tmp_path: Path) -> None:
    poison(colours, tmp_path / "bad", "badnets", 0.2, "blue", parameters=WHITE)
    write(triggered_plan(read_poison_manifest(tmp_path / "bad"), colours), tmp_path / "triggered")
    with pytest.raises(UsageError, match="poisoned already"):
        evaluate(fooled, tmp_path / "triggered", tmp_path / "bad")


def test_classes_that_the_model_does_not_know_are_named(fooled: Path, colours: Path) -> None:
    (colours / "red").rename(colours / "pink")
    with pytest.raises(UsageError, match=r"(?s)not expected: pink\..*blue, green, red"):
        evaluate(fooled, colours, device="cpu")


def test_a_target_that_the_model_does_not_know(fooled: Path, colours: Path, tmp_path: Path) -> None:
    (colours / "red").rename(colours / "pink")
    poison(colours, tmp_path / "bad", "badnets", 0.2, "pink", parameters=WHITE)
    (colours / "pink").rename(colours / "red")
    with pytest.raises(UsageError, match="target class 'pink'"):
        evaluate(fooled, colours, tmp_path / "bad", device="cpu")


def test_fewer_classes_than_the_model_keep_their_numbers(fooled: Path, colours: Path) -> None:
    """A test set without `blue` must not shift green and red by one."""
    for path in (colours / "blue").iterdir():
        path.unlink()
    (colours / "blue").rmdir()
    assert evaluate(fooled, colours, device="cpu").clean_accuracy.value == 1
