"""make bench-truth: how far the published shelves close the gap between popularity and the best possible shelf.

Reads the demo shop's newest published night (run `make night` first) and the simulated shop's truth, which no stage reads.
Prints a table a scenario and one JSON line: gap_closed = (ours - popularity) / (best - popularity), true utility @10.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from benchmarks.fusion import fusion
from nightshelf.config import load_shop
from nightshelf.errors import NightshelfError
from nightshelf.identity import key_file
from pipelines.candidate_lists import CANDIDATE_TABLES, EVERYBODY
from pipelines.warehouse import Warehouse
from simulation.anchor_score import score_item_shelves
from simulation.score import score_shelves

COLUMNS = (
    "random",
    "popularity",
    "item_knn",
    "own_history",
    "ours",
    "ceiling",
    "best",
    "gap_closed",
    "gap_closed_stderr",
)
SHELF = 10
GENERATOR_USERS = 300


def main() -> None:
    """Score the newest night of a simulated shop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shop", type=Path, default=Path("conf/shops/demo.yaml"))
    parser.add_argument("--users", type=int, default=1000, help="sampled users")
    arguments = parser.parse_args()
    shop = load_shop(arguments.shop)
    warehouse = Warehouse(shop)
    days = warehouse.partitions("recommendations")
    if not days:
        sys.exit(f"{shop.home}: no night has been published there; run `make night` first")
    day, key = days[-1], key_file(shop).read_bytes()
    ours = warehouse.read("recommendations", [day], ("user_key", "scenario", "rank", "item_id"))
    scores = score_shelves(shop, ours, day, arguments.users, key)
    _print(day, scores)
    users = sorted(set(ours["user_key"].to_pylist()))
    candidates = pa.concat_tables(warehouse.read(table, [day]) for table in CANDIDATE_TABLES)
    generators = {
        name: round(score_shelves(shop, shelves, day, min(arguments.users, GENERATOR_USERS), key)["gap_closed_mean"], 4)
        for name, shelves in generator_shelves(candidates, users, list(shop.scenarios)).items()
    }
    gaps = {name: round(gap, 4) for name, gap in scores["gap_closed"].items()}
    fused = fusion(shop, day, min(arguments.users, GENERATOR_USERS), key)
    title = "shelves that know a user's others: each by itself, and an item counted once a user"
    _print_rows(title, "repeats", fused)
    line = {
        "gap_closed": gaps,
        "gap_closed_mean": round(scores["gap_closed_mean"], 4),
        "per_generator": generators,
        "fusion": fused,
    }
    if shop.anchors:
        columns = ("scenario", "anchor_item_id", "rank", "item_id")
        beside = score_item_shelves(shop, warehouse.read("item_recommendations", [day], columns), day)
        title = "the same beside an item: shelves for whoever is at it, of whom no more is known"
        _print_rows(title, "scenario", beside)
        line["item_shelves"] = {name: round(row["gap_closed"], 4) for name, row in beside.items()}
    sys.stdout.write(json.dumps(line) + "\n")


def generator_shelves(candidates: pa.Table, users: list[str], scenarios: list[str]) -> dict[str, pa.Table]:
    """Return the shelves that each generator alone would fill, in the order of its own scores."""
    shelves = {}
    for name in sorted(set(candidates["generator"].to_pylist())):
        rows = candidates.filter(pc.equal(candidates["generator"], name)).to_pandas()
        rows = rows.sort_values(
            ["user_key", "scenario", "generator_score", "item_id"], ascending=[True, True, False, True]
        )
        rows["rank"] = (rows.groupby(["user_key", "scenario"]).cumcount() + 1).astype(np.int32)
        rows = rows[rows["rank"] <= SHELF][["user_key", "scenario", "rank", "item_id"]]
        everybody = rows["user_key"] == EVERYBODY
        spread = rows[everybody].drop(columns="user_key").merge(pa.table({"user_key": users}).to_pandas(), how="cross")
        rows = pa.Table.from_pandas(rows[~everybody], preserve_index=False).to_pandas()
        own = rows if len(rows) else spread
        whole = [own[own["scenario"] != "*"], *(own[own["scenario"] == "*"].assign(scenario=s) for s in scenarios)]
        tables = [
            pa.Table.from_pandas(part[["user_key", "scenario", "rank", "item_id"]], preserve_index=False)
            for part in whole
            if len(part)
        ]
        shelves[name] = pa.concat_tables(tables, promote_options="permissive")
    return shelves


def _print(day: object, scores: dict[str, dict]) -> None:  # type: ignore[type-arg]
    table = Table("scenario", *COLUMNS, title=f"mean true utility of the top {SHELF} on the day after {day}")
    for scenario, row in scores["scenarios"].items():
        table.add_row(scenario, *(f"{row[name]:.4f}" for name in COLUMNS))
    noise = Table(
        "scenario", "click", "cart", "purchase", title="share of an outcome's variance that no model can predict"
    )
    for scenario, row in scores["scenarios"].items():
        noise.add_row(
            scenario, *(f"{row['unpredictable'].get(task, float('nan')):.3f}" for task in ("click", "cart", "purchase"))
        )
    Console(width=160).print(table, noise)


def _print_rows(title: str, first: str, rows: dict[str, dict[str, float]]) -> None:
    columns = list(next(iter(rows.values())))
    table = Table(first, *columns, title=title)
    for name, row in rows.items():
        table.add_row(name, *(f"{row[column]:.4f}" for column in columns))
    Console(width=160).print(table)


if __name__ == "__main__":
    try:
        main()
    except NightshelfError as error:
        sys.stderr.write(f"nightshelf: {error}\n")
        sys.exit(error.exit_code)
