import pickle
import resource
import subprocess
from pathlib import Path

import pytest
import torch

from diffclean.classifiers import checkpoints
from diffclean.classifiers.networks import build
from diffclean.errors import DiffcleanError, UsageError

CLASSES = {"zebra": 0, "ant": 1, "cat": 2}


def saved(path: Path) -> Path:
    model = build("wrn-16-1", 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    checkpoints.save(path, model, "wrn-16-1", CLASSES, (32, 24), {"test_accuracy": 0.5})
    return path


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_is_saved_is_what_is_loaded(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = saved(tmp_path / "new" / f"t.{suffix}")
    torch.manual_seed(0)
    expected = build("wrn-16-1", 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)).state_dict()
    read = checkpoints.load(path)
    assert list(read.class_to_idx.items()) == list(CLASSES.items())
    assert (read.arch, read.size, read.metrics) == ("wrn-16-1", (32, 24), {"test_accuracy": 0.5})
    assert {"diffclean", "torch"} <= set(read.versions)
    found = read.model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not read.model.training
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary file is left"


def test_the_file_is_plain_enough_for_torch_alone(tmp_path: Path) -> None:
    content = torch.load(saved(tmp_path / "t.pt"), weights_only=True)
    assert content["class_to_idx"] == CLASSES
    assert content["mean"] == pytest.approx([0.1, 0.2, 0.3])


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return subprocess.call, (["touch", "pwned"],)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_that_would_run_code_is_refused(legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    if legacy:
        path.write_bytes(pickle.dumps(Malicious()))
    else:
        torch.save({"format": checkpoints.FORMAT, "state_dict": Malicious()}, path)
    with pytest.raises(DiffcleanError, match=r"(?s)refused: .*would run code .*checkpoints\.save") as found:
        checkpoints.load(path)
    assert "weights_only" not in str(found.value), "no advice to load it unsafely"
    assert not (tmp_path / "pwned").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(build("wrn-16-1", 3), tmp_path / "model.pt")
    with pytest.raises(DiffcleanError, match="refused"):
        checkpoints.load(tmp_path / "model.pt")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut short", b"\x80\x02}q", b"\x89PNG"])
def test_a_damaged_file(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DiffcleanError, match=f"t.{suffix}"):
        checkpoints.load(path)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_that_was_cut_short(suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / f"t.{suffix}")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DiffcleanError, match="damaged"):
        checkpoints.load(path)


def test_a_bare_state_dict_says_what_is_missing(tmp_path: Path) -> None:
    torch.save(build("wrn-16-1", 3).state_dict(), tmp_path / "t.pt")
    with pytest.raises(DiffcleanError, match=r"not a classifier of diffclean .it holds mean, std"):
        checkpoints.load(tmp_path / "t.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format 99"),
        ({"class_to_idx": {"a": 0, "b": 1}}, "damaged"),
        ({"state_dict": {}}, "damaged"),
        ({"arch": "resnet8-cifar"}, "damaged"),
        ({"size": 5}, "damaged"),
        ({"format_version": None}, "format None"),
        ({"class_to_idx": {"a": 0, "b": 0, "c": 1}}, "class_to_idx"),
        ({"arch": "resnet1"}, "no architecture"),
        ({"mean": "x"}, "damaged"),
    ],
)
def test_parts_that_do_not_fit(change: dict[str, object], message: str, tmp_path: Path) -> None:
    content = torch.load(saved(tmp_path / "t.pt"), weights_only=True)
    torch.save({**content, **change}, tmp_path / "t.pt")
    with pytest.raises(DiffcleanError, match=message):
        checkpoints.load(tmp_path / "t.pt")


def test_names(tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match="no file"):
        checkpoints.load(tmp_path / "t.pt")
    with pytest.raises(UsageError, match=r"(?s)t\.onnx.*`out` t\.pt"):
        saved(tmp_path / "t.onnx")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_failed_write_leaves_the_old_file(suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / f"t.{suffix}")
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as a full disk would end it
    try:
        with pytest.raises(DiffcleanError, match="larger than is allowed"):
            saved(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
