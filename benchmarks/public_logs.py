"""Public logs cut at a moment: what was known before it, and what each user turned to afterwards."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.fetch import fetch

MOVIELENS_CUT = dt.datetime(2000, 12, 1, tzinfo=dt.UTC)
GLOBO_CUT = dt.datetime(2017, 10, 7, 3, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Log:
    """Acts before a moment, oldest first, and what each known user turned to from then on.

    wanted: user → items. fields: [I, F] what is known of each item, as small numbers. is_new_alone: whether only items that are
    new to the user count. met: user → items that the user met before the cut and did not turn to. user_ids, item_ids: what the
    numbers stand for.
    """

    user: np.ndarray
    item: np.ndarray
    seconds: np.ndarray
    cut: float
    wanted: dict[int, np.ndarray]
    fields: np.ndarray
    is_new_alone: bool
    met: dict[int, np.ndarray]
    user_ids: list[str]
    item_ids: list[str]

    @property
    def items(self) -> int:
        """Return the size of the catalogue."""
        return len(self.fields)

    @property
    def users(self) -> int:
        """Return how many users are known."""
        return int(self.user.max()) + 1


def movielens(home: Path, cut: dt.datetime = MOVIELENS_CUT, until: dt.datetime | None = None) -> Log:
    """Read the likes of MovieLens-1M, which is downloaded once: known before `cut`, wanted from then on, up to `until`."""
    if not (home / "movielens.yaml").exists():
        fetch("movielens", home)
    is_read = f"what = 'like' AND ts < {until.timestamp()}" if until else "what = 'like'"
    acts = duckdb.sql(
        f"SELECT user, movie AS item, ts AS seconds FROM read_json('{home}/raw/ratings/*/*.jsonl.gz') WHERE {is_read}"
    )
    met = duckdb.sql(
        f"SELECT DISTINCT user, movie AS item FROM read_json('{home}/raw/ratings/*/*.jsonl.gz') WHERE ts < {cut.timestamp()}"
    )
    films = f"read_csv('{home}/raw/movies.csv', all_varchar = true)"
    of_items = duckdb.sql(f"SELECT movie AS item, category, split_part(category, '/', 1) AS genre, decade FROM {films}")
    return _log(acts, of_items, cut.timestamp(), is_new_alone=True, met=met)


def globo(folder: Path) -> Log:
    """Read the clicks of Globo.com from the user's copy."""
    clicks = duckdb.sql(
        "SELECT user_id AS user, click_article_id AS item, click_timestamp / 1000 AS seconds "
        f"FROM read_csv('{folder}/clicks_hour_*.csv.gz')"
    )
    articles = duckdb.sql("SELECT DISTINCT item FROM clicks")
    return _log(clicks, articles, GLOBO_CUT.timestamp(), is_new_alone=False)


def grocer(home: Path, as_of_date: dt.date, days: int) -> Log:
    """Read the receipts of a grocer below a home: known up to a day, wanted on the `days` after it. Times are the shop's own."""
    cut = dt.datetime.combine(as_of_date + dt.timedelta(days=1), dt.time(), dt.UTC)
    sales = duckdb.sql(
        f"""SELECT household AS user, product AS item, epoch(time) AS seconds FROM read_csv('{home}/raw/till/*.csv.gz')
        WHERE epoch(time) < {(cut + dt.timedelta(days=days)).timestamp()}"""
    )
    products = duckdb.sql(f"SELECT product AS item FROM read_csv('{home}/raw/products.csv', all_varchar = true)")
    return _log(sales, products, cut.timestamp(), is_new_alone=False)


def _log(
    acts: duckdb.DuckDBPyRelation,
    of_items: duckdb.DuckDBPyRelation,
    cut: float,
    is_new_alone: bool,
    met: duckdb.DuckDBPyRelation | None = None,
) -> Log:
    rows = acts.order("seconds, item, user").to_arrow_table()
    seconds = rows["seconds"].to_numpy().astype(np.float64)
    is_before = seconds < cut
    item = rows["item"].combine_chunks().cast(pa.string())
    users = rows["user"].combine_chunks().cast(pa.string())
    known, known_users = (column.filter(pa.array(is_before)).unique() for column in (item, users))
    places, user = _places(item, known), _places(users, known_users)
    details = of_items.to_arrow_table()
    at = pc.index_in(known, value_set=details["item"].combine_chunks().cast(pa.string()))
    fields = [np.arange(len(known))]
    fields += [
        np.asarray(pc.fill_null(details[name].combine_chunks().take(at), "").dictionary_encode().indices)
        for name in details.column_names
        if name != "item"
    ]
    afterwards = ~is_before & (user >= 0) & (places >= 0)
    turned_to = set(zip(user[is_before].tolist(), places[is_before].tolist(), strict=True))
    own = turned_to if is_new_alone else set()
    wanted: dict[int, set[int]] = {}
    for who, what in zip(user[afterwards].tolist(), places[afterwards].tolist(), strict=True):
        if (who, what) not in own:
            wanted.setdefault(who, set()).add(what)
    passed: dict[int, list[int]] = {}
    if met is not None:
        seen = met.to_arrow_table()
        whose, what = (
            _places(seen[name].combine_chunks().cast(pa.string()), values)
            for name, values in (("user", known_users), ("item", known))
        )
        for pair in sorted(set(zip(whose.tolist(), what.tolist(), strict=True)) - turned_to):
            if min(pair) >= 0:  # others are in no list
                passed.setdefault(pair[0], []).append(pair[1])
    return Log(
        user[is_before],
        places[is_before],
        seconds[is_before],
        cut,
        {who: np.array(sorted(items)) for who, items in wanted.items()},
        np.stack(fields, axis=1).astype(np.int64) + 1,
        is_new_alone,
        {who: np.array(items) for who, items in passed.items()},
        known_users.to_pylist(),
        known.to_pylist(),
    )


def _places(values: pa.Array, known: pa.Array) -> np.ndarray:
    """Return the number of each value among the known ones, -1 of others: int64."""
    return np.asarray(pc.fill_null(pc.index_in(values, value_set=known), -1).to_numpy(), np.int64)
