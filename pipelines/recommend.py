"""Stage `recommend`: the champion ranks every known user's candidates in every scenario; users without a history
get what it ranks for their segment, and `*`, for whoever comes tomorrow for the first time, what it ranks for an unknown user.
Then, where a scenario has an anchor, each item gets a shelf for whoever is at it.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightshelf.blocked import blocked_items
from nightshelf.dates import days_back
from nightshelf.errors import InputError
from nightshelf.exclusions import acted_on
from nightshelf.lineage import MADE
from nightshelf.logs import get_logger
from pipelines.candidate_lists import CANDIDATE_TABLES, EVERYBODY, GENERATOR_ORDER, CandidateLists, pack_candidates
from pipelines.drafts import Drafts
from pipelines.predictors import predictors
from pipelines.recommend_items import draft_item_shelves
from pipelines.rerank import PLACED_BY, Groups
from pipelines.shelves import (
    Exclusions,
    Predict,
    Shelves,
    Stockroom,
    fill_shelves,
    first_look,
    reason_texts,
    worth_to_anybody,
)
from pipelines.stage import Night, StageResult

BLOCK = 512
LOG_SECONDS = 10.0
_UNKNOWN_USER = -1


@dataclass(frozen=True)
class _Catalogue:
    items: pa.Table
    item_ids: list[str]
    keys: pa.Array  # the same
    titles: dict[str, str]
    out_of_stock: np.ndarray
    groups: Groups


def run(night: Night) -> StageResult:
    """Write the night's shelf drafts: all scenarios, or those of the night and the published rows of the others."""
    candidates = pa.concat_tables(night.warehouse.read(table, [night.as_of_date]) for table in CANDIDATE_TABLES)
    if candidates.num_rows == 0:
        raise InputError(f"there are no candidates of {night.as_of_date}; run `nightshelf stage features` first")
    catalogue = _catalogue(night)
    chosen = night.scenarios or tuple(night.shop.scenarios)
    found = predictors(night, chosen, catalogue.item_ids)
    warm = found.user_keys
    lists = pack_candidates(candidates, warm, catalogue.item_ids)
    exclusions = Exclusions(
        catalogue.out_of_stock, _acted_on(night, warm, catalogue.item_ids), _blocked(night, catalogue.item_ids)
    )
    room = Stockroom(lists, exclusions, catalogue.groups, str(night.as_of_date))
    # The unknown user's shelf is that of strangers, too
    cold = {_UNKNOWN_USER: [EVERYBODY, *found.segments.others]}
    cold |= {_UNKNOWN_USER - 1 - place: members for place, members in enumerate(found.segments.members)}
    keys = pa.array(warm or [""])
    worth = worth_to_anybody(night.shop.scenarios, found.by_scenario, len(catalogue.item_ids))
    with Drafts(night, "shelf_drafts", chosen) as drafts:
        for name, whose, shelves in _rank(night, warm, list(cold), room, found.by_scenario, worth):
            table = _rows(night, name, found.version, shelves, keys, catalogue, lists)
            drafts.add(name, table if whose is None else _for_all(table, cold[whose]))
    rows = drafts.publish("recommendations", [name for name in night.shop.scenarios if name not in chosen])
    written = ["shelf_drafts"]
    if night.shop.anchors:
        written += ["item_shelf_drafts", "anchor_lifts"]
        rows += draft_item_shelves(night, catalogue.items, worth, exclusions, catalogue.groups, found.version)
    return StageResult(
        candidates.num_rows,
        rows,
        inputs=sorted({table for name, made in MADE.items() if name in written for table in made.of}),
        message=f"model {found.version}",
    )


def _catalogue(night: Night) -> _Catalogue:
    attributes = [f"attribute_{name}" for name in (night.shop.items.attributes if night.shop.items else [])]
    grouped = ("category_1", "category_2", "category_3", "brand", *attributes)
    columns = ("item_id", "title", "stock", *grouped)
    items = night.warehouse.read("items", [night.as_of_date], columns).sort_by("item_id")
    ids = items["item_id"].to_pylist()
    titles = {item: title for item, title in zip(ids, items["title"].to_pylist(), strict=True) if title}
    out_of_stock = pc.fill_null(pc.equal(items["stock"], 0), False).to_numpy().astype(bool)
    groups = Groups({name: _codes(items[name]) for name in grouped})
    return _Catalogue(items, ids, pa.array(ids, pa.string()), titles, out_of_stock, groups)


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    codes = column.combine_chunks().dictionary_encode().indices
    return pc.fill_null(codes, -1).to_numpy(zero_copy_only=False).astype(np.int32)


