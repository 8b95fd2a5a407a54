from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diffclean.data.keys import (
    BadKeyError,
    NameCollisionError,
    check_collisions,
    is_too_long,
    key_bytes,
    key_from_path,
    label_of,
    label_text,
    path_from_key,
    variation_name,
)
from diffclean.errors import DiffcleanError

PARTS = st.binary(min_size=1, max_size=12).filter(lambda p: b"/" not in p and b"\0" not in p and p not in (b".", b".."))
PATHS = st.lists(PARTS, min_size=1, max_size=4).map(b"/".join)


@given(PATHS)
@example(b"a%FF\xff\n.jpg")
@example("café/\u202egpj.png".encode())
def test_a_path_and_its_key_name_each_other(raw: bytes) -> None:
    key = key_from_path(raw)
    assert key_bytes(key) == raw
    assert os.fsencode(path_from_key(key)) == raw
    key.encode("utf-8")
    assert key.isprintable() or all(c.isprintable() or ord(c) > 0x9F for c in key)


@given(PATHS, PATHS)
def test_two_paths_have_two_keys(one: bytes, other: bytes) -> None:
    assert (key_from_path(one) == key_from_path(other)) == (one == other)


@given(st.text(max_size=20))
@example("%2E%2E/x")
@example("../x")
@example("/etc/passwd")
@example("a/../../b")
@example("a%2Fb")
@example("a%00b")
@example("\ud800")
def test_no_text_whatever_leads_out(text: str) -> None:
    try:
        path = path_from_key(text)
    except BadKeyError:
        return
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert key_from_path(path) == text


@pytest.mark.parametrize(
    "text", ["", "/a.png", "../a.png", "a/../b.png", "a//b.png", "./a.png", "a\0b", "%41.png", "100%"]
)
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(BadKeyError):
        key_bytes(text)


@given(PATHS, st.integers(0, 1200))
def test_a_variation_stays_in_the_folder_of_its_image(raw: bytes, variant: int) -> None:
    key = key_from_path(raw)
    name = variation_name(key, variant, "png")
    assert path_from_key(name).parent == path_from_key(key).parent
    assert name.endswith(f"_v{variant:02d}.png")


@given(st.text())
@example("2%")
@example("%" * 150)
@example("x" * 199 + "\n")
@example("../..")
def test_a_label_from_anywhere_names_one_folder_and_stays_as_it_is(text: str) -> None:
    label = label_text(text)
    assert label_text(label) == label
    assert not label or (path_from_key(label).name, label[0] == ".") == (os.fsdecode(key_bytes(label)), False)


def test_names_that_people_see() -> None:
    assert key_from_path(Path("cat/1 a.jpg")) == "cat/1 a.jpg"
    assert key_from_path(b"cat/\xff\n100%.jpg") == "cat/%FF%0A100%25.jpg"
    assert key_from_path("Käse/é.png") == "Käse/é.png"
    assert variation_name("cat/1.jpg", 0, "png") == "cat/1_v00.png"
    assert variation_name("a.b.jpeg", 7, "webp") == "a.b_v07.webp"
    assert variation_name("noext", 123, "jpg") == "noext_v123.jpg"
    assert label_of("cat/sub/1.jpg") == "cat"
    assert label_of("1.jpg") == ""


@pytest.mark.parametrize("extension", ["", "../x", ".png", "a/b"])
def test_an_extension_that_is_none(extension: str) -> None:
    with pytest.raises(ValueError, match="extension"):
        variation_name("a.jpg", 0, extension)


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (["a/1.jpg", "a/1.png"], ["a/1.jpg", "a/1.png", "a/1_v00.png"]),
        (["a/Cat.jpg", "a/cat.jpg"], ["a/Cat.jpg", "a/cat.jpg"]),
        (["A/1.jpg", "a/2.jpg"], ["A/", "a/", "ignores case"]),
        (["STRASSE.jpg", "straße.jpg"], ["STRASSE.jpg"]),
        (["e\u0301.jpg", "é.jpg"], ["both become"]),
        (["a.jpg", "a_v00.png/b.jpg"], ["a.jpg", "a_v00.png/"]),
        (["run.json/a.jpg"], ["run.json/"]),
    ],
)
def test_collisions_are_named(keys: list[str], names: list[str]) -> None:
    with pytest.raises(DiffcleanError, match="Rename") as raised:
        check_collisions(keys)
    assert all(name in str(raised.value) for name in names)


def test_a_later_variant_can_collide_with_a_folder() -> None:
    keys = ["a.jpg", "a_v03.png/b.jpg"]
    check_collisions(keys, variants=3)
    with pytest.raises(DiffcleanError, match=r"a_v03\.png/"):
        check_collisions(keys, variants=4)


def test_only_the_first_collisions_are_listed() -> None:
    with pytest.raises(DiffcleanError, match="and 95 more"):
        check_collisions(f"{n}.{ext}" for n in range(100) for ext in ("jpg", "png"))


def test_separate_names_pass() -> None:
    check_collisions(["a.jpg", "a_v00.png", "a_v00_v00.png", "b/a.jpg", "b/%FF.jpg", "b/%FE.jpg"], variants=12)


def test_one_name_that_is_too_long_stops_nobody_else() -> None:
    check_collisions(["a" * 251 + ".jpg", "b.jpg"])
    assert is_too_long(variation_name("cat/" + "a" * 248 + ".jpg", 0, "png"))
    assert not is_too_long(variation_name("cat/" + "a" * 247 + ".jpg", 0, "png"))


def test_full_names_keep_apart_what_differs_in_its_extension() -> None:
    assert variation_name("a/1.jpg", 0, "png", full_names=True) == "a/1.jpg_v00.png"
    check_collisions(["a/1.jpg", "a/1.png", "a/1"], full_names=True)
    with pytest.raises(NameCollisionError, match="would both become"):
        check_collisions(["a/1.jpg", "a/1.JPG"], full_names=True)


def test_every_collision_is_kept_for_programs() -> None:
    with pytest.raises(NameCollisionError, match="and 95 more") as raised:
        check_collisions(f"{n}.{ext}" for n in range(100) for ext in ("jpg", "png"))
    assert len(raised.value.problems) == 100
    assert "`full_names`" in raised.value.hint
