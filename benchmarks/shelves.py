"""make bench-shelves: how fast the nearest items of a catalogue are found, beside other programs, and whole shelves are made.

Search of the 500 items with the largest inner product, vectors of 64 numbers, over 20,000, 200,000 and 1,000,000 items: ours,
exact (training/retrieval/nearest.py) and in cells (training/retrieval/cells.py), faiss' flat index, implicit's recommend, and
a product with a topk in torch. Each in a process of its own with the same number of threads, taking turns round by round;
medians are printed, the ratios are the medians of each round's: ours over the best of the others, cells over ours. The last row
says with which power of the catalogue a search's time grows, from 200,000 to 1,000,000 items.

Then the stage `recommend` of 100,000 users, six scenarios and 50,000 items (benchmarks/whole_shelves.py), and half of its
users served alone, for the power with which that time grows; what it reads is made once, below --home, in a quarter of an hour.

  make bench-shelves         (or: .venv/jobs/bin/python -m benchmarks.shelves --threads 1; the search alone: --users 0)
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.growth import exponent
from benchmarks.whole_shelves import whole_shelves
from nightshelf.parallel import cores

PEERS = ("torch", "faiss", "implicit")
PROGRAMS = ("ours", "cells", *PEERS)
SIZES = {"20k": (20_000, 8192), "200k": (200_000, 1536), "1m": (1_000_000, 384)}
MORE_USERS = 16  # where little is searched, more users are asked for: else the clock would tell nothing

Trial = dict[str, dict[str, float]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of the search")
    parser.add_argument("--threads", type=int, default=cores(), help="of the search")
    parser.add_argument("--users", type=int, default=100_000, help="of the whole shelves; 0 leaves them out")
    parser.add_argument("--items", type=int, default=50_000, help="of the whole shelves")
    parser.add_argument("--home", type=Path, default=Path("var/bench-shelves"))
    asked = parser.parse_args()
    parts: list[dict[str, Any]] = [_search(asked.rounds, asked.threads)] if asked.rounds else []
    if asked.users:
        home = asked.home.absolute() / f"{asked.users}x{asked.items}"
        parts.append(whole_shelves(home, asked.users, asked.items))
    growth = {what: power for part in parts for what, power in part.pop("growth").items()}
    print(json.dumps({name: value for part in parts for name, value in part.items()} | {"growth": growth}))


def _search(count: int, threads: int) -> dict[str, Any]:
    rounds: dict[str, list[Trial]] = {
        size: [{name: _trial(name, *counts, threads) for name in PROGRAMS} for _ in range(count)]
        for size, counts in SIZES.items()
    }
    table = Table("catalogue", *(f"{name}, users/s" for name in PROGRAMS), "over the best peer", "cells over exact")
    ratios, speedups, recalls = {}, {}, {}
    for size, trials in rounds.items():
        rates = (statistics.median(_rate(trial, name) for trial in trials) for name in PROGRAMS)
        ratios[size] = _median(trials, lambda trial: _rate(trial, "ours") / max(_rate(trial, peer) for peer in PEERS))
        speedups[size] = _median(trials, lambda trial: _rate(trial, "cells") / _rate(trial, "ours"))
        recalls[size] = round(min(trial["cells"]["recall"] for trial in trials), 4)
        table.add_row(size, *(f"{rate:,.0f}" for rate in rates), f"{ratios[size]:.2f}", f"{speedups[size]:.2f}")
    powers = {name: _power(rounds, name) for name in PROGRAMS}
    table.add_row("power", *(f"{power:.2f}" for power in powers.values()), "", "")
    Console(stderr=True, width=140).print(table)
    exact = [
        trial[name]["recall"] for trials in rounds.values() for trial in trials for name in trial if name != "cells"
    ]
    laid_out = max(trial["cells"]["laid_out_s"] for trial in rounds["1m"])
    return {
        "retrieval_ratio_best_peer": ratios,
        "least_recall": min(exact),
        "ann_recall": recalls,
        "ann_speedup": speedups,
        "ann_laid_out_s": round(laid_out, 1),
        "threads": threads,
        "growth": {"items_exact": powers["ours"], "items_in_cells": powers["cells"]},
    }


def _power(rounds: dict[str, list[Trial]], name: str) -> float:
    """Return how a program's time grows with the catalogue: the median of the rounds' exponents."""
    small, large = "200k", "1m"
    return statistics.median(
        exponent((SIZES[small][0], 1 / _rate(few, name)), (SIZES[large][0], 1 / _rate(many, name)))
        for few, many in zip(rounds[small], rounds[large], strict=True)
    )


def _rate(trial: Trial, name: str) -> float:
    return trial[name]["users_per_s"]


def _median(trials: list[Trial], ratio: Callable[[Trial], float]) -> float:
    return round(statistics.median(ratio(trial) for trial in trials), 2)


def _trial(name: str, items: int, users: int, threads: int) -> dict[str, float]:
    """Run one program in a process of its own."""
    count, users = str(threads), users * (MORE_USERS if name == "cells" else 1)
    limits = {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    done = subprocess.run(
        [".venv/implicit/bin/python", "-m", "benchmarks.item_search", name, str(items), str(users), count],
        env=os.environ | limits,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{name} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
