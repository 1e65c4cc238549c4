"""The users of a night in shards: ranges of their keys, none larger than what a process is to have in memory."""

from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class UserShard:
    """The users from one key up to, but not including, another one; None: to the last one."""

    low: str
    high: str | None

    @property
    def users(self) -> pc.Expression:
        """Return what holds for the rows of these users."""
        key = pc.field("user_key")
        return key >= self.low if self.high is None else (key >= self.low) & (key < self.high)


NOBODY = UserShard("", "")


def user_shards(keys: pa.Array, most: int) -> tuple[UserShard, ...]:
    """Return shards of `most` users each, the last of what is left; together they hold every key there is or may be."""
    ends: list[str | None] = pc.sort_indices(keys)[most::most].to_pylist()
    bounds = ["", *keys.take(pa.array(ends, pa.int64())).to_pylist(), None]
    return tuple(UserShard(low, high) for low, high in pairwise(bounds))
