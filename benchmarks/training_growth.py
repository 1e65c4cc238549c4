"""How the time of a training step grows: with the rows, and with tasks x scenarios. Prints JSON; bench-training calls it.

The plain table's columns, with as many labels and scenarios as are asked for; a tower for each task in each scenario. One thread,
sizes in turns, and of each the fastest round counts.
"""

import json
import time
from functools import cache
from itertools import product

import torch
from torch import nn

from benchmarks.growth import exponent
from benchmarks.plain_table import DENSE, EMBEDDING, EXPERT_SIZES, EXPERTS, FIELDS, LABELS, TOWER_SIZES, draw_rows
from benchmarks.tabular import Columns, TabularModel, train_epoch
from training.backbone_sizes import MMoESizes, PEPNetSizes, PLESizes
from training.backbones import make_backbone
from training.columns import stack
from training.optimizers import make_optimizers
from training.recipe import Recipe
from training.spec import TaskSpec

_SIZES = {
    "mmoe": MMoESizes(kind="mmoe", experts=EXPERTS, expert_sizes=EXPERT_SIZES),
    "ple": PLESizes(kind="ple", shared_experts=EXPERTS, task_experts=1, expert_sizes=EXPERT_SIZES),
    "pepnet": PEPNetSizes(kind="pepnet", input=64, sizes=EXPERT_SIZES),
}
_ROWS, _BATCH, _ROUNDS = 40_000, 2048, 3
_COUNTS = (2, 8)  # of tasks, and of scenarios


def main() -> None:
    """Measure and print: exponents of seconds against rows, and against tasks x scenarios by backbone."""
    torch.set_num_threads(1)
    pairs = [(_ROWS, kind, tasks, scenarios) for kind in _SIZES for tasks, scenarios in product(_COUNTS, _COUNTS)]
    rounds = [{setting: _seconds(*setting) for setting in [(4 * _ROWS, "mmoe", 2, 2), *pairs]} for _ in range(_ROUNDS)]
    seconds = {setting: min(of[setting] for of in rounds) for setting in rounds[0]}
    few, many = ((size, seconds[size, "mmoe", 2, 2]) for size in (_ROWS, 4 * _ROWS))
    of_pairs = {kind: exponent(*((n * n, seconds[_ROWS, kind, n, n]) for n in _COUNTS)) for kind in _SIZES}
    told = {
        f"{kind}, {tasks} x {scenarios}": round(seconds[of], 3) for of in pairs for _, kind, tasks, scenarios in [of]
    }
    print(json.dumps({"rows": exponent(few, many), "tasks_x_scenarios": of_pairs, "seconds": told}))


def _seconds(rows: int, kind: str, tasks: int, scenarios: int) -> float:
    """Return the seconds of an epoch of a new model."""
    torch.manual_seed(1)
    columns, specs = _columns(rows, tasks, scenarios), [TaskSpec(name=f"t{n}", kind="binary") for n in range(tasks)]
    backbone = make_backbone(_SIZES[kind], tasks, scenarios, dropout=0.0)
    model = TabularModel(
        FIELDS, len(DENSE), specs, EMBEDDING, backbone, TOWER_SIZES, scenarios, tower_per_scenario=True
    )
    optimizers = make_optimizers(model, nn.Module(), Recipe(name="plain"))
    started = time.perf_counter()
    train_epoch(model, columns, optimizers, _BATCH, seed=1, epoch=0)
    return time.perf_counter() - started


@cache
def _columns(rows: int, tasks: int, scenarios: int) -> Columns:
    """Return drawn rows, whose labels are repeated for further tasks, in scenarios by turns."""
    table = draw_rows(rows, seed=1)
    ids, dense = (
        torch.from_numpy(stack(table, names, kind)) for names, kind in ((list(FIELDS), "int32"), (DENSE, "float32"))
    )
    labels = torch.from_numpy(stack(table, LABELS, "float32")).repeat(1, -(-tasks // len(LABELS)))[:, :tasks]
    return Columns(ids, dense, labels.contiguous(), 1 + torch.arange(rows) % scenarios)


if __name__ == "__main__":
    main()
