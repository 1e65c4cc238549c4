"""The shop file: the contract with the person who brings logs. One YAML file is one shop (see conf/shops/demo.yaml)."""

import datetime as dt
import os
import re
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, field_validator, model_validator

from nightshelf.dates import parse_duration
from nightshelf.errors import InputError
from nightshelf.exclusions import acted_on, highest_price
from nightshelf.exports import Export, check_folders
from nightshelf.generators import Candidates
from nightshelf.raw_logs import Dimension, Duration, Graph, Source
from nightshelf.yamlfile import Name, Strict, load_model

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


class Closed(Strict):
    """Days without logs that are no fault."""

    weekdays: frozenset[str] = frozenset()
    dates: frozenset[dt.date] = frozenset()

    @field_validator("weekdays")
    @classmethod
    def _weekdays(cls, value: frozenset[str]) -> frozenset[str]:
        for day in value:
            if day not in WEEKDAYS:
                raise ValueError(f"{day!r} is no weekday; write one of {', '.join(WEEKDAYS)}")
        return value

    def line_with(self, day: dt.date) -> str:
        """Return the line of the shop file that says the same of one more day."""
        weekdays = (
            f"weekdays: [{', '.join(name for name in WEEKDAYS if name in self.weekdays)}], " if self.weekdays else ""
        )
        return f"closed: {{{weekdays}dates: [{', '.join(map(str, sorted({*self.dates, day})))}]}}"


class Sampled(Strict):
    """Negatives drawn per positive from the scenario's items of that day."""

    sampled: int = Field(4, ge=1, le=100)


