"""make chaos: kill -9 every stage of a night at random moments, run it again, and compare with the undisturbed night.

After each kill a reader must see the shelves of the night before unchanged, and of the killed night all rows or none.
Prints a line per fault and one JSON line: faults, violations, by_fault, seed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

SHOP = "conf/shops/demo.yaml"
NIGHTSHELF = ".venv/jobs/bin/nightshelf"
BEFORE, NIGHT = "2026-02-12", "2026-02-13"
SHELVES = ("recommendations", "item_recommendations")
COMPARED = ("events", "quarantine", "impressions", "user_features", "item_features", "training_examples", "candidates")


def main() -> None:
    """Kill each stage `--kills` times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=1, help="kills of each stage")
    parser.add_argument("--home", type=Path, default=Path("var/chaos"))
    arguments = parser.parse_args()
    home = arguments.home.absolute()
    os.environ["NIGHTSHELF_HOME"] = str(home)
    from pipelines.stage import STAGES

    whole, seconds = _undisturbed(home)
    chance = random.Random(arguments.seed)
    by_fault = dict.fromkeys(STAGES, 0)
    for stage in STAGES:
        for _ in range(arguments.kills):
            moment = chance.uniform(0.2, 1.0) * seconds[stage]
            killed = _kill(stage, moment)
            found = _violations(whole)
            by_fault[stage] += len(found)
            sys.stdout.write(
                f"{stage}: {'killed' if killed else 'ended'} after {moment:.1f} s; {', '.join(found) or 'sound'}\n"
            )
        _run("stage", stage, NIGHT)
    after = _hashes(NIGHT)
    different = [table for table in after if after[table] != whole[NIGHT][table]]
    sys.stdout.write(
        f"after all: {', '.join(different) or 'every table'} {'differ' if different else 'as if undisturbed'}\n"
    )
    line = {
        "faults": arguments.kills * len(STAGES),
        "violations": sum(by_fault.values()) + len(different),
        "by_fault": by_fault,
        "seed": arguments.seed,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.exit(3 if line["violations"] else 0)


def _undisturbed(home: Path) -> tuple[dict[str, dict[str, str]], dict[str, float]]:
    """Make a shop with one night, run the next undisturbed, take its hashes and seconds, and go back to before it."""
    from pipelines.stage import STAGES

    shutil.rmtree(home, ignore_errors=True)
    sizes = ["--days", "6", "--users", "250", "--items", "150", "--first-day", "2026-02-09", "--seed", "3"]
    subprocess.run([NIGHTSHELF, "simulate", "--shop", SHOP, *sizes], check=True)
    _run("run", "", BEFORE)
    saved = home.with_name(home.name + ".saved")
    shutil.rmtree(saved, ignore_errors=True)
    shutil.copytree(home, saved)
    seconds = {}
    for stage in STAGES:
        start = time.perf_counter()
        _run("stage", stage, NIGHT)
        seconds[stage] = time.perf_counter() - start
    whole = {day: _hashes(day) for day in (BEFORE, NIGHT)}
    shutil.rmtree(home)
    saved.rename(home)
    return whole, seconds


def _run(command: str, stage: str, day: str) -> None:
    words = [NIGHTSHELF, command, *([stage] if stage else []), "--shop", SHOP, "--as-of-date", day]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-500:]}")


def _kill(stage: str, moment: float) -> bool:
    """Start a stage and kill it with all its children at `moment`; say whether it was still running."""
    words = [NIGHTSHELF, "stage", stage, "--shop", SHOP, "--as-of-date", NIGHT]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(moment)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def _hashes(day: str) -> dict[str, str]:
    import datetime as dt

    from nightshelf.config import load_shop
    from pipelines.publish import content_hash
    from pipelines.warehouse import Warehouse

    warehouse, date = Warehouse(load_shop(SHOP)), dt.date.fromisoformat(day)
    found = {table: warehouse.files(table, [date]) for table in (*COMPARED, *SHELVES)}
    return {table: content_hash(files) if files else "empty" for table, files in found.items()}


def _violations(whole: dict[str, dict[str, str]]) -> list[str]:
    before = _hashes(BEFORE)
    found = [f"{table} of {BEFORE} changed" for table in SHELVES if before[table] != whole[BEFORE][table]]
    tonight = _hashes(NIGHT)
    found += [
        f"{table} is neither old nor new"
        for table, seen in tonight.items()
        if seen not in ("empty", whole[NIGHT][table])
    ]
    return found


if __name__ == "__main__":
    main()
