import json
import logging
import pickle
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from diffclean.classifiers import checkpoints, loading
from diffclean.classifiers.classifier_file import ClassifierFile
from diffclean.classifiers.networks import IMAGENET_MEAN, IMAGENET_STD, Classifier, build
from diffclean.classifiers.state_dicts import read_classes
from diffclean.classifiers.weight_files import UnsafeFileError
from diffclean.errors import DiffcleanError, UsageError

CLASSES = {"zebra": 0, "ant": 1, "cat": 2}
DATA = {"ant": 0, "cat": 1, "zebra": 2}
CPU = torch.device("cpu")
IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def model() -> Classifier:
    torch.manual_seed(0)
    return build("tiny", 3, MEAN, STD).eval()


def listed(folder: Path, text: str = "zebra\nant\n\ncat\n") -> Path:
    (folder / "classes.txt").write_text(text)
    return folder / "classes.txt"


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_classifier_of_ours_says_all(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"t.{suffix}"
    checkpoints.save(path, model(), "tiny", CLASSES, (16, 16), {}, {"sketch": ["ab", "cd"]})
    found = loading.load(ClassifierFile(path), DATA, CPU)
    assert (found.class_to_idx, found.arch, found.size, found.sketch) == (CLASSES, "tiny", (16, 16), ["ab", "cd"])
    assert torch.allclose(found.logits(IMAGES), model()(IMAGES), atol=1e-5)
    with pytest.raises(UsageError, match=r"(?s)states all of this itself.*`classifier_arch`, `classifier_mean`"):
        loading.load(ClassifierFile(path, arch="tiny", mean=MEAN), DATA, CPU)


def saved_state(path: Path, form: str) -> Path:
    state = model().net.state_dict()
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(dict(state), path.with_suffix(".safetensors"))
        return path.with_suffix(".safetensors")
    content: object = {
        "bare": state,
        "nested": {"model_name": "tiny", "epoch": 3, "model": state},
        "state_dict": {"epoch": 3, "state_dict": state},
        "parallel": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        "classifier": model().state_dict(),
        "parallel classifier": {f"module.{name}": tensor for name, tensor in model().state_dict().items()},
    }[form]
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "form", ["bare", "nested", "state_dict", "parallel", "safetensors", "classifier", "parallel classifier"]
)
def test_a_state_dict_needs_its_architecture(form: str, tmp_path: Path) -> None:
    path = saved_state(tmp_path / "weights.pth", form)
    with pytest.raises(UsageError, match=r"(?s)does not say which network.*`classifier_arch`.*`classifier_classes`"):
        loading.load(ClassifierFile(path), DATA, CPU)
    told = ClassifierFile(path, arch="tiny", classes=listed(tmp_path), mean=MEAN, std=STD)
    found = loading.load(told, DATA, CPU)
    assert (found.class_to_idx, found.arch) == (CLASSES, "tiny")
    assert torch.allclose(found.logits(IMAGES), model()(IMAGES), atol=1e-5)
    if "classifier" in form:
        with pytest.raises(UsageError, match="holds its own mean"):
            loading.load(replace(told, mean=(0.0, 0.0, 0.0)), DATA, CPU)


def test_what_is_assumed_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved_state(tmp_path / "weights.pt", "bare")
    with caplog.at_level(logging.INFO):
        found = loading.load(ClassifierFile(path, arch="tiny"), DATA, CPU)
    assert found.class_to_idx == DATA
    assert "`classifier_mean`" in caplog.text
    assert "`classifier_classes`" in caplog.text
    expected = Classifier(model().net, IMAGENET_MEAN, IMAGENET_STD)
    assert torch.allclose(found.logits(IMAGES), expected(IMAGES), atol=1e-5)
    with pytest.raises(UsageError, match=r"(?s)Neither .* nor the data says.*`classifier_classes`"):
        loading.load(ClassifierFile(path, arch="tiny"), {}, CPU)


def test_timm_says_how_its_networks_see(tmp_path: Path) -> None:
    """Its test ViT takes 160 px only, and its own mean and deviation."""
    torch.save(build("test_vit", 3).net.state_dict(), tmp_path / "w.pt")
    found = loading.load(ClassifierFile(tmp_path / "w.pt", arch="test_vit"), DATA, CPU)
    assert found.size == (160, 160)
    assert isinstance(found.network, Classifier)
    assert found.network.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert found.logits(IMAGES[:1]).shape == (1, 3)


