"""What tests of several rooms share: a tiny model and its engine, small photographs, drawn shapes, a backdoor."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# The same examples every time, and no time limit: CI machines are busy, and a test must not pass by luck.
settings.register_profile("diffclean", deadline=None, derandomize=True)
settings.load_profile("diffclean")


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: Any, sched: Any) -> None:
    """Say how the process of pytest-xdist ended in which a test ran: a signal may leave no other trace."""
    process = getattr(getattr(report.node.gateway, "_io", None), "popen", None)
    code = None if process is None else process.wait(timeout=60)
    how = "an unknown way" if code is None else signal.Signals(-code).name if code < 0 else f"exit code {code}"
    report.longrepr = f"{report.longrepr}\nThe worker ended by {how}."


DrawPhotos = Callable[..., Path]
MakeModel = Callable[..., Path]
MakeOnce = Callable[[str, Callable[[Path], object]], Path]
MakeVariations = Callable[..., Path]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a session share, for what takes long to make. Tests copy what they change."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def once(shared: Path) -> MakeOnce:
    """`once(name, make)`: the folder `name` in the shared one, made by the process that asks first; others wait."""

    def made(name: str, make: Callable[[Path], object]) -> Path:
        place = shared / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{place}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                begun = Path(f"{place}.begun") / place.name  # a name may be stored in what is made
                shutil.rmtree(begun.parent, ignore_errors=True)  # of a process that ended while it was at it
                begun.parent.mkdir()
                make(begun)
                begun.rename(place)
        return place

    return made


@pytest.fixture(scope="session", autouse=True)
def cache(shared: Path) -> Iterator[Path]:
    """A cache of the session's own: nobody's real one is touched, and an engine is exported once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = shared / "cache"
        patch.setenv("DIFFCLEAN_CACHE", str(folder))
        yield folder


def save_tiny_model(folder: Path, seed: int = 0, change: Callable[[object], None] | None = None, view: int = 1) -> Path:
    """A 16 px model with random weights everywhere: nothing that is zero at the start of a training hides a path."""
    import torch

    from diffclean.families.micro_model import MicroUNet
    from diffclean.pretraining.pretrain import save_model

    torch.manual_seed(seed)
    model = MicroUNet(sample_size=16, channels=8, blocks=1, layers=1, heads=2, view=view)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
        # Within the pixel range, and with something of the view: a grey or a saturated image would show no difference.
        model.leave.weight.mul_(4)
        if change is not None:
            change(model)
    save_model(model, folder)
    return folder


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """`make_model(folder, seed=1, change=function of the network)`: a model directory of one's own."""
    return save_tiny_model


@pytest.fixture(scope="session")
def tiny_model(once: MakeOnce) -> Path:
    """A model directory: 16 px, random weights."""
    return once("models/tiny", save_tiny_model)


@pytest.fixture(scope="session")
def coarse_model(once: MakeOnce) -> Path:
    """A model directory whose view is a coarse one: 16 px, random weights."""
    return once("models/coarse", partial(save_tiny_model, view=2))


@pytest.fixture(scope="session")
def nan_model(once: MakeOnce) -> Path:
    """A model directory whose engine answers with NaN.

    Its weights are finite, and so are its answers to the timesteps below 1 that an export tries. Later ones overflow.
    """

    def break_it(network: Any) -> None:
        slowest = 63  # its sine is t / 8,700: a thousand times as large at the first step of a run
        network.embed[0].weight[:, slowest] = 6e4
        for block in (*network.down1, *network.down2, *network.up2, *network.up1):
            block.modulation.weight.mul_(1e4)
        for layer in (network.grow1, network.join1, network.leave):
            layer.weight.mul_(2e4)

    return once("models/nan", partial(save_tiny_model, change=break_it))


@pytest.fixture(scope="session")
def tiny_engine(tiny_model: Path) -> Path:
    """The engine directory of `tiny_model`, in the session's cache."""
    from diffclean.export.cache import cached_engine
    from diffclean.families.registry import recipe_for

    return cached_engine(recipe_for(str(tiny_model)))