def _blocked(night: Night, item_ids: list[str]) -> np.ndarray:
    blocked = blocked_items(night.shop)
    strange = sorted(blocked.difference(item_ids))
    if strange:
        get_logger("recommend").warning("blocked: %d items are not in the catalogue, e.g. %s", len(strange), strange[0])
    return np.array([item in blocked for item in item_ids], bool)


def _acted_on(night: Night, users: list[str], item_ids: list[str]) -> dict[str, np.ndarray]:
    """Return for each rule of the shop that needs it the pairs of users and items that were acted on."""
    named = {rule for scenario in night.shop.scenarios.values() for rule in scenario.exclude}
    rules = {rule: acted for rule in sorted(named) if (acted := acted_on(rule))}
    user_keys, items, found = pa.array(users, pa.string()), pa.array(item_ids, pa.string()), {}
    for rule, (event, days) in rules.items():
        columns = ("as_of_date", "event_type", "user_key", "item_id")
        events = night.warehouse.read("events", days_back(night.as_of_date, days), columns)
        acted = events.filter(pc.equal(events["event_type"], event))
        numbers = [pc.index_in(acted["user_key"], user_keys), pc.index_in(acted["item_id"], items)]
        pairs = pa.table(numbers, names=["user", "item"]).drop_null()
        found[rule] = np.unique(pairs["user"].to_numpy().astype(np.int64) * len(item_ids) + pairs["item"].to_numpy())
    return found


def _rank(
    night: Night,
    users: list[str],
    strangers: list[int],
    room: Stockroom,
    by_scenario: dict[str, Predict],
    worth: dict[str, np.ndarray],
) -> Iterator[tuple[str, int | None, Shelves]]:
    """Yield scenario and the shelves of a block of users; then scenario, user number and shelf of each of the strangers.

    The first scenario takes a first look at all candidates of a block; every scenario then scores the best of them.
    Blocks are served side by side, each by one thread: the rows do not depend on the number of cores.
    """
    from training.workers import torch_workers

    scenarios, pivot = night.shop.scenarios, next(iter(by_scenario))

    def serve(start: int, end: int) -> list[tuple[str, Shelves]]:
        block = np.arange(start, end)
        look = first_look(block, scenarios[pivot], room.lists, by_scenario[pivot], worth, pivot)
        served, shown = [], np.zeros((len(block), 0), np.int64)
        for name, predict in by_scenario.items():
            shelves = fill_shelves(block, name, scenarios[name], room, predict, look, shown)
            shown = np.concatenate([shown, shelves.of_block(block, scenarios[name].top_n)], axis=1)
            served.append((name, shelves))
        return served

    told, blocks = time.monotonic(), list(pairwise([*range(0, len(users), BLOCK), len(users)]))
    with torch_workers() as pool:
        for (_, end), served in zip(blocks, pool.map(lambda block: serve(*block), blocks), strict=True):
            for name, shelves in served:
                yield name, None, shelves
            if time.monotonic() - told > LOG_SECONDS:
                told = time.monotonic()
                get_logger("recommend").info("%d of %d users with a history are served", end, len(users))
    for name, predict in by_scenario.items():
        for number in strangers:
            yield name, number, fill_shelves(np.array([number]), name, scenarios[name], room, predict)


def _rows(
    night: Night,
    name: str,
    version: str,
    shelves: Shelves,
    user_keys: pa.Array,
    catalogue: _Catalogue,
    lists: CandidateLists,
) -> pa.Table:
    count = len(shelves.ranks)
    columns = {
        "as_of_date": pa.array([night.as_of_date] * count, pa.date32()),
        "scenario": pa.array([name] * count),
        "user_key": user_keys.take(pa.array(shelves.users.clip(min=0))),
        "rank": shelves.ranks,
        "item_id": catalogue.keys.take(pa.array(shelves.items)),
        "score": shelves.scores,
        **{f"p_{task}": shelves.predictions[task] for task in night.shop.tasks},
        "source": pa.array(GENERATOR_ORDER).take(pa.array(shelves.generators)),
        "reason": pa.array(reason_texts(shelves, name, lists.texts, catalogue.titles), pa.string()),
        "rank_by_score": shelves.rank_by_score,
        "placed_by": pa.array(PLACED_BY).take(pa.array(shelves.placed_by)),
        "propensity": shelves.propensity,
        "model_version": pa.array([version] * count),
        "run_id": pa.array([night.run_id] * count),
    }
    return pa.table(columns)


def _for_all(shelf: pa.Table, users: list[str]) -> pa.Table:
    """Give each of these users the same shelf: the unknown user's."""
    length = shelf.num_rows
    repeated = shelf.take(pa.array(np.tile(np.arange(length), len(users))))
    keys = pa.array(users, pa.string()).take(pa.array(np.repeat(np.arange(len(users)), length)))
    return repeated.set_column(repeated.schema.get_field_index("user_key"), shelf.schema.field("user_key"), keys)
