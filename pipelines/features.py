"""Stage `features`: events → impressions, features of users and items, sequences, graph, training examples, candidates.

Snapshots of features are written for the night and for each earlier day of the history window that has none yet, all in
one pass. Each table goes to files first and the tables after it read those files; nothing is published before all are
written.
"""

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from nightshelf.dates import days_back
from nightshelf.errors import InputError
from nightshelf.features import WINDOWS
from pipelines.stage import Night, StageResult
from pipelines.warehouse import DAY_FOLDER

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

    history = days_back(night.as_of_date, night.shop.history_days)
    arrived = [d for d in night.warehouse.partitions("events") if d <= night.as_of_date]
    if not any(d in history for d in arrived):
        raise InputError(
            f"no events between {history[0]} and {night.as_of_date} in shop {night.shop.shop}; "
            "run `nightshelf stage clean` for these days first"
        )
    dates = missing_days(night, [d for d in history if d >= arrived[0]])
    known = [d for d in arrived if d > min(dates[0], history[0]) - dt.timedelta(days=_LONGEST)]
    tables = _Tables(night, spark_session(night.shop))
    _write_all(_Writer(tables, night, dates, known))
    rows = tables.publish()
    message = f"{len(dates)} days, {rows['training_examples']} examples"
    return StageResult(tables.rows_in(known), sum(rows.values()), inputs=["events", "items", "users"], message=message)


def missing_days(night: Night, history: list[dt.date]) -> list[dt.date]:
    """Return the night and the earlier days of which a snapshot is missing or lacks a column, oldest first."""
    have = [_whole(night, table) for table in SNAPSHOTS]
    return [d for d in history if d == night.as_of_date or any(d not in days for days in have)]


def _whole(night: Night, table: str) -> set[dt.date]:
    """Return the days whose files have all columns: the shop file, or nightshelf, may have gained one since."""
    import pyarrow.parquet as pq

    wanted = set(night.warehouse.specs[table].column_names)
    return {
        day
        for day in night.warehouse.partitions(table)
        if all(wanted <= set(pq.read_schema(file).names) for file in night.warehouse.files(table, [day]))
    }


def _write_all(w: "_Writer") -> None:
    """Write every table after those that it reads."""
    _together(w.impressions, w.keep_acts)
    w.vocabularies()
    _together(w.item_features, w.user_features, w.user_sequences, w.item_graph)
    w.item_scenario_features()
    _together(w.training_examples, w.candidates)
    w.tables.spark.catalog.clearCache()


def _together(*writes: Callable[[], None]) -> None:
    """Write two tables at a time: planning and compiling keep one core busy, and the others can compute."""
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(write) for write in writes]:
            done.result()


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
        files += [str(f) for d in dates if d in own for f in sorted((folder / f"{DAY_FOLDER}={d}").glob("*.parquet"))]
        return read_table(self.spark, self._night.warehouse.specs[table], files)

    def write(
        self, table: str, rows: "DataFrame", dates: list[dt.date], sort_by: list[str], files_per_day: int | None = 1
    ) -> None:
        """Write the partitions `dates` of a table."""
        from feature_jobs.storage import write_table

        folder = self._night.warehouse.new_run_dir(table, self._night.run_id)
        write_table(rows, self._night.warehouse.specs[table], folder, sort_by, files_per_day)
        self._written[table] = (folder, dates)

    def write_night(self, table: str, rows: "DataFrame") -> None:
        """Write the night's partition of a table that has no other, in as many files as shuffles have partitions."""
        from feature_jobs.storage import write_day

        folder, day = self._night.warehouse.new_run_dir(table, self._night.run_id), self._night.as_of_date
        spec = self._night.warehouse.specs[table]
        write_day(rows.coalesce(self._night.shop.spark.shuffle_partitions), spec, folder, day)
        self._written[table] = (folder, [day])

    def publish(self) -> dict[str, int]:
        """Publish all tables that were written; returns their rows."""
        warehouse, summary = self._night.warehouse, self._night.summary
        written = sorted(self._written.items())
        return {table: warehouse.publish(table, folder, dates, summary) for table, (folder, dates) in written}

    def rows_in(self, dates: list[dt.date]) -> int:
        """Return the number of events read."""
        import pyarrow.parquet as pq

        return sum(pq.read_metadata(file).num_rows for file in self._night.warehouse.files("events", dates))


