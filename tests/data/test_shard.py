from __future__ import annotations

import pytest

from diffclean.data.shard import Shard, file_name
from diffclean.errors import UsageError

KEYS = [f"cat/{n}.jpg" for n in range(3000)]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_image_falls_to_exactly_one_shard_and_the_shares_are_even(count: int) -> None:
    shares = [[key for key in KEYS if Shard(index, count).takes(key)] for index in range(1, count + 1)]
    assert sorted(key for share in shares for key in share) == sorted(KEYS)
    assert min(map(len, shares)) > 0.8 * len(KEYS) / count


def test_names() -> None:
    assert Shard.parse("2/4") == Shard(2, 4)
    assert file_name("manifest", Shard(2, 4), "parquet") == "manifest-2-of-4.parquet"
    assert file_name("manifest", Shard(), "parquet") == file_name("manifest", None, "parquet") == "manifest.parquet"


@pytest.mark.parametrize("text", ["", "2", "0/4", "5/4", "-1/4", "a/b", "1/4/2", "1/0", "²/4", "2/4\n"])
def test_shards_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError):
        Shard.parse(text)
