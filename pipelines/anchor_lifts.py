"""How much more, or less, often an item is acted on beside an anchor: the item whose page it is, or the last one put in the cart.

An impression's anchor is the item of the user's last such act within a day before it. With e the outcomes that the impressions
would have had at their items' own rates in the scenario, and y those that they had, the lift of a cell of anchors and items is
the posterior mean (y + k · prior) / (e + k) of a rate relative to e (gamma-Poisson shrinkage; DuMouchel, "Bayesian data mining
in large frequency tables", The American Statistician 1999). Cells are nested: how near the two categories are in the tree, with
the prior 1; the pair of categories, with the prior of its nearness; and what the graph says of the two items, beyond the pair.
"""

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightshelf.config import Shop
from nightshelf.dates import days_back
from nightshelf.features import event_worth, fact_relations, root_task
from pipelines.categories import Categories
from pipelines.stage import Night
from pipelines.validate import connect, view_files

# Outcomes to expect before a cell says as much as its prior: of a pair of categories; of a nearness or a relation.
_PAIR_SMOOTHING, _WIDE_SMOOTHING = 10.0, 20.0
# Impressions that count for the scenario's rate in an item's.
_RATE_SMOOTHING = 50.0
_QUERY = """
    WITH shown AS (
        SELECT user_key, item_id, impression_ts, as_of_date > $before AS is_later,
            CAST(round(sample_weight * 1e6) AS BIGINT) AS weight, label > 0 AS is_hit
        FROM (SELECT *, label_{task} AS label FROM examples) WHERE scenario = $scenario AND label IS NOT NULL
    ), anchors AS (
        SELECT user_key, event_ts, min(item_id) AS anchor FROM acts WHERE event_type = $event GROUP BY ALL
    ), beside AS (
        SELECT shown.*, CASE WHEN impression_ts - event_ts < INTERVAL 1 DAY THEN anchor END AS anchor
        FROM shown ASOF LEFT JOIN anchors ON shown.user_key = anchors.user_key AND impression_ts {since} event_ts
    )
    SELECT coalesce(a.number, -1) AS anchor, i.number AS item, is_later,
        sum(weight) / 1e6 AS shown, coalesce(sum(weight) FILTER (is_hit), 0) / 1e6 AS outcomes
    FROM beside LEFT JOIN catalogue a ON a.item_id = anchor JOIN catalogue i ON i.item_id = beside.item_id
    GROUP BY ALL ORDER BY ALL"""


@dataclass(frozen=True)
class Ties:
    """What the graph says of pairs of items, one relation a pair: keys (head × items + tail) ascend; relations count from 1."""

    keys: np.ndarray
    relation: np.ndarray
    names: list[str]
    items: int

    def of(self, heads: np.ndarray, tails: np.ndarray) -> np.ndarray:
        """Return the relation of pairs of item numbers [n], 0 for none."""
        if not len(self.keys):
            return np.zeros(len(heads), np.int64)
        wanted = heads.astype(np.int64) * self.items + tails
        place = np.searchsorted(self.keys, wanted).clip(max=len(self.keys) - 1)
        return np.where(self.keys[place] == wanted, self.relation[place], 0)

    def tails(self, heads: np.ndarray) -> np.ndarray:
        """Return the items that ties lead to [heads, most ties], -1 where a head has fewer."""
        start, end = (np.searchsorted(self.keys, (heads + more) * np.int64(self.items)) for more in (0, 1))
        place = start[:, None] + np.arange(int((end - start).max(initial=0)))
        inside = place < end[:, None]
        if not inside.size:
            return np.full((len(heads), 0), -1, np.int64)
        return np.where(inside, self.keys[np.where(inside, place, 0)] % self.items, -1)


@dataclass(frozen=True)
class Shown:
    """What was shown beside what: item numbers [n] (anchor -1: none), impressions, their outcomes; whether after the graph."""

    anchor: np.ndarray
    item: np.ndarray
    is_later: np.ndarray
    shown: np.ndarray
    outcomes: np.ndarray


@dataclass(frozen=True)
class Lifts:
    """Lifts of a scenario. tree: category codes of each category [C, 3]. pairs: of the pairs that were shown, by key C × C.

    by_nearness: [4], from unrelated to the same. by_relation: [1 + relations], 1 for no relation.
    """

    tree: np.ndarray
    keys: np.ndarray
    pairs: np.ndarray
    shown: np.ndarray
    outcomes: np.ndarray
    expected: np.ndarray
    by_nearness: np.ndarray
    by_relation: np.ndarray

    def row(self, category: int) -> np.ndarray:
        """Return the lift of items of each category beside an anchor of this one [C]."""
        size = len(self.tree)
        lifts = self.by_nearness[_nearness(self.tree, np.full(size, category), np.arange(size))]
        seen = slice(*np.searchsorted(self.keys, [category * size, (category + 1) * size]))
        lifts[self.keys[seen] % size] = self.pairs[seen]
        return lifts


def nearness_lifts(night: Night, scenario: str) -> tuple[float, ...]:
    """Return a scenario's lifts by nearness to its anchor, from unrelated to the same category; 1 where nothing is known."""
    columns = ("item_id", *(f"category_{level}" for level in (1, 2, 3)))
    items = night.warehouse.read("items", [night.as_of_date], columns).sort_by("item_id")
    categories, item_ids = Categories.of(items), items["item_id"].to_pylist()
    nothing = np.zeros(0, np.int64)
    ties = Ties(nothing, nothing, [], len(item_ids))
    lifts = fit_lifts(read_shown(night, scenario, item_ids, None), categories.of_item, categories.tree, ties)
    return tuple(lifts.by_nearness.round(6).tolist())


