"""User sequences: the last events of each user, as the ranker's attention reads them, and what the user was shown."""

import datetime as dt

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from feature_jobs.query_tokens import query_tokens
from feature_jobs.scenarios import in_scenarios
from feature_jobs.schema import conform
from feature_jobs.vocabularies import add_index
from feature_jobs.windows import LONGEST_WINDOW
from nightshelf.config import Shop
from nightshelf.features import (
    EXPOSURE_LENGTH,
    QUERY_TOKEN,
    QUERY_TOKENS_LENGTH,
    SCENARIO_SEQUENCE_LENGTH,
    SEQUENCE_LENGTH,
    sequence_events,
)
from nightshelf.tables import table_specs
from nightshelf.tasks import Sampled

# Column of the table → field of an entry
_ACTS = {
    "item_indexes": "item",
    "event_type_indexes": "event_type",
    "scenario_indexes": "scenario",
    "category_indexes": "category",
    "dwell_seconds": "dwell",
}
_SHOWN = {"shown_category_indexes": "category", "shown_counts": "count"}
_OWN = {"own_item_indexes": "item", "own_counts": "count", "own_age_days": "age_days"}


def user_sequences(
    acts: DataFrame,
    user_category_days: DataFrame,
    items: DataFrame,
    vocabularies: DataFrame,
    shop: Shop,
    dates: list[dt.date],
    own: DataFrame | None = None,
) -> DataFrame:
    """Return one row per as_of_date of `dates` and user: the last 50 events of the 30 days of arrival up to it.

    No kind of event crowds out another: each keeps its own last ten (fifty among five kinds), and the newest of the rest fill up.

    Beside them stand the last 20 words of the user's own queries, and the last 64 pairs of day and third-level category
    that the user was shown, with the number of impressions: what the shop took the user for. Drawn negatives are no
    exposure. And what the user may want again (feature_jobs/own_items.py), by count: the most likely last.

    A user's rows are collected once, and each day takes its part. Order: event time, then what else an event has here
    (never its hashed ids: the same logs give the same sequences); for the exposure day of arrival, then category.

    Args:
        acts, user_category_days: of the 30 days of arrival up to each of `dates`.
        items: the catalogue of each of those days, for categories.
        vocabularies: the night's.
        shop: gives the places of event types and scenarios, and the time zone.
        dates: the wanted days.
        own: what own_items returns for these dates; None where the shop has no `rebuy`, and the lists are empty.
    """
    users = _lists_of_acts(acts, items, vocabularies, shop, ["user_key"])
    users = users.join(_words_of_users(acts, vocabularies), "user_key", "left")
    if isinstance(shop.negatives, Sampled):
        users = users.withColumn("shown", F.lit(None).cast("array<struct<day:date,category:int,count:int>>"))
    else:
        users = users.join(_exposure_of_users(user_category_days, vocabularies), "user_key", "full")
    lengths = {"acts": SEQUENCE_LENGTH, "words": QUERY_TOKENS_LENGTH, "shown": EXPOSURE_LENGTH}
    known = _known(users, lengths, shop, dates).where((F.size("acts") > 0) | (F.size("shown") > 0))
    none = F.array().cast("array<double>")
    if own is not None:
        known = known.join(_lists_of_own(own, vocabularies), ["as_of_date", "user_key"], "left")
    known = add_index(known, vocabularies, "user", "user_key", "user_index")
    lists = {column: _each("acts", field) for column, field in _ACTS.items()}
    lists |= {column: _each("shown", field) for column, field in _SHOWN.items()}
    lists |= {"age_days": _ages("acts"), "query_token_age_days": _ages("words")}
    lists["query_token_indexes"] = _each("words", "token")
    lists["shown_age_days"] = F.transform("shown", lambda e: F.datediff(F.col("as_of_date"), e["day"]).cast("double"))
    lists |= {name: none if own is None else F.coalesce(_each("own", field), none) for name, field in _OWN.items()}
    return conform(known.withColumns(lists), table_specs(shop)["user_sequences"])


def user_scenario_sequences(
    acts: DataFrame, items: DataFrame, vocabularies: DataFrame, shop: Shop, dates: list[dt.date]
) -> DataFrame:
    """Return one row per as_of_date of `dates`, user and scenario: the last 20 events there, as in `user_sequences`."""
    users = _lists_of_acts(in_scenarios(acts, shop), items, vocabularies, shop, ["user_key", "scenario"])
    known = _known(users, {"acts": SCENARIO_SEQUENCE_LENGTH}, shop, dates).where(F.size("acts") > 0)
    fields = {column: field for column, field in _ACTS.items() if field in ("item", "event_type", "category")}
    lists = {column: _each("acts", field) for column, field in fields.items()}
    return conform(
        known.withColumns({**lists, "age_days": _ages("acts")}), table_specs(shop)["user_scenario_sequences"]
    )


