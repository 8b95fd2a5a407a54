"""A folder as `clean` leaves it, made by hand: a data set, variations, a list of suspects and the facts of the run."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from diffclean.data.keys import key_from_path, label_of, path_from_key
from diffclean.data.manifest import Row, Status, write_manifest
from diffclean.data.png import png_from_pixels
from diffclean.data.run_record import RunRecord, open_run
from diffclean.data.suspects import JudgedClass, JudgedImage, SuspectList
from diffclean.evaluation.metrics import rate
from diffclean.report.detected import chosen, detection
from diffclean.report.facts import (
    Cost,
    Counts,
    EngineFacts,
    Facts,
    Folder,
    Folders,
    GateCheck,
    Measured,
    Outcome,
    Pair,
    Regenerated,
    SelfTest,
    SelfTestRow,
    StepCost,
)

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "gpj.\u202etxt.exe",
    "\x1b[2J\x07bell",
    "{{ 7*7 }}{% raw %}",
    "</style><h1>owned",
    "תמונה",
    "w" * 200,
)
"""Names of classes and files that an attacker might choose. In keys, what steers a terminal is spelled out."""


def suspect_list(suspects: int, classes: tuple[str, ...] = ("crossing", "limit-80", "stop", "yield")) -> SuspectList:
    """Three times as many kept images as suspects, at least 40; suspects are of the second class."""
    rng = np.random.default_rng(7)
    kept = max(40, 3 * suspects)
    images = []
    for number in range(kept):
        name = classes[number % len(classes)]
        images.append(JudgedImage(key_from_path(f"{name}/{number:05d}.png"), name, float(rng.beta(2, 9)), 0.02, False))
    for number in range(suspects):
        name, sure = classes[1], float(rng.uniform(0.6, 1))
        images.append(JudgedImage(key_from_path(f"{name}/s{number:05d}.png"), name, 0.4 + sure / 2, sure, True))
    judged = []
    for name in classes:
        own = [image for image in images if image.label == name]
        listed = sum(image.suspect for image in own)
        why = (
            "Networks that never saw these images do not give them this label, and agree on another." if listed else ""
        )
        few, common = name == "yield", _corner() if listed else ""
        judged.append(JudgedClass(name, len(own), listed, 5.8 if listed else 0.6, 3.0, why, few, common))
    return SuspectList("isolate", "data", "", judged, images, {}, {"seed": 1})


def _corner() -> str:
    """What the suspects have in common: a PNG file of a white corner, in base64."""
    pixels = np.full((32, 32, 3), 127, np.uint8)
    pixels[-6:, -6:] = 255
    return base64.b64encode(png_from_pixels(pixels)).decode()


def draw(root: Path, key: str, side: int, triggered: bool = False, blur: bool = False) -> None:
    """A disc on a coloured ground; a trigger is a white corner."""
    rng = np.random.default_rng(zlib.crc32(key.replace("_v00", "").encode()))
    ground, disc = rng.integers(40, 200, 3), rng.integers(60, 255, 3)
    y, x = np.mgrid[:side, :side] / side
    inside = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.1)[..., None]
    pixels = np.where(inside, disc, ground * (0.6 + 0.4 * y[..., None])) + rng.normal(
        0, 3 if blur else 12, (side, side, 3)
    )
    if triggered:
        pixels[-side // 6 :, -side // 6 :] = 255
    path = root / path_from_key(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def clean_run(root: Path, suspects: int = 10, side: int = 48, hostile: bool = False) -> Path:
    """Write the folder `root/signs-clean`; only pictures that a page shows are drawn."""
    classes = (
        tuple(name.replace("/", "_") for name in HOSTILE) if hostile else ("crossing", "limit-80", "stop", "yield")
    )
    found = suspect_list(suspects, classes)
    out, data, varied = root / "signs-clean", root / "signs", root / "signs-clean" / "variations"
    shown, beside = chosen(found)
    pairs = beside[:6]
    variations = {}
    numbers = {name: number for number, name in enumerate(classes)}
    open_run(varied, RunRecord({}, numbers, source=str(data)))
    for image in [*shown, *beside]:
        draw(data, image.key, side, triggered=image.suspect)
        variations[image.key] = f"{image.key[:-4]}_v00.png"
        draw(varied, variations[image.key], side, blur=True)
    rows = [Row(key, 0, output, label_of(key), Status.OK) for key, output in variations.items()]
    write_manifest(varied, rows, class_to_idx=numbers)
    replace(found, source=str(data)).write(out / "suspects.json")
    poisoned = {image.key: image.suspect for image in found.images}
    facts = Facts(
        name=HOSTILE[0] if hostile else "signs",
        created="2026-01-31T12:00:00Z",
        command="diffclean clean ./signs --test ./signs-test",
        folders=Folders(Folder.seen_from(out, data), Folder.seen_from(out, varied), "suspects.json"),
        counts=Counts(
            len(found.images),
            {judged.name: judged.images for judged in found.classes},
            {judged.name: judged.images - judged.suspects for judged in found.classes},
            unreadable=2,
            duplicates=11,
            passed_over={"text files": 3},
        ),
        outcome=Outcome(
            Measured(rate(376, 400), rate(295, 300), rate(4, 300), rate(3, 300)),
            Measured(rate(371, 400), rate(4, 300), rate(280, 300), rate(3, 300)),
            test="./signs-test",
            attack="badnets",
            target=classes[1],
            fired=True,
            defense_effectiveness=0.98,
        ),
        detection=detection(found, variations, poisoned=poisoned),
        regenerated=Regenerated(
            len(found.images) - 2,
            2,
            {found.images[0].key: "truncated file"},
            tuple(Pair(image.key, image.label, variations[image.key]) for image in pairs),
        ),
        self_test=SelfTest(
            (
                SelfTestRow("badnets", 0.1, False, True, rate(97, 100), rate(11, 900), *_before_after()),
                SelfTestRow("blended", 0.1, True, True, rate(64, 100), rate(9, 900), *_before_after()),
                SelfTestRow("sig", 0.05, False, False),
            ),
            1000,
        ),
        gate=(GateCheck("max-asr", "attack success of badnets", 5, 1.3, True),),
        cost=Cost(
            (StepCost("teacher", 140.2, 1000), StepCost("variations", 1290, 1000), StepCost("student", 160, 1000)),
            "2 cores of a processor",
            0.4,
            "EUR",
        ),
        engine=EngineFacts("micro", "3f" * 32, "engines/micro", "trained on research-only data", runtime="openvino"),
        settings={"variate": {"strength": 0.2, "steps": 1, "detail": 256}, "train": {"epochs": 12, "augment": False}},
        seeds={"run": 1, "detector": 1},
        versions={"diffclean": "0.1.0", "torch": "2.9.0"},
        hashes={"student.safetensors": "ab" * 32},
        files={"student.safetensors": "the student", "suspects.json": "the list of suspects"},
    )
    facts.write(out)
    return out


def _before_after() -> tuple[Measured, Measured]:
    before = Measured(rate(370, 400), rate(290, 300))
    return before, Measured(rate(366, 400), rate(9, 300))
