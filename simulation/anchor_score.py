"""Scores shelves of items against the truth: what they are worth to the simulated shop's visitors who are at these items."""

import datetime as dt

import numpy as np
import pyarrow as pa

from nightshelf.config import Shop
from nightshelf.dates import days_back
from simulation.behaviour import SCENARIOS
from simulation.catalogue import items_on
from simulation.reference_shelves import Record, item_cosines, popularity_scores, read_record
from simulation.seeds import random_for
from simulation.truth import Truth, load_truth

TOP = 10


def score_item_shelves(
    shop: Shop, shelves: pa.Table, as_of_date: dt.date, users_sampled: int = 500, anchors_sampled: int = 1000
) -> dict[str, dict[str, float]]:
    """Compare item shelves with the truth of the day after as_of_date, for a sample of the items on sale.

    Args:
        shop: a simulated shop.
        shelves: scenario, anchor_item_id, rank (1 = best), item_id; other columns are ignored.
        as_of_date: the night of the shelves.
        users_sampled: how many users stand for the visitors.
        anchors_sampled: how many items on sale.

    Returns:
        scenario → the mean true utility of the first ten places of ours, popularity, same_category (its most popular items),
        item_knn (cosines of co-clicks) and best, none of which shows the anchor or what is out of stock; and gap_closed =
        (ours - popularity) / (best - popularity).

    Raises:
        InputError: the shop was not simulated up to as_of_date.
    """
    truth = load_truth(shop)
    rng = random_for(truth.plan.seed, "anchors", truth.plan.day(as_of_date))
    users = np.sort(rng.permutation(truth.plan.users)[:users_sampled])
    item_day = items_on(truth.catalogue, truth.plan.day(as_of_date))
    anchors = np.sort(rng.permutation(np.flatnonzero(item_day.on_sale))[:anchors_sampled])
    names = [name for name in shop.anchors if name in SCENARIOS]
    values = truth.anchor_utilities(users, names, as_of_date + dt.timedelta(days=1))
    record, allowed = read_record(truth, days_back(as_of_date, 14)), item_day.on_sale & (item_day.stock > 0)
    return {
        name: _score(
            truth, record, SCENARIOS.index(name), values[name], _shown(truth, shelves, name, anchors), anchors, allowed
        )
        for name in names
    }


def _score(
    truth: Truth,
    record: Record,
    scenario: int,
    values: np.ndarray,
    shown: np.ndarray,
    anchors: np.ndarray,
    allowed: np.ndarray,
) -> dict[str, float]:
    value = values[truth.catalogue.leaf[anchors]]
    popular = popularity_scores(record, scenario)
    same = truth.catalogue.leaf[anchors][:, None] == truth.catalogue.leaf[None, :]
    most = popular.max(initial=0) + 1
    rivals = {
        "popularity": np.broadcast_to(popular, value.shape),
        "same_category": same * most + popular,
        "item_knn": item_cosines(record, anchors) + 1e-6 * popular,
        "best": value,
    }
    means = {"ours": _mean_of(value, shown)}
    for rival, scores in rivals.items():
        masked = np.where(allowed, scores, -np.inf)
        masked[np.arange(len(anchors)), anchors] = -np.inf
        means[rival] = _mean_of(value, np.argsort(-masked, axis=1, kind="stable")[:, :TOP])
    means["gap_closed"] = (means["ours"] - means["popularity"]) / (means["best"] - means["popularity"])
    return means


def _mean_of(value: np.ndarray, shown: np.ndarray) -> float:
    gained = np.take_along_axis(value, np.maximum(shown, 0), 1)
    return float(np.where(shown >= 0, gained, 0.0).mean())


def _shown(truth: Truth, shelves: pa.Table, name: str, anchors: np.ndarray) -> np.ndarray:
    """Return the item numbers of the first places [anchors, TOP]; -1 where a shelf is shorter."""
    number = {item: place for place, item in enumerate(truth.item_ids)}
    row = np.full(len(number), -1)
    row[anchors] = np.arange(len(anchors))
    shown = np.full((len(anchors), TOP), -1)
    columns = (shelves[column].to_pylist() for column in ("scenario", "anchor_item_id", "rank", "item_id"))
    for scenario, anchor, rank, item in zip(*columns, strict=True):
        if scenario == name and rank <= TOP and row[number[anchor]] >= 0:
            shown[row[number[anchor]], rank - 1] = number[item]
    return shown
