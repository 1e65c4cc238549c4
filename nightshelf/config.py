"""The shop file: the contract with the person who brings logs. One YAML file is one shop (see conf/shops/demo.yaml)."""

import datetime as dt
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from nightshelf.dates import parse_duration
from nightshelf.yamlfile import load_model

# The letters that Spark reads in a time pattern, and how often each may stand in a row.
_PATTERN_LETTERS = dict(
    zip("GyMLdDaHhKkmsSVzOXxZ", (4, 6, 4, 4, 2, 3, 1, 2, 2, 2, 2, 2, 2, 9, 2, 4, 4, 5, 5, 5), strict=True)
)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# The columns of an event that a source may fill; the first four are needed, from a column or a constant.
EVENT_COLUMNS = (
    "user_id", "item_id", "event_ts", "request_id", "position", "query", "quantity", "price",
    "propensity", "dwell_seconds", "anchor_item_id",
)  # fmt: skip


def _duration(text: str) -> str:
    parse_duration(text)
    return text


Duration = Annotated[str, AfterValidator(_duration)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Strict(BaseModel):
    """A part of the shop file: an unknown key is an error, and nothing changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ValueMap(Strict):
    """A value read from a column through a map; a value that the map lacks becomes `default`, or is quarantined."""

    column: str
    map: dict[str, str]
    default: str | None = None

    @field_validator("map", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else value


class TimestampFormat(Strict):
    """How a source writes its time; a text without an offset is read in `timezone` (default: the shop's)."""

    format: str = "epoch_ms"
    timezone: str | None = None

    @field_validator("format")
    @classmethod
    def _readable(cls, value: str) -> str:
        """Refuse what Spark would refuse in the middle of the night."""
        if value in ("epoch_s", "epoch_ms", "iso8601"):
            return value
        remedy = "write epoch_s, epoch_ms, iso8601 or a pattern such as yyyy-MM-dd HH:mm:ss"
        if value.count("'") % 2:
            raise ValueError(f"has a quote without its partner; {remedy}")
        for run in re.finditer(r"([A-Za-z])\1*", re.sub("'[^']*'", "", value)):
            most = _PATTERN_LETTERS.get(run[1])
            if most is None or len(run[0]) > most:
                raise ValueError(f"{run[0]!r} is no part of a time pattern; {remedy}")
        if not {"y", "d"} & set(value) - {"'"}:
            raise ValueError(f"names no day; {remedy}")
        return value


class Csv(Strict):
    """How a CSV source is written."""

    delimiter: str = ","
    header: bool = True
    encoding: str = "UTF-8"


class Source(Strict):
    """One log in one schema."""

    name: Name
    path: str
    format: Literal["jsonl", "csv", "parquet"]
    csv: Csv = Csv()
    scenario: str | ValueMap
    event_type: str | ValueMap
    columns: dict[str, str]
    timestamp: TimestampFormat = TimestampFormat()
    late_by_days: int = Field(0, ge=0, le=30)

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(columns) - set(EVENT_COLUMNS))
        if unknown:
            raise ValueError(f"unknown event column {unknown[0]!r}; known: {', '.join(EVENT_COLUMNS)}")
        missing = [name for name in EVENT_COLUMNS[:3] if name not in columns]
        if missing:
            raise ValueError(f"column for {missing[0]!r} is missing; a log needs user_id, item_id and event_ts")
        return columns

    @property
    def scenarios(self) -> list[str]:
        """Return the scenarios that the log may speak of."""
        return _targets(self.scenario)

    @property
    def is_dated(self) -> bool:
        """Say whether the path names the day whose log it holds."""
        return "{event_date}" in self.path


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


class Dimension(Strict):
    """A table of items or users: `columns` maps our names to the file's."""

    path: str
    format: Literal["jsonl", "csv", "parquet"]
    csv: Csv = Csv()
    columns: dict[str, str]
    attributes: list[str] = []
    category_separator: str = "/"


class Graph(Strict):
    """Extra triples of the shop's own; `columns` names those of head, relation and tail."""

    path: str
    format: Literal["jsonl", "csv", "parquet"]
    csv: Csv = Csv()
    columns: dict[str, str]

    @field_validator("columns")
    @classmethod
    def _three(cls, columns: dict[str, str]) -> dict[str, str]:
        if set(columns) != {"head", "relation", "tail"}:
            raise ValueError(
                f"has {', '.join(sorted(columns)) or 'nothing'}; name the columns of head, relation and tail"
            )
        return columns


class Sampled(Strict):
    """Negatives drawn per positive from the scenario's items of that day."""

    sampled: int = Field(4, ge=1, le=100)


class Task(Strict):
    """A learning target: an outcome event that follows an impression inside a label window.

    `given` names the task that must be positive first. `on: any_item` takes the user's next event on any item. With
    `not_before` the first such event must come no earlier than that. `value` names the event column that a regression
    learns (summed over the outcomes of one impression).
    """

    event: str
    given: Name | None = None
    label_window: Duration
    kind: Literal["binary", "regression"] = "binary"
    value: Literal["price", "quantity", "dwell_seconds", "amount"] | None = None
    on: Literal["item", "any_item"] = "item"
    not_before: Duration | None = None

    @model_validator(mode="after")
    def _value_with_regression(self) -> "Task":
        if (self.kind == "regression") != (self.value is not None):
            raise ValueError(
                "a regression needs `value: price|quantity|dwell_seconds|amount`, and only a regression has one"
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


class Scenario(Strict):
    """A surface with its shelf: how long, what it is ranked by, what it must not show."""

    top_n: int = Field(20, ge=1, le=1000)
    utility: dict[str, float]
    exclude: list[Literal["purchased_30d", "out_of_stock"]] = []


class Quarantine(Strict):
    """Thresholds above which a row is set aside."""

    max_clicks_per_day: int = Field(1000, ge=1)
    test_users: list[str] = []
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


class Spark(Strict):
    """Where the feature jobs run."""

    engine: Literal["spark"] = "spark"
    master: str = "local[*]"
    driver_memory: str = "2g"
    shuffle_partitions: int = Field(4, ge=1)


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
    negatives: Literal["impressions"] | Sampled = "impressions"
    tasks: dict[Name, Task] = Field(min_length=1)
    scenarios: dict[Name, Scenario] = Field(min_length=1)
    model: Path = Path("conf/models/ple.yaml")
    history_days: int = Field(14, ge=2, le=400)
    quarantine: Quarantine = Quarantine()
    spark: Spark = Spark()
    privacy: Privacy = Privacy()

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, KeyError):
            raise ValueError("is no time zone; write a name such as Asia/Shanghai or UTC") from None
        return value

    @model_validator(mode="after")
    def _names_agree(self) -> "Shop":
        for name, task in self.tasks.items():
            if task.given is not None and (task.given not in self.tasks or task.given == name):
                raise ValueError(
                    f"tasks.{name}.given = {task.given!r} is no other task; known: {', '.join(self.tasks)}"
                )
        for name, scenario in self.scenarios.items():
            for task_name in scenario.utility:
                if task_name not in self.tasks:
                    known = ", ".join(self.tasks)
                    raise ValueError(f"scenarios.{name}.utility: {task_name!r} is no task; known: {known}")
        for source in self.sources:
            for scenario_name in source.scenarios:
                if scenario_name not in self.scenarios:
                    known = ", ".join(self.scenarios)
                    raise ValueError(
                        f"sources.{source.name}.scenario: {scenario_name!r} is no scenario; known: {known}"
                    )
        if len({source.name for source in self.sources}) < len(self.sources):
            raise ValueError("two sources bear one name; give each its own")
        return self

    @property
    def event_types(self) -> list[str]:
        """Return every event type that the sources can write."""
        return sorted({name for source in self.sources for name in _targets(source.event_type)})

    def is_closed(self, day: dt.date) -> bool:
        """Say whether the shop was closed on `day`, so that a day without logs is no fault."""
        return day in self.closed.dates or WEEKDAYS[day.weekday()] in self.closed.weekdays


def _targets(value: str | ValueMap) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [*value.map.values(), *([value.default] if value.default else [])]


def load_shop(path: Path | str) -> Shop:
    """Read a shop file; `$NIGHTSHELF_HOME`, if set, overrides its home, and `$NIGHTSHELF_SPARK_MASTER` where its Spark runs.

    A relative home or model file starts at the working directory; a model file that is not there is looked for in
    nightshelf's own folder, so that a shop file may lie anywhere.

    Raises:
        InputError: the file is missing or a key in it is unknown, missing or wrong.
    """
    shop = load_model(Path(path), Shop)
    home = Path(os.environ.get("NIGHTSHELF_HOME") or shop.home).expanduser().absolute()
    own = Path(__file__).resolve().parent.parent / shop.model
    spark = shop.spark.model_copy(update={"master": os.environ.get("NIGHTSHELF_SPARK_MASTER") or shop.spark.master})
    return shop.model_copy(update={"home": home, "model": shop.model if shop.model.exists() else own, "spark": spark})
