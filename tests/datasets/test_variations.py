import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffclean.data.manifest import Row, Status
from diffclean.datasets.samples import folder_samples, sketch_of
from diffclean.datasets.variations import (
    classes_of,
    compare_classes,
    find_variations,
    load_variations,
    warn_of_strangers,
)
from diffclean.errors import DiffcleanError, UsageError

Sets = tuple[Path, Path]
CLASSES = {"standing": 0, "lying": 1, "square": 2}
Make = Callable[..., Path]


def test_variations_of_an_image_lie_side_by_side(shapes: Sets, tmp_path: Path, make_variations: Make) -> None:
    root = make_variations(shapes[1], tmp_path / "v", 3)
    assert classes_of(root) == {"lying": 0, "square": 1, "standing": 2}
    samples = load_variations(root, CLASSES)
    originals = folder_samples(shapes[1])
    assert samples.keys == originals.keys
    assert samples.starts.tolist() == list(range(0, 181, 3))
    assert samples.sources == originals.sources
    assert samples.class_to_idx == CLASSES
    assert samples.labels.tolist() == [1] * 20 + [2] * 20 + [0] * 20
    first = next(samples.pixels.batches([samples.starts[:-1]]))
    assert torch.equal(first, next(originals.pixels.batches([torch.arange(60)])))


def test_only_what_was_made_counts(
    shapes: Sets, tmp_path: Path, make_variations: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def change(row: Row) -> Row:
        if row.key == "lying/000.png" or (row.key == "square/001.png" and row.variant == 1):
            return replace(row, output="", status=Status.FAILED, error="NaN")
        if row.key == "square/002.png" and row.variant == 0:
            return replace(row, output="", status=Status.FILTERED, error="too unlike")
        return row

    root = make_variations(shapes[1], tmp_path / "v", 2, change)
    caplog.set_level("INFO")
    (root / "standing" / "000_v00.png").write_bytes(b"nonsense")
    (root / "standing" / "001_v01.png").unlink()
    (root / "standing" / "zzz_v00.png").write_bytes((root / "standing" / "002_v00.png").read_bytes())
    samples = load_variations(root, CLASSES)
    assert len(samples.keys) == 59
    counts = dict(zip(samples.keys, samples.starts.diff().tolist(), strict=True))
    assert {key for key, count in counts.items() if count == 1} == {
        "square/001.png",
        "square/002.png",
        "standing/000.png",
        "standing/001.png",
    }
    assert set(samples.failed) == {"standing/000_v00.png", "standing/001_v01.png"}
    assert "not in the folder" in samples.failed["standing/001_v01.png"]
    assert "3 variations failed when they were made" in caplog.text
    assert "1 variations were filtered" in caplog.text


def test_classes_that_do_not_match_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)only v has owl; only the teacher knows cat, dog.*`alpha` 1"):
        compare_classes(Path("v"), {"ant": 0, "owl": 1}, {"ant": 1, "cat": 0, "dog": 2}, True)
    compare_classes(Path("v"), {"ant": 0, "owl": 1}, {"owl": 0, "ant": 1}, True)


def test_a_run_that_is_not_finished(shapes: Sets, tmp_path: Path, make_variations: Make) -> None:
    root = make_variations(shapes[1], tmp_path / "v")
    (root / "manifest.parquet").rename(root / "manifest-1-of-2.parquet")
    with pytest.raises(DiffcleanError, match=r"(?s)1 shards.*diffclean merge"):
        classes_of(root)
    (root / "manifest-1-of-2.parquet").unlink()
    with pytest.raises(DiffcleanError, match=r"(?s)not finished.*again"):
        load_variations(root, CLASSES)


def test_a_run_without_a_single_variation(shapes: Sets, tmp_path: Path, make_variations: Make) -> None:
    root = make_variations(
        shapes[1], tmp_path / "v", 1, lambda row: replace(row, output="", status=Status.FAILED, error="NaN")
    )
    with pytest.raises(DiffcleanError, match=r"holds no variation: all 60 attempts failed or were filtered"):
        load_variations(root, CLASSES)


def test_a_plain_folder_will_do(shapes: Sets) -> None:
    samples = load_variations(shapes[1], CLASSES)
    assert samples.most_variations == 1
    assert samples.labels[0] == 1


def test_the_folder_is_found_when_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match=r"(?s)no \*-variations folder.*diffclean variate"):
        find_variations(tmp_path)
    (tmp_path / "a-variations").mkdir()
    (tmp_path / "b-variations").write_text("a file")
    assert find_variations(tmp_path) == tmp_path / "a-variations"
    (tmp_path / "c-variations").mkdir()
    with pytest.raises(DiffcleanError, match=r"(?s)2 \*-variations .*a-variations, c-variations.*`data` a-variations"):
        find_variations(tmp_path)


def test_variations_of_other_images_are_noticed(shapes: Sets, caplog: pytest.LogCaptureFixture) -> None:
    teacher, other = (folder_samples(root).sources for root in shapes)
    with caplog.at_level(logging.WARNING):
        warn_of_strangers(Path("v"), teacher, sketch_of(teacher))
        warn_of_strangers(Path("v"), other, [])
        assert caplog.text == ""
        warn_of_strangers(Path("v"), other, sketch_of(teacher))
    assert "only 0% of the teacher's images have a variation here" in caplog.text


def test_suspects_are_left_out(shapes: Sets, tmp_path: Path, make_variations: Make) -> None:
    root = make_variations(shapes[1], tmp_path / "v", 2)
    out = {"lying/000.png", "square/001.png", "of/another.png"}
    whole, fewer = load_variations(root, CLASSES), load_variations(root, CLASSES, without=out)
    assert fewer.keys == [key for key in whole.keys if key not in out]
    assert (len(fewer.pixels), fewer.starts.tolist()) == (2 * len(fewer.keys), list(range(0, 2 * 58 + 1, 2)))
    assert fewer.digest != whole.digest, "another training"
    assert load_variations(shapes[1], CLASSES, without=out).keys == fewer.keys, "of a plain folder too"
    for wrong in ({"of/another.png"}, set(whole.keys)):
        with pytest.raises(UsageError, match="The list of suspects does not belong to"):
            load_variations(root, CLASSES, without=wrong)
