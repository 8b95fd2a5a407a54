import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffclean.attacks.base import Form
from diffclean.attacks.choose import check_rates
from diffclean.attacks.manifest import MANIFEST_FILE, read_poison_manifest, triggered
from diffclean.attacks.plan import training_plan, triggered_plan
from diffclean.attacks.poison import poison, write
from diffclean.attacks.registry import ATTACKS
from diffclean.data.folder import ImageFolder
from diffclean.errors import DiffcleanError, Interrupted, UsageError


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_writes_what_the_manifest_says(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    manifest = poison(folder, out, "badnets", 0.2, "dog", parameters={"size": 3, "kind": "white"})
    assert manifest == read_poison_manifest(out) == read_poison_manifest(out / MANIFEST_FILE)
    assert len(manifest.images) == 30
    assert sum(row.poisoned for row in manifest.images) == 6
    assert manifest.class_to_idx == {"cat": 0, "dog": 1, "owl": 2}
    assert {row.output for row in manifest.images} == set(tree(out)) - {MANIFEST_FILE}
    for row in manifest.images:
        before, after = pixels(folder / row.key), pixels(out / row.output)
        assert hashlib.sha256((folder / row.key).read_bytes()).hexdigest() == row.source_sha256
        assert hashlib.sha256((out / row.output).read_bytes()).hexdigest() == row.output_sha256
        assert row.label == row.key.split("/")[0]
        if row.poisoned:
            assert row.label != "dog"
            assert row.output == f"dog/{row.label}__{row.key.split('/')[1]}"
            assert (after[-3:, -3:] == 255).all()
            assert np.array_equal(after[:-3], before[:-3])
            assert np.array_equal(after, triggered(before, row.key, manifest, Form.TRAIN, row.label))
            assert row.target == "dog"
        else:
            assert row.target == ""
            assert row.output == row.key
            assert np.array_equal(after, before)


def test_the_result_is_a_labelled_data_set(folder: Path, tmp_path: Path) -> None:
    poison(folder, tmp_path / "out", "blended", 0.5, "owl")
    source = ImageFolder(tmp_path / "out")
    assert source.class_to_idx == {"cat": 0, "dog": 1, "owl": 2}
    assert sum(item.label == "owl" for item in source.items()) == 25


@pytest.mark.parametrize("attack", ATTACKS)
def test_same_seed_same_bytes_whatever_the_workers(
    attack: str, folder: Path, tmp_path: Path, needed: Callable[[str], dict[str, Any]]
) -> None:
    for name, seed, workers in (("a", 1, 1), ("b", 1, 4), ("c", 2, 1)):
        plan = training_plan(folder, attack, 0.2, "cat", seed, needed(attack))
        write(plan, tmp_path / name, workers=workers)
    trees = [tree(tmp_path / name) for name in "abc"]
    assert trees[0] == trees[1]
    for each in trees:
        del each[MANIFEST_FILE]  # it names the seed
    assert trees[0] != trees[2]


@pytest.mark.parametrize("attack", ATTACKS)
def test_replay_on_a_test_set(
    attack: str, folder: Path, tmp_path: Path, needed: Callable[[str], dict[str, Any]]
) -> None:
    manifest = poison(folder, tmp_path / "out", attack, 0.1, "cat", seed=3, parameters=needed(attack))
    test = tmp_path / "test"
    (test / "cat").mkdir(parents=True)
    (test / "dog" / "deep").mkdir(parents=True)
    for key in ("cat/x.png", "dog/deep/y.png"):
        (test / key).write_bytes((folder / "owl" / "0.png").read_bytes())
    replayed = write(triggered_plan(read_poison_manifest(tmp_path / "out"), test), tmp_path / "triggered")
    assert replayed == read_poison_manifest(tmp_path / "triggered")
    assert (replayed.form, replayed.rate, replayed.cover_rate) == (Form.TEST, 1, 0)
    assert replayed.parameters == manifest.parameters
    assert replayed.labels == manifest.labels
    assert replayed.class_to_idx == manifest.class_to_idx, "the numbers are those of training"
    assert [(row.key, row.output, row.poisoned, row.cover, row.target) for row in replayed.images] == [
        ("cat/x.png", "cat/x.png", True, False, "cat"),
        ("dog/deep/y.png", "dog/deep/y.png", True, False, "cat"),
    ]
    for row in replayed.images:
        before, after = pixels(test / row.key), pixels(tmp_path / "triggered" / row.output)
        assert np.array_equal(after, triggered(before, row.key, manifest))
        assert not np.array_equal(after, before)


def test_a_test_set_with_a_class_that_training_did_not_have(folder: Path, tmp_path: Path) -> None:
    manifest = poison(folder, tmp_path / "out", "badnets", 0.1, "cat")
    (folder / "owl").rename(folder / "cow")
    with pytest.raises(UsageError, match=r"(?s)did not have: cow\..*cat, dog, owl"):
        triggered_plan(manifest, folder)


def test_nested_images_keep_their_folders(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "v1.2").mkdir()
    for index in range(30):
        Image.new("RGB", (16, 16)).save(folder / "cat" / "v1.2" / f"{index}.png")
    manifest = poison(folder, tmp_path / "out", "badnets", 0.8, "dog")
    moved = [row for row in manifest.images if row.poisoned and "v1.2" in row.key]
    assert moved
    assert all(row.output == f"dog/v1.2/cat__{row.key.rpartition('/')[2]}" for row in moved)


def test_an_image_that_cannot_be_read_is_listed(folder: Path, tmp_path: Path) -> None:
    (folder / "cat" / "broken.png").write_bytes(b"\x89PNG nonsense")
    manifest = poison(folder, tmp_path / "out", "badnets", 0.1, "dog")
    assert list(manifest.failed) == ["cat/broken.png"]
    assert len(manifest.images) == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1.0}, "leaves no clean image"),
        ({"rate": 0.99}, "leaves no clean image"),
        ({"rate": 0.8}, r"(?s)needs 24 images .* other than 'dog', but there are 20.*`rate` 0.666666"),
        ({"rate": float("nan")}, "poisons none"),
        ({"rate": 0.01}, "poisons none"),
        ({"rate": 0.0}, "poisons none"),
        ({"rate": -0.5}, "poisons none"),
        ({"target": "cow"}, r"(?s)no class 'cow'.*cat, dog, owl"),
        ({"attack": "nonsense"}, r"(?s)no attack 'nonsense'.*badnets, blended"),
        ({"parameters": {"size": 17}}, "does not fit"),
        ({"parameters": {"sise": 17}}, "no parameter sise"),
        ({"target": None}, "need a target class"),
        ({"labels": "some"}, r"(?s)no label mode 'some'.*all-to-one, all-to-all, clean"),
        ({"labels": "all-to-all"}, "Leave `target` out"),
        ({"labels": "clean", "rate": 0.5}, r"(?s)needs 15 images of class 'dog' .*, but there are 10.*`rate` 0.333333"),
        ({"labels": "clean", "poison_target_class": True}, "Only all-to-one labels have a choice"),
        (
            {"labels": "all-to-all", "target": None, "poison_target_class": False},
            "Only all-to-one labels have a choice",
        ),
        ({"cover_rate": -0.1}, "is not a share of all images"),
        ({"cover_rate": 1}, "is not a share of all images"),
        ({"rate": 0.5, "cover_rate": 0.5}, "leave no clean image"),
        ({"rate": 0.5, "cover_rate": 0.3}, r"(?s)needs 9 images .*, but there are 5.*`cover_rate` 0.166666"),
        ({"attack": "wanet", "rate": 0.4}, "cover rate of 0.8 leave no clean image"),
        (
            {"parameters": {"size": -1, "kind": "pink"}, "target": "cow", "rate": 2},
            r"(?s)kind.*\n.*size.*\n.*'cow'.*\n.*no clean image.*cat, dog, owl",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    change: dict[str, object], message: str, folder: Path, tmp_path: Path
) -> None:
    settings: dict[str, object] = {"attack": "badnets", "rate": 0.1, "target": "dog", **change}
    with pytest.raises(UsageError, match=message):
        poison(folder, tmp_path / "out", **settings)  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["clean"]


