from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from diffclean.pretraining import corruptions, patches
from diffclean.pretraining.corruptions import Corruptions, flat_content, random_content

KINDS = [field.name for field in fields(Corruptions)]
NONE = dict.fromkeys(KINDS, 0.0)


def pictures(count: int = 4, side: int = 64) -> np.ndarray:
    """Smooth slopes with an edge, no two alike."""
    y, x = np.mgrid[0:side, 0:side] / side
    slopes = [np.stack([x * (index + 1) % 1, y, (x + y) / 2 * (x > index / count)], axis=-1) for index in range(count)]
    return (np.stack(slopes) * 255).astype(np.uint8)


@hypothesis_settings(max_examples=25)
@given(st.integers(1, 5), st.sampled_from([16, 17, 64]), st.integers(0, 2**32))
def test_form_is_kept_and_the_originals_are_left_alone(count: int, side: int, seed: int) -> None:
    images = pictures(count, side)
    before = images.copy()
    corrupted = Corruptions(*[1.0] * len(KINDS)).apply(images, np.random.default_rng(seed))
    assert (corrupted.shape, corrupted.dtype) == (images.shape, np.uint8)
    assert not np.shares_memory(corrupted, images)
    assert (images == before).all()
    again = Corruptions(*[1.0] * len(KINDS)).apply(images, np.random.default_rng(seed))
    assert (again == corrupted).all()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_strikes_by_itself(kind: str) -> None:
    images = pictures(32)
    corrupted = Corruptions(**{**NONE, kind: 1.0}).apply(images, np.random.default_rng(0))
    changed = (corrupted != images).any(axis=(1, 2, 3))
    assert changed.mean() > 0.8
    assert len({each.tobytes() for each in corrupted}) == 32


def test_none_is_identity() -> None:
    images = pictures()
    assert (Corruptions(**NONE).apply(images, np.random.default_rng(0)) == images).all()


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_kept(kind: str) -> None:
    images = pictures(200, 16)
    corrupted = Corruptions(**{**NONE, kind: 0.3}).apply(images, np.random.default_rng(1))
    share = (corrupted != images).any(axis=(1, 2, 3)).mean()
    assert 0.1 < share < 0.42


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_is_the_only_randomness(kind: str) -> None:
    images, all_of_one = pictures(), Corruptions(**{**NONE, kind: 1.0})
    np.random.seed(0)
    first = all_of_one.apply(images, np.random.default_rng(5))
    np.random.seed(1)
    assert (all_of_one.apply(images, np.random.default_rng(5)) == first).all()
    assert (all_of_one.apply(images, np.random.default_rng(6)) != first).any()


def test_erasing_reaches_every_corner_and_edge() -> None:
    """Triggers sit in corners: a corruption that spares them teaches nothing."""
    image, hits = pictures(1)[0], np.zeros((64, 64))
    for seed in range(300):
        hits += (corruptions.erase(image, image[::-1], np.random.default_rng(seed)) != image).any(axis=-1)
    assert min(hits[0, 0], hits[0, -1], hits[-1, 0], hits[-1, -1]) > 4
    assert hits.min() > 0


def test_mixing_is_slight() -> None:
    image, other = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    most = max(int(corruptions.mix(image, other, np.random.default_rng(seed)).max()) for seed in range(100))
    assert 60 < most <= 0.35 * 255 + 1


def drawn(make: Callable[[np.random.Generator], np.ndarray], count: int = 200) -> list[np.ndarray]:
    return [make(np.random.default_rng(seed)) for seed in range(count)]


