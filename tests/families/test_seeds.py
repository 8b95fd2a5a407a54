from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffclean.data.keys import BadKeyError, key_from_path
from diffclean.families.seeds import image_seed, noise_for

SHAPES = {"sample": (3, 8, 8), "view": (3, 4, 4), "odd": (5,)}
SEED = st.integers(0, 2**64 - 1)
KEYS = st.binary(min_size=1, max_size=12).filter(
    lambda raw: b"\0" not in raw and b"/" not in raw and raw not in (b".", b"..")
)


def test_the_seed_is_a_promise() -> None:
    """Written out from the contract: another version of diffclean must give the same noise."""
    message = (7).to_bytes(8, "big") + (2).to_bytes(4, "big") + "cät/ü.jpg".encode()
    digest = hashlib.blake2b(message, digest_size=8, person=b"diffclean-seed").digest()
    assert image_seed(7, "cät/ü.jpg", 2) == int.from_bytes(digest, "big")


@given(KEYS, KEYS, st.integers(0, 2**63 - 1), st.integers(0, 999))
def test_seeds_differ_in_key_run_and_variant(first: bytes, second: bytes, run: int, variant: int) -> None:
    one, other = key_from_path(first), key_from_path(second)
    assert (image_seed(run, one, variant) == image_seed(run, other, variant)) == (first == second)
    assert image_seed(run, one, variant) != image_seed(run, one, variant + 1)
    assert image_seed(run, one, variant) != image_seed(run + 1, one, variant)
    assert 0 <= image_seed(run, one, variant) < 2**64


def test_raw_bytes_count_and_not_their_spelling() -> None:
    message = bytes(8) + bytes(4) + b"\xff.jpg"
    digest = hashlib.blake2b(message, digest_size=8, person=b"diffclean-seed").digest()
    assert image_seed(0, key_from_path(b"\xff.jpg"), 0) == int.from_bytes(digest, "big")
    with pytest.raises(BadKeyError):
        image_seed(0, "../escape", 0)


@given(st.lists(SEED, min_size=1, max_size=6), st.data())
def test_noise_is_the_same_whatever_the_batch(seeds: list[int], data: st.DataObject) -> None:
    batch = noise_for(seeds, SHAPES)
    index = data.draw(st.integers(0, len(seeds) - 1))
    others = data.draw(st.lists(SEED, max_size=4))
    place = data.draw(st.integers(0, len(others)))
    elsewhere = noise_for([*others[:place], seeds[index], *others[place:]], SHAPES)
    for name, shape in SHAPES.items():
        assert batch[name].shape == (len(seeds), *shape)
        assert torch.equal(batch[name][index], elsewhere[name][place])


def test_noise_is_standard_normal_and_differs() -> None:
    noise = noise_for(range(200), SHAPES)
    sample = noise["sample"]
    assert abs(float(sample.mean())) < 0.02
    assert abs(float(sample.std()) - 1) < 0.02
    assert len({tuple(row.flatten()[:4].tolist()) for row in sample}) == 200
    assert (
        abs(float(torch.corrcoef(torch.stack([sample[:, :, :4, :4].flatten(), noise["view"].flatten()]))[0, 1])) < 0.05
    )


def test_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    noise_for([1, 2], SHAPES)
    assert torch.equal(torch.get_rng_state(), before)
