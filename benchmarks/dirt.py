"""make bench-dirt: precision and recall of every rule of the cleaning on the simulated shop's planted dirt, row by row.

Reads the demo shop's quarantine (run `make night` first) and the list of planted rows, which no stage reads. Prints a
table a reason, what gave each bot away, and one JSON line.
"""

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from nightshelf.config import Shop, load_shop
from nightshelf.errors import NightshelfError
from nightshelf.identity import key_file, user_key
from nightshelf.paths import truth_dir
from pipelines.warehouse import Warehouse

Row = tuple[Any, ...]
RAW_LENGTH = 2000  # the most that quarantine shows of a row


def main() -> None:
    """Compare what was set aside with what was planted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shop", type=Path, default=Path("conf/shops/demo.yaml"))
    shop = load_shop(parser.parse_args().shop)
    warehouse = Warehouse(shop)
    days = warehouse.partitions("quarantine")
    listed = truth_dir(shop) / "dirt.parquet"
    if not days or not listed.exists():
        sys.exit(f"{shop.home}: no night of a simulated shop lies there; run `make night` first")
    truth = pq.read_table(listed)
    truth = truth.filter(pc.is_in(truth["event_date"], pa.array(days)))
    aside = warehouse.read("quarantine", days)
    planted, found = planted_rows(truth, key_file(shop).read_bytes()), set_aside_rows(aside)
    planted["duplicate"], found["duplicate"] = _duplicates(truth), _found_duplicates(warehouse, days)
    reasons = sorted(planted.keys() | found.keys())
    scores = {r: _score(planted.get(r, Counter()), found.get(r, Counter())) for r in reasons}
    _print(scores, planted, found)
    _print_bots(aside, shop)
    line = {name: {r: round(s[at], 4) for r, s in scores.items()} for at, name in enumerate(("precision", "recall"))}
    sys.stdout.write(json.dumps(line) + "\n")


def planted_rows(truth: pa.Table, key: bytes) -> dict[str, Counter[Row]]:
    """Return the planted rows of each reason as quarantine would show them."""
    rows: dict[str, Counter[Row]] = {}
    for row in truth.filter(pc.invert(_is_duplicate(truth))).to_pylist():
        if row["raw"] is None or row["reason"] == "bot":
            request = f"o-{row['request_id']}" if row["event_type"] == "purchase" else row["request_id"]
            shown = _known_by(row["reason"], request)
        else:
            hashed = user_key(row["user_id"], key)
            shown = re.sub(rf"(?<![^\W_]){re.escape(row['user_id'])}(?![^\W_])", hashed, row["raw"])
            if shown == row["raw"] or row["reason"] == "unparsable":
                shown = masked(row["raw"])
        rows.setdefault(row["reason"], Counter())[row["source"], row["event_date"], shown[:RAW_LENGTH]] += 1
    return rows


def set_aside_rows(quarantine: pa.Table) -> dict[str, Counter[Row]]:
    """Return the rows of each reason; those whose text is our JSON are known by their request."""
    rows: dict[str, Counter[Row]] = {}
    for row in quarantine.to_pylist():
        shown = row["raw"]
        if row["file"].endswith(".parquet") or row["reason"] == "bot":
            shown = _known_by(row["reason"], json.loads(shown).get("request_id"))
        rows.setdefault(row["reason"], Counter())[row["source"], row["as_of_date"], shown] += 1
    return rows


def _known_by(reason: str, request: str) -> str:
    """Return what tells a row of JSON from another; where the user is missing all of its text is masked, so: nothing."""
    return "" if reason == "missing_key_field" else request


def masked(text: str) -> str:
    """Return the text with every letter as x and every digit as 9."""
    return re.sub(r"\d", "9", re.sub(r"[^\W\d_]", "x", text))


def _duplicates(truth: pa.Table) -> Counter[Row]:
    again = truth.filter(_is_duplicate(truth))
    return Counter(zip(again["source"].to_pylist(), again["event_date"].to_pylist(), strict=True))


def _is_duplicate(truth: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(truth["reason"], pa.array(["duplicate", "near_duplicate"]))


def _found_duplicates(warehouse: Warehouse, days: list[Any]) -> Counter[Row]:
    """Return the duplicates of each log and day: they are counted, and kept nowhere."""
    counts = warehouse.read("source_counts", days).to_pylist()
    return Counter({(row["source"], row["as_of_date"]): row["duplicates"] for row in counts})


def _score(planted: Counter[Row], found: Counter[Row]) -> tuple[float, float]:
    right = (planted & found).total()
    return right / max(1, found.total()), right / max(1, planted.total())


def _print(
    scores: dict[str, tuple[float, float]], planted: dict[str, Counter[Row]], found: dict[str, Counter[Row]]
) -> None:
    table = Table("reason", "planted", "found", "precision", "recall", title="planted rows against those set aside")
    for reason, (precision, recall) in scores.items():
        counts = (planted.get(reason, Counter()).total(), found.get(reason, Counter()).total())
        table.add_row(reason, *(f"{count:,}" for count in counts), f"{precision:.4f}", f"{recall:.4f}")
    Console(width=120).print(table)


def _print_bots(quarantine: pa.Table, shop: Shop) -> None:
    rows = quarantine.filter(pc.equal(quarantine["reason"], "bot"))
    kinds = rows.group_by(["as_of_date", "evidence"]).aggregate([([], "count_all")]).sort_by("as_of_date")
    table = Table("day", "evidence", "rows", title=f"bots of {shop.shop}")
    for row in kinds.to_pylist():
        table.add_row(str(row["as_of_date"]), row["evidence"], f"{row['count_all']:,}")
    Console(width=120).print(table)


if __name__ == "__main__":
    try:
        main()
    except NightshelfError as error:
        sys.stderr.write(f"nightshelf: {error}\n")
        sys.exit(error.exit_code)
