"""How a shop's raw logs and tables are written: the part of the shop file that cleaning reads."""

import codecs
import datetime as dt
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from nightshelf.dates import parse_duration
from nightshelf.yamlfile import Name, Strict

# The letters that Spark reads in a time pattern, and how often each may stand in a row.
_PATTERN_LETTERS = dict(
    zip("GyMLdDaHhKkmsSVzOXxZ", (4, 6, 4, 4, 2, 3, 1, 2, 2, 2, 2, 2, 2, 9, 2, 4, 4, 5, 5, 5), strict=True)
)
# The columns of an event that a source may fill; the first four are needed, from a column or a constant.
EVENT_COLUMNS = (
    "user_id", "item_id", "event_ts", "request_id", "position", "query", "quantity", "price",
    "propensity", "dwell_seconds", "rating", "anchor_item_id",
)  # fmt: skip
# The columns of a catalogue beside its attributes; the first is needed.
ITEM_COLUMNS = ("item_id", "title", "category", "brand", "price", "stock", "launch_date")
# No number of a log is larger; it is smaller than float32's infinity.
FINITE = 1e30
# No place of a list is further down; what says so is no place.
LAST_POSITION = 1_000_000
# Reasons for which rows are set aside without a fault, where the shop file says so.
CANCELLATION, CANCELLED, WITHOUT_USER = "cancellation", "cancelled", "without_user"
# Those of them that are read as numbers.
NUMBERS = ("position", "quantity", "price", "propensity", "dwell_seconds", "rating")


def _duration(text: str) -> str:
    parse_duration(text)
    return text


Duration = Annotated[str, AfterValidator(_duration)]
SchemaSince = dt.date | None  # the first day of a new schema: earlier days are not compared with it


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

    delimiter: str = Field(",", min_length=1)
    header: bool = True
    encoding: str = "UTF-8"

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        """Return the name that Python and Java share; refuse what neither knows, or what has line breaks of several bytes."""
        remedy = "write UTF-8, ISO-8859-1, windows-1252 or another that Python knows"
        try:
            known = codecs.lookup(value).name
        except LookupError:
            raise ValueError(f"no encoding {value!r}; {remedy}") from None
        if known.startswith(("utf-16", "utf-32")):
            raise ValueError(f"{value}: its line breaks are of several bytes; bring the files as UTF-8")
        return {"utf-8": "UTF-8", "utf-8-sig": "UTF-8", "iso8859-1": "ISO-8859-1"}.get(known, value)


class Source(Strict):
    """One log in one schema.

    negative_quantity: whether it is a fault of its row, or cancels a sale (feature_jobs/cancellations.py). without_user:
    whether rows without a user are a fault, or expected.
    """

    name: Name
    path: str
    format: Literal["jsonl", "csv", "parquet"]
    csv: Csv = Csv()
    scenario: str | ValueMap
    event_type: str | ValueMap
    columns: dict[str, str]
    timestamp: TimestampFormat = TimestampFormat()
    late_by_days: int = Field(0, ge=0, le=30)
    repeats_within: Duration | None = (
        None  # a row that differs in its time alone, and comes so soon after, is a duplicate
    )
    negative_quantity: Literal["fault", "cancels"] = "fault"
    without_user: Literal["fault", "expected"] = "fault"
    schema_since: SchemaSince = None

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

    @model_validator(mode="after")
    def _cancellations_can_be_told(self) -> "Source":
        if self.cancels and "quantity" not in self.columns:
            raise ValueError("`negative_quantity: cancels` needs a column for 'quantity'; add it, or take the line out")
        if self.cancels and self.repeats_within:
            # One of two sales within that time may be the repetition, or the one that was cancelled
            raise ValueError(
                "`negative_quantity: cancels` and `repeats_within` contradict each other; take one of them out"
            )
        return self

    @property
    def cancels(self) -> bool:
        """Say whether a negative quantity takes a sale back."""
        return self.negative_quantity == "cancels"

    @property
    def expected_reasons(self) -> frozenset[str]:
        """Return the reasons for which rows of the log are set aside without a fault."""
        cancelled = {CANCELLATION, CANCELLED} if self.cancels else set()
        return frozenset(cancelled | ({WITHOUT_USER} if self.without_user == "expected" else set()))

    @property
    def scenarios(self) -> list[str]:
        """Return the scenarios that the log may speak of."""
        return _targets(self.scenario)

    @property
    def event_types(self) -> list[str]:
        """Return the event types that the log may write."""
        return _targets(self.event_type)

    @property
    def is_dated(self) -> bool:
        """Say whether the path names the day whose log it holds."""
        return "{event_date}" in self.path


class Dimension(Strict):
    """A table of items or users: `columns` maps our names to the file's.

    `consent` names the column of a user table that says whether the user agreed that the attributes are used: without a
    true, 1, yes or y they are taken as unknown.
    """

    path: str
    format: Literal["jsonl", "csv", "parquet"]
    csv: Csv = Csv()
    columns: dict[str, str]
    attributes: list[str] = Field([])
    consent: str | None = None
    category_separator: str = "/"
    schema_since: SchemaSince = None


class Graph(Strict):
    """Extra triples of the shop's own; `columns` names those of head, relation and tail."""

    path: str
    format: Literal["jsonl", "csv", "parquet"]
    csv: Csv = Csv()
    columns: dict[str, str]
    schema_since: SchemaSince = None

    @field_validator("columns")
    @classmethod
    def _three(cls, columns: dict[str, str]) -> dict[str, str]:
        if set(columns) != {"head", "relation", "tail"}:
            raise ValueError(
                f"has {', '.join(sorted(columns)) or 'nothing'}; name the columns of head, relation and tail"
            )
        return columns


def _targets(value: str | ValueMap) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [*value.map.values(), *([value.default] if value.default else [])]
