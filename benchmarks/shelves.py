"""make bench-shelves: how fast the nearest items of a catalogue are found, beside other programs.

Exact search of the 500 items with the largest inner product, vectors of 64 numbers, over 20,000, 200,000 and 1,000,000
items: ours (training/retrieval/nearest.py), faiss' flat index, implicit's recommend, and a product with a topk in torch.
Each in a process of its own with the same number of threads, taking turns round by round; medians are printed, the ratio is
the median of each round's.

  make bench-shelves         (or: .venv/jobs/bin/python -m benchmarks.shelves --threads 1)
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from nightshelf.parallel import cores

PEERS = ("torch", "faiss", "implicit")
SIZES = {"20k": (20_000, 8192), "200k": (200_000, 1536), "1m": (1_000_000, 384)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cores())
    asked = parser.parse_args()
    rounds = {
        size: [{name: _trial(name, *counts, asked.threads) for name in ("ours", *PEERS)} for _ in range(asked.rounds)]
        for size, counts in SIZES.items()
    }
    table = Table("catalogue", *(f"{name}, users/s" for name in ("ours", *PEERS)), "over the best peer")
    ratios = {}
    for size, trials in rounds.items():
        rates = {name: statistics.median(trial[name]["users_per_s"] for trial in trials) for name in trials[0]}
        best = (max(trial[peer]["users_per_s"] for peer in PEERS) for trial in trials)
        ratios[size] = round(
            statistics.median(trial["ours"]["users_per_s"] / peer for trial, peer in zip(trials, best, strict=True)), 2
        )
        table.add_row(size, *(f"{rate:,.0f}" for rate in rates.values()), f"{ratios[size]:.2f}")
    Console(stderr=True).print(table)
    worst = min(trial[name]["recall"] for trials in rounds.values() for trial in trials for name in trial)
    print(json.dumps({"retrieval_ratio_best_peer": ratios, "least_recall": worst, "threads": asked.threads}))


def _trial(name: str, items: int, users: int, threads: int) -> dict[str, float]:
    """Run one program in a process of its own."""
    count = str(threads)
    limits = {"OMP_NUM_THREADS": count, "OPENBLAS_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    done = subprocess.run(
        [".venv/peers/bin/python", "-m", "benchmarks.exact_search", name, str(items), str(users), count],
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
