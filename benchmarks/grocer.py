"""make bench-grocer: a night's shelves of twenty on a grocer's receipts, beside lists that need no model and other libraries.

The night of --as-of-date runs as `nightshelf run` does, with conf/shops/grocer.yaml: from the receipts of a year to the published
shelves. What each household buys on the next day, and in the next seven, says how good they are: recall@20 = hits / min(20,
items bought), NDCG@20 with gains of 1, over the households that bought something then and were known before. Items that nobody
had bought before count for nobody.

shelves: ours. often: the household's own items by the number of days on which it bought them, halved each 60 days, then what is
popular of late; newest: by the last of these days. popular: households of each item in the last 30 days. als, bpr, itemknn:
implicit's, of all receipts, in .venv/implicit.

What the recipe and the features owe to this log was chosen on the night of 2017-09-17.

  make bench-grocer           (or: .venv/jobs/bin/python -m benchmarks.grocer --as-of-date 2017-09-17)
"""

import argparse
import datetime as dt
import json
import subprocess
from pathlib import Path

import duckdb
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.public_logs import Log, grocer
from benchmarks.top_n import PEERS, PLACES, of_library, own, scores
from nightshelf.config import load_shop
from nightshelf.identity import key_file, user_key
from pipelines.fetch import fetch

_DAY = 86400.0
_HORIZONS = {"day": 1, "week": 7}
_OFTEN_DAYS, _POPULAR_DAYS = 60.0, 30


def main() -> None:
    """Run the night, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("var/bench-grocer"))
    parser.add_argument("--as-of-date", type=dt.date.fromisoformat, default=dt.date(2017, 11, 5))
    asked = parser.parse_args()
    home = asked.home.absolute()
    file = home / "grocer.yaml"
    if not file.exists():
        fetch("grocer", home)
    command = [".venv/jobs/bin/nightshelf", "run", "--shop", str(file), "--as-of-date", str(asked.as_of_date)]
    subprocess.run(command, check=True)
    logs = {name: grocer(home, asked.as_of_date, days) for name, days in _HORIZONS.items()}
    users = np.arange(logs["day"].users)  # both know the same households and items
    lists = {
        "shelves": shelves(file, asked.as_of_date, logs["day"]),
        "often": often(logs["day"]),
        "newest": own(logs["day"], users),
        "popular": popular(logs["day"]),
        **{name: of_library(logs["day"], users, home, name, PLACES) for name in PEERS},
    }
    line: dict[str, dict[str, dict[str, float]]] = {}
    for name, log in logs.items():
        bought = sorted(log.wanted)
        found = {who: scores(items[bought], [log.wanted[user] for user in bought]) for who, items in lists.items()}
        table = Table("who", f"recall@{PLACES}", f"NDCG@{PLACES}", title=f"the next {name}: {len(bought)} households")
        for who, row in sorted(found.items(), key=lambda pair: -pair[1]["recall"]):
            table.add_row(who, f"{row['recall']:.4f}", f"{row['ndcg']:.4f}")
        Console(stderr=True).print(table)
        line[name] = {
            f"{metric}_at_{PLACES}": {who: round(row[metric], 4) for who, row in found.items()}
            for metric in ("recall", "ndcg")
        }
    print(json.dumps(line))


def shelves(file: Path, as_of_date: dt.date, log: Log) -> np.ndarray:
    """Return the published shelves [users, 20] as numbers of items; -1 where there is none, or an item that nobody had bought."""
    shop = load_shop(file)
    key = key_file(shop).read_bytes()
    number = {item: place for place, item in enumerate(log.item_ids)}
    found: dict[str, list[int]] = {}
    with duckdb.connect(str(shop.home / f"{shop.shop}.duckdb"), read_only=True) as db:
        rows = db.execute(
            "SELECT user_key, item_id FROM recommendations WHERE as_of_date = $1 AND rank <= $2 ORDER BY user_key, rank",
            [as_of_date, PLACES],
        ).fetchall()
    for owner, item in rows:
        found.setdefault(owner, []).append(number.get(item, -1))
    everybody = found["*"]
    places = [found.get(user_key(user, key), everybody) for user in log.user_ids]
    return np.array([[*row, *[-1] * (PLACES - len(row))] for row in places])


def often(log: Log) -> np.ndarray:
    """Return each household's own items by days, halved each _OFTEN_DAYS, filled up with what is popular: [users, 20]."""
    days = np.unique(np.stack([log.user, log.item, (log.cut - log.seconds) // _DAY]).astype(np.int64), axis=1)
    pair, place = np.unique(days[:2], axis=1, return_inverse=True)
    count = np.bincount(place, 0.5 ** (days[2] / _OFTEN_DAYS))
    order = np.lexsort((pair[1], -count, pair[0]))
    mine = np.split(pair[1][order], np.searchsorted(pair[0][order], np.arange(1, log.users)))
    rest = popular(log)[0]
    return np.array([list(dict.fromkeys([*items[:PLACES], *rest]))[:PLACES] for items in mine])


def popular(log: Log) -> np.ndarray:
    """Return the items that most households bought of late, the same for all: [users, 20]."""
    late = log.seconds >= log.cut - _POPULAR_DAYS * _DAY
    pairs = np.unique(np.stack([log.user[late], log.item[late]]), axis=1)
    best = np.argsort(-np.bincount(pairs[1], minlength=log.items), kind="stable")[:PLACES]
    return np.tile(best, (log.users, 1))


if __name__ == "__main__":
    main()
