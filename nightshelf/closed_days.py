"""Days on which a shop has no logs: the part `closed` of a shop file."""

import datetime as dt

from pydantic import field_validator

from nightshelf.yamlfile import Strict

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
