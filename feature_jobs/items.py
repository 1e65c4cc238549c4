"""The items table: the catalogue of each day, or what the logs show where a shop has none."""

import datetime as dt
import re
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from feature_jobs.numbers import is_no_number, parse_number
from feature_jobs.raw_files import event_date_of
from feature_jobs.raw_rows import read_raw_rows, union
from nightshelf.raw_logs import FINITE, Dimension

_LEVELS = 3


def read_catalogue(spark: SparkSession, items: Dimension, files: list[str]) -> DataFrame:
    """Return the rows of the shop's catalogue files, typed, with `listed_on` (their day; null if undated), `arrival` and `fault`.

    What cannot be read of a row is null, of one that is no row of the file everything.

    Raises:
        InputError: a file lacks a column that the shop file names, or cannot be read.
    """
    wanted = {**items.columns, **{f"attribute_{name}": name for name in items.attributes}}
    return union([_typed(rows, items, wanted) for rows in read_raw_rows(spark, files, items, wanted, "items")])


def _typed(rows: DataFrame, items: Dimension, wanted: dict[str, str]) -> DataFrame:
    def text(name: str) -> Column:
        """Return a key of the shop file as trimmed text; null where it is empty, or where the shop file does not name it."""
        return F.nullif(F.trim(F.col(name).cast("string")), F.lit("")) if name in wanted else F.lit(None).cast("string")

    parts = F.transform(F.split(text("category"), re.escape(items.category_separator)), lambda part: F.trim(part))
    price, stock = (parse_number(text(name)) for name in ("price", "stock"))
    launch_date = text("launch_date").try_cast("date")
    faults = [
        (~F.col("is_parsable"), F.lit(f"no {items.format} row of this file")),
        (text("item_id").isNull(), F.lit(f"{wanted['item_id']} is absent")),
        (is_no_number(text("price"), price), F.concat(F.lit("no number in price: "), text("price"))),
        (~price.between(0, FINITE), F.concat(F.lit("price is negative or absurd: "), text("price"))),
        (is_no_number(text("stock"), stock), F.concat(F.lit("no number in stock: "), text("stock"))),
        (
            text("launch_date").isNotNull() & launch_date.isNull(),
            F.concat(F.lit("no date in launch_date: "), text("launch_date")),
        ),
    ]
    columns = {
        "fault": F.coalesce(*(F.when(is_broken, shown) for is_broken, shown in faults)),
        "listed_on": event_date_of(items.path, F.col("file_path")) if is_dated(items) else F.lit(None).cast("date"),
        "arrival": F.struct("file_path", "place"),
        "item_id": F.when(F.col("is_parsable"), text("item_id")),
        "title": text("title"),
        **{
            f"category_{n}": F.array_join(F.slice(parts, 1, n), items.category_separator) for n in range(1, _LEVELS + 1)
        },
        "brand": text("brand"),
        "price": price,
        "stock": stock.try_cast("bigint"),
        "launch_date": launch_date,
        **{name: text(name) for name in wanted if name.startswith("attribute_")},
    }
    return rows.select(*(column.alias(name) for name, column in columns.items()))


@dataclass(frozen=True)
class Faults:
    """The rows of catalogue files, those of them with a fault, and of each kind of fault the rows and one example."""

    rows: int
    faulty: int
    kinds: dict[str, tuple[int, str]]


def faults_of(catalogue: DataFrame) -> Faults:
    """Return what is wrong with the rows that `read_catalogue` returned."""
    kind = F.substring_index("fault", ": ", 1)
    found = catalogue.groupBy(kind.alias("kind")).agg(F.count("*").alias("rows"), F.min("fault").alias("example"))
    counts = {row["kind"]: (row["rows"], row["example"]) for row in found.collect()}
    rows = sum(count for count, _ in counts.values())
    counts.pop(None, None)
    return Faults(rows, sum(count for count, _ in counts.values()), dict(sorted(counts.items())))


def is_dated(items: Dimension) -> bool:
    """Say whether each day has a catalogue of its own."""
    return "{event_date}" in items.path


def known_items(catalogue: DataFrame, days: list[dt.date], window_days: int) -> DataFrame:
    """Return the distinct item_id, as_of_date where a catalogue of the window that ends that day has the item."""
    listed = catalogue.where("item_id is not null").groupBy("item_id").agg(F.collect_set("listed_on").alias("listed"))

    def is_known(day: Column) -> Column:
        """Return whether a catalogue of the window that ends on `day` lists the item."""
        in_window = F.exists("listed", lambda other: other.between(F.date_sub(day, window_days - 1), day))
        return (F.size("listed") == 0) | in_window  # a catalogue without days is every day's

    dates = F.array(*(F.lit(day) for day in days))
    return listed.select("item_id", F.explode(F.filter(dates, is_known)).alias("as_of_date"))


def items(catalogue: DataFrame, listings: dict[dt.date, dt.date | None]) -> DataFrame:
    """Return the items of each day: the last row of each id in that day's catalogue.

    Args:
        catalogue: what `read_catalogue` returned; rows without an id or with a negative price are dropped.
        listings: as_of_date → the day whose catalogue counts then, or None where catalogues have no day.
    """
    good = catalogue.where(f"item_id is not null and (price is null or price between 0 and {FINITE})")
    columns = [name for name in good.columns if name not in ("fault", "listed_on", "arrival", "item_id")]
    last = F.max_by(F.struct(*columns), F.col("arrival"))
    listed = good.groupBy("item_id", "listed_on").agg(last.alias("item"))
    dates = good.sparkSession.createDataFrame(list(listings.items()), "as_of_date date, catalogue_date date")
    same = F.col("listed_on").eqNullSafe(F.col("catalogue_date"))
    return listed.join(F.broadcast(dates), same).select("as_of_date", "item_id", "item.*")


def items_from_events(events: DataFrame, days: list[dt.date], window_days: int) -> DataFrame:
    """Return as_of_date, item_id and price (the last one seen) of the items with events in the window before each day's end."""
    priced = F.when(F.col("price").isNotNull(), F.struct("event_ts", "price"))
    daily = events.groupBy("item_id", "as_of_date").agg(F.max(priced).alias("last"))
    dates = F.array(*(F.lit(day) for day in days))
    in_window = F.filter(dates, lambda day: day.between(F.col("as_of_date"), F.date_add("as_of_date", window_days - 1)))
    seen = daily.select("item_id", "last", F.explode(in_window).alias("as_of_date"))
    return (
        seen.groupBy("as_of_date", "item_id")
        .agg(F.max("last").alias("last"))
        .select("as_of_date", "item_id", "last.price")
    )
