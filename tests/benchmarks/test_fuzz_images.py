from __future__ import annotations

import fuzz_images

from diffclean.data.decode import Limits, decode


def test_every_seed_is_a_good_file() -> None:
    for name, data in fuzz_images.seeds().items():
        assert decode(data).size > 0, name


def test_an_image_is_made_from_the_seed_and_its_number_alone() -> None:
    files = fuzz_images.seeds()
    assert fuzz_images.mutated(files, 0, 7) == fuzz_images.mutated(files, 0, 7)
    assert fuzz_images.mutated(files, 0, 7) != fuzz_images.mutated(files, 1, 7)


def test_mutated_images_decode_or_are_refused_in_bounds() -> None:
    files, limits = fuzz_images.seeds(), Limits(pixels=4_000_000)
    found = [
        {"number": n, "kind": "x"} | fuzz_images._one(fuzz_images.mutated(files, 3, n)[1], limits) for n in range(130)
    ]
    summary = fuzz_images.summary(found)
    assert summary["bad"] == []
    assert set(summary["by_format"]["x"]) == {"decoded", "refused"}


def test_what_should_not_have_been_is_reported() -> None:
    good = {"number": 0, "kind": "PNG rgb", "outcome": "decoded", "reason": "", "seconds": 0.1, "megabytes": 1.0}
    worse = [
        good | {"number": 1, "outcome": "escape"},
        good | {"number": 2, "seconds": 3.0},
        good | {"megabytes": 301.0},
    ]
    assert fuzz_images.summary([good, *worse])["bad"] == worse