def tie_names(shop: Shop, graph: pa.Table) -> list[str]:
    """Return the relations of a graph that tie two items: the shop's own, then what users did with both, by its worth."""
    worth = {f"co_{event}": worth for event, worth in event_worth(shop).items()}
    names = set(graph["relation"].to_pylist()) - set(fact_relations(shop))
    return sorted(names, key=lambda name: (is_own(name) is False, -worth.get(name, 0.0), name))


def is_own(relation: str) -> bool:
    """Say whether the shop itself told of a relation, rather than its users by what they did."""
    return not relation.startswith("co_")


def ties_between(graph: pa.Table, names: list[str], item_ids: list[str]) -> Ties:
    """Return the ties between the items of a catalogue, of several on one pair the first of `names`."""
    head, tail, relation = (
        pc.fill_null(pc.index_in(graph[column], value_set=pa.array(known, pa.string())), -1).to_numpy().astype(np.int64)
        for column, known in (("head", item_ids), ("tail", item_ids), ("relation", names))
    )
    chosen = (head >= 0) & (tail >= 0) & (relation >= 0) & (head != tail)
    keys, relation = (head * len(item_ids) + tail)[chosen], relation[chosen]
    ordered = np.lexsort((relation, keys))
    keys, first = np.unique(keys[ordered], return_index=True)
    return Ties(keys, relation[ordered][first] + 1, names, len(item_ids))


def read_shown(night: Night, scenario: str, item_ids: list[str], before: dt.date | None) -> Shown:
    """Return what the night's examples show of a scenario, beside which anchors.

    Args:
        night: its examples and acts are read.
        scenario: one with `anchor`.
        item_ids: the catalogue, in the order of the item numbers.
        before: the night of the graph that ties come from; None: none of the examples came after it.
    """
    event, days = night.shop.anchors[scenario], days_back(night.as_of_date, night.shop.history_days)
    connection = connect(night)
    for view, table in (("examples", "training_examples"), ("acts", "acts")):
        view_files(connection, view, night.warehouse.files(table, days), night.warehouse.specs[table])
    connection.register("catalogue", _numbered(item_ids))
    # An outcome comes after its impression; a request's page was opened before it, and drawn negatives bear their positive's time
    since = ">=" if event == "viewed" or night.shop.negatives != "impressions" else ">"
    query = _QUERY.format(task=root_task(night.shop), since=since)
    asked = {"scenario": scenario, "event": event, "before": before or dt.date.max}
    rows = connection.execute(query, asked).fetchnumpy()
    return Shown(
        rows["anchor"].astype(np.int64), rows["item"].astype(np.int64), rows["is_later"].astype(bool),
        rows["shown"].astype(np.float64), rows["outcomes"].astype(np.float64),
    )  # fmt: skip


def fit_lifts(seen: Shown, category: np.ndarray, tree: np.ndarray, ties: Ties) -> Lifts:
    """Return the lifts of a scenario.

    Args:
        seen: what was shown beside what.
        category: the category of each item of the catalogue [items], a row of `tree`.
        tree: codes of the three levels of each category [C, 3], -1 where it has none.
        ties: between items, as they were before the rows of `seen` that are later: whoever acted on an item beside an anchor
            has made an edge of the two.
    """
    count, size = len(category), len(tree)
    of_item = np.bincount(seen.item, seen.shown, count), np.bincount(seen.item, seen.outcomes, count)
    rate = float(seen.outcomes.sum() / max(seen.shown.sum(), 1e-12))
    rates = (of_item[1] + _RATE_SMOOTHING * rate) / (of_item[0] + _RATE_SMOOTHING)
    there = (seen.anchor >= 0) & (seen.anchor != seen.item)
    anchor, item, shown, outcomes = (part[there] for part in (seen.anchor, seen.item, seen.shown, seen.outcomes))
    expected = shown * rates[item]
    near = _nearness(tree, category[anchor], category[item])
    by_nearness = _shrunk(np.bincount(near, outcomes, 4), np.bincount(near, expected, 4), 1.0, _WIDE_SMOOTHING)
    keys, place = np.unique(category[anchor] * np.int64(size) + category[item], return_inverse=True)
    sums = [np.bincount(place, values, len(keys)) for values in (shown, outcomes, expected)]
    prior = by_nearness[_nearness(tree, *np.divmod(keys, size))]
    pairs = _shrunk(sums[1], sums[2], prior, _PAIR_SMOOTHING)
    relation = ties.of(anchor, item)
    # Own triples were there before any act; of the users' own edges only what came after them says anything
    own = np.array([True, *map(is_own, ties.names)])[relation]
    counted = own | seen.is_later[there]
    kinds, base = len(ties.names) + 1, expected * pairs[place]
    by_relation = _shrunk(
        np.bincount(relation[counted], outcomes[counted], kinds),
        np.bincount(relation[counted], base[counted], kinds),
        1.0,
        _WIDE_SMOOTHING,
    )
    by_relation[0] = 1.0
    return Lifts(tree, keys, pairs, sums[0], sums[1], sums[2], by_nearness, by_relation)


def _shrunk(outcomes: np.ndarray, expected: np.ndarray, prior: np.ndarray | float, smoothing: float) -> np.ndarray:
    return np.asarray((outcomes + smoothing * prior) / (expected + smoothing))


def _nearness(tree: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return how many levels of the tree two categories [n] share, 0 … 3."""
    shared = (tree[one] == tree[other]) & (tree[one] >= 0)
    return np.cumprod(shared, axis=-1).sum(axis=-1).astype(np.int64)


def _numbered(item_ids: list[str]) -> pa.Table:
    return pa.table(
        {"item_id": pa.array(item_ids, pa.string()), "number": pa.array(np.arange(len(item_ids)), pa.int64())}
    )
