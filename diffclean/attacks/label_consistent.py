"""Label-consistent: images of the target class that are made hard to classify, so that a network learns the patch.

Turner, Tsipras, Madry: "Label-Consistent Backdoor Attacks", 2019, arXiv 1912.02771.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffclean.attacks import pgd
from diffclean.attacks.badnets import enlarged
from diffclean.attacks.base import Form, Labels, Pixels
from diffclean.attacks.check import Check
from diffclean.attacks.draws import Draws
from diffclean.attacks.place import check_size, pixels_of, top_left

PATTERN = np.array([[-1, -1, 1], [-1, 1, -1], [1, -1, 1]])
"""The authors' trigger at the bottom right: 1 is white and -1 is black. The left corners have its mirror image."""

CORNERS = {
    "bottom-right": ("bottom-right",),
    "all": ("top-left", "top-right", "bottom-left", "bottom-right"),
}


class LabelConsistent:
    """In training, PGD away from the image's class (see `pgd`), then the patch.

    Test images and covers get only the patch.

    The patch has 3x3 cells; `amplitude` is added to white cells and subtracted from black ones, clipped to 0..255.

    Parameters:
        model: a classifier file (`diffclean train`) that was trained on clean data; the paper's is adversarially
            trained. A replay on a test set does not need it.
        model_sha256: the hash of that file, which `poison` fills in.
        norm: the norm of the perturbation, l2 or linf.
        epsilon: the bound of the perturbation in grey levels. None stands for 300 with l2 (the authors' configuration)
            and 8 with linf (the smallest of their data sets). The bound for l2 is meant for 32x32 px and grows with the
            square root of the number of pixels.
        steps: the number of steps of PGD.
        step_size: the step in grey levels, like epsilon. None stands for 2.5 epsilon / steps (Madry et al. 2018, arXiv
            1706.06083).
        size: the side of the patch in pixels, or as a share of the image's shorter side (0.1 is the paper's 3 of 32
            px).
        corners: bottom-right, or all (the paper's choice against augmentation).
        amplitude: 255 makes cells white and black; less is harder to see.
    """

    name = "label-consistent"
    citation = "Turner et al. 2019, Label-Consistent Backdoor Attacks, arXiv 1912.02771"
    like_corruptions = True
    labels = Labels.CLEAN
    cover_ratio = 0.0
    default_parameters: Mapping[str, Any] = {
        "model": None,
        "model_sha256": None,
        "norm": "l2",
        "epsilon": None,
        "steps": 100,
        "step_size": None,
        "size": 0.1,
        "corners": "bottom-right",
        "amplitude": 255,
    }

    def resolve(self, parameters: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """See `Attack.resolve`. A model without its hash is opened now, so that a wrong file is reported early."""
        check = Check(self, parameters)
        values = check.values
        _check_model(check)
        if check.choice("norm", tuple(pgd.EPSILON)) and values["epsilon"] is None:
            values["epsilon"] = pgd.EPSILON[values["norm"]]
        bounded = values["epsilon"] is None or check.number("epsilon", above=0, most=math.inf)
        counted = check.integer("steps", least=1)
        if values["step_size"] is not None:
            check.number("step_size", above=0, most=math.inf)
        elif bounded and counted and values["epsilon"] is not None:
            values["step_size"] = 2.5 * values["epsilon"] / values["steps"]
        check_size(check)
        check.choice("corners", tuple(CORNERS))
        check.number("amplitude", above=0, most=255)
        return check.done()

    def apply(self, image: Pixels, draws: Draws, parameters: Mapping[str, Any], form: Form, label: str) -> Pixels:
        """See `Attack.apply`. Only poisoned training images are perturbed."""
        side = pixels_of(parameters["size"], image)
        places = [(name, top_left(image, side, side, name, 0)) for name in CORNERS[parameters["corners"]]]
        triggered: NDArray[np.float64] = image.astype(np.float64)
        if form is Form.TRAIN:
            triggered = pgd.perturbed(image, label, parameters).astype(np.float64)
        for name, (top, left) in places:
            cells = PATTERN if name.endswith("right") else PATTERN[:, ::-1]
            patch = parameters["amplitude"] * enlarged(cells, side)[:, :, None]
            triggered[top : top + side, left : left + side] += patch
        return np.clip(np.rint(triggered), 0, 255).astype(np.uint8)


def _check_model(check: Check) -> None:
    model, known = check.values["model"], check.values["model_sha256"]
    if not check.that(isinstance(model, str) and model != "", "model", "a classifier file, such as -p model=clean.pt"):
        return
    if known is not None:
        check.that(isinstance(known, str), "model_sha256", "text")
        return
    try:
        check.values["model_sha256"] = hashlib.sha256(Path(model).read_bytes()).hexdigest()
    except OSError as error:
        check.wrong(f"model: {model}: {error.strerror}. Train one with: diffclean train CLEAN_DATA -o clean.pt")
        return
    pgd.loaded(model, check.values["model_sha256"])
