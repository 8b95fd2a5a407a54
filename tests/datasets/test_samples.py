from pathlib import Path

import pytest
import torch

from diffclean.datasets.samples import Samples, check_trainable, folder_samples, memory_limit, sketch_of
from diffclean.errors import DiffcleanError

Sets = tuple[Path, Path]


def test_a_plain_folder_has_one_variation_each(shapes: Sets) -> None:
    samples = folder_samples(shapes[0])
    assert len(samples.keys) == len(samples.pixels) == 180
    assert samples.most_variations == 1
    chosen = torch.tensor([5, 170])
    assert torch.equal(samples.shown(chosen, 1, 2), chosen)


def test_the_split_goes_by_name_alone(shapes: Sets, tmp_path: Path) -> None:
    samples = folder_samples(shapes[0])
    train, held_out = samples.split(0.2)
    assert sorted([*train.tolist(), *held_out.tolist()]) == list(range(180))
    assert 20 < len(held_out) < 55
    names = {samples.keys[i] for i in held_out}
    (shapes[0] / "square" / "000.png").rename(tmp_path / "away.png")
    try:
        fewer = folder_samples(shapes[0])
    finally:
        (tmp_path / "away.png").rename(shapes[0] / "square" / "000.png")
    assert {fewer.keys[i] for i in fewer.split(0.2)[1]} == names - {"square/000.png"}
    assert len(samples.split(0.0)[1]) == 0
    with pytest.raises(DiffcleanError, match=r"Of 180 images, 0 would be held out"):
        samples.split(1e-6)


def test_without_labels_folders_are_no_classes(shapes: Sets) -> None:
    samples = folder_samples(shapes[0], class_to_idx={"a": 0, "b": 1}, labelled=False)
    assert set(samples.labels.tolist()) == {-1}


def test_the_digest_tells_contents_apart(shapes: Sets) -> None:
    first = folder_samples(shapes[0])
    assert first.digest == folder_samples(shapes[0]).digest
    assert first.digest != folder_samples(shapes[1]).digest
    assert set(sketch_of(first.sources)) <= {sha256[:16] for sha256 in first.sources}


def test_a_sketch_is_the_64_smallest_hashes_shortened() -> None:
    """Stored in classifiers of earlier versions, so its size must not change: fewer would hide strangers."""
    sources = [f"{number:02x}" * 32 for number in reversed(range(128))]
    expected = [source[:16] for source in reversed(sources)][:64]
    assert sketch_of([*sources, "", sources[0]]) == expected
    assert len(set(expected)) == 64
    assert sketch_of(sources[:3]) == sorted(source[:16] for source in sources[:3])


def test_a_class_without_images(shapes: Sets) -> None:
    samples = folder_samples(shapes[1], class_to_idx={"lying": 0, "square": 1, "standing": 2, "waving": 3})
    with pytest.raises(DiffcleanError, match=r"classes without an image that can be read: waving"):
        check_trainable(shapes[1], samples)


def test_an_image_shows_each_of_its_variations_in_turn() -> None:
    base = Samples(
        pixels=None,  # type: ignore[arg-type] # not looked at
        starts=torch.tensor([0, 3, 4, 9]),
        keys=["a/1", "a/2", "b/1"],
        labels=torch.tensor([0, 0, 1]),
        class_to_idx={"a": 0, "b": 1},
        failed={},
        sources=[],
        digest="",
    )
    seen = torch.stack([base.shown(torch.arange(3), 7, epoch) for epoch in range(200)])
    assert set(seen[:, 0].tolist()) == {0, 1, 2}
    assert set(seen[:, 1].tolist()) == {3}
    assert set(seen[:, 2].tolist()) == {4, 5, 6, 7, 8}
    assert torch.bincount(seen[:, 0])[:3].min() > 40
    assert torch.equal(base.shown(torch.tensor([2]), 7, 5), seen[5, 2:]), "whatever else is in the batch"


def test_memory_is_shared_by_the_processes() -> None:
    assert memory_limit(4, 2) == 2 * 2**30
    assert memory_limit(0, 1) == 0
    limit = memory_limit(None, 1)
    assert limit is None or limit > 0
