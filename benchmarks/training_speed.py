"""make bench-training: the ranker's parts beside torch-rechub, deepctr-torch and fuxictr, on one table of plain columns.

One MMoE (4 experts of 64 and 32 units, linear gates, towers of 16) for two tasks over 20 categorical columns of 5,000 ids
(embedding 16) and 5 dense ones. Every program trains once over the same rows with its own loader, trainer and default rates,
in a process and with one thread of its own (fuxictr's loader adds a process, as it does by default), and predicts rows that
it never saw. Ours multiplies in bfloat16 where the processor has instructions for it (a recipe's `precision: bfloat16`), the
others in float32, which is what they offer; "ours, averaged" also clips gradients and averages weights, as the ranker does.
Programs take turns, round by round, so that a slow spell of the machine hits all; medians are printed, and the ratios are
medians of each round's. Rates are rows a second: `load` reads the file and gives every batch once, `train` and `predict` begin
when the file is read. The ratios are those of `train`, by rows a step; the AUC is the mean of both tasks. Last, `growth` tells
with which power of the rows, and of tasks x scenarios, the time of our training grows.

  make bench-training        (or: .venv/jobs/bin/python -m benchmarks.training_speed --threads 2)
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.plain_table import write_plain_table

PROGRAMS = {
    "ours": (".venv/jobs/bin/python", "benchmarks.ours"),
    "ours, averaged": (".venv/jobs/bin/python", "benchmarks.ours_averaged"),
    "rechub": (".venv/rechub/bin/python", "benchmarks.peers.rechub"),
    "deepctr": (".venv/deepctr/bin/python", "benchmarks.peers.deepctr"),
    "fuxictr": (".venv/fuxictr/bin/python", "benchmarks.peers.fuxictr"),
}
OURS = ("ours", "ours, averaged")
PEERS = ("rechub", "deepctr", "fuxictr")
PARTS = ("load", "train", "predict")
Trial = dict[str, float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("var/bench-training"))
    parser.add_argument("--rows", type=int, default=500_000, help="train rows; a fifth as many are held out")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[2048, 16384])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of each program's torch")
    asked = parser.parse_args()
    seeds = range(1, asked.rounds + 1)
    folder = write_plain_table(asked.home, asked.rows, asked.rows // 5, seed=1)
    rounds = {
        size: [{name: _trial(name, folder, size, seed, asked.threads) for name in PROGRAMS} for seed in seeds]
        for size in asked.batch_sizes
    }
    found = {size: medians_of(trials) for size, trials in rounds.items()}
    _print(found)
    ratios = {name: {str(size): ratios_of(trials, name) for size, trials in rounds.items()} for name in OURS}
    grown = _last_line([PROGRAMS["ours"][0], "-m", "benchmarks.training_growth"], threads=1)
    print(json.dumps(json_line(found, ratios) | {"growth": grown}))


def _trial(name: str, folder: Path, batch_size: int, seed: int, threads: int) -> Trial:
    """Run one program in a process of its own."""
    python, module = PROGRAMS[name]
    command = [python, "-m", module, str(folder), str(batch_size), str(seed), str(threads)]
    trial: Trial = _last_line(command, threads)
    trial["auc"] = statistics.mean(trial["auc"])
    return trial


def _last_line(command: list[str], threads: int) -> Any:
    """Run a program with so many threads of OpenMP and return the JSON of its last line."""
    print(" ".join(command), file=sys.stderr, flush=True)
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def medians_of(rounds: list[dict[str, Trial]]) -> dict[str, Trial]:
    """Return each program's median of each number."""
    names, keys = rounds[0], next(iter(rounds[0].values()))
    return {name: {key: statistics.median(trials[name][key] for trials in rounds) for key in keys} for name in names}


def ratios_of(rounds: list[dict[str, Trial]], ours: str) -> tuple[float, float]:
    """Return our rate of training over torch-rechub's, and over the fastest peer's: the medians of the rounds'."""
    rechub = [trials[ours]["train"] / trials["rechub"]["train"] for trials in rounds]
    fastest = [trials[ours]["train"] / max(trials[name]["train"] for name in PEERS) for trials in rounds]
    return round(statistics.median(rechub), 2), round(statistics.median(fastest), 2)


def json_line(
    found: dict[int, dict[str, Trial]], ratios: dict[str, dict[str, tuple[float, float]]]
) -> dict[str, object]:
    """Return the last line: medians by rows a step, and what is told of the first of them alone."""
    rates = {
        part: {name: {str(size): round(of[name][part]) for size, of in found.items()} for name in PROGRAMS}
        for part in PARTS
    }
    first = next(iter(found.values()))
    peaks = {name: round(max(of[name]["peak_gb"] for of in found.values()), 2) for name in PROGRAMS}
    return {
        "rows_per_s": rates["train"],
        "ratio_rechub": {size: of[0] for size, of in ratios["ours"].items()},
        "ratio_fastest_peer": {size: of[1] for size, of in ratios["ours"].items()},
        "averaged_ratio_fastest_peer": {size: of[1] for size, of in ratios["ours, averaged"].items()},
        "auc_ours": round(first["ours"]["auc"], 4),
        "auc_best_peer": round(max(first[name]["auc"] for name in PEERS), 4),
        "peak_gb": peaks["ours"],
        "peak_gb_peers": {name: peaks[name] for name in PEERS},
        "load_rows_per_s": rates["load"],
        "predict_rows_per_s": rates["predict"],
    }


def _print(found: dict[int, dict[str, Trial]]) -> None:
    table = Table("rows a step", "program", *(f"{part}, rows/s" for part in PARTS), "AUC", "peak GB")
    for size, of in found.items():
        for name, trial in of.items():
            rates = (f"{trial[part]:,.0f}" for part in PARTS)
            table.add_row(f"{size:,}", name, *rates, f"{trial['auc']:.4f}", f"{trial['peak_gb']:.2f}")
    Console(stderr=True, width=110).print(table)


if __name__ == "__main__":
    main()
