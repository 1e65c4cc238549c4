"""Users whom no feature knows: their shelves are ranked for a segment, less what rules exclude for what they did long ago."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pyarrow import dataset

from nightshelf.exclusions import acted_on
from nightshelf.features import WINDOWS
from pipelines.candidate_lists import EVERYBODY
from pipelines.kept_away import acted_on_pairs
from pipelines.segments import Segments
from pipelines.shelf_plan import ShelfPlan


@dataclass(frozen=True)
class Strangers:
    """Shelves for users without features.

    Number -1 is that of the unknown user, -2 - s that of segment s; each user for whom a rule excludes something has one below.

    members: by number those whom a shelf is for. numbers: by that of a segment those that are scored as it is, ascending.
    acted_on: that of Exclusions, of these numbers.
    """

    members: dict[int, list[str]]
    numbers: dict[int, np.ndarray]
    acted_on: dict[str, np.ndarray]


def strangers_of(plan: ShelfPlan, segments: Segments, items: pa.Array, shown: np.ndarray) -> Strangers:
    """Return whose shelves are ranked for no more than a segment.

    Args:
        plan: names rules and files.
        segments: the users without features.
        items: ids of the catalogue, by number.
        shown: the item numbers that strangers may be shown; of others there is nothing to exclude.
    """
    of_segment = [segments.others, *segments.members]  # that of place p is number -1 - p
    users = [user for some in of_segment for user in some]
    number = np.repeat(-1 - np.arange(len(of_segment)), [len(some) for some in of_segment])
    acted = {rule: np.divmod(pairs, len(items)) for rule, pairs in _pairs_of_silent(plan, users, items, shown)}
    who = np.unique(np.concatenate([np.zeros(0, np.int64), *(user for user, _ in acted.values())]))
    scored_as = np.concatenate([-1 - np.arange(len(of_segment)), number[who]])
    number[who] = -1 - len(of_segment) - np.arange(len(who))
    members: dict[int, list[str]] = {-1: [EVERYBODY]}
    for user, whose in zip(users, number.tolist(), strict=True):
        members.setdefault(whose, []).append(user)
    there = np.sort(np.array([*members]))
    numbers = {segment: there[scored_as[-1 - there] == segment] for segment in np.unique(scored_as).tolist()}
    pairs = {rule: np.sort(number[user] * len(items) + item) for rule, (user, item) in acted.items()}
    return Strangers(members, numbers, pairs)


def _pairs_of_silent(
    plan: ShelfPlan, users: list[str], items: pa.Array, shown: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the rules that look further back than features do, and what these users acted on: place in `users` x items + item."""
    keys = pa.array(users, pa.string())
    for rule, (event, files) in plan.acted.items():
        acted = acted_on(rule)
        if acted and acted[1] > max(WINDOWS) and files and users:
            pairs = acted_on_pairs(files, event, keys, items, dataset.field("user_key").isin(keys))
            yield rule, pairs[np.isin(pairs % len(items), shown)]
