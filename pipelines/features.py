"""Stage `features`: events → impressions, features of users and items, sequences, graph, training examples, candidates.

Snapshots of features are written for the night and for each earlier day of the history window that has none yet, all in
one pass. Each table goes to files first and the tables after it read those files; nothing is published before all are
written.
"""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

from nightshelf.config import Shop
from nightshelf.dates import days_back
from nightshelf.errors import InputError
from nightshelf.features import WINDOWS
from pipelines.stage import Night, StageResult

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# The tables that keep a partition a day; the others have one of the night alone, over the whole window.
SNAPSHOTS = ("user_features", "item_features", "item_scenario_features", "user_sequences")
_LONGEST = max(WINDOWS)


def run(night: Night) -> StageResult:
    """Write the night's partitions, and those of earlier days that are missing.

    Raises:
        InputError: no event arrived in the history window.
    """
    from feature_jobs.session import spark_session

    shop, day = night.shop, night.as_of_date
    history = days_back(day, shop.history_days)
    arrived = [d for d in night.warehouse.partitions("events") if d <= day]
    if not any(d in history for d in arrived):
        raise InputError(
            f"no events between {history[0]} and {day} in shop {shop.shop}; run `nightshelf stage clean` for these days first"
        )
    dates = _missing(night, [d for d in history if d >= arrived[0]])
    known = [d for d in arrived if d > min(dates[0], history[0]) - dt.timedelta(days=_LONGEST)]
    tables = _Tables(night, spark_session(shop))
    _write_all(tables, shop, day, dates, known)
    rows = tables.publish()
    inputs = ["events", "items", "users"]
    return StageResult(
        tables.rows_in(known),
        sum(rows.values()),
        inputs=inputs,
        message=f"{len(dates)} days, {rows['training_examples']} examples",
    )


def _missing(night: Night, history: list[dt.date]) -> list[dt.date]:
    """Return the night and the earlier days of which a snapshot is missing, oldest first."""
    have = [set(night.warehouse.partitions(table)) for table in SNAPSHOTS]
    return [d for d in history if d == night.as_of_date or any(d not in days for days in have)]


def _write_all(tables: "_Tables", shop: Shop, day: dt.date, dates: list[dt.date], known: list[dt.date]) -> None:
    """Write every table, each from the files of those before it."""
    from feature_jobs.attribution import attributed_outcomes
    from feature_jobs.candidates import CandidateInputs, candidates
    from feature_jobs.exposure import exposure
    from feature_jobs.impressions import impressions
    from feature_jobs.item_features import item_features
    from feature_jobs.item_graph import item_graph
    from feature_jobs.item_scenario_features import item_scenario_features
    from feature_jobs.labels import labels
    from feature_jobs.training_examples import training_examples
    from feature_jobs.triples import read_triples
    from feature_jobs.user_features import user_features
    from feature_jobs.user_sequences import user_sequences
    from feature_jobs.vocabularies import vocabularies
    from feature_jobs.windows import carry_forward

    window = [d for d in known if d in days_back(day, shop.history_days)]
    month = [d for d in known if d in days_back(day, _LONGEST)]
    unseen = [d for d in known if d == day or d not in tables.published("impressions")]
    tables.write("impressions", impressions(tables.read("events", unseen), shop), unseen, [], files_per_day=None)
    shown = tables.read("impressions", known)
    # Outcomes and own searches: a tenth of the log, and all that the tables below read of it.
    acts = (
        tables.read("events", known)
        .where("event_type <> 'impression' or (query is not null and position = 1)")
        .persist()
    )
    acts.count()  # a table in memory has a known size, and joins are planned by it
    items, users = tables.read("items", known), tables.read("users", known)
    before = [d for d in tables.published("vocabularies") if d < day][-1:]
    words = vocabularies(tables.read("vocabularies", before), exposure(acts, shown), items, users, shop, day)
    words = tables.write("vocabularies", words, [day], ["feature", "value"])
    users_by_date = carry_forward(users, tables.published("users"), dates)
    tables.write(
        "user_features", user_features(acts, shown, items, users_by_date, words, shop, dates), dates, ["user_key"]
    )
    tables.write("item_features", item_features(acts, shown, items, words, shop, dates), dates, ["item_id"])
    seen_then = attributed_outcomes(shown, acts, shop, hindsight=False)
    there = item_scenario_features(shown, seen_then, tables.read("item_features", dates), shop, dates)
    tables.write("item_scenario_features", there, dates, ["scenario", "item_id"])
    tables.write("user_sequences", user_sequences(acts, words, shop, dates), dates, ["user_key"])

    recent = shown.where(shown.as_of_date.isin(window))
    seen_now = attributed_outcomes(shown, acts, shop, hindsight=True).persist()
    seen_now.count()
    labelled = labels(recent, acts, seen_now, shop, day)
    snapshots = [tables.read(name, days_back(day, shop.history_days)) for name in SNAPSHOTS[:3]]
    examples = training_examples(labelled, snapshots[0], snapshots[1], snapshots[2], shop, window[0], day)
    tables.write_night("training_examples", examples)
    recently = acts.where(acts.as_of_date.isin(window))
    graph = item_graph(recently, read_triples(tables.spark, shop, day), words, shop, day)
    tables.write("item_graph", graph, [day], ["head"])
    catalogue = carry_forward(items, tables.published("items"), [day])
    tonight = [tables.read(name, [day]) for name in ("item_features", "item_scenario_features", "item_graph")]
    inputs = CandidateInputs(acts.where(acts.as_of_date.isin(month)), catalogue, tonight[0], tonight[1], tonight[2])
    tables.write_night("candidates", candidates(inputs, shop, day))
    tables.spark.catalog.clearCache()


