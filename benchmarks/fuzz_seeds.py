"""Makes the valid files that `fuzz_weights` changes, one of each kind, and makes changed engines look unchanged."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

FAMILIES = (
    "flux-redux",
    "instruct-pix2pix",
    "ip-adapter",
    "ip-adapter-sdxl",
    "kandinsky",
    "sd-image-variations",
    "sd-img2img",
    "sdxl-img2img",
    "stable-unclip",
    "versatile-diffusion",
)
"""Families with a small model of diffusers' classes, whose configurations and weights are changed."""
DATA = {"ant": 0, "cat": 1, "zebra": 2}


def make_seeds(folder: Path) -> dict[str, Path]:
    """Write them; kind -> file or folder. Every library that a load needs is in memory afterwards."""
    import torch

    from diffclean.classifiers import checkpoints
    from diffclean.classifiers.networks import build
    from diffclean.data.manifest import Row, write_manifest
    from diffclean.export.cache import cached_engine
    from diffclean.export.classifier import onnx_from_classifier
    from diffclean.families.registry import recipe_for

    torch.manual_seed(0)
    folder.mkdir(parents=True)
    model = build("resnet8-cifar", 3).eval()
    for suffix in ("pt", "safetensors"):
        checkpoints.save(folder / f"classifier.{suffix}", model, "resnet8-cifar", DATA, (32, 32), {})
    state = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "state_dict.pt")
    from safetensors.torch import save_file

    save_file(state, folder / "state_dict.safetensors")
    onnx_from_classifier(model, folder / "classifier.onnx", DATA, (32, 32))
    _small_model(folder / "model")
    engine = folder / "engine"
    shutil.copytree(cached_engine(recipe_for(str(folder / "model"))), engine)
    _poisoned(folder)
    rows = [Row(f"ant/{n}.png", 0, f"ant/{n}_v00.png", "ant", seed=n, source_sha256=f"{n:064x}") for n in range(50)]
    write_manifest(folder, rows, class_to_idx=DATA)
    files = ("classifier.pt", "classifier.safetensors", "state_dict.pt", "state_dict.safetensors", "classifier.onnx")
    of_model = ("model_index.json", "scheduler_config.json", "config.json of a U-Net", "weights of a U-Net")
    return {
        **{name: folder / name for name in (*files, "poison.json", "manifest.parquet")},
        **dict.fromkeys(("engine.json", "graph of an engine"), engine),
        **dict.fromkeys(of_model, folder / "model"),
        **_models_of_families(folder / "families"),
    }


def _models_of_families(folder: Path) -> dict[str, Path]:
    """The small models of the tests; parts that their families do not read are removed."""
    from diffclean.families.registry import family_named

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    from small_flux import saved_flux
    from small_models import saved

    kinds: dict[str, Path] = {}
    for family in FAMILIES:
        place = folder / family
        saved_flux(place) if family == "flux-redux" else saved(family, place)
        read = {pattern.split("/")[0] for pattern in family_named(family).parts}
        for part in place.iterdir():
            if part.is_dir() and part.name not in read:
                shutil.rmtree(part)
        kinds |= {f"configurations of {family}": place, f"weights of {family}": place}
    return kinds


def _small_model(folder: Path) -> None:
    from diffclean.families.micro_model import MicroUNet
    from diffclean.pretraining.pretrain import save_model

    save_model(MicroUNet(sample_size=16, channels=8, blocks=1, layers=1, heads=2), folder)


def _poisoned(folder: Path) -> None:
    from PIL import Image

    from diffclean.attacks.poison import poison

    for name in DATA:
        for number in range(8):
            path = folder / "clean" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (number * 30, 9, 90)).save(path)
    poison(folder / "clean", folder / "poisoned", "badnets", 0.2, "ant")
    shutil.copy(folder / "poisoned" / "poison.json", folder / "poison.json")


def signed(data: bytes) -> bytes:
    """An engine.json with the fingerprint that belongs to its content, where that can be worked out."""
    try:
        content = json.loads(data)
        stated = json.loads(data)
        stated.pop("fingerprint", None)
        stated["source"].pop("path", None)
        stated.pop("compiled")
        for component in stated["components"].values():
            component.pop("parity")
        fingerprint = hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
        return json.dumps({**content, "fingerprint": fingerprint}).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return data


def recorded(engine: Path, name: str) -> None:
    """Put the hash of a changed file into an engine.json, as an attacker would."""
    path = engine / "engine.json"
    content = json.loads(path.read_text())
    content["files"][name] = hashlib.sha256((engine / name).read_bytes()).hexdigest()
    path.write_bytes(signed(json.dumps(content).encode()))