def _lists_of_acts(
    acts: DataFrame, items: DataFrame, vocabularies: DataFrame, shop: Shop, keys: list[str]
) -> DataFrame:
    """Return per key the list `acts` of all events, oldest first."""
    categories = F.broadcast(items.select("as_of_date", "item_id", "category_3"))
    rows = acts.join(categories, ["as_of_date", "item_id"], "left")
    rows = add_index(rows, vocabularies, "item", "item_id", "item")
    rows = add_index(rows, vocabularies, "category_3", "category_3", "category")
    event = F.struct(
        F.col("event_ts").alias("ts"),
        F.col("as_of_date").alias("day"),
        _place("event_type", sequence_events(shop)).alias("event_type"),
        _place("scenario", list(shop.scenarios)).alias("scenario"),
        "item",
        "category",
        F.coalesce("dwell_seconds", F.lit(0.0)).alias("dwell"),
    )
    return rows.groupBy(*keys).agg(F.sort_array(F.collect_list(event)).alias("acts"))


def _words_of_users(acts: DataFrame, vocabularies: DataFrame) -> DataFrame:
    words = add_index(query_tokens(acts), vocabularies, QUERY_TOKEN, "token", "id")
    word = F.struct(
        F.col("event_ts").alias("ts"), F.col("as_of_date").alias("day"), "place", F.col("id").alias("token")
    )
    return words.groupBy("user_key").agg(F.sort_array(F.collect_list(word)).alias("words"))


def _exposure_of_users(user_category_days: DataFrame, vocabularies: DataFrame) -> DataFrame:
    shown = user_category_days.where("impression_count > 0")
    shown = add_index(shown, vocabularies, "category_3", "category_3", "category")
    pair = F.struct(F.col("as_of_date").alias("day"), "category", F.col("impression_count").alias("count"))
    return shown.groupBy("user_key").agg(F.sort_array(F.collect_list(pair)).alias("shown"))


def _lists_of_own(own: DataFrame, vocabularies: DataFrame) -> DataFrame:
    """Return as_of_date, user_key and the list `own`."""
    own = add_index(own, vocabularies, "item", "item_id", "item")
    # Not by their ids: the same logs give the same sequences.
    entry = F.struct("count", (-F.col("age_days")).alias("newest"), "item_id", "age_days", "item")
    return own.groupBy("as_of_date", "user_key").agg(F.sort_array(F.collect_list(entry)).alias("own"))


def _known(users: DataFrame, lengths: dict[str, int], shop: Shop, dates: list[dt.date]) -> DataFrame:
    """Repeat each row for every day of `dates`, its lists cut to the last entries that had arrived; `end` ends the day."""
    known = users.withColumn("as_of_date", F.explode(F.array(*(F.lit(date) for date in dates))))
    known = known.withColumns({name: _arrived(known, name) for name in lengths})
    newest = {name: _last(F.col(name), length) for name, length in lengths.items()}
    newest["acts"] = _last_of_kinds("acts", lengths["acts"], len(sequence_events(shop)))
    known = known.withColumns(newest)
    return known.withColumn("end", F.to_utc_timestamp(F.date_add("as_of_date", 1).cast("timestamp"), shop.timezone))


def _arrived(users: DataFrame, array: str) -> Column:
    """Return the entries that had arrived by as_of_date, in the longest window; none of a missing list."""
    entries = F.coalesce(F.col(array), F.array().cast(users.schema[array].dataType))
    distance = lambda e: F.datediff(F.col("as_of_date"), e["day"])  # noqa: E731
    return F.filter(entries, lambda e: (distance(e) >= 0) & (distance(e) < LONGEST_WINDOW))


def _each(array: str, field: str) -> Column:
    return F.transform(array, lambda entry: entry[field])  # Sail has no getField of an array


def _last_of_kinds(array: str, length: int, kinds: int) -> Column:
    """Return the last entries of each event type, as many of each as have room if all come, and the newest of the rest."""
    if kinds > length:
        return _last(F.col(array), length)
    own, rest = [], []
    for of_kind in (_of_kind(array, place + 1) for place in range(kinds)):
        own.append(_last(of_kind, length // kinds))
        rest.append(F.slice(of_kind, 1, F.greatest(F.size(of_kind) - length // kinds, F.lit(0))))
    kept, others = F.concat(*own), F.sort_array(F.concat(*rest))
    room = F.lit(length) - F.size(kept)
    newest = F.slice(others, F.greatest(F.size(others) - room, F.lit(0)) + 1, room)
    return F.when(F.size(array) <= length, F.col(array)).otherwise(F.sort_array(F.concat(newest, kept)))


def _of_kind(array: str, place: int) -> Column:
    return F.filter(array, lambda entry: entry["event_type"] == place)


def _last(array: Column, length: int) -> Column:
    most = F.least(F.greatest(F.size(array), F.lit(1)), F.lit(length))  # no more, or Sail counts from the front
    return F.slice(array, -most, most)


def _ages(array: str) -> Column:
    return F.transform(array, lambda e: (F.unix_micros("end") - F.unix_micros(e["ts"])) / F.lit(86400e6))


def _place(column: str, names: list[str]) -> Column:
    """Return 1 + the place of the column's value in the list; 0 if it is not there."""
    return F.array_position(F.array(*(F.lit(name) for name in names)), F.col(column)).cast("int")
