"""make bench-movielens: every backbone by the published protocol of Scenario-Wise-Rec on MovieLens-1M, and by our own.

The first protocol (benchmarks/movielens_protocol.py): mean and spread of the test AUC over seeds beside the paper's figure and a
re-run of its authors' code; the best is the one with the best AUC on the validation rows. The second is what the product does: a
night of the shop `movielens` with all of its features (genres, histories), split by time, each backbone in its default sizes; AUC
of `like` on the test days, mean and spread over seeds. Prints one JSON line last.

  make bench-movielens      (or: .venv/jobs/bin/python -m benchmarks.movielens --seeds 3 --only mmoe star)
"""

import argparse
import datetime as dt
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.movielens_protocol import COLUMNS, ENTRIES, Found, read_ratings, train
from benchmarks.recipes import BACKBONES, variants
from nightshelf.config import load_shop
from nightshelf.errors import NightshelfError
from pipelines.fetch import fetch, wheel_of
from pipelines.night import run_night
from pipelines.stage import Night
from pipelines.train import training_inputs
from pipelines.warehouse import Warehouse
from training.evaluate import evaluate
from training.recipe import load_recipe
from training.train_ranker import train_ranker
from training.workers import flush_tiny_numbers

NIGHT = dt.date(2000, 11, 30)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("var/bench-movielens"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30, help="at most so many")
    parser.add_argument("--only", nargs="+", help="these models, by default all")
    parser.add_argument("--skip-temporal", action="store_true", help="leave the product's own protocol out")
    asked = parser.parse_args()
    flush_tiny_numbers()
    home = asked.home.absolute()
    names = [name for name in ENTRIES if not asked.only or name in asked.only]
    columns = read_ratings(wheel_of("movielens", home))
    fields = {name: int(top) + 1 for name, top in zip(COLUMNS, columns.ids.amax(0), strict=True)}
    found: dict[str, list[Found]] = {}
    for seed, name in itertools.product(range(1, asked.seeds + 1), names):
        started = time.perf_counter()
        found.setdefault(name, []).append(one := train(ENTRIES[name], columns, fields, seed, asked.epochs))
        seconds = time.perf_counter() - started
        told = (
            f"{name}, seed {seed}: AUC {one.auc:.4f}, log loss {one.logloss:.4f}, {one.epochs} epochs, {seconds:.0f} s"
        )
        print(told, file=sys.stderr, flush=True)
    temporal = {} if asked.skip_temporal else _temporal(home, names, asked.seeds)
    _print(found, temporal)


def _temporal(home: Path, names: list[str], seeds: int) -> dict[str, list[float]]:
    """Return the AUC of `like` on the test days of a night, by backbone and seed."""
    file = home / "movielens.yaml"
    if not file.exists():
        fetch("movielens", home)
    shop, date = load_shop(file), NIGHT
    warehouse = Warehouse(shop)
    if date not in warehouse.partitions("normalization"):
        run_night(shop, date, last="features")
    inputs, recipes = (
        training_inputs(Night(shop, date, warehouse, "bench-movielens")),
        variants(load_recipe(shop.model)),
    )
    found: dict[str, list[float]] = {}
    for seed, name in itertools.product(range(1, seeds + 1), (name for name in names if name in BACKBONES)):
        with tempfile.TemporaryDirectory() as folder:
            train_ranker(shop, recipes[name].model_copy(update={"seed": seed}), inputs, Path(folder))
            rows = evaluate(Path(folder), shop, inputs)
        auc = next(
            float(str(row["value"]))
            for row in rows
            if (row["scenario"], row["task"], row["metric"]) == ("*", "like", "auc")
        )
        found.setdefault(name, []).append(auc)
        print(f"{name}, seed {seed}, split by time: AUC {auc:.4f}", file=sys.stderr, flush=True)
    return found


def _print(found: dict[str, list[Found]], temporal: dict[str, list[float]]) -> None:
    columns = (
        "validation",
        "AUC",
        "±",
        "log loss",
        "18 and under",
        "25",
        "35 and over",
        "paper",
        "re-run",
        "by time",
        "±",
    )
    table, recipes = Table("model", *columns), {}
    for name, runs in found.items():
        entry, (auc, spread) = ENTRIES[name], _over_seeds([run.auc for run in runs])
        validation, loss = (float(np.mean([getattr(run, of) for run in runs])) for of in ("validation_auc", "logloss"))
        each = np.mean([run.by_scenario for run in runs], axis=0)
        numbers = [
            validation,
            auc,
            spread,
            loss,
            *each,
            entry.paper,
            entry.re_run,
            *_over_seeds(temporal.get(name, [])),
        ]
        table.add_row(name, *("–" if number is None else f"{number:.4f}" for number in numbers))
        recipes[name] = {"validation_auc": validation, "auc": auc, "spread": spread, "logloss": loss}
    Console(stderr=True, width=160).print(table)
    best = max(recipes.values(), key=lambda recipe: recipe["validation_auc"])["auc"]
    by_time = {name: dict(zip(("auc", "spread"), _over_seeds(aucs), strict=True)) for name, aucs in temporal.items()}
    line = {"best_auc": best, "recipes": recipes, "temporal": by_time}
    print(json.dumps(json.loads(json.dumps(line), parse_float=lambda text: round(float(text), 4))))


def _over_seeds(aucs: list[float]) -> tuple[float | None, float | None]:
    """Return mean and standard deviation, None where there is nothing to know them from."""
    return (float(np.mean(aucs)) if aucs else None), (float(np.std(aucs, ddof=1)) if len(aucs) > 1 else None)


if __name__ == "__main__":
    try:
        main()
    except NightshelfError as error:
        sys.exit(str(error))
