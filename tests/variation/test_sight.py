"""What a machine must see before it works on a run that was started on another one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from diffclean.data.registry import open_sink, open_source
from diffclean.errors import DiffcleanError
from diffclean.execution.base import Share
from diffclean.variation.settings import Settings, locate
from diffclean.variation.sight import sight_of
from diffclean.variation.task import SentTask, sent_task
from diffclean.variation.work import Work


@pytest.fixture
def places(tmp_path: Path, draw_photos: Callable[..., Path]) -> dict[str, Path]:
    (tmp_path / "out").mkdir()
    return {"source": draw_photos(tmp_path / "source", ["cat/a.png", "dog/b.png"]), "out": tmp_path / "out"}


@pytest.fixture
def sent(places: dict[str, Path], tmp_path: Path, tiny_model: Path, tiny_engine: Path) -> SentTask:
    """A task as it is sent to other machines; its engine is a copy that may be changed."""
    engine = shutil.copytree(tiny_engine, tmp_path / "engine")
    located = locate(Settings(engine=str(engine), runtime="onnxruntime", steps=1, batch=1))
    source = open_source(places["source"])
    work = Work(source, open_sink(places["out"]), located.settings, 16, located.manifest.fingerprint)
    sent = sent_task(work, located, f"{work.fingerprint[:16]}/onnxruntime/fp32")
    assert sent is not None
    return replace(sent, sight=sight_of(work, ((item, [0]) for item in source.items())))


def test_a_machine_that_sees_everything(sent: SentTask) -> None:
    sent.check()
    assert sent.open(Share(threads=1, workers=1)).workers == 1


def remove_source(places: dict[str, Path], engine: Path) -> None:
    shutil.rmtree(places["source"])


def change_image(places: dict[str, Path], engine: Path) -> None:
    (places["source"] / "cat/a.png").write_bytes((places["source"] / "dog/b.png").read_bytes())


def empty_out(places: dict[str, Path], engine: Path) -> None:
    shutil.rmtree(places["out"])
    places["out"].mkdir()


def remove_engine(places: dict[str, Path], engine: Path) -> None:
    shutil.rmtree(engine)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_source, r"The source .*source is not what it is where the run was started \(.*No such file"),
        (change_image, r"The source .*source is not .*an image has other bytes there"),
        (empty_out, r"The output .*out is not .*a file that was just written there is missing"),
        (remove_engine, r"The engine .*engine is not there"),
    ],
)
def test_a_machine_that_sees_something_else(
    sent: SentTask, places: dict[str, Path], change: Callable[[dict[str, Path], Path], None], message: str
) -> None:
    change(places, sent.directory)
    with pytest.raises(DiffcleanError, match=message) as caught:
        sent.check()
    assert "network disk" in caught.value.hint


def test_an_image_that_cannot_be_read_is_not_compared(sent: SentTask, places: dict[str, Path]) -> None:
    source = open_source(places["source"])
    items = [(replace(item, problem="is a link"), [0]) for item in source.items()]
    located = locate(sent.settings)
    work = Work(source, open_sink(places["out"]), located.settings, 16, located.manifest.fingerprint)
    sight = sight_of(work, items)
    assert sight.item is None
    replace(sent, sight=sight).check()
