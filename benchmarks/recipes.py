"""make bench-recipes: backbones, balances, sequence encoders and task relations on one night, beside models that share nothing.

Trains the shop's recipe on the night's features (run the stages until `features` before), each time with one part exchanged.
A model is measured by its GAUC on the test days, the mean over scenario x task (of 30 users and more), and in the smallest
scenario, with the difference from the controls and its 95 % bounds by users and, with several --seeds, by trainings: one does
not tell what chance did in it. Controls are a network for each task and one for
each scenario, which share the first vectors and the histories; with --alone also a model for each task, and one for each
scenario, which share nothing. Where a model loses to a control in a scenario and task beyond chance, that is told. Prints a
table and one JSON line.

  make bench-recipes        (or: .venv/jobs/bin/python -m benchmarks.recipes --shop F --as-of-date D --only mmoe star)
"""

import argparse
import datetime as dt
import json
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from nightshelf.config import Shop, load_shop
from nightshelf.errors import InputError, NightshelfError
from nightshelf.logs import configure_logging
from pipelines.stage import Night
from pipelines.train import training_inputs
from pipelines.warehouse import Warehouse
from training.bootstrap import percentile_bounds, user_draws
from training.data import TrainingInputs
from training.evaluate import gauc_by_user
from training.recipe import Recipe, load_recipe
from training.train_ranker import train_ranker

CONTROLS = ("single_task", "single_scenario")
ALONE = ("task_alone", "scenario_alone")
BACKBONES = (
    *CONTROLS,
    "shared_bottom",
    "cross_stitch",
    "mmoe",
    "ple",
    "star",
    "adl",
    "sar_net",
    "adasparse",
    "epnet",
    "ppnet",
    "pepnet",
    "m2m",
    "hinet",
    "hamur",
    "m3oe",
)
BALANCES = ("equal", "uncertainty", "dwa", "gradnorm", "famo", "pcgrad", "mgda", "cagrad", "upgrad")
RELATIONS = ("independent", "aitm", "escm2_ipw", "escm2_dr", "dcmt")
ENCODERS = ("mean_pooling", "target_attention", "din", "gru", "convolution", "transformer", "hstu")
REPLICATES = 500
LEAST_USERS = 30


@dataclass
class Trained:
    """GAUC by user [users], NaN where there is none, with the users' weights, per scenario and task; one pair a seed."""

    gauc: list[dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]]
    rows_per_s: float

    def replicates(self, cells: list[tuple[str, str]], draws: np.ndarray) -> np.ndarray:
        """Return the mean GAUC over cells and seeds, for all users and seeds once each, then for draws of both: [1 + draws].

        Of several seeds each draw takes as many, the same ones for every model, so that a difference of two models is as unsure
        as their trainings make it. Draws of n seeds spread too little, by √(n - 1) / √n, which is made up for.
        """
        every = np.vstack([np.ones(draws.shape[1]), draws])
        by_seed = []
        for found in self.gauc:
            means = []
            for cell in cells:
                value, weight = found[cell]
                counted = np.where(np.isfinite(value), weight, 0.0)
                means.append((every @ (np.nan_to_num(value) * counted)) / (every @ counted))
            by_seed.append(np.mean(means, axis=0))
        mean, seeds = np.mean(by_seed, axis=0), len(by_seed)
        if seeds > 1:
            drawn = np.random.default_rng(0).integers(0, seeds, (len(draws), seeds))
            of_drawn = np.take_along_axis(np.stack(by_seed, 1)[1:], drawn, axis=1).mean(1)
            mean[1:] += (of_drawn - mean[1:]) * np.sqrt(seeds / (seeds - 1))
        return mean


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shop", type=Path, default=Path("conf/shops/demo.yaml"))
    parser.add_argument("--as-of-date", type=dt.date.fromisoformat, default=dt.date(2026, 2, 14))
    parser.add_argument("--only", nargs="+", help="these variants beside the controls, by default all")
    parser.add_argument("--alone", action="store_true", help="controls that share nothing, beside the others")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each variant")
    asked = parser.parse_args()
    configure_logging()
    shop = load_shop(asked.shop)
    inputs = training_inputs(Night(shop, asked.as_of_date, Warehouse(shop), "bench-recipes"))
    chosen = variants(load_recipe(shop.model))
    names = [name for name in chosen if not asked.only or name in (*asked.only, *CONTROLS)]
    trained = {
        name: _train_apart(name, load_recipe(shop.model), shop, inputs, asked.seeds) for name in ALONE if asked.alone
    }
    for name in names:
        print(f"{name} ({names.index(name) + 1} of {len(names)}) …", file=sys.stderr, flush=True)
        trained[name] = _train(chosen[name], shop, inputs, asked.seeds)
    report(trained, _smallest(trained))


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """Return the recipe with each backbone, with a tower for each scenario, with each balance, sequence encoder and relation."""
    plain = recipe.model_dump() | {"warm_start": False}
    changes: dict[str, dict[str, object]] = {name: {"backbone": {"kind": name}} for name in BACKBONES}
    changes["ple, towers by scenario"] = {"backbone": {"kind": "ple"}, "towers": "scenario"}
    changes |= {f"ple, {name}": {"backbone": {"kind": "ple"}, "balancing": name} for name in BALANCES}
    changes |= {f"ple, {name}": {"backbone": {"kind": "ple"}, "sequence_encoder": {"kind": name}} for name in ENCODERS}
    changes |= {f"ple, {name}": {"backbone": {"kind": "ple"}, "task_relation": name} for name in RELATIONS}
    return {name: Recipe.model_validate(plain | change) for name, change in changes.items()}


