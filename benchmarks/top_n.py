"""make bench-peers: recommendations of a whole catalogue on public logs, beside other libraries and what is simple.

Who is known before a moment gets 20 items of the whole catalogue as they are known then; what the user turned to afterwards
says how good they are. MovieLens-1M: films rated above 3, before and from 2000-12-01 on, films that the user has not liked yet.
Globo (--globo FOLDER, your own copy): articles clicked, before and from 2017-10-07 on, whatever the user read.
recall@20 = hits / min(20, items afterwards); NDCG@20 with gains of 1. `movielens, unrated` is the same without the films, whoever
proposes them, that the user had rated 3 or less by then: who has rated a film is not shown it again (conf/shops/movielens.yaml).

ours: the two-tower model with the recipe that RECIPES names for the log, trained on its acts as `nightshelf stage retrieve`
does: the model alone, not the shelves of a night. als, bpr, itemknn: implicit's, in .venv/implicit. popularity: users of each
item, of all that lies before the cut; recent: of its last tenth; latest: of its last hundredth.
own: the user's own newest items, then recent popularity.

What is chosen (a recipe, its parts) is chosen on an earlier cut, without a look at what lies from `--until` on:
--cut 2000-11-15 --until 2000-12-01 --only ours,recent. The cuts above are then measured once.

  make bench-peers           (or: .venv/jobs/bin/python -m benchmarks.top_n --globo ~/globo/clicks)
"""

import argparse
import datetime as dt
import json
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.public_logs import MOVIELENS_CUT, Log, globo, movielens

PLACES = 20
RECIPES = {
    "movielens": Path("conf/retrieval/two_tower_ratings.yaml"),
    "globo": Path("conf/retrieval/two_tower_news.yaml"),
}
PEERS = ("als", "bpr", "itemknn")
WHO = ("popularity", "recent", "latest", "own", "ours", *PEERS)
_RECENT, _LATEST = 0.1, 0.01  # of the acts, the newest


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path("var/bench-peers"))
    parser.add_argument("--globo", type=Path, help="folder of clicks_hour_*.csv.gz; without it MovieLens alone")
    parser.add_argument("--cut", type=_moment, help="MovieLens: what lies before this day (UTC) is known")
    parser.add_argument("--until", type=_moment, help="MovieLens: nothing from this day (UTC) on is read")
    parser.add_argument("--only", type=lambda text: text.split(","), default=WHO, help=f"some of {','.join(WHO)}")
    parser.add_argument("--recipe", type=Path, default=RECIPES["movielens"], help="MovieLens: the recipe of ours")
    asked = parser.parse_args()
    cut = asked.cut or MOVIELENS_CUT
    if unknown := set(asked.only) - set(WHO):
        parser.error(f"--only {','.join(sorted(unknown))}: choose from {','.join(WHO)}")
    if asked.until and asked.until <= cut:
        parser.error(
            f"--until {asked.until:%Y-%m-%d} is not after the cut, {cut:%Y-%m-%d}: nothing is left to be found"
        )
    logs: dict[str, Callable[[], Log]] = {
        "movielens": lambda: movielens(asked.home.absolute() / "movielens", cut, asked.until)
    }
    if asked.globo:
        logs["globo"] = lambda: globo(asked.globo)
    recipes = {**RECIPES, "movielens": asked.recipe}
    found = {
        name + also: rows
        for name, read in logs.items()
        for also, rows in measure(read(), asked.home.absolute() / name, recipes[name], asked.only).items()
    }
    _print(found)
    line = {
        name: {
            f"{metric}_at_{PLACES}": {who: round(row[metric], 4) for who, row in rows.items()}
            for metric in ("recall", "ndcg")
        }
        for name, rows in found.items()
    }
    print(json.dumps(line))


def _moment(day: str) -> dt.datetime:
    return dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC)


def measure(log: Log, home: Path, recipe: Path, only: Collection[str] = WHO) -> dict[str, dict[str, dict[str, float]]]:
    """Return who → recall, ndcg and seconds, of those asked for: under "", and under ", unrated" without what users had met."""
    home.mkdir(parents=True, exist_ok=True)
    users = np.array(sorted(log.wanted))
    wanted = [log.wanted[user] for user in users]
    none = np.zeros(0, np.int64)
    met = [log.met.get(user, none) for user in users.tolist()]
    depth = PLACES + max(map(len, met), default=0)  # 20 are left, whatever was met
    found: dict[str, dict[str, dict[str, float]]] = {"": {}} | ({", unrated": {}} if log.met else {})
    for who, make in (
        ("popularity", lambda: popular(log, users, 0, depth)),
        ("recent", lambda: popular(log, users, round(len(log.item) * (1 - _RECENT)), depth)),
        ("latest", lambda: popular(log, users, round(len(log.item) * (1 - _LATEST)), depth)),
        ("own", lambda: own(log, users, depth)),
        ("ours", lambda: two_tower(log, users, recipe, depth)),
        *((peer, lambda peer=peer: of_library(log, users, home, peer, depth)) for peer in PEERS),
    ):
        if who not in only:
            continue
        start = time.perf_counter()
        places = make()
        seconds = {"seconds": time.perf_counter() - start}
        found[""][who] = scores(places[:, :PLACES], wanted) | seconds
        if log.met:
            left = [_first(row[~np.isin(row, known)].tolist()) for row, known in zip(places, met, strict=True)]
            found[", unrated"][who] = scores(np.array(left), wanted) | seconds
    return found