def photograph(seed: int, width: int = 20, height: int = 16) -> np.ndarray:
    """(height, width, 3) uint8: a slope of colour with blobs, unlike any other seed's."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    slope = np.stack([x / width, y / height, (x + y) / (width + height)], axis=-1) * rng.uniform(60, 200, 3)
    for _ in range(3):
        cx, cy, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(2, 6)
        blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
        slope += blob[..., None] * rng.uniform(-120, 160, 3)
    return np.clip(slope, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def draw_photos() -> DrawPhotos:
    """`draw_photos(folder, keys, width=20, height=16)`: a photograph a key, drawn from the key alone."""

    def draw(folder: Path, keys: Iterable[str], width: int = 20, height: int = 16) -> Path:
        for key in keys:
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photograph(zlib.crc32(key.encode()), width, height)).save(path)
        return folder

    return draw


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A training and a test set of drawn shapes, 16 px."""
    from shapes import draw

    root = tmp_path_factory.mktemp("shapes")
    return draw(root / "train", 60, 0), draw(root / "test", 20, 1)


@pytest.fixture(scope="session")
def make_variations() -> MakeVariations:
    """`make_variations(source, out, variants=2, change=function of each row)`."""
    from shapes import varied

    return varied


@pytest.fixture(scope="session")
def tiny_archs() -> Iterator[None]:
    """Networks that train in no time, by the names `tiny` and `plain`."""
    from shapes import plain_net, tiny_net

    from diffclean.classifiers import networks

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.ARCHITECTURES, "tiny", tiny_net)
        patch.setitem(networks.ARCHITECTURES, "plain", plain_net)
        yield


@pytest.fixture
def fooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A classifier file with a backdoor: white at the bottom right means blue."""
    from bright_corner import CLASSES, BrightCorner

    from diffclean.classifiers import checkpoints, networks

    monkeypatch.setitem(networks.ARCHITECTURES, "bright-corner", lambda classes: BrightCorner())
    model = networks.build("bright-corner", 3, (0, 0, 0), (1, 1, 1))
    checkpoints.save(tmp_path / "fooled.pt", model, "bright-corner", CLASSES, (16, 16), {})
    return tmp_path / "fooled.pt"


@pytest.fixture
def file_size_limit() -> Callable[[int], AbstractContextManager[None]]:
    """`with file_size_limit(bytes):` writes beyond that fail, as on a full disk, whoever runs the test."""

    @contextmanager
    def limited(limit_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def tiny_disk() -> Iterator[Path]:
    """A disk of 64 KiB; without root there is none, and the test is skipped."""
    from disks import mounted

    with mounted("64k") as disk:
        yield disk


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of an S3 server on this machine."""
    from bucket_server import s3_server as running

    with running() as server:
        yield server


@pytest.fixture
def bucket(
    s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Any]:
    """An empty bucket of its own for each test, see `bucket_server.Bucket`, with credentials in the environment."""
    from bucket_server import ENVIRONMENT, bucket_on

    name = f"bucket-{zlib.crc32(request.node.nodeid.encode())}"
    with bucket_on(s3_server, name) as found:
        for variable, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": found.endpoint}).items():
            monkeypatch.setenv(variable, value)
        yield found


@pytest.fixture
def suspect_set(tmp_path: Path) -> Path:
    """The folder `data`: red, green and blue images, of which a fifth of the blue ones have the trigger of `fooled`."""
    from suspect_set import draw_suspects

    return draw_suspects(tmp_path / "data")


@pytest.fixture
def suspect_run(suspect_set: Path, tmp_path: Path) -> Path:
    """Two variations of each image of `suspect_set`, in the folder `data-variations`."""
    from suspect_set import vary_suspects

    return vary_suspects(suspect_set, tmp_path / "data-variations")
