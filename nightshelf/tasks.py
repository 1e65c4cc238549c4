"""What is learned of an impression: the parts `tasks` and `negatives` of a shop file."""

import datetime as dt
from typing import Literal

from pydantic import Field, model_validator

from nightshelf.dates import parse_duration
from nightshelf.raw_logs import Duration
from nightshelf.yamlfile import Name, Strict


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
