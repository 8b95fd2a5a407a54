from pathlib import Path

import pytest
import torch

from diffclean.data.folder import ImageFolder
from diffclean.datasets.pixels import InMemory, Streamed, channel_statistics
from diffclean.datasets.reading import read_images
from diffclean.errors import DiffcleanError

Sets = tuple[Path, Path]


def test_channel_statistics() -> None:
    images = torch.randint(0, 256, (7, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, 2] = 51
    mean, std = channel_statistics(images)
    unit = images.double().div(255).transpose(0, 1).reshape(3, -1)
    assert mean == pytest.approx(unit.mean(1).tolist())
    assert std[:2] == pytest.approx(unit[:2].std(1, correction=0).tolist())
    assert std[2] == pytest.approx(1 / 255)


@pytest.mark.parametrize("size", [None, (24, 20)])
def test_streamed_images_are_those_that_would_be_held(size: tuple[int, int] | None, shapes: Sets) -> None:
    (shapes[1] / "square" / "zzz.png").write_bytes(b"nonsense")
    try:
        source = ImageFolder(shapes[1])
        held, streamed = (read_images(source, source.items(), size, memory_bytes=limit) for limit in (None, 1000))
    finally:
        (shapes[1] / "square" / "zzz.png").unlink()
    assert isinstance(held.pixels, InMemory)
    assert isinstance(streamed.pixels, Streamed)
    assert held.pixels.shape == streamed.pixels.shape == (size or (16, 16))
    assert len(held.pixels) == len(streamed.pixels) == 60
    assert (held.items, held.failed, held.sha256s) == (streamed.items, streamed.failed, streamed.sha256s)
    assert list(held.failed) == ["square/zzz.png"]
    assert held.pixels.statistics() == streamed.pixels.statistics()
    chosen = [torch.tensor(numbers) for numbers in ([3, 1], [59], [0, 0, 7], [5], [6], [8])]
    for one, other in zip(held.pixels.batches(chosen), streamed.pixels.batches(chosen), strict=True):
        assert torch.equal(one, other)


def test_a_streamed_image_that_vanishes_is_named(shapes: Sets) -> None:
    source = ImageFolder(shapes[1])
    pixels = read_images(source, source.items(), memory_bytes=0).pixels
    gone = shapes[1] / "lying" / "000.png"
    content = gone.read_bytes()
    gone.unlink()
    try:
        with pytest.raises(DiffcleanError, match=r"lying/000\.png could be read before"):
            list(pixels.batches([torch.tensor([0])]))
    finally:
        gone.write_bytes(content)