def test_an_output_that_exists_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DiffcleanError, match="exists"):
        poison(folder, tmp_path / "out", "badnets", 0.1, "dog")
    assert not list((tmp_path / "out").iterdir())


def test_poison_is_not_poisoned_again(folder: Path, tmp_path: Path) -> None:
    poison(folder, tmp_path / "out", "badnets", 0.1, "dog")
    with pytest.raises(DiffcleanError, match="already poisoned"):
        poison(tmp_path / "out", tmp_path / "more", "badnets", 0.1, "dog")


def test_names_that_would_collide_are_refused(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(folder / "cat" / "1.jpg")
    with pytest.raises(DiffcleanError, match=r"cat/1\.jpg and cat/1\.png would both become cat/1\.png"):
        poison(folder, tmp_path / "out", "badnets", 0.1, "dog")


def test_names_that_cannot_be_are_refused(folder: Path, tmp_path: Path) -> None:
    image = (folder / "cat" / "1.png").read_bytes()
    (folder / "cat" / "x.png").mkdir()
    (folder / "cat" / "x.png" / "in.png").write_bytes(image)
    (folder / "cat" / "x.jpg").write_bytes(image)
    with pytest.raises(DiffcleanError, match=r"cat/x\.jpg would become cat/x\.png, which is the folder of"):
        poison(folder, tmp_path / "out", "badnets", 0.1, "dog")
    (folder / "cat" / "x.jpg").rename(folder / "cat" / f"{'n' * 250}.png")
    with pytest.raises(DiffcleanError, match="is too long: it would become dog/cat__nnn"):
        poison(folder, tmp_path / "out", "badnets", 21 / 31, "dog")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clean"]


def test_an_output_in_the_source_or_behind_a_broken_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    for out, message in (("clean/red", "lies inside"), ("link", "exists"), ("file/red", "Cannot write")):
        with pytest.raises(DiffcleanError, match=message):
            poison(folder, tmp_path / out, "badnets", 0.1, "dog")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clean", "file", "link"]


def test_nothing_is_written_of_nothing(folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DiffcleanError, match="None of the 30 images in"):
        poison(folder, tmp_path / "out", "badnets", 0.1, "dog")
    assert [p.name for p in tmp_path.iterdir()] == ["clean"]


def test_images_without_a_class_are_refused(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(folder / "stray.png")
    with pytest.raises(DiffcleanError, match="1 images in no class folder"):
        poison(folder, tmp_path / "out", "badnets", 0.1, "dog")


def test_stopping_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    manifest = poison(folder, tmp_path / "out", "badnets", 0.1, "dog")
    with pytest.raises(Interrupted):
        write(triggered_plan(manifest, folder), tmp_path / "triggered", stop=stop)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clean", "out"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a poison manifest"),
        ({"format_version": 99}, "has format 99"),
        ({"labels": "dirty"}, "damaged"),
        ({"form": "other"}, "damaged"),
        ({"target": "cow"}, "damaged: its target 'cow'"),
        ({"target": ["dog"]}, "damaged"),
        ({"seed": "one"}, "damaged"),
        ({"images": [{"key": "x"}]}, "damaged"),
        ({"parameters": {"size": -1}}, "size must be"),
        ({"attack": "nonsense"}, "no attack 'nonsense'"),
    ],
)
def test_a_damaged_manifest_is_refused(change: dict[str, object], message: str, folder: Path, tmp_path: Path) -> None:
    poison(folder, tmp_path / "out", "badnets", 0.1, "dog")
    path = tmp_path / "out" / MANIFEST_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DiffcleanError, match=message):
        read_poison_manifest(path)


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match=r"poison\.json"):
        read_poison_manifest(tmp_path)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DiffcleanError, match="not a poison manifest"):
        read_poison_manifest(tmp_path / "x.json")


@pytest.mark.parametrize("images", [2, 3, 4, 5, 19, 300])
def test_the_rate_that_is_proposed_is_one_that_is_taken(images: int) -> None:
    for refused in (1e-9, 1.0):
        with pytest.raises(UsageError) as raised:
            check_rates(refused, 0, images)
        check_rates(float(raised.value.hint.split()[-1]), 0, images)
    with pytest.raises(UsageError, match="at least two images"):
        check_rates(0.5, 0, 1)
