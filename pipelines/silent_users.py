"""Users whom no feature knows any more, though rules of `exclude` look further back at what they did."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
from pyarrow import dataset

from nightshelf.exclusions import acted_on
from nightshelf.features import WINDOWS
from pipelines.kept_away import Acts, acted_on_pairs
from pipelines.shelf_plan import ShelfPlan


def acts_of_silent(plan: ShelfPlan, users: list[str], items: pa.Array, shown: np.ndarray) -> dict[str, Acts]:
    """Return what users without features acted on so that a rule excludes it for them, where it is anything.

    Args:
        plan: names rules and files; within the days of the features nobody is silent.
        users: their keys.
        items: ids of the catalogue, by number.
        shown: the item numbers that strangers may be shown; of others there is nothing to exclude.
    """
    found, keys = defaultdict[str, set[tuple[str, int]]](set), pa.array(users, pa.string())
    for rule, (event, files) in plan.acted.items():
        acted = acted_on(rule)
        if acted and acted[1] > max(WINDOWS) and files and users:
            pairs = acted_on_pairs(files, event, keys, items, dataset.field("user_key").isin(keys))
            for user, item in zip(*np.divmod(pairs, len(items)), strict=True):
                found[users[user]].add((rule, int(item)))
    every = set(shown.tolist())
    kept = {user: frozenset(pair for pair in acts if pair[1] in every) for user, acts in found.items()}
    return {user: acts for user, acts in kept.items() if acts}