class _Tables:
    """The tables of this attempt: those that it wrote, from its own files; the others, as published."""

    def __init__(self, night: Night, spark: "SparkSession") -> None:
        self.spark = spark
        self._night = night
        self._written: dict[str, tuple[Path, list[dt.date]]] = {}

    def published(self, table: str) -> list[dt.date]:
        """Return the published partitions, oldest first."""
        return self._night.warehouse.partitions(table)

    def read(self, table: str, dates: list[dt.date]) -> "DataFrame":
        """Return the rows of these days: own files where this attempt wrote them."""
        from feature_jobs.storage import read_table

        folder, own = self._written.get(table, (Path(), []))
        files = self._night.warehouse.files(table, [d for d in dates if d not in own])
        files += [str(f) for d in dates if d in own for f in sorted((folder / f"_day={d}").glob("*.parquet"))]
        return read_table(self.spark, self._night.warehouse.specs[table], files)

    def write(
        self, table: str, rows: "DataFrame", dates: list[dt.date], sort_by: list[str], files_per_day: int | None = 1
    ) -> "DataFrame":
        """Write the partitions `dates` of a table, and return them read back."""
        from feature_jobs.storage import write_table

        folder = self._night.warehouse.new_run_dir(table, self._night.run_id)
        write_table(rows, self._night.warehouse.specs[table], folder, sort_by, files_per_day)
        self._written[table] = (folder, dates)
        return self.read(table, dates)

    def write_night(self, table: str, rows: "DataFrame") -> None:
        """Write the night's partition of a table that has no other, in as many files as shuffles have partitions."""
        from feature_jobs.storage import write_day

        folder, day = self._night.warehouse.new_run_dir(table, self._night.run_id), self._night.as_of_date
        write_day(
            rows.coalesce(self._night.shop.spark.shuffle_partitions), self._night.warehouse.specs[table], folder, day
        )
        self._written[table] = (folder, [day])

    def publish(self) -> dict[str, int]:
        """Publish all tables that were written; returns their rows."""
        warehouse, summary = self._night.warehouse, self._night.summary
        return {
            table: warehouse.publish(table, folder, dates, summary) for table, (folder, dates) in self._written.items()
        }

    def rows_in(self, dates: list[dt.date]) -> int:
        """Return the number of events read."""
        import pyarrow.parquet as pq

        return sum(pq.read_metadata(file).num_rows for file in self._night.warehouse.files("events", dates))
