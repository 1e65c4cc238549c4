"""Writes what the shop knows beside its logs: the day's catalogue, its users, its complements."""

import csv
import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulation.catalogue import Catalogue, ItemDay
from simulation.people import AGE_BANDS, DEVICES
from simulation.plan import Plan, catalogue_of, people_of
from simulation.rawlogs import user_names
from simulation.seeds import random_for
from simulation.words import COLOURS, MATERIALS, brand_name

_VISIBLE_COMPLEMENTS = 0.6  # share of the complementary leaf pairs that the shop's own graph knows of
_PAIRS_PER_LEAF = 12


def write_items(catalogue: Catalogue, day: ItemDay, date: dt.date, first_date: dt.date, path: Path) -> None:
    """Write the catalogue of a day: what is on sale, with that day's price and stock."""
    on_sale = np.flatnonzero(day.on_sale)
    titles = catalogue.titles.take(pa.array(on_sale))
    leaves = ["/".join((category, group, noun)) for category, group, noun, _ in catalogue.leaves]
    launched = np.datetime64(first_date, "D") + catalogue.launch_day[on_sale].astype(int)
    table = pa.table({
        "sku": catalogue.skus.take(pa.array(on_sale)),
        "title": titles,
        "category_path": [leaves[leaf] for leaf in catalogue.leaf[on_sale]],
        "brand": [brand_name(int(brand)) for brand in catalogue.brand[on_sale]],
        "price": day.price[on_sale],
        "stock": pa.array(day.stock[on_sale], pa.int64()),
        "launched": pa.array(launched),
        "colour": [COLOURS[colour] for colour in catalogue.colour[on_sale]],
        "material": [MATERIALS[material] for material in catalogue.material[on_sale]],
    })  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, hidden, compression="zstd")
    hidden.rename(path)


def write_users(plan: Plan, path: Path) -> None:
    """Write all users with what the shop knows of them; some never come."""
    rows: list[tuple[str, ...]] = []
    for chunk in range(plan.chunks):
        people = people_of(plan, chunk)
        names = user_names(people.first + np.arange(people.size)).to_pylist()
        rows += [(n, AGE_BANDS[a], DEVICES[d]) for n, a, d in zip(names, people.age_band, people.device, strict=True)]
    _write_csv(path, ("user_id", "age_band", "device"), rows)


def write_complements(plan: Plan, path: Path) -> None:
    """Write pairs of goods that go together: some of the planted pairs of leaves, some items of each."""
    catalogue = catalogue_of(plan)
    rng = random_for(plan.seed, "complements")
    skus = catalogue.skus.to_pylist()
    rows = []
    for leaf, others in enumerate(catalogue.complements):
        heads = np.flatnonzero(catalogue.leaf == leaf)
        for other in others:
            tails = np.flatnonzero(catalogue.leaf == other)
            if rng.random() < _VISIBLE_COMPLEMENTS and len(heads) and len(tails):
                pairs = {(int(rng.choice(heads)), int(rng.choice(tails))) for _ in range(_PAIRS_PER_LEAF)}
                rows += [(skus[head], "goes_with", skus[tail]) for head, tail in sorted(pairs)]
    _write_csv(path, ("head", "relation", "tail"), rows)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}.tmp")
    with hidden.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    hidden.rename(path)