def scores(places: np.ndarray, wanted: list[np.ndarray]) -> dict[str, float]:
    """Return the means of recall and NDCG of item numbers [U, 20], -1 for none."""
    recalls, gains = [], []
    discount = 1 / np.log2(np.arange(2, PLACES + 2))
    for row, items in zip(places, wanted, strict=True):
        hits = np.isin(row, items) & (row >= 0)
        most = min(PLACES, len(items))
        recalls.append(hits.sum() / most)
        gains.append((hits * discount).sum() / discount[:most].sum())
    return {"recall": float(np.mean(recalls)), "ndcg": float(np.mean(gains))}


def popular(log: Log, users: np.ndarray, first: int, depth: int = PLACES) -> np.ndarray:
    """Return what most users turned to since the act number `first`, without what the user knows if only new items count."""
    pairs = np.unique(np.stack([log.user[first:], log.item[first:]]), axis=1)
    order = np.argsort(-np.bincount(pairs[1], minlength=log.items), kind="stable")
    if not log.is_new_alone:
        return np.tile(order[:depth], (len(users), 1))
    known = _known(log)
    return np.array([_first([item for item in order if item not in known[user]], depth) for user in users])


def own(log: Log, users: np.ndarray, depth: int = PLACES) -> np.ndarray:
    """Return the user's newest items, each once, then what is popular of late; no item that does not count."""
    rest = popular(log, users, round(len(log.item) * (1 - _RECENT)), depth)
    if log.is_new_alone:
        return rest
    newest: dict[int, dict[int, None]] = {user: {} for user in users.tolist()}
    for user, item in zip(log.user[::-1].tolist(), log.item[::-1].tolist(), strict=True):
        if user in newest:
            newest[user].setdefault(item)
    return np.array(
        [
            _first(list(dict.fromkeys([*newest[user], *row.tolist()])), depth)
            for user, row in zip(users.tolist(), rest, strict=True)
        ]
    )


def two_tower(log: Log, users: np.ndarray, recipe_file: Path, depth: int = PLACES) -> np.ndarray:
    """Return what our two-tower model proposes."""
    from training.retrieval.catalogue import Catalogue
    from training.retrieval.journeys import DAY_SECONDS, Journeys
    from training.retrieval.recipe import load_retrieval_recipe
    from training.retrieval.retrieve import retrieve_items
    from training.retrieval.train_two_tower import train_two_tower

    recipe = load_retrieval_recipe(recipe_file).model_copy(update={"candidates": depth})
    order = np.lexsort((np.arange(len(log.user)), log.user))
    ones = np.ones(len(order), np.int64)
    journeys = Journeys(
        np.searchsorted(log.user[order], np.arange(log.users + 1)),
        [str(user) for user in range(log.users)],
        log.item[order].astype(np.int32),
        ones,
        ones,
        log.seconds[order],
    )
    names = ["item", *(f"field_{n}" for n in range(1, log.fields.shape[1]))]
    catalogue = Catalogue(log.fields, {name: int(log.fields[:, n].max()) + 1 for n, name in enumerate(names)})
    days = int((log.cut - log.seconds[0]) // DAY_SECONDS) + 1
    midnights = log.cut - DAY_SECONDS * np.arange(days, -1, -1)
    model = train_two_tower(recipe, journeys, catalogue, np.array([0.0, 1.0]), 1, midnights)
    found = np.concatenate([items for _, items, _ in retrieve_items(model, recipe, journeys, catalogue, midnights)])
    return found[users]


def of_library(log: Log, users: np.ndarray, home: Path, name: str, depth: int) -> np.ndarray:
    """Return what a model of another library proposes, from a process in its own environment."""
    np.savez(
        home / "log.npz", user=log.user, item=log.item, users=users, counts=[log.users, log.items], new=log.is_new_alone
    )
    target = home / f"{name}.npy"
    command = [
        ".venv/implicit/bin/python",
        "-m",
        "benchmarks.peers.implicit_top_n",
        name,
        str(home / "log.npz"),
        str(target),
    ]
    subprocess.run([*command, str(min(log.items, depth))], check=True)
    return np.load(target)


def _known(log: Log) -> list[set[int]]:
    known: list[set[int]] = [set() for _ in range(log.users)]
    for user, item in zip(log.user.tolist(), log.item.tolist(), strict=True):
        known[user].add(item)
    return known


def _first(items: list[int], depth: int = PLACES) -> list[int]:
    return [*items[:depth], *[-1] * (depth - len(items[:depth]))]


def _print(found: dict[str, dict[str, dict[str, float]]]) -> None:
    for name, rows in found.items():
        table = Table("who", f"recall@{PLACES}", f"NDCG@{PLACES}", "seconds", title=name)
        for who, row in sorted(rows.items(), key=lambda pair: -pair[1]["recall"]):
            table.add_row(who, f"{row['recall']:.4f}", f"{row['ndcg']:.4f}", f"{row['seconds']:.1f}")
        Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