def test_patches_have_many_shapes_edges_and_opacities() -> None:
    masks = drawn(lambda rng: patches.patch_mask(24, 18, rng))
    assert {(mask.shape, mask.dtype) for mask in masks} == {((24, 18), np.dtype(np.float32))}
    assert all(mask.min() >= 0 and mask.max() <= 1 for mask in masks)
    soft = [bool(((mask > 0.1) & (mask < 0.9)).any()) for mask in masks]
    assert 60 < sum(soft) < 140
    full = [bool((mask == 1).all()) for mask in masks]
    assert 15 < sum(full) < 60  # rectangles with hard edges are a part only
    assert len({mask.tobytes() for mask in masks}) > 120


def test_patches_reach_every_corner_and_edge_and_may_shine_through() -> None:
    image, hits, changes = pictures(1)[0], np.zeros((64, 64)), []
    for seed in range(300):
        patched = patches.paste_patches(image, image[::-1], np.random.default_rng(seed))
        changed = (patched != image).any(axis=-1)
        hits += changed
        changes.append(changed.mean())
    corners = (hits[:4, :4], hits[:4, -4:], hits[-4:, :4], hits[-4:, -4:])
    assert min(corner.max() for corner in corners) > 8
    assert hits.min() > 0
    assert max(changes) < 0.5
    assert np.median(changes) < 0.1
    white = np.full((64, 64, 3), 255, np.uint8)
    grey = [patches.paste_patches(white, white, np.random.default_rng(seed)) for seed in range(50)]
    assert any(127 < each.min() < 255 for each in grey)  # half-transparent at most


def test_pieces_of_pictures_are_among_what_patches_hold() -> None:
    blue, red = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)
    blue[..., 2], red[..., 0] = np.arange(100, 132), np.arange(100, 132)  # slopes that nothing else draws
    held = drawn(lambda rng: patches.patch_content(8, 8, blue, red, rng))
    assert {(each.shape, each.dtype) for each in held} == {((8, 8, 3), np.dtype(np.uint8))}
    of_other = [bool((each[..., 1:] == 0).all() and (np.diff(each[0, :, 0].astype(int)) == 1).all()) for each in held]
    of_same = [bool((each[..., :2] == 0).all() and (np.diff(each[0, :, 2].astype(int)) == 1).all()) for each in held]
    assert 10 < sum(of_other) < 60
    assert 5 < sum(of_same) < 50


def test_fields_are_smooth_and_slight() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    fields = [patches.add_field(grey, np.random.default_rng(seed)).astype(int) - 128 for seed in range(100)]
    assert max(abs(field).max() for field in fields) <= 0.2 * 255 + 1
    assert min(abs(field).max() for field in fields) > 2
    # From one pixel to the next a field moves by a small part of its reach: it has no edge and no fine pattern.
    assert max(abs(np.diff(field, axis=1)).max() / np.ptp(field) for field in fields) < 0.2
    coloured = [bool((field != field[..., :1]).any()) for field in fields]
    assert 30 < sum(coloured) < 70


def test_the_plain_set_is_what_it_was_before_there_were_more() -> None:
    """Older recipes stay what they were: kinds that are off draw no random number."""
    images = pictures()
    assert (Corruptions().patch, Corruptions().field) == (0, 0)
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    for _ in images:  # five kinds, five decisions an image, when none of them strikes
        other.random(5)
    Corruptions(**NONE).apply(images, rng)
    assert rng.random() == other.random()


@pytest.mark.parametrize("content", [random_content, flat_content])
def test_foreign_content(content: Callable[..., np.ndarray]) -> None:
    made = [content(7, 11, np.random.default_rng(seed)) for seed in range(60)]
    assert {(each.shape, each.dtype) for each in made} == {((7, 11, 3), np.dtype(np.uint8))}
    assert any(each.min() == 0 for each in made)
    assert any(each.max() == 255 for each in made)
    flat = [len(np.unique(each.reshape(-1, 3), axis=0)) == 1 for each in made]
    assert all(flat) if content is flat_content else not any(flat[:5])
    if content is random_content:  # grey in part, coloured in part
        grey = [bool((each == each[..., :1]).all()) for each in made]
        assert 10 < sum(grey) < 50