class Task(Strict):
    """A learning target: an outcome event that follows an impression inside a label window.

    `given` names the task that must be positive first. `on: any_item` takes the user's next event on any item. With
    `not_before` the first such event must come no earlier than that. `value` names the event column that a regression
    learns: summed over the outcomes of one impression, but of ratings the last.
    """

    event: str
    given: Name | None = None
    label_window: Duration
    kind: Literal["binary", "regression"] = "binary"
    value: Literal["price", "quantity", "dwell_seconds", "rating", "amount"] | None = None
    on: Literal["item", "any_item"] = "item"
    not_before: Duration | None = None

    @model_validator(mode="after")
    def _value_with_regression(self) -> "Task":
        if (self.kind == "regression") != (self.value is not None):
            raise ValueError(
                "a regression needs `value: price|quantity|dwell_seconds|rating|amount`, and only a regression has one"
            )
        return self

    @property
    def window(self) -> dt.timedelta:
        """Return the label window."""
        return parse_duration(self.label_window)

    @property
    def window_days(self) -> int:
        """Return the label window in whole days, rounded up: how long an impression stays immature."""
        return -(-self.window // dt.timedelta(days=1))


class Fresh(Strict):
    """A new item's score rises by the share `boost` on the day of its launch, by less each day, and by nothing after `days`."""

    days: int = Field(ge=1, le=365)
    boost: float = Field(gt=0, le=10)


class Rerank(Strict):
    """What acts on the order of a shelf beside the score (pipelines/rerank.py).

    diversity: weight of likeness to what stands above, against the score. most_per: column of items → most places. repeats:
    share of its score that an item loses for each shelf of an earlier scenario that it stands on. explore: share of the places
    that go to new items by chance. fresh: what new items gain. least: column of items → value → the share of the places that
    items with it have at least.
    """

    diversity: float = Field(0.0, ge=0, lt=1)
    most_per: dict[str, Annotated[int, Field(ge=1)]] = Field({})
    repeats: float = Field(0.0, ge=0, lt=1)
    explore: float = Field(0.0, ge=0, le=0.5)
    fresh: Fresh | None = None
    least: dict[str, dict[str, Annotated[float, Field(gt=0, le=1)]]] = Field({})

    @field_validator("least")
    @classmethod
    def _room_for_all(cls, value: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for column, shares in value.items():
            if sum(shares.values()) > 1 + 1e-9:
                raise ValueError(f"{column}: the shares sum to {sum(shares.values()):g}, more than all places")
        return value


class Scenario(Strict):
    """A surface with its shelf: how long, what it is ranked by, what it must not show, what it chooses from, what else orders it.

    utility: task → what an outcome is worth. rank_by: the weights of the tasks' predictions, where other ones rank better than
    the worth does (`nightshelf weights` looks for them). anchor: the act (`viewed`, `cart` …) that makes an item an anchor;
    with it, each item of the catalogue gets a shelf for whoever did that with it last, beside the shelves of users.
    """

    top_n: int = Field(20, ge=1, le=1000)
    utility: dict[str, float]
    rank_by: dict[str, float] = Field({})
    exclude: list[str] = Field([])
    candidates: Candidates = Candidates()
    rerank: Rerank = Rerank()
    anchor: Name | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Return the weights that shelves are ranked by."""
        return self.rank_by or self.utility

    @field_validator("exclude")
    @classmethod
    def _known_rules(cls, rules: list[str]) -> list[str]:
        for rule in rules:
            acted_on(rule)
        return rules


class Bots(Strict):
    """The most that a person does in the logs of one day; whoever does more is a bot that day. null = no such limit.

    Clicks are all events but impressions. An hour counts where it holds a click; a gap is the time from one moment with
    clicks to the next, and even if it is within a tenth of the user's median gap. Hours and gaps tell nothing of users
    with fewer than `min_clicks` clicks.
    """

    max_clicks_per_day: int | None = Field(1000, ge=1)
    max_impressions_per_day: int | None = Field(20_000, ge=1)
    max_items_per_day: int | None = Field(500, ge=1)
    max_hours_per_day: int | None = Field(20, ge=1, le=24)
    max_even_gaps: float | None = Field(0.8, gt=0, le=1)
    min_clicks: int = Field(50, ge=3)


class Quarantine(Strict):
    """Thresholds above which a row is set aside, and how many may be.

    orphans: event type → how long before it its item must have been shown. max_share: of a log's rows of a day; more stop the
    night. Rows that the source expects (nightshelf.raw_logs.Source.expected_reasons) are not counted.
    """

    bots: Bots = Bots()
    orphans: dict[Name, Duration] = Field({})
    test_users: list[str] = Field([])
    max_price: float = 1e6
    max_quantity: int = 10_000
    max_text: int = 10_000
    max_share: float = Field(0.2, gt=0, le=1)

    @field_validator("test_users")
    @classmethod
    def _expressions(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression ({error}); write one such as test_.*") from None
        return patterns


def _band(value: tuple[float, float] | None) -> tuple[float, float] | None:
    if value and not 0 <= value[0] < value[1]:
        raise ValueError(f"{list(value)} is no range; write the lower bound first, e.g. [0.5, 2]")
    return value


Band = Annotated[tuple[float, float] | None, AfterValidator(_band)]


class Checks(Strict):
    """When a table's content is suspicious (a warning), or stops the night. null = never.

    rows: tonight's rows as a multiple of the median of the last nights.
    filled: the share of a column's values that are not empty, as a multiple of the median of the last nights.
    missing: share of the rows that name a user or item which the table they refer to does not know.
    label_rate: how many times as high, or as low, a task's rate in a scenario may be as on the days before.
    psi: a feature's or label's population stability index against what the serving model learned, beyond chance.
    shelf_kept: share of the places whose item stood on the user's shelf of the night before.
    shelf_items: distinct items of a scenario's shelves, as a multiple of the night before's.
    shelf_filled: filled places, as a share of those that can be filled whatever is excluded (pipelines/shelf_length.py).
    shelf_places: places of a shelf, as a multiple of the night before's.
    shelf_scores: Kolmogorov-Smirnov distance of a scenario's scores from the night before's.
    stump_auc: AUC with which one threshold on one feature may tell a task's label.
    """

    rows_warn: Band = (0.5, 2.0)
    rows_fail: Band = (0.1, 10.0)
    filled_warn: float | None = Field(0.8, gt=0, le=1)
    filled_fail: float | None = Field(0.2, gt=0, le=1)
    missing_warn: float | None = Field(0.001, ge=0, le=1)
    missing_fail: float | None = Field(0.05, ge=0, le=1)
    label_rate_warn: float | None = Field(4.0, gt=1)
    psi_warn: float | None = Field(0.25, gt=0)
    psi_fail: float | None = Field(10.0, gt=0)
    shelf_kept_warn: Band = (0.02, 0.999)
    shelf_items_warn: Band = (0.5, 2.0)
    shelf_items_fail: Band = (0.05, 1e9)
    shelf_filled_warn: float | None = Field(0.98, gt=0, le=1)
    shelf_filled_fail: float | None = Field(0.8, gt=0, le=1)
    shelf_places_warn: float | None = Field(0.9, gt=0, le=1)
    shelf_places_fail: float | None = Field(0.6, gt=0, le=1)
    shelf_scores_warn: float | None = Field(0.5, gt=0, le=1)
    stump_auc_fail: float = Field(0.98, gt=0.5, le=1)


class Vocabularies(Strict):
    """Which categorical values get an id of their own, and for how long.

    min_count: vocabulary → the fewest events of a user, the fewest queries with a word (3 unless told), or the fewest items
    (or users) that bear the value in one day's table; rarer values share ids. A value that nobody has seen for
    `evict_after_days`, nor in any day that the night still reads, loses its id; another value gets that id no sooner
    than `reuse_after_days`, or `history_days`, later.
    """

    min_count: dict[str, Annotated[int, Field(ge=1)]] = Field({})
    evict_after_days: int = Field(90, ge=1)
    reuse_after_days: int = Field(30, ge=0)


class Spark(Strict):
    """Where the feature jobs run: Spark here or on a cluster (`master`), at a Spark Connect server (`remote`), or Sail."""

    engine: Literal["spark", "sail"] = "spark"
    master: str = "local[*]"
    remote: str | None = None
    driver_memory: str = "2g"
    shuffle_partitions: int = Field(4, ge=1)

    @field_validator("remote")
    @classmethod
    def _remote(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("sc://"):
            raise ValueError("is no address of a Spark Connect server; write sc://host:port")
        return value

    @field_validator("driver_memory")
    @classmethod
    def _memory(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9]\d*[kmgt]b?", value.lower()):
            raise ValueError("is no amount of memory; write one such as 512m or 2g")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> "Spark":
        if self.remote is not None and self.engine == "sail":
            raise ValueError("Sail runs inside the night's own process; take `remote` out, or `engine: sail`")
        if "master" in self.model_fields_set and (self.remote is not None or self.engine == "sail"):
            other = "`engine: sail`" if self.remote is None else "`remote`"
            raise ValueError(f"`master` and {other} both say where the jobs run; take one of them out")
        return self


class Training(Strict):
    """How `train` trains. processes: how many of the machine share each batch, on an accelerator of its own each."""

    processes: int = Field(1, ge=1, le=64)


class Serving(Strict):
    """How `recommend` fills the shelves of users.

    users_at_once: how many of them a process has in memory, at most. engine: whether processes of the night's own machine serve
    them, one a core, or the tasks of a Spark job. tasks: how many Airflow tasks serve them side by side before `recommend`.
    """

    users_at_once: int = Field(25_000, ge=1)
    engine: Literal["process", "spark"] = "process"
    tasks: int = Field(1, ge=1, le=100)


# Tables that no night reads, or (candidates, for their recall and quotas) no further back than ten days.
_DROPPABLE = (
    "candidates", "retrieved_candidates", "shelf_drafts", "recommendations", "item_shelf_drafts", "item_recommendations",
    "quarantine",
)  # fmt: skip


class Keep(Strict):
    """How long `nightshelf maintain` keeps what is old, in days.

    snapshot_days: earlier states of the tables, for rollback and `--as-of`. partition_days: table → its partitions, by how much
    older they are than its newest, which always stays; those that are not named, and the tables that nights read back, stay for
    ever.
    """

    snapshot_days: int = Field(30, ge=1)
    partition_days: dict[str, Annotated[int, Field(ge=14)]] = Field({})

    @field_validator("partition_days")
    @classmethod
    def _read_by_no_night(cls, value: dict[str, int]) -> dict[str, int]:
        for name in value:
            if name not in _DROPPABLE:
                raise ValueError(f"{name!r} is read by later nights, or no table; known: {', '.join(_DROPPABLE)}")
        return value


class Privacy(Strict):
    """Where the key for user ids comes from: an environment variable that holds it, or else a file below home."""

    key_env: str = "NIGHTSHELF_ID_KEY"


class Shop(Strict):
    """One shop: its logs, its tasks, its scenarios."""

    shop: Name
    home: Path
    timezone: str
    sources: list[Source] = Field(min_length=1)
    closed: Closed = Closed()
    items: Dimension | None = None
    users: Dimension | None = None
    graph: Graph | None = None
    blocked: str | None = None
    negatives: Literal["impressions"] | Sampled = "impressions"
    attribution: Literal["last_touch", "first_touch"] = "last_touch"
    session_gap: Duration = "30m"
    tasks: dict[Name, Task] = Field(min_length=1)
    scenarios: dict[Name, Scenario] = Field(min_length=1)
    model: Path = Path("conf/models/ple.yaml")
    retrieval: Path | None = None
    history_days: int = Field(14, ge=2, le=400)
    quarantine: Quarantine = Quarantine()
    checks: Checks = Checks()
    vocabularies: Vocabularies = Vocabularies()
    spark: Spark = Spark()
    training: Training = Training()
    serving: Serving = Serving()
    keep: Keep = Keep()
    exports: list[Export] = Field([])
    privacy: Privacy = Privacy()

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError):
            raise ValueError("is no time zone; write a name such as Asia/Shanghai or UTC") from None
        return value

    @field_validator("session_gap")
    @classmethod
    def _a_minute_at_least(cls, gap: str) -> str:
        if parse_duration(gap) < dt.timedelta(minutes=1):
            raise ValueError(f"{gap!r} is shorter than a minute; write a pause such as 30m")
        return gap

    @model_validator(mode="after")
    def _names_agree(self) -> "Shop":
        for name, task in self.tasks.items():
            if task.given is not None and (task.given not in self.tasks or task.given == name):
                raise ValueError(
                    f"tasks.{name}.given = {task.given!r} is no other task; known: {', '.join(self.tasks)}"
                )
        for name, scenario in self.scenarios.items():
            for key, weights in (("utility", scenario.utility), ("rank_by", scenario.rank_by)):
                for task_name in weights:
                    if task_name not in self.tasks:
                        known = ", ".join(self.tasks)
                        raise ValueError(f"scenarios.{name}.{key}: {task_name!r} is no task; known: {known}")
            for rule in scenario.exclude:
                acted = acted_on(rule)
                if acted and acted[0] not in self.event_types:
                    known = ", ".join(self.event_types)
                    raise ValueError(
                        f"scenarios.{name}.exclude: {rule!r}: no log has {acted[0]!r}; event types: {known}"
                    )
            self._check_catalogue(name, scenario)
            groups = ["category_1", "category_2", "category_3", "brand"]
            groups += [f"attribute_{attribute}" for attribute in (self.items.attributes if self.items else [])]
            for rule in ("most_per", "least"):
                for column in getattr(scenario.rerank, rule):
                    if column not in groups:
                        raise ValueError(
                            f"scenarios.{name}.rerank.{rule}: {column!r} is unknown; known: {', '.join(groups)}"
                        )
            self._check_anchor(name, scenario)
            self._check_quotas(name, scenario)
        for source in self.sources:
            for scenario_name in source.scenarios:
                if scenario_name not in self.scenarios:
                    known = ", ".join(self.scenarios)
                    raise ValueError(
                        f"sources.{source.name}.scenario: {scenario_name!r} is no scenario; known: {known}"
                    )
        for name in self.quarantine.orphans:
            if name == "impression" or name not in self.event_types or "impression" not in self.event_types:
                raise ValueError(
                    f"quarantine.orphans: {name!r} is no outcome beside impressions; event types: {', '.join(self.event_types)}"
                )
        self._check_cuts()
        self._check_exports()
        if self.items and self.items.consent:
            raise ValueError("items.consent: an item does not agree; write it below users")
        if len({source.name for source in self.sources}) < len(self.sources):
            raise ValueError("two sources bear one name; give each its own")
        for source in self.sources:
            if source.name in ("items", "users", "graph"):
                raise ValueError(f"sources: {source.name!r} is the name of another part of the shop file; give another")
        return self

    def _check_catalogue(self, name: str, scenario: Scenario) -> None:
        known = self.items.columns if self.items else {}
        asks = [("price", f"exclude: {rule!r}") for rule in scenario.exclude if highest_price(rule) is not None]
        asks += [("launch_date", "rerank.fresh")] if scenario.rerank.fresh else []
        for column, where in asks:
            if column not in known:
                raise ValueError(
                    f"scenarios.{name}.{where} asks the catalogue's {column}, of which the shop file says nothing; write it "
                    f"below items.columns, e.g. {{{column}: {column}}}"
                )

    def _check_anchor(self, name: str, scenario: Scenario) -> None:
        known = [event for event in self.event_types if event != "impression"]
        if any("anchor_item_id" in source.columns for source in self.sources):
            known.append("viewed")
        if scenario.anchor is not None and scenario.anchor not in known:
            raise ValueError(f"scenarios.{name}.anchor: no log tells of {scenario.anchor!r}; known: {', '.join(known)}")

    def _check_quotas(self, name: str, scenario: Scenario) -> None:
        quotas, place = scenario.candidates.quotas, f"scenarios.{name}.candidates.quotas"
        if "two_tower" in quotas and self.retrieval is None:
            raise ValueError(
                f"{place}: nobody proposes 'two_tower' without a model; add `retrieval: conf/retrieval/two_tower.yaml`, or take "
                "it out"
            )
        if quotas.get("popular", scenario.top_n) < scenario.top_n:
            raise ValueError(
                f"{place}: 'popular' = {quotas['popular']} fills no shelf of {scenario.top_n} for whoever has no history; write "
                f"{scenario.top_n} or more, or take it out"
            )
        if quotas.get("fresh") == 0 and scenario.rerank.explore:
            raise ValueError(f"{place}: 'fresh' = 0 leaves rerank.explore nothing to draw from; take one of them out")

    def _check_exports(self) -> None:
        places = [export.place for export in self.exports]
        for export in self.exports:
            if places.count(export.place) > 1:
                raise ValueError(f"exports: two write to {export.place}; give each its own")
            if export.table == "item_recommendations" and not self.anchors:
                raise ValueError(
                    "exports: there are no item_recommendations; give a scenario an `anchor`, or take that export out"
                )

    def _check_cuts(self) -> None:
        from nightshelf.features import QUERY_TOKEN, index_features

        known = [*(feature.vocabulary for feature in index_features(self) if feature.vocabulary), QUERY_TOKEN]
        for name in self.vocabularies.min_count:
            if name == "item":
                raise ValueError(
                    "vocabularies.min_count: histories tell items apart by their ids, so that each needs its own; take 'item' out"
                )
            if name not in known:
                raise ValueError(f"vocabularies.min_count: {name!r} is no vocabulary; known: {', '.join(known)}")

    @property
    def anchors(self) -> dict[str, str]:
        """Return scenario → act, of the scenarios whose items get shelves."""
        return {name: scenario.anchor for name, scenario in self.scenarios.items() if scenario.anchor}

    @property
    def event_types(self) -> list[str]:
        """Return every event type that the sources can write."""
        return sorted({name for source in self.sources for name in source.event_types})

    def is_closed(self, day: dt.date) -> bool:
        """Say whether the shop was closed on `day`, so that a day without logs is no fault."""
        return day in self.closed.dates or WEEKDAYS[day.weekday()] in self.closed.weekdays


def load_shop(path: Path | str) -> Shop:
    """Read a shop file; `$NIGHTSHELF_HOME`, if set, overrides its home, and `$NIGHTSHELF_SPARK_MASTER` where its Spark runs.

    A relative home or model file starts at the working directory; a model file that is not there is looked for in
    nightshelf's own folder, so that a shop file may lie anywhere.

    Raises:
        InputError: the file is missing or a key in it is unknown, missing or wrong, the master has no Spark to override, or an
            export has no folder of its own below that home.
    """
    shop = load_model(Path(path), Shop)
    home = Path(os.environ.get("NIGHTSHELF_HOME") or shop.home).expanduser().absolute()
    check_folders(shop.exports, home, path)
    model, retrieval = _found(shop.model), shop.retrieval and _found(shop.retrieval)
    spark = _with_master(shop.spark, os.environ.get("NIGHTSHELF_SPARK_MASTER"), path)
    return shop.model_copy(update={"home": home, "model": model, "retrieval": retrieval, "spark": spark})


def _found(recipe: Path) -> Path:
    """Return a model file: from the working directory, or from nightshelf's own folder."""
    return recipe if recipe.exists() else Path(__file__).resolve().parent.parent / recipe


def _with_master(spark: Spark, master: str | None, path: Path | str) -> Spark:
    if not master:
        return spark
    if spark.remote or spark.engine == "sail":
        place = f"remote: {spark.remote}" if spark.remote else "engine: sail"
        raise InputError(
            f"{path}: spark: {{{place}}} and $NIGHTSHELF_SPARK_MASTER = {master} both say where the jobs run; "
            "unset the variable, or take the key out of the shop file"
        )
    return spark.model_copy(update={"master": master})
