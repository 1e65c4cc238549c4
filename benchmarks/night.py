"""make bench-night: one night of the demo shop through the real Airflow DAG, from raw logs that are there, to the report.

Runs in a home of its own; environments and raw logs are made before the clock starts. `engine_start_s` is what lies
outside the stages' own time: Airflow, and the start of each stage's process.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

SHOP = "conf/shops/demo.yaml"
LAST_DAY = "2026-02-14"
MADE_BY_NIGHTS = ("warehouse", "mlflow", "models", "reports", "logs")


def main() -> None:
    """Time one night."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("var/bench-night"))
    home = parser.parse_args().home.absolute()
    os.environ["NIGHTSHELF_HOME"] = str(home)  # before the shop file is read
    from nightshelf.config import load_shop
    from pipelines.memory import PeakMemory
    from pipelines.warehouse import Warehouse

    if not (home / "raw").exists():
        subprocess.run([".venv/jobs/bin/nightshelf", "simulate", "--shop", SHOP, "--days", "14"], check=True)
    for name in MADE_BY_NIGHTS:
        shutil.rmtree(home / name, ignore_errors=True)
    subprocess.run(["scripts/airflow-env", "true"], check=True)
    conf = json.dumps({"shop": SHOP, "as_of_date": LAST_DAY})
    start = time.perf_counter()
    process = subprocess.Popen(
        ["scripts/airflow-env", "airflow", "dags", "test", "nightly_recommendations", "--conf", conf],
        stdout=subprocess.DEVNULL,
    )
    with PeakMemory(process.pid) as memory:
        code = process.wait()
    seconds = time.perf_counter() - start
    warehouse = Warehouse(load_shop(SHOP))
    runs = sorted(warehouse.read("stage_runs").to_pylist(), key=lambda run: run["started_at"])
    _print(runs)
    if code or [run for run in runs if run["status"] != "done"]:
        sys.exit(f"the night failed with exit code {code}; see the table above")
    stages = {run["stage"]: round(run["seconds"], 1) for run in runs}
    impressions = warehouse.read("impressions", columns=("as_of_date",)).num_rows
    line = {
        "seconds": round(seconds, 1),
        "peak_gb": round(memory.mb / 1024, 2),
        "impressions": impressions,
        "engine_start_s": round(seconds - sum(stages.values()), 1),
        "stages": stages,
    }
    sys.stdout.write(json.dumps(line) + "\n")


def _print(runs: list[dict]) -> None:  # type: ignore[type-arg]
    table = Table("stage", "status", "seconds", "peak MB", "rows in", "rows out", title="one night")
    for run in runs:
        numbers = (
            f"{run['seconds']:.1f}",
            f"{run['peak_memory_mb']:.0f}",
            f"{run['rows_in']:,}",
            f"{run['rows_out']:,}",
        )
        table.add_row(run["stage"], run["status"], *numbers)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