def test_weights_of_another_network_or_of_other_classes(tmp_path: Path) -> None:
    path = saved_state(tmp_path / "w.pt", "bare")
    with pytest.raises(
        DiffcleanError, match=r"does not fit plain with 3 classes: .*do not belong to it, such as 1\.bias"
    ):
        loading.load(ClassifierFile(path, arch="plain"), DATA, CPU)
    with pytest.raises(DiffcleanError, match=r"(?s)6\.weight is \(3, 256\) in the file and \(2, 256\).*_classes"):
        loading.load(ClassifierFile(path, arch="tiny"), {"a": 0, "b": 1}, CPU)
    torch.save({"epoch": 3}, path)
    with pytest.raises(DiffcleanError, match=r"(?s)holds no weights .it holds epoch.*torch\.save"):
        loading.load(ClassifierFile(path, arch="tiny"), DATA, CPU)


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\nb\na\n", "names a class twice"), ('{"a": 0, "b": 2}', "without a gap"), ("[1, 2]", "")],
)
def test_lists_of_classes(text: str, message: str, tmp_path: Path) -> None:
    path = listed(tmp_path, text)
    if message:
        with pytest.raises(DiffcleanError, match=message):
            read_classes(path)
    else:
        assert read_classes(path) == {"1": 0, "2": 1}
    assert read_classes(listed(tmp_path, json.dumps(CLASSES))) == CLASSES


def test_a_teacher_of_another_size_gets_what_it_wants(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / "t.pt", model(), "tiny", CLASSES, (16, 16), {})
    found = loading.load(ClassifierFile(tmp_path / "t.pt"), DATA, CPU)
    large = torch.nn.functional.interpolate(IMAGES, (32, 32), mode="nearest")
    seen = []
    inner = found.network

    def spy(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return inner(images)

    object.__setattr__(found, "network", spy)
    assert found.logits(large).shape == (5, 3)
    assert seen[0].shape == (5, 3, 16, 16)
    assert seen[0].min() >= 0
    assert seen[0].max() <= 1


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return subprocess.call, (["touch", "pwned"],)


def write_unsafe(path: Path, kind: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    if kind == "malicious":
        path.write_bytes(pickle.dumps(Malicious()))
    elif kind == "pickled module":
        torch.save(net, path)
    elif kind == "TorchScript":
        torch.jit.trace(net, IMAGES).save(str(path))  # type: ignore[no-untyped-call]
    else:
        torch.export.save(torch.export.export(net, (IMAGES,)), path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("malicious", "would run code"),
        ("pickled module", "a whole pickled model"),
        ("TorchScript", "TorchScript archive: a program, whose loader trusts the file"),
        ("torch.export", "archive of torch.export: a program"),
    ],
)
def test_files_that_would_have_to_be_trusted(
    kind: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ("t.pt2" if kind == "torch.export" else "t.pt")
    write_unsafe(path, kind)
    with pytest.raises(UnsafeFileError, match=f"(?s){reason}") as found:
        loading.load(ClassifierFile(path, arch="tiny"), DATA, CPU)
    assert "torch.save(model.state_dict(), 'weights.pt')" in found.value.hint
    assert "--teacher-arch" in found.value.hint
    assert "weights_only" not in str(found.value), "no advice to load it unsafely"
    assert not (tmp_path / "pwned").exists()


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match="no file"):
        loading.load(ClassifierFile(tmp_path / "t.pt"), DATA, CPU)
    (tmp_path / "t.pt").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(DiffcleanError, match="damaged"):
        loading.load(ClassifierFile(tmp_path / "t.pt"), DATA, CPU)


def test_a_size_that_a_network_cannot_take(tmp_path: Path) -> None:
    network = build("vit_tiny_patch16_224", 3)
    torch.save(network.net.state_dict(), tmp_path / "vit.pth")
    told = ClassifierFile(tmp_path / "vit.pth", arch="vit_tiny_patch16_224", classes=listed(tmp_path), size=32)
    with pytest.raises(DiffcleanError, match=r"(?s)fails on images of 32x32 px.*`classifier_size`"):
        loading.load(told, DATA, CPU).logits(IMAGES)


def test_capitals_in_a_files_name(tmp_path: Path) -> None:
    path = saved_state(tmp_path / "t.pt", "safetensors").rename(tmp_path / "T.SAFETENSORS")
    told = ClassifierFile(path, arch="tiny", classes=listed(tmp_path), mean=MEAN, std=STD)
    assert loading.load(told, DATA, CPU).arch == "tiny"


@pytest.mark.parametrize("about", ["[]", "null", "5", "[" * 100_000])
def test_metadata_that_are_no_object(about: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "t.safetensors", {"diffclean": about})
    with pytest.raises(DiffcleanError, match="damaged"):
        loading.load(ClassifierFile(tmp_path / "t.safetensors"), DATA, CPU)
