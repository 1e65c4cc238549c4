"""Which rows of the logs are set aside, and how many may be: the part `quarantine` of a shop file."""

import re

from pydantic import Field, field_validator

from nightshelf.raw_logs import Duration
from nightshelf.yamlfile import Name, Strict


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
