import numpy as np
import pytest

from diffclean.attacks.base import image_rng
from diffclean.attacks.registry import ATTACKS, get
from diffclean.errors import UsageError


def test_unknown_attack_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"(?s)'wanet'.*badnets, blended"):
        get("wanet")


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_keeps_its_promises(name: str) -> None:
    attack = get(name)
    assert attack.name == name
    assert "arXiv" in attack.citation
    resolved = attack.resolve({}, 5)
    assert set(resolved) == set(attack.default_parameters)
    assert attack.resolve(resolved, 6) == resolved, "what is resolved does not depend on a seed any more"
    image = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    before = image.copy()
    one, two = (attack.apply(image, image_rng(5, "a/b.png"), resolved) for _ in range(2))
    assert np.array_equal(one, two)
    assert np.array_equal(image, before)
    assert (one.shape, one.dtype) == (image.shape, np.uint8)
    assert not np.array_equal(one, image)
    with pytest.raises(UsageError, match=r"no parameter nonsense"):
        attack.resolve({"nonsense": 1}, 5)


def test_image_rng_follows_seed_and_key() -> None:
    def draw(seed: int, key: str) -> int:
        return int(image_rng(seed, key).integers(2**60))

    assert draw(1, "a/b.png") == draw(1, "a/b.png")
    assert len({draw(1, "a/b.png"), draw(2, "a/b.png"), draw(1, "a/c.png"), draw(12, "a/b.png")}) == 4
