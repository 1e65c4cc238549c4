"""The tables of the stage `features`: which days of each are read and written, and by which job."""

import datetime as dt
from functools import cached_property
from typing import TYPE_CHECKING

from nightshelf.dates import days_back
from nightshelf.features import WINDOWS, dense_features
from pipelines.arrow_schema import arrow_schema
from pipelines.attempt import Attempt
from pipelines.example_days import (
    ExampleDay,
    days_to_write,
    example_window_of,
    in_groups,
    labelled_days,
    night_before,
)
from pipelines.feature_days import OF_LOGS, SNAPSHOTS, SUMS, missing_days
from pipelines.stage import Night
from pipelines.warehouse import row_count

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_LONGEST = max(WINDOWS)
_ROWS_AT_A_TIME = 2_000_000


class FeatureWriter:
    """The tables of the stage, one method each, named as the table.

    dates: the days of which snapshots are written. known: every day of arrival that a window of them reaches; a closed day is
    none, and may have its catalogue and users all the same.
    summed: the days whose sums are written. near: those, and the days before whose impressions their outcomes may
    belong to. own_days: those of which `rebuy` remembers acts. examples: the partitions of training_examples that are written.
    """

    def __init__(self, tables: Attempt, night: Night) -> None:
        self.tables, self.night, self.shop, self.day = tables, night, night.shop, night.as_of_date
        self.window = example_window_of(night)
        arrived = [day for day in tables.published("events") if day <= self.day]
        history = [day for day in days_back(self.day, self.shop.history_days) if day >= self.window.first_date]
        self.dates = missing_days(night, SNAPSHOTS, history)
        self.first = min(self.dates[0], history[0]) - dt.timedelta(days=_LONGEST - 1)
        self.known = [day for day in arrived if day >= self.first]
        self.own_days = [
            day for day in arrived if self.shop.rebuy and day > self.dates[0] - dt.timedelta(self.shop.rebuy.days)
        ]
        self.summed = missing_days(night, SUMS, self.known)
        self.near = [day for day in arrived if self.summed and day >= self._reaching(self.summed[0])]

    def _reaching(self, day: dt.date) -> dt.date:
        from feature_jobs.attribution import reach_days

        return day - dt.timedelta(days=reach_days(self.shop))

    @cached_property
    def examples(self) -> list[ExampleDay]:
        """The partitions of training_examples that the night writes; a day on which nothing was shown has none."""
        from feature_jobs.attribution import settling_days

        days = self.window.days or [self.day]
        labelled = labelled_days(self.night, days)
        days = [day for day in days if day in labelled or day == self.day or self._shown_on(day)]
        longest = max(task.window_days for task in self.shop.tasks.values())
        last, settling = night_before(self.night), settling_days(self.shop)
        return days_to_write(days, labelled, last, self.day, longest, settling, self._touched)

    def _shown_on(self, day: dt.date) -> bool:
        return row_count(self.tables.files("impressions", [day])) > 0

    def _touched(self, since: dict[dt.date, dt.date]) -> set[dt.date]:
        """Return those of the partitions, given with what their labels know, of which a label has changed since."""
        from feature_jobs.late_touches import touched_impressions

        near = [day for day in self.known if day >= self._reaching(min(since))]
        shown, acts = (self.tables.read(table, near) for table in OF_LOGS)
        found = touched_impressions(shown, acts, since, self.shop, self.window)
        return {row.as_of_date for row in found.select("as_of_date").distinct().collect()}

    @cached_property
    def outcomes(self) -> "DataFrame":
        """The outcomes of the days that are summed up, with the impressions that had arrived when they did."""
        from feature_jobs.attribution import attributed_outcomes
        from feature_jobs.storage import keep

        shown, acts = (self.tables.read(table, self.near) for table in OF_LOGS)
        found = attributed_outcomes(shown, acts, self.shop, hindsight=False)
        return keep(found.where(found.as_of_date.isin(self.summed)))

    @cached_property
    def hindsight(self) -> "DataFrame":
        """The outcomes of the impressions of the examples, whenever they arrived."""
        from feature_jobs.attribution import attributed_outcomes
        from feature_jobs.storage import keep

        near = [day for day in self.known if day >= self._reaching(self.examples[0].day)]
        shown, acts = (self.tables.read(table, near) for table in OF_LOGS)
        return keep(attributed_outcomes(shown, acts, self.shop, hindsight=True))

    @cached_property
    def activity(self) -> "DataFrame":
        """What happened on the days that are summed up."""
        from feature_jobs.activity import activity

        shown, acts = (self.tables.read(table, self.summed) for table in OF_LOGS)
        return activity(acts, shown, self.outcomes, self.shop)

    @cached_property
    def month(self) -> "DataFrame":
        """The acts of every known day."""
        from feature_jobs.storage import keep

        return keep(self.tables.read("acts", self.known))

    @cached_property
    def own(self) -> "DataFrame | None":
        """What users may want again, on each of the dates; None where the shop does not say so."""
        from feature_jobs.own_items import own_items
        from feature_jobs.storage import keep

        if self.shop.rebuy is None:
            return None
        return keep(own_items(self.tables.read("acts", self.own_days), self.shop.rebuy, self.dates))

    @cached_property
    def words(self) -> "DataFrame":
        """The night's vocabularies."""
        return self.tables.read("vocabularies", [self.day])

    @cached_property
    def items(self) -> "DataFrame":
        """The catalogues that a window of the dates reaches."""
        return self.tables.read("items", self._told("items"))

    @cached_property
    def users(self) -> "DataFrame":
        """The tables of users that a window of the dates reaches."""
        return self.tables.read("users", self._told("users"))

    def _told(self, table: str) -> list[dt.date]:
        """Return the days of a catalogue or table of users that a window of the dates reaches."""
        return [day for day in self.tables.published(table) if self.first <= day <= self.day]

    @cached_property
    def catalogue(self) -> "DataFrame":
        """The catalogue of the night, or of the last day before it that has one."""
        from feature_jobs.windows import carry_forward

        return carry_forward(self.items, self._told("items"), [self.day])

    def impressions(self) -> None:
        """Write impressions."""
        from feature_jobs.impressions import impressions

        days = missing_days(self.night, ("impressions",), sorted({*self.known, *self.near}))
        rows = impressions(self.tables.read("events", days), self.shop)
        self.tables.write("impressions", rows, days, [], by_task=True)

    def acts(self) -> None:
        """Write acts."""
        from feature_jobs.acts import acts

        days = missing_days(self.night, ("acts",), sorted({*self.known, *self.near, *self.own_days}))
        self.tables.write("acts", acts(self.tables.read("events", days), self.shop), days, ["user_key", "event_ts"])

    def user_days(self) -> None:
        """Write user_days."""
        from feature_jobs.user_days import user_days

        rows = user_days(self.activity, self.tables.read("items", self.summed), self.shop)
        self.tables.write("user_days", rows, self.summed, ["user_key"])

    def item_days(self) -> None:
        """Write item_days."""
        from feature_jobs.item_days import item_days

        self.tables.write("item_days", item_days(self.activity, self.shop), self.summed, ["item_id"])

    def sessions(self) -> None:
        """Write sessions."""
        from feature_jobs.sessions import sessions

        shown, acts = (self.tables.read(table, self.summed) for table in OF_LOGS)
        self.tables.write("sessions", sessions(acts, shown, self.shop), self.summed, ["user_key"])

    def user_category_days(self) -> None:
        """Write user_category_days."""
        from feature_jobs.user_category_days import user_category_days

        rows = user_category_days(self.activity, self.tables.read("items", self.summed), self.shop)
        self.tables.write("user_category_days", rows, self.summed, ["user_key"])

    def vocabularies(self) -> None:
        """Write vocabularies."""
        from feature_jobs.vocabularies import vocabularies

        before = [day for day in self.tables.published("vocabularies") if day < self.day][-1:]
        users, items = (self.tables.read(name, self.known) for name in ("user_days", "item_days"))
        previous = self.tables.read("vocabularies", before)
        rows = vocabularies(previous, users, items, self.month, self.items, self.users, self.shop, self.day)
        self.tables.write("vocabularies", rows, [self.day], ["feature", "value"])

    def user_features(self) -> None:
        """Write user_features."""
        from feature_jobs.favourites import favourites
        from feature_jobs.user_features import user_features
        from feature_jobs.windows import carry_forward

        users = carry_forward(self.users, self._told("users"), self.dates)
        of_users, of_items, visits = (self.tables.read(n, self.known) for n in ("user_days", "item_days", "sessions"))
        liked = favourites(self.month, self.items, self.shop, self.dates)
        rows = user_features(of_users, of_items, visits, liked, users, self.words, self.shop, self.dates)
        self.tables.write("user_features", rows, self.dates, ["user_key"])

    def item_features(self) -> None:
        """Write item_features."""
        from feature_jobs.item_features import item_features

        days_of_items = self.tables.read("item_days", self.known)
        rows = item_features(days_of_items, self.items, self.words, self.shop, self.dates)
        self.tables.write("item_features", rows, self.dates, ["item_id"])

    def item_scenario_features(self) -> None:
        """Write item_scenario_features."""
        from feature_jobs.item_scenario_features import item_scenario_features

        of_items, days_of_items = (
            self.tables.read("item_features", self.dates),
            self.tables.read("item_days", self.known),
        )
        rows = item_scenario_features(days_of_items, of_items, self.shop, self.dates)
        self.tables.write("item_scenario_features", rows, self.dates, ["scenario", "item_id"])

    def user_sequences(self) -> None:
        """Write user_sequences."""
        from feature_jobs.user_sequences import user_sequences

        categories = self.tables.read("user_category_days", self.known)
        rows = user_sequences(self.month, categories, self.items, self.words, self.shop, self.dates, self.own)
        self.tables.write("user_sequences", rows, self.dates, ["user_key"])

    def user_scenario_sequences(self) -> None:
        """Write user_scenario_sequences."""
        from feature_jobs.user_sequences import user_scenario_sequences

        rows = user_scenario_sequences(self.month, self.items, self.words, self.shop, self.dates)
        self.tables.write("user_scenario_sequences", rows, self.dates, ["user_key"])

    def user_category_features(self) -> None:
        """Write user_category_features."""
        from feature_jobs.user_category_features import user_category_features

        days, users = self.tables.read("user_category_days", self.known), self.tables.read("user_features", [self.day])
        rows = user_category_features(days, users, self.shop, self.day)
        self.tables.write_night("user_category_features", rows, ["user_key"])

    def user_scenario_features(self) -> None:
        """Write user_scenario_features."""
        from feature_jobs.user_scenario_features import user_scenario_features

        days, users = self.tables.read("user_days", self.known), self.tables.read("user_features", [self.day])
        rows = user_scenario_features(days, users, self.shop, self.day)
        self.tables.write_night("user_scenario_features", rows, ["user_key"])

    def attribute_features(self) -> None:
        """Write attribute_features."""
        from feature_jobs.attribute_features import attribute_features

        rows = attribute_features(self.items, self.tables.read("item_days", self.known), self.shop, self.day)
        self.tables.write("attribute_features", rows, [self.day], ["attribute", "value"])

    def item_graph(self) -> None:
        """Write item_graph."""
        from feature_jobs.item_graph import item_graph
        from feature_jobs.triples import item_triples, read_triples

        recent = self.month.where(self.month.as_of_date.isin(days_back(self.day, self.shop.history_days)))
        facts = item_triples(self.catalogue, self.tables.read("item_features", [self.day]), self.shop)
        triples = read_triples(self.tables.spark, self.shop, self.day).unionByName(facts)
        rows = item_graph(recent, triples, self.words, self.shop, self.day)
        self.tables.write("item_graph", rows, [self.day], ["head"])

    def choose_examples(self) -> list[ExampleDay]:
        """Find out which partitions of training_examples are written: a long plan over few rows, best beside other work."""
        return self.examples

    def look_back(self) -> "DataFrame":
        """Find the outcomes of the examples, beside other work."""
        return self.hindsight

    def training_examples(self) -> None:
        """Write training_examples, some days at a time: the rows are wide, and all at once they would be sorted on disk."""
        days = [example.day for example in self.examples]
        rows = {day: row_count(self.tables.files("impressions", [day])) for day in days}
        parts = (self._examples_of(some) for some in in_groups(rows, _ROWS_AT_A_TIME))
        self.tables.write_parts("training_examples", parts, days, ["impression_ts"])

    def _examples_of(self, days: list[dt.date]) -> "DataFrame":
        """Return the examples that arrived on these days."""
        from feature_jobs.attribution import reach_days
        from feature_jobs.labels import labels
        from feature_jobs.training_examples import training_examples

        until = days[-1] + dt.timedelta(days=reach_days(self.shop))
        acts = self.tables.read("acts", [day for day in self.known if self._reaching(days[0]) <= day <= until])
        labelled = labels(self.tables.read("impressions", days), acts, self.hindsight, self.shop, self.day)
        late = max(source.late_by_days for source in self.shop.sources)
        before = days_back(days[-1] - dt.timedelta(days=1), (days[-1] - days[0]).days + late + 1)
        of_users, of_items, there = (self.tables.read(name, before) for name in SNAPSHOTS[:3])
        return training_examples(labelled, of_users, of_items, there, self.shop, self.window.first_date, self.day)

    def normalization(self) -> None:
        """Write normalization."""
        import pyarrow as pa

        from training.normalization import fit_normalization

        files = self.tables.files("training_examples", self.window.days or [self.day])
        names = [feature.name for feature in dense_features(self.shop)]
        rows = fit_normalization(files, names, self.window)
        schema = arrow_schema(self.night.warehouse.specs["normalization"])
        self.tables.write_arrow("normalization", pa.Table.from_pylist(rows, schema))

    def candidates(self) -> None:
        """Write candidates."""
        from feature_jobs.candidates import CandidateInputs, candidates

        month = days_back(self.day, _LONGEST)
        acts = self.month.where(self.month.as_of_date.isin(month))
        names = ("item_features", "item_scenario_features", "item_graph")
        of_items, there, graph = (self.tables.read(name, [self.day]) for name in names)
        own = None if self.own is None else self.own.where(self.own.as_of_date == self.day)
        inputs = CandidateInputs(acts, self.catalogue, of_items, there, graph, own)
        self.tables.write_night("candidates", candidates(inputs, self.shop, self.day), ["user_key"])
