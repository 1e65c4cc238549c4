"""make bench-features: raw logs to training examples, at several sizes, beside DuckDB doing the same work.

Per size: the stages clean and features of the last day of 30, each in a process of its own, its start included, as a shop's
first night runs them. Then, at the size that --compare names, the night after it (incremental_share = that night / the
rebuild of 30 days), the same two nights on the embedded engine, and DuckDB, which reads the same files and makes the same
tables. The skew is measured at the least size; events_per_s counts the events of the 30 days. Prints a table and one JSON
line. Logs are made once and kept below --home. 50 million events take an hour of the hour and a half on two cores, and 45 GB.

  make bench-features        (or, without them: .venv/jobs/bin/python -m benchmarks.features --events 1 10)
"""

import argparse
import datetime as dt
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.big_log import FIRST_DAY, write_big_log
from benchmarks.growth import exponent
from benchmarks.processes import stage, timed

HISTORY = 30
MADE = ("warehouse", "logs", "tmp")


@dataclass
class Run:
    """Seconds and peak memory (GB) of one part of the benchmark."""

    name: str
    seconds: dict[str, float]
    peak_gb: float

    @property
    def total(self) -> float:
        """Return the seconds of all parts."""
        return sum(self.seconds.values())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("var/bench-features"))
    parser.add_argument("--events", type=int, nargs="+", default=[1, 10, 50], help="sizes in million events")
    parser.add_argument("--compare", type=int, help="size of the comparison with DuckDB; by default 10, or the largest")
    parser.add_argument("--skip-skew", action="store_true", help="leave the skewed logs out")
    asked = parser.parse_args()
    home, sizes = asked.home.absolute(), sorted(asked.events)
    compared = asked.compare or (10 if 10 in sizes else sizes[-1])
    runs: dict[str, Run] = {}
    for millions in sizes:
        shop = _logs(home, millions)
        runs[f"{millions}m"] = _night(f"{millions}m", shop, HISTORY, fresh=True)
        if millions == compared:
            runs["night after"] = _night("night after", shop, HISTORY + 1, fresh=False)
            on_sail = _on_sail(shop)
            runs["sail"] = _night("sail", on_sail, HISTORY, fresh=True)
            runs["sail night after"] = _night("sail night after", on_sail, HISTORY + 1, fresh=False)
            runs["duckdb"] = _duckdb(shop)
    if not asked.skip_skew:
        # Beside a run of the same minutes: the first of all pays for a cold machine.
        runs["even"] = _night("even", _logs(home, sizes[0]), HISTORY, fresh=True)
        runs["skewed"] = _night("skewed", _logs(home, sizes[0], skewed=True), HISTORY, fresh=True)
    _print(runs)
    print(json.dumps(_line(runs, sizes, compared)))


def _logs(home: Path, millions: int, skewed: bool = False) -> Path:
    folder = home / f"{millions}m{'-skewed' if skewed else ''}"
    print(f"logs of {millions} million events{' with skew' if skewed else ''} …", file=sys.stderr, flush=True)
    return write_big_log(folder, millions * 1_000_000, HISTORY + 1, HISTORY, skewed)


def _on_sail(shop: Path) -> Path:
    """Return a shop with the same logs in a home of its own, whose engine is Sail."""
    content = yaml.safe_load(shop.read_text())
    home = shop.parent / "sail"
    home.mkdir(exist_ok=True)
    (home / "raw").unlink(missing_ok=True)
    (home / "raw").symlink_to(shop.parent / "raw")
    content |= {"home": str(home), "spark": {"engine": "sail"}}
    (home / "shop.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return home / "shop.yaml"


def _night(name: str, shop: Path, day: int, fresh: bool) -> Run:
    for folder in MADE if fresh else ():
        shutil.rmtree(shop.parent / folder, ignore_errors=True)
    date, seconds, peak = str(FIRST_DAY + dt.timedelta(days=day - 1)), {}, 0.0
    for part in ("clean", "features"):
        run = timed(stage(part, str(shop), date))
        seconds[part], peak = run.seconds, max(peak, run.peak_gb)
    return Run(name, seconds, peak)


def _duckdb(shop: Path) -> Run:
    command = [
        sys.executable,
        "-m",
        "benchmarks.duckdb_night",
        str(shop),
        str(FIRST_DAY + dt.timedelta(days=HISTORY - 1)),
    ]
    run = timed(command)
    return Run("duckdb", {"all": run.seconds}, run.peak_gb)


def _line(runs: dict[str, Run], sizes: list[int], compared: int) -> dict[str, object]:
    whole = {millions: runs[f"{millions}m"].total for millions in sizes}
    first = 1e6 * HISTORY / (HISTORY + 1)  # of a million events those of the first night's days
    line: dict[str, object] = {
        "events_per_s": {f"{millions}m": round(millions * first / seconds) for millions, seconds in whole.items()}
    }
    if len(sizes) > 1:
        small, large = sizes[0], sizes[-1]
        line["exponent"] = exponent((small, whole[small]), (large, whole[large]))
    engines = {"spark": runs[f"{compared}m"], "sail": runs["sail"]}
    line[f"duckdb_ratio_{compared}m"] = {
        name: round(run.total / runs["duckdb"].total, 2) for name, run in engines.items()
    }
    nights_after = {"spark": runs["night after"], "sail": runs["sail night after"]}
    line["incremental_share"] = {
        name: round(night.total / engines[name].total, 3) for name, night in nights_after.items()
    }
    if "skewed" in runs:
        line["skew_factor"] = round(runs["skewed"].total / runs["even"].total, 2)
    line["peak_gb"] = {name: round(run.peak_gb, 2) for name, run in runs.items()}
    line["seconds"] = {name: {part: round(s, 1) for part, s in run.seconds.items()} for name, run in runs.items()}
    return line


def _print(runs: dict[str, Run]) -> None:
    table = Table("run", "part", "seconds", "peak GB")
    for run in runs.values():
        for part, seconds in run.seconds.items():
            table.add_row(run.name, part, f"{seconds:.1f}", f"{run.peak_gb:.2f}")
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
