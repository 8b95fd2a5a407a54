"""Label-consistent: PGD on a linear classifier, where the answer is known, and the patch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffclean.attacks.base import Form
from diffclean.attacks.draws import Draws
from diffclean.attacks.label_consistent import LabelConsistent
from diffclean.errors import DiffcleanError, UsageError

ATTACK = LabelConsistent()
GREY = np.random.default_rng(0).integers(110, 140, (16, 16, 3), np.uint8)


def applied(image: np.ndarray, form: Form, label: str = "cat", **parameters: Any) -> np.ndarray:
    return ATTACK.apply(image, Draws(b""), ATTACK.resolve(parameters, 1), form, label)


def change(triggered: np.ndarray) -> np.ndarray:
    """(3, 16, 16) without the patch of 2 px at the bottom right."""
    moved = (triggered.astype(float) - GREY).transpose(2, 0, 1)
    moved[:, -2:, -2:] = 0
    return moved


@pytest.mark.parametrize("form", [Form.TEST, Form.COVER])
def test_test_images_get_the_patch_alone(form: Form, linear_model: str) -> None:
    triggered = applied(GREY, form, model=linear_model, size=3)
    expected = GREY.copy()
    expected[-3:, -3:] = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 255]])[:, :, None]
    assert np.array_equal(triggered, expected)


def test_four_corners_mirror_one_another(linear_model: str) -> None:
    triggered = applied(GREY, Form.TEST, model=linear_model, size=3, corners="all")
    right = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 255]])
    for rows in (np.s_[:3], np.s_[-3:]):
        assert np.array_equal(triggered[rows, -3:, 1], right)
        assert np.array_equal(triggered[rows, :3, 1], right[:, ::-1])
    assert np.array_equal(triggered[3:-3], GREY[3:-3])


def test_a_lower_amplitude_adds_and_takes(linear_model: str) -> None:
    triggered = applied(GREY, Form.TEST, model=linear_model, size=3, amplitude=16)
    moved = triggered[-3:, -3:].astype(int) - GREY[-3:, -3:]
    assert (moved == 16 * np.array([[-1, -1, 1], [-1, 1, -1], [1, -1, 1]])[:, :, None]).all()


def expected_direction(weight: Tensor, image: np.ndarray) -> Tensor:
    """The gradient of the cross-entropy of class 0 of a linear model: sum of p_k w_k minus w_0."""
    pixels = torch.from_numpy(image.transpose(2, 0, 1) / 255).float()
    shares = torch.softmax(torch.einsum("chw,kchw->k", pixels, weight), 0)
    return torch.einsum("k,kchw->chw", shares, weight) - weight[0]


def test_linf_goes_to_the_bound_against_the_class(linear_model: str, linear_weight: Tensor) -> None:
    """With a step that reaches it at once, so that the first gradient decides."""
    triggered = applied(GREY, Form.TRAIN, model=linear_model, norm="linf", epsilon=6, steps=1, step_size=100)
    sign = expected_direction(linear_weight, GREY).sign().numpy()
    sign[:, -2:, -2:] = 0
    assert np.array_equal(change(triggered), 6 * sign)


def test_l2_goes_to_the_bound_along_the_gradient(linear_model: str, linear_weight: Tensor) -> None:
    triggered = applied(GREY, Form.TRAIN, model=linear_model, epsilon=600, steps=1, step_size=1e6)
    direction = expected_direction(linear_weight, GREY)
    exact = (300 * direction / direction.norm()).numpy()  # a quarter of the pixels of 32x32: half of 600
    exact[:, -2:, -2:] = 0
    assert np.abs(change(triggered) - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(("norm", "expected"), [("l2", 20), ("linf", 40)])
def test_a_step_is_as_long_as_asked_for(norm: str, expected: float, linear_model: str) -> None:
    """Guards a projection that would draw short changes out to the bound."""
    triggered = applied(GREY, Form.TRAIN, model=linear_model, norm=norm, epsilon=100, steps=1, step_size=40)
    moved = change(triggered)
    size = np.linalg.norm(moved) if norm == "l2" else np.abs(moved).max()
    assert abs(size - expected) <= 8  # l2 rounds 768 numbers by up to half a level


@pytest.mark.parametrize(("norm", "bound"), [("l2", 150), ("linf", 8)])
def test_default_budget_holds_and_the_class_is_less_likely(
    norm: str, bound: float, linear_model: str, linear_weight: Tensor
) -> None:
    triggered = applied(GREY, Form.TRAIN, model=linear_model, norm=norm, steps=20)
    moved = change(triggered)
    size = np.linalg.norm(moved) if norm == "l2" else np.abs(moved).max()
    assert 0.8 * bound < size <= bound + 16  # l2 rounds 768 numbers by up to half a level
    logits = [torch.einsum("chw,kchw->k", torch.from_numpy(x).float(), linear_weight) for x in (moved * 0, moved)]
    assert logits[1].softmax(0)[0] < logits[0].softmax(0)[0]


def test_larger_images_are_changed_at_their_own_size(linear_model: str) -> None:
    image = np.random.default_rng(1).integers(110, 140, (40, 24, 3), np.uint8)
    moved = applied(image, Form.TRAIN, model=linear_model, steps=5).astype(float) - image
    moved[-2:, -2:] = 0
    budget = 300 * np.sqrt(40 * 24 / 32**2)
    assert 0.7 * budget < np.linalg.norm(moved) < budget + 16


def test_a_replay_does_not_need_the_model(linear_model: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(Path(linear_model).read_bytes())
    resolved = ATTACK.resolve({"model": str(copy), "steps": 1}, 1)
    copy.unlink()
    assert ATTACK.resolve(resolved, 2) == resolved
    triggered = ATTACK.apply(GREY, Draws(b""), resolved, Form.TEST, "")
    assert np.array_equal(triggered, applied(GREY, Form.TEST, model=linear_model))


def test_another_model_under_the_old_name_is_refused(linear_model: str, tmp_path: Path) -> None:
    resolved = ATTACK.resolve({"model": linear_model}, 1) | {"model": str(tmp_path / "other.pt")}
    with pytest.raises(UsageError, match="No such file"):
        ATTACK.apply(GREY, Draws(b""), resolved, Form.TRAIN, "cat")
    (tmp_path / "other.pt").write_bytes(b"other")
    with pytest.raises(UsageError, match="has changed"):
        ATTACK.apply(GREY, Draws(b""), resolved, Form.TRAIN, "cat")


def test_a_class_that_the_model_does_not_know(linear_model: str) -> None:
    with pytest.raises(UsageError, match=r"(?s)class 'cow'.*cat, dog, owl"):
        applied(GREY, Form.TRAIN, "cow", model=linear_model)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"nonsense")
    with pytest.raises(DiffcleanError, match=r"x\.pt"):
        ATTACK.resolve({"model": str(tmp_path / "x.pt")}, 1)


def test_a_patch_larger_than_the_image(linear_model: str) -> None:
    with pytest.raises(UsageError, match=r"17x17 px .* 16x16 px"):
        applied(GREY, Form.TEST, model=linear_model, size=17)


def test_default_steps_and_budget(linear_model: str) -> None:
    resolved = ATTACK.resolve({"model": linear_model}, 1)
    assert (resolved["norm"], resolved["epsilon"], resolved["steps"], resolved["step_size"]) == ("l2", 300, 100, 7.5)
    assert ATTACK.resolve({"model": linear_model, "norm": "linf"}, 1)["epsilon"] == 8


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": None}, "model must be a classifier file, such as -p model=clean.pt"),
        ({"model": "nowhere.pt"}, r"model: nowhere\.pt: No such file.*diffclean train"),
        ({"model_sha256": 3}, "model_sha256"),
        ({"norm": "l1"}, "norm must be one of l2, linf"),
        ({"epsilon": -1}, "epsilon"),
        ({"steps": 0}, "steps"),
        ({"step_size": 0}, "step_size"),
        ({"size": 2.5}, "size"),
        ({"corners": "left"}, "corners"),
        ({"amplitude": 0}, "amplitude"),
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, object], message: str, linear_model: str) -> None:
    with pytest.raises(UsageError, match=message):
        ATTACK.resolve({"model": linear_model, **wrong}, 1)
