"""A Docker engine and the image under test; `make docker-test` builds it and says which it is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker_image import IMAGE, Docker, why_not
from PIL import Image


@pytest.fixture(scope="session")
def docker() -> Docker:
    """The engine, or a skip that says why there is none."""
    client = os.environ.get("DOCKER") or shutil.which("docker")
    if reason := why_not(client):
        pytest.skip(reason)
    assert client is not None
    return Docker(client, IMAGE)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of photographs: some of the folder DIFFCLEAN_TEST_PHOTOS, else of scikit-image's own."""
    given = os.environ.get("DIFFCLEAN_TEST_PHOTOS")
    if given:
        found = sorted(path for path in Path(given).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    else:
        skimage = pytest.importorskip("skimage")
        found = [Path(skimage.__file__).parent / "data" / name for name in ("astronaut.png", "coffee.png")]
    folder = tmp_path_factory.mktemp("photos")
    for number, path in enumerate(found[:8] if given else found * 4):
        with Image.open(path) as image:
            side = min(image.size)
            square = image.convert("RGB").crop((0, 0, side, side)).resize((96, 96)).rotate(number)
        (label := folder / ("first", "second")[number % 2]).mkdir(exist_ok=True)
        square.save(label / f"{number:03}.jpg")
    return folder


@pytest.fixture
def workspace(tmp_path: Path, photos: Path) -> Iterator[Path]:
    """A folder with `data` in it, as a user has it who is neither root nor the image's own where that can be made."""
    shutil.copytree(photos, tmp_path / "data")
    if os.geteuid() == 0:
        give(tmp_path, 4242)
    for parent in tmp_path.parents:  # pytest's are for their maker alone, and containers have to pass
        if parent.stat().st_uid == os.geteuid() and parent.stat().st_mode & 0o011 != 0o011 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    yield tmp_path
    if os.geteuid() == 0:
        give(tmp_path, 0)


def give(folder: Path, uid: int) -> None:
    """Let a folder and all below it belong to a user."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid)


@pytest.fixture(scope="session")
def give_to() -> Callable[[Path, int], None]:
    """`give_to(folder, uid)`; needs root."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    return give