def _train(recipe: Recipe, shop: Shop, inputs: TrainingInputs, seeds: int) -> Trained:
    found, pace = [], []
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as folder:
            own = recipe.model_copy(update={"seed": seed})
            started = time.perf_counter()
            report = train_ranker(shop, own, inputs, Path(folder))
            pace.append(max(row["rows_per_s"] for row in report.epochs))
            found.append(gauc_by_user(Path(folder), shop, inputs))
            seconds = time.perf_counter() - started
            print(
                f"  seed {seed}: {_mean_gauc(Trained(found[-1:], 0)):.4f}, {seconds:.0f} s", file=sys.stderr, flush=True
            )
    return Trained(found, max(pace))


def _train_apart(name: str, recipe: Recipe, shop: Shop, inputs: TrainingInputs, seeds: int) -> Trained:
    """Train a model for each task, or on the rows of each scenario, and take from each the cells that it was made for."""
    binary = [task for task, of in shop.tasks.items() if of.kind == "binary"]
    found: list[dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]] = [{} for _ in range(seeds)]
    for part in binary if name == "task_alone" else shop.scenarios:
        print(f"{name}: {part} …", file=sys.stderr, flush=True)
        own = recipe.model_copy(update={"warm_start": False})
        with tempfile.TemporaryDirectory() as folder:
            rows = inputs
            if name == "task_alone":
                only = {task: float(task == part) for task in shop.tasks}
                own = own.model_copy(
                    update={"balancing": "fixed", "task_weights": only, "task_relation": "independent"}
                )
            else:
                rows = replace(inputs, training_examples=_of_scenario(inputs, part, Path(folder)))
            for seed in range(1, seeds + 1):
                model = Path(folder) / f"seed-{seed}"
                train_ranker(shop, own.model_copy(update={"seed": seed}), rows, model)
                for (scenario, task), values in gauc_by_user(model, shop, inputs).items():
                    if part == (task if name == "task_alone" else scenario):
                        found[seed - 1][scenario, task] = values
    return Trained(found, float("nan"))


def _of_scenario(inputs: TrainingInputs, scenario: str, folder: Path) -> list[Path]:
    """Write the examples of one scenario into files of their own."""
    files = []
    for number, file in enumerate(inputs.training_examples):
        files.append(folder / f"{number}.parquet")
        pq.write_table(pq.read_table(file, filters=[("scenario", "==", scenario)]), files[-1])
    return files


