"""The list of suspects: what is written is read, what others write is read too, and anything else is refused."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffclean.data.suspects import JudgedClass, JudgedImage, SuspectList, merged, read_list, read_suspects
from diffclean.errors import DiffcleanError

IMAGES = [
    JudgedImage("cat/1, with a comma.png", "cat", 0.5, 0.0, False),
    JudgedImage('dog/"2".png', "dog", 9.25, 0.99, True),
    JudgedImage("dog/3.png", "dog", -1.0, 0.1, False),
]
FOUND = SuspectList(
    "some-detector",
    "data set",
    "abc",
    [JudgedClass("cat", 1, 0, 0.0, 0.3, too_few=True), JudgedClass("dog", 2, 1, 0.9, 0.2, "It stands out.")],
    IMAGES,
    {"dog/4.png": "cannot be read"},
    {"seed": 1},
)


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    FOUND.write(tmp_path / "new" / "list.json")
    assert read_list(tmp_path / "new" / "list.json") == FOUND
    assert read_suspects(tmp_path / "new" / "list.json") == FOUND.keys == {'dog/"2".png'}
    assert json.loads((tmp_path / "new" / "list.json").read_text())["detector"] == "some-detector"


@pytest.mark.parametrize("name", ["list.csv", "LIST.CSV"])
def test_as_csv_it_has_a_row_for_every_image(name: str, tmp_path: Path) -> None:
    FOUND.write(tmp_path / name)
    assert (tmp_path / name).read_text().splitlines()[:2] == [
        "key,label,score,probability,suspect",
        '"cat/1, with a comma.png",cat,0.5,0.0,0',
    ]
    assert read_list(tmp_path / name).images == IMAGES


def test_a_list_without_images_is_a_list(tmp_path: Path) -> None:
    for name in ("list.json", "list.csv"):
        SuspectList("some-detector", "data", "", [], [], {}).write(tmp_path / name)
        assert read_suspects(tmp_path / name) == frozenset()


def test_a_list_of_version_1_is_still_read(tmp_path: Path) -> None:
    """As diffclean wrote it before detectors had names: the teacher's answer and what variation took from it."""
    judged = {"name": "dog", "images": 2, "suspects": 1, "separation": 0.9, "limit": 0.25}
    images = [
        {"key": "dog/1.png", "answer": "dog", "drop": 7.5, "suspect": True},
        {"key": "cat/2.png", "answer": "dog", "drop": 0.5, "suspect": False},
    ]
    head = {"format": "diffclean-suspects", "format_version": 1, "teacher": "abc", "missing": {"x.png": "gone"}}
    (tmp_path / "old.json").write_text(json.dumps({**head, "classes": [judged], "images": images}))
    found = read_list(tmp_path / "old.json")
    assert (found.detector, found.teacher, found.missing) == ("variation-drop", "abc", {"x.png": "gone"})
    assert found.classes == [JudgedClass("dog", 2, 1, 0.9, 0.25)]
    assert found.images == [
        JudgedImage("dog/1.png", "dog", 7.5, 1.0, True),
        JudgedImage("cat/2.png", "dog", 0.5, 0.0, False),
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", '["a/1.png", "a/2.png"]'),
        ("list.csv", "key\na/1.png\na/2.png\n"),
        ("list.csv", "\ufeffkey;not,key\r\nx,a/1.png\r\ny,a/2.png\r\n"),
        ("list.csv", "suspect,key\n1,a/1.png\nTrue,a/2.png\n0,a/3.png\nfalse,a/4.png\nNo,a/5.png\n,a/6.png\n"),
        ("list.csv", "key,suspect\na/1.png,yes\na/2.png,1\na/3.png\n"),
        ("list.csv", "key,suspect\na/1.png,1.0\na/2.png,Y\na/3.png,0.0\na/4.png,n\n"),
    ],
)
def test_what_others_write(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert read_suspects(tmp_path / name) == {"a/1.png", "a/2.png"}


def test_keys_alone_have_no_score(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("key,score\na/1.png,\na/2.png,3.5\n")
    first, second = read_list(tmp_path / "list.csv").images
    assert math.isnan(first.score)
    assert (second.score, second.probability, second.suspect) == (3.5, 1.0, True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", ""),
        ("list.json", "[1]"),
        ("list.json", "7"),
        ("list.json", '{"format": "diffclean-poison"}'),
        ("list.json", "[" * 100_000),
        ("list.json", "[" * 150 + "]" * 150),
        ("list.json", '["a/\\ud800.png"]'),
        ("list.json", '{"format": 1, "x": 2}'),
        ("list.json", '{"format": "diffclean-suspects", "format_version": 3}'),
        ("list.json", '{"format": "diffclean-suspects", "format_version": 2, "images": [7]}'),
        ("list.csv", ""),
        ("list.csv", "name\na/1.png\n"),
        ("list.csv", "label,key\na\n"),
        ("list.csv", "key,score\na/1.png,high\n"),
        ("list.csv", "key,suspect\na/1.png,maybe\n"),
    ],
)
def test_a_list_that_is_none(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DiffcleanError, match="is not a list of suspects"):
        read_suspects(tmp_path / name)


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DiffcleanError, match=r"(?s)No such file.*diffclean suspects DATA"):
        read_suspects(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("images", {"score": 10**400}),
        ("images", {"probability": "sure"}),
        ("images", {"score": None}),
        ("classes", {"name": ["dog"]}),
        ("classes", {"images": "many"}),
        ("classes", {"suspects": True}),
        ("classes", {"separation": 10**400}),
        ("classes", {"picture": 5}),
        ("classes", {"too_few": 1}),
    ],
)
def test_wrong_values_in_a_list_are_messages(part: str, change: dict[str, object], tmp_path: Path) -> None:
    FOUND.write(tmp_path / "list.json")
    content = json.loads((tmp_path / "list.json").read_text())
    content[part][0] |= change
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(DiffcleanError, match="is not a list of suspects"):
        read_list(tmp_path / "list.json")


def test_a_pipe_in_place_of_a_list_is_not_waited_for(tmp_path: Path) -> None:
    for name in ("list.json", "list.csv"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DiffcleanError, match="not a plain file"):
            read_list(tmp_path / name)


def test_a_killed_writer_leaves_nothing_once_a_list_was_written(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from diffclean.data import suspects\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "suspects.SuspectList('d', 's', '', [], [], {}).write(Path(sys.argv[1]))"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "list.json")], check=False)
    assert killed.returncode == -9
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    FOUND.write(tmp_path / "list.json")
    assert [path.name for path in tmp_path.iterdir()] == ["list.json"]


def test_two_lists_of_a_data_set_become_one() -> None:
    first = SuspectList("other", "data set", "", [], [JudgedImage("dog/3.png", "", math.nan, 0.7, True)], {})
    both = merged(first, FOUND)
    assert both.keys == {'dog/"2".png', "dog/3.png"}
    assert both.images[2] == JudgedImage("dog/3.png", "dog", -1.0, 0.7, True), "the score is the new one"
    assert (both.detector, both.missing) == ("some-detector", FOUND.missing)
    assert both.settings == {"seed": 1, "first_list": {"detector": "other", "suspects": 1}}
    cat, dog = both.classes
    assert cat == FOUND.classes[0]
    assert (dog.suspects, dog.why) == (2, "It stands out. New among them: 1.")


def test_an_image_of_the_first_list_that_cannot_be_read_any_more_stays_on_it() -> None:
    gone = JudgedImage("dog/4.png", "dog", 1.0, 0.9, True)
    assert merged(SuspectList("other", "", "", [], [gone], {}), FOUND).images == [*IMAGES, gone]
