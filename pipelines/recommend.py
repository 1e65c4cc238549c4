"""Stage `recommend`: the champion ranks every known user's candidates in every scenario; users without a history
get what it ranks for their segment, and `*`, for whoever comes tomorrow for the first time, what it ranks for an unknown user.
Then, where a scenario has an anchor, each item gets a shelf for whoever is at it.
"""

import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import dataset

from nightshelf.blocked import blocked_items
from nightshelf.dates import days_back
from nightshelf.errors import InputError
from nightshelf.exclusions import acted_on
from nightshelf.lineage import MADE
from nightshelf.logs import get_logger
from pipelines.candidate_lists import CANDIDATE_COLUMNS, CANDIDATE_TABLES, EVERYBODY, pack_candidates
from pipelines.drafts import Drafts
from pipelines.predictors import predictors
from pipelines.recommend_items import draft_item_shelves
from pipelines.rerank import Groups
from pipelines.serve import serve
from pipelines.shelf_rows import Catalogue, RowMaker, for_all
from pipelines.shelves import Exclusions, Stockroom, worth_to_anybody
from pipelines.stage import Night, StageResult

_CANDIDATES_AT_ONCE = 1 << 20
_UNKNOWN_USER = -1


def run(night: Night) -> StageResult:
    """Write the night's shelf drafts: all scenarios, or those of the night and the published rows of the others."""
    if not any(night.warehouse.statistics(table, [night.as_of_date]) for table in CANDIDATE_TABLES):
        raise InputError(f"there are no candidates of {night.as_of_date}; run `nightshelf stage features` first")
    catalogue = _catalogue(night)
    chosen = night.scenarios or tuple(night.shop.scenarios)
    found = predictors(night, chosen, catalogue.item_ids)
    warm, started = found.user_keys, time.monotonic()
    lists = pack_candidates(_candidates(night), warm, catalogue.item_ids)
    log = get_logger("recommend")
    log.info("%d candidates of %d users read in %.1f s", lists.rows, len(warm), time.monotonic() - started)
    exclusions = Exclusions(
        catalogue.out_of_stock, _acted_on(night, warm, catalogue.item_ids), _blocked(night, catalogue.item_ids)
    )
    room = Stockroom(lists, exclusions, catalogue.groups, str(night.as_of_date))
    # The unknown user's shelf is that of strangers, too
    cold = {_UNKNOWN_USER: [EVERYBODY, *found.segments.others]}
    cold |= {_UNKNOWN_USER - 1 - place: members for place, members in enumerate(found.segments.members)}
    maker = RowMaker(night, found.version, pa.array(warm or [""]), catalogue, lists.texts)
    worth = worth_to_anybody(night.shop.scenarios, found.by_scenario, len(catalogue.item_ids))
    with Drafts(night, "shelf_drafts", chosen) as drafts:
        served = serve(len(warm), list(cold), night.shop.scenarios, found.by_scenario, worth, room, maker)
        for name, whose, table in served:
            drafts.add(name, table if whose is None else for_all(table, cold[whose]))
    rows = drafts.publish("recommendations", [name for name in night.shop.scenarios if name not in chosen])
    written = ["shelf_drafts"]
    if night.shop.anchors:
        written += ["item_shelf_drafts", "anchor_lifts"]
        rows += draft_item_shelves(night, catalogue.items, worth, exclusions, catalogue.groups, found.version)
    return StageResult(
        lists.rows,
        rows,
        inputs=sorted({table for name, made in MADE.items() if name in written for table in made.of}),
        message=f"model {found.version}",
    )


def _candidates(night: Night) -> Iterator[pa.Table]:
    """Yield the night's candidates, a part of a file at a time, so that memory does not hold all of their texts at once."""
    for table in CANDIDATE_TABLES:
        for file in night.warehouse.files(table, [night.as_of_date]):
            for batch in pq.ParquetFile(file).iter_batches(_CANDIDATES_AT_ONCE, columns=list(CANDIDATE_COLUMNS)):
                yield pa.Table.from_batches([batch])


def _catalogue(night: Night) -> Catalogue:
    attributes = [f"attribute_{name}" for name in (night.shop.items.attributes if night.shop.items else [])]
    grouped = ("category_1", "category_2", "category_3", "brand", *attributes)
    columns = ("item_id", "title", "stock", *grouped)
    items = night.warehouse.read("items", [night.as_of_date], columns).sort_by("item_id")
    ids = items["item_id"].to_pylist()
    titles = {item: title for item, title in zip(ids, items["title"].to_pylist(), strict=True) if title}
    out_of_stock = pc.fill_null(pc.equal(items["stock"], 0), False).to_numpy().astype(bool)
    encoded = {name: items[name].combine_chunks().dictionary_encode() for name in grouped}
    codes = {name: pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False) for name, column in encoded.items()}
    groups = Groups(
        {name: column.astype(np.int32) for name, column in codes.items()},
        {name: column.dictionary.to_pylist() for name, column in encoded.items()},
    )
    _check_groups(night, groups)
    return Catalogue(items, ids, pa.array(ids, pa.string()), titles, out_of_stock, groups)


def _check_groups(night: Night, groups: Groups) -> None:
    """Tell which groups with a least share of the places nothing belongs to."""
    for name, scenario in night.shop.scenarios.items():
        for column, shares in scenario.rerank.least.items():
            strange = [value for value in shares if value not in groups.values[column]]
            if strange:
                told = "scenarios.%s.rerank.least: no item has %s = %r; known: %s"
                known = ", ".join(groups.values[column][:10]) or "none"
                get_logger("recommend").warning(told, name, column, strange[0], known)


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
        files = night.warehouse.files("events", days_back(night.as_of_date, days))
        if not files:
            continue
        # A dataset drops rows of other types as it reads them, a part of a file at a time
        is_wanted = dataset.field("event_type") == event
        acted = dataset.dataset(files).to_table(columns=["user_key", "item_id"], filter=is_wanted)
        numbers = [pc.index_in(acted["user_key"], user_keys), pc.index_in(acted["item_id"], items)]
        pairs = pa.table(numbers, names=["user", "item"]).drop_null()
        found[rule] = np.unique(pairs["user"].to_numpy().astype(np.int64) * len(item_ids) + pairs["item"].to_numpy())
    return found
