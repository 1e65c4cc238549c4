"""What the shelves of a shard of users are filled from, as the plan's files have it."""

import datetime as dt
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import dataset

from nightshelf.exclusions import acted_on
from pipelines.candidate_lists import CANDIDATE_COLUMNS, CANDIDATE_TABLES, EVERYBODY
from pipelines.kept_away import Exclusions, acted_on_pairs, kept_away
from pipelines.rerank import Groups
from pipelines.shelf_plan import ShelfPlan
from pipelines.shelf_rows import Catalogue
from pipelines.user_shards import UserShard

_CANDIDATES_AT_ONCE = 1 << 20


def read_catalogue(plan: ShelfPlan) -> Catalogue:
    """Return the night's items."""
    attributes = [f"attribute_{name}" for name in (plan.shop.items.attributes if plan.shop.items else [])]
    grouped = ("category_1", "category_2", "category_3", "brand", *attributes)
    items = plan.read("items", ("item_id", "title", "stock", "price", "launch_date", *grouped)).sort_by("item_id")
    ids = items["item_id"].to_pylist()
    titles = {item: title for item, title in zip(ids, items["title"].to_pylist(), strict=True) if title}
    rules = sorted(
        {rule for scenario in plan.shop.scenarios.values() for rule in scenario.exclude if not acted_on(rule)}
    )
    away = {rule: kept_away(items, rule) for rule in rules}
    encoded = {name: items[name].combine_chunks().dictionary_encode() for name in grouped}
    codes = {name: pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False) for name, column in encoded.items()}
    groups = Groups(
        {name: column.astype(np.int32) for name, column in codes.items()},
        {name: column.dictionary.to_pylist() for name, column in encoded.items()},
        _age_days(items, plan.as_of_date),
    )
    return Catalogue(items, ids, pa.array(ids, pa.string()), titles, away, groups)


def _age_days(items: pa.Table, as_of_date: dt.date) -> np.ndarray:
    days = pc.cast(pc.days_between(items["launch_date"], pa.scalar(as_of_date)), pa.float64())
    return np.asarray(pc.fill_null(days, np.inf).to_numpy()).clip(min=0)


def read_candidates(plan: ShelfPlan, shard: UserShard) -> Iterator[pa.Table]:
    """Yield the candidates of these users and of everybody, a part at a time: memory never holds all of their texts at once."""
    wanted = shard.users | (pc.field("user_key") == EVERYBODY)
    for table in CANDIDATE_TABLES:
        for file in plan.files[table]:
            some = dataset.dataset(file).scanner(
                columns=list(CANDIDATE_COLUMNS), filter=wanted, batch_size=_CANDIDATES_AT_ONCE, batch_readahead=1
            )
            for batch in some.to_batches():
                yield pa.Table.from_batches([batch])


def read_exclusions(plan: ShelfPlan, shard: UserShard, user_keys: list[str], catalogue: Catalogue) -> Exclusions:
    """Return what must not be shown: to anybody, and to these users for what they did.

    Args:
        plan: names the files.
        shard: whose acts are read.
        user_keys: its users, in the order of their numbers.
        catalogue: the items.
    """
    blocked = np.array([item in plan.blocked for item in catalogue.item_ids], bool)
    users, found = pa.array(user_keys, pa.string()), {}
    for rule, (event, files) in plan.acted.items():
        if not files:
            continue
        found[rule] = acted_on_pairs(files, event, users, catalogue.keys, shard.users)
    return Exclusions(catalogue.kept_away, found, blocked)
