"""The part of the stage `recommend` that drafts shelves of items: for each scenario with an anchor, its lifts and its shelves."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.anchor_lifts import Lifts, fit_lifts, read_shown, tie_names, ties_between
from pipelines.arrow_schema import conform
from pipelines.categories import Categories
from pipelines.drafts import Drafts
from pipelines.item_reasons import UNTIED, tie_reasons, tie_sources
from pipelines.item_shelves import ItemShelves, fill_item_shelves
from pipelines.kept_away import Exclusions
from pipelines.rerank import Groups
from pipelines.shelf_status import ITEM_TABLE
from pipelines.stage import Night

DRAFTS = "item_shelf_drafts"


def draft_item_shelves(
    night: Night, items: pa.Table, worth: dict[str, np.ndarray], exclusions: Exclusions, groups: Groups, version: str
) -> int:
    """Write the drafts of the scenarios in `worth` that have an anchor, and the lifts that they rest on; return the drafts' rows.

    Args:
        night: its examples, acts and graph are read, and the graph of a night before it.
        items: the catalogue, in the order of the item numbers: item_id, title, categories.
        worth: by scenario [items].
        exclusions: what is out of stock or blocked stands on no shelf.
        groups: of the catalogue.
        version: the model that tells the worth.
    """
    edges = ("head", "relation", "tail")
    graph = night.warehouse.read("item_graph", [night.as_of_date], edges)
    item_ids, categories, names = items["item_id"].to_pylist(), Categories.of(items), tie_names(night.shop, graph)
    ties = before = ties_between(graph, names, item_ids)
    earlier = [day for day in night.warehouse.partitions("item_graph") if day < night.as_of_date][-1:]
    if earlier:
        before = ties_between(night.warehouse.read("item_graph", earlier, edges), names, item_ids)
    others = [name for name in night.shop.anchors if name not in worth]
    lifts_before = night.warehouse.read("anchor_lifts", [night.as_of_date])
    told = [lifts_before.filter(pc.is_in(lifts_before["scenario"], pa.array(others, pa.string())))]
    with Drafts(night, DRAFTS, [name for name in night.shop.anchors if name in worth]) as drafts:
        for name in drafts.scenarios:
            seen = read_shown(night, name, item_ids, earlier[0] if earlier else None)
            lifts, scenario = fit_lifts(seen, categories.of_item, categories.tree, before), night.shop.scenarios[name]
            told.append(_lift_rows(night, name, lifts, categories.names))
            allowed = exclusions.anybody(scenario.exclude)
            for shelves in fill_item_shelves(scenario, worth[name], allowed, categories.of_item, lifts, ties, groups):
                drafts.add(name, _rows(night, name, version, shelves, items, categories, lifts, names))
    spec = night.warehouse.specs["anchor_lifts"]
    rows = pa.concat_tables(conform(part, spec) for part in told)
    night.warehouse.publish_arrow("anchor_lifts", rows, [night.as_of_date], night.run_id)
    return drafts.publish(ITEM_TABLE, others)


def _lift_rows(night: Night, name: str, lifts: Lifts, categories: list[str | None]) -> pa.Table:
    anchor, item = np.divmod(lifts.keys, len(lifts.tree))
    columns = {
        "as_of_date": pa.array([night.as_of_date] * len(anchor), pa.date32()),
        "scenario": pa.array([name] * len(anchor), pa.string()),
        "anchor_category": pa.array(categories, pa.string()).take(pa.array(anchor)),
        "category": pa.array(categories, pa.string()).take(pa.array(item)),
        "shown": lifts.shown,
        "outcomes": lifts.outcomes,
        "expected": lifts.expected,
        "lift": lifts.pairs,
    }
    return pa.table(columns).drop_null()  # of goods without a category there is nothing to tell


def _rows(
    night: Night,
    name: str,
    version: str,
    shelves: ItemShelves,
    items: pa.Table,
    categories: Categories,
    lifts: Lifts,
    relations: list[str],
) -> pa.Table:
    count, sources, item_ids = len(shelves.ranks), [*relations, *UNTIED], items["item_id"].combine_chunks()
    source = tie_sources(shelves, categories, lifts, len(relations))
    columns = {
        "as_of_date": pa.array([night.as_of_date] * count, pa.date32()),
        "scenario": pa.array([name] * count, pa.string()),
        "anchor_item_id": item_ids.take(pa.array(shelves.anchors)),
        "rank": shelves.ranks,
        "item_id": item_ids.take(pa.array(shelves.items)),
        "score": shelves.scores,
        "lift": shelves.lifts,
        "source": pa.array(sources, pa.string()).take(pa.array(source)),
        "reason": tie_reasons(name, shelves, source, items, categories, relations),
        "rank_by_score": shelves.rank_by_score,
        "model_version": pa.array([version] * count, pa.string()),
        "run_id": pa.array([night.run_id] * count, pa.string()),
    }
    return pa.table(columns)