class _Writer:
    """The tables of the stage, one method each, named as the table.

    dates: the days of which snapshots are written. known: every day of arrival that is read.
    """

    def __init__(self, tables: _Tables, night: Night, dates: list[dt.date], known: list[dt.date]) -> None:
        self.tables, self.shop, self.day, self.dates, self.known = tables, night.shop, night.as_of_date, dates, known
        self.history = days_back(self.day, self.shop.history_days)
        self.window = [d for d in known if d in self.history]

    @cached_property
    def acts(self) -> "DataFrame":
        """What users did themselves: a tenth of the log, and all that the tables read of it beside impressions."""
        from feature_jobs.user_sequences import is_act

        return self.tables.read("events", self.known).where(is_act()).persist()

    def keep_acts(self) -> None:
        """Bring the acts into memory: there their size is known, and joins are planned by it."""
        self.acts.count()

    @cached_property
    def shown(self) -> "DataFrame":
        """The impressions of every known day."""
        return self.tables.read("impressions", self.known)

    @cached_property
    def words(self) -> "DataFrame":
        """The night's vocabularies."""
        return self.tables.read("vocabularies", [self.day])

    @cached_property
    def items(self) -> "DataFrame":
        """The catalogues of every known day."""
        return self.tables.read("items", self.known)

    def impressions(self) -> None:
        from feature_jobs.impressions import impressions

        have = self.tables.published("impressions")
        days = [d for d in self.known if d == self.day or d not in have]
        rows = impressions(self.tables.read("events", days), self.shop)
        self.tables.write("impressions", rows, days, [], files_per_day=None)

    def vocabularies(self) -> None:
        from feature_jobs.exposure import exposure
        from feature_jobs.vocabularies import vocabularies

        before = [d for d in self.tables.published("vocabularies") if d < self.day][-1:]
        activity, users = exposure(self.acts, self.shown), self.tables.read("users", self.known)
        previous = self.tables.read("vocabularies", before)
        rows = vocabularies(previous, activity, self.items, users, self.shop, self.day)
        self.tables.write("vocabularies", rows, [self.day], ["feature", "value"])

    def user_features(self) -> None:
        from feature_jobs.user_features import user_features
        from feature_jobs.windows import carry_forward

        users = carry_forward(self.tables.read("users", self.known), self.tables.published("users"), self.dates)
        rows = user_features(self.acts, self.shown, self.items, users, self.words, self.shop, self.dates)
        self.tables.write("user_features", rows, self.dates, ["user_key"])

    def item_features(self) -> None:
        from feature_jobs.item_features import item_features

        rows = item_features(self.acts, self.shown, self.items, self.words, self.shop, self.dates)
        self.tables.write("item_features", rows, self.dates, ["item_id"])

    def item_scenario_features(self) -> None:
        from feature_jobs.attribution import attributed_outcomes
        from feature_jobs.item_scenario_features import item_scenario_features

        outcomes = attributed_outcomes(self.shown, self.acts, self.shop, hindsight=False)
        of_items = self.tables.read("item_features", self.dates)
        rows = item_scenario_features(self.shown, outcomes, of_items, self.shop, self.dates)
        self.tables.write("item_scenario_features", rows, self.dates, ["scenario", "item_id"])

    def user_sequences(self) -> None:
        from feature_jobs.user_sequences import user_sequences

        rows = user_sequences(self.acts, self.shown, self.items, self.words, self.shop, self.dates)
        self.tables.write("user_sequences", rows, self.dates, ["user_key"])

    def item_graph(self) -> None:
        from feature_jobs.item_graph import item_graph
        from feature_jobs.triples import read_triples

        recent = self.acts.where(self.acts.as_of_date.isin(self.window))
        triples = read_triples(self.tables.spark, self.shop, self.day)
        rows = item_graph(recent, triples, self.words, self.shop, self.day)
        self.tables.write("item_graph", rows, [self.day], ["head"])

    def training_examples(self) -> None:
        from feature_jobs.attribution import attributed_outcomes
        from feature_jobs.labels import labels
        from feature_jobs.training_examples import training_examples

        outcomes = attributed_outcomes(self.shown, self.acts, self.shop, hindsight=True).persist()
        outcomes.count()  # for its size, as the acts
        recent = self.shown.where(self.shown.as_of_date.isin(self.window))
        labelled = labels(recent, self.acts, outcomes, self.shop, self.day)
        of_users, of_items, there = (self.tables.read(name, self.history) for name in SNAPSHOTS[:3])
        rows = training_examples(labelled, of_users, of_items, there, self.shop, self.window[0], self.day)
        self.tables.write_night("training_examples", rows)

    def candidates(self) -> None:
        from feature_jobs.candidates import CandidateInputs, candidates
        from feature_jobs.windows import carry_forward

        month = days_back(self.day, _LONGEST)
        acts = self.acts.where(self.acts.as_of_date.isin(month))
        catalogue = carry_forward(self.items, self.tables.published("items"), [self.day])
        names = ("item_features", "item_scenario_features", "item_graph")
        inputs = CandidateInputs(acts, catalogue, *(self.tables.read(name, [self.day]) for name in names))
        self.tables.write_night("candidates", candidates(inputs, self.shop, self.day))