def _mean_gauc(model: Trained) -> float:
    cells = measured_cells(model)
    users = len(model.gauc[0][cells[0]][0])
    return float(model.replicates(cells, np.empty((0, users)))[0])


def measured_cells(model: Trained) -> list[tuple[str, str]]:
    """Return the scenarios and tasks in which enough users have a row with the outcome and one without.

    Raises:
        InputError: there is none.
    """
    each = model.gauc[0].items()
    cells = [cell for cell, (value, weight) in each if (np.isfinite(value) & (weight > 0)).sum() >= LEAST_USERS]
    if not cells:
        raise InputError(
            f"no scenario and task has {LEAST_USERS} users with an AUC on the test days; take a larger shop"
        )
    return cells


def _smallest(trained: dict[str, Trained]) -> str:
    """Return the measured scenario with the least weight of users with an AUC."""
    model, weights = next(iter(trained.values())), {}
    for scenario, task in measured_cells(model):
        value, weight = model.gauc[0][scenario, task]
        weights[scenario] = weights.get(scenario, 0.0) + float(weight[np.isfinite(value)].sum())
    return min(weights, key=lambda name: weights[name])


def report(trained: dict[str, Trained], smallest: str) -> None:
    """Print the table, where models lose, and the JSON line."""
    model = next(iter(trained.values()))
    first, cells = model.gauc[0], measured_cells(model)
    for scenario, task in set(first) - set(cells):
        print(f"{scenario} x {task} is left out: fewer than {LEAST_USERS} users have an AUC there", file=sys.stderr)
    draws = user_draws(len(first[cells[0]][0]), 0, REPLICATES)
    of_smallest = [cell for cell in cells if cell[0] == smallest]
    controls = {name: trained[name] for name in (*CONTROLS, *ALONE) if name in trained}
    table = Table("model", "GAUC", *(f"− {name}" for name in controls), f"GAUC {smallest}", *("−" for _ in controls))
    line: dict[str, object] = {}
    for name, model in trained.items():
        told: dict[str, object] = {"rows_per_s": round(model.rows_per_s)} if np.isfinite(model.rows_per_s) else {}
        row = [name]
        for part, where in (("gauc", cells), (f"gauc_{smallest}", of_smallest)):
            own = model.replicates(where, draws)
            told[part] = round(float(own[0]), 4)
            row.append(f"{own[0]:.4f}")
            for control, other in controls.items():
                low, high = _bounds(own - other.replicates(where, draws))
                difference = float(own[0] - other.replicates(where, draws)[0])
                told[f"{part}_over_{control}"] = [round(number, 4) for number in (difference, low, high)]
                row.append(f"{difference:+.4f} ({low:+.4f} … {high:+.4f})")
        told["loses"] = losses = _losses(model, controls, cells, draws)
        line[name] = told
        table.add_row(*row)
        for loss in losses:
            print(f"{name} loses to {loss}", file=sys.stderr)
    Console(stderr=True, width=180).print(table)
    print(json.dumps(line))


def _bounds(replicates: np.ndarray) -> tuple[float, float]:
    return percentile_bounds(replicates[1:]) or (float("nan"), float("nan"))


def _losses(model: Trained, controls: dict[str, Trained], cells: list[tuple[str, str]], draws: np.ndarray) -> list[str]:
    """Name each control, scenario and task where the model is worse beyond chance: negative transfer."""
    found = []
    for control, other in controls.items():
        for cell in cells:
            difference = model.replicates([cell], draws) - other.replicates([cell], draws)
            low, high = _bounds(difference)
            if high < 0:
                found.append(f"{control} in {cell[0]} x {cell[1]}: {difference[0]:+.4f} ({low:+.4f} … {high:+.4f})")
    return found


if __name__ == "__main__":
    try:
        main()
    except NightshelfError as error:
        sys.exit(str(error))
