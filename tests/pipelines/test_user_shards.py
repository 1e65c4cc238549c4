import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.user_shards import NOBODY, user_shards

KEYS = st.lists(st.text("0123456789abcdef", min_size=4, max_size=4), unique=True, max_size=60)


@given(KEYS, st.integers(1, 20))
def test_each_user_is_in_one_shard_and_none_is_too_large(keys: list[str], most: int) -> None:
    table = pa.table({"user_key": pa.array(keys, pa.string())})
    shards = user_shards(table["user_key"].combine_chunks(), most)
    held = [table.filter(shard.users)["user_key"].to_pylist() for shard in shards]
    assert sorted(key for part in held for key in part) == sorted(keys)
    assert all(len(part) == most for part in held[:-1])
    assert len(held[-1]) <= most
    assert len(shards) == max(1, -(-len(keys) // most))


@pytest.mark.parametrize("key", ["", "0", "ffff", "*"])
def test_nobody_is_nobody_and_a_single_shard_everybody(key: str) -> None:
    table = pa.table({"user_key": [key]})
    assert table.filter(NOBODY.users).num_rows == 0
    (shard,) = user_shards(pa.array(["a"]), 10)
    assert table.filter(shard.users).num_rows == 1
