"""What may be asked of a night from outside (form, REST, command line): checked once more, and dated, before anything runs."""

import datetime as dt
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError

from nightshelf.dates import last_complete_day, parse_as_of_date
from nightshelf.errors import InputError
from nightshelf.yamlfile import Name

# A file directly below conf/shops: no way out of that folder, nothing that a shell would read.
SHOP_PATTERN = r"^conf/shops/[a-z0-9][a-z0-9_-]{0,39}\.yaml$"
SCENARIO_PATTERN = r"^[a-z][a-z0-9_]{0,39}$"
DEFAULT_SHOP = "conf/shops/demo.yaml"


def _date(value: Any) -> dt.date | None:
    if value in (None, ""):
        return None
    try:
        return parse_as_of_date(str(value))
    except InputError as error:
        raise ValueError(str(error)) from None


class NightRequest(BaseModel):
    """A night that somebody asked for; an empty as_of_date is decided by `decide_as_of_date`, no scenarios means all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shop: Annotated[str, Field(pattern=SHOP_PATTERN)]
    as_of_date: Annotated[dt.date | None, BeforeValidator(_date)] = None
    retrain: StrictBool = True
    scenarios: Annotated[tuple[Name, ...], Field(max_length=100)] = ()


def scheduled_shop_file(environment: Mapping[str, str]) -> str:
    """Return the shop file that the schedule serves, as a path below the repository: `$NIGHTSHELF_SHOP`, or the demo's.

    Raises:
        InputError: the variable names no file of conf/shops.
    """
    name = environment.get("NIGHTSHELF_SHOP") or DEFAULT_SHOP
    if not re.fullmatch(SHOP_PATTERN, name):
        raise InputError(
            f"NIGHTSHELF_SHOP={name[:80]!r} is nothing that Airflow can serve; put the shop file into conf/shops and name it"
            f" from there, e.g. NIGHTSHELF_SHOP={DEFAULT_SHOP} (small letters, digits, _ and -)"
        )
    return name


def read_request(values: dict[str, Any]) -> NightRequest:
    """Check the values of a form or a run's conf.

    Raises:
        InputError: a key is unknown, or a value is not one that the night takes.
    """
    try:
        return NightRequest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(NightRequest.model_fields)
        raise InputError(
            f"run conf: {name[:80]!r} = {str(first['input'])[:80]!r}: {first['msg'][:160]}; known keys: {known}"
        ) from None


def decide_as_of_date(asked: dt.date | None, partition_key: str | None, moment: dt.datetime, timezone: str) -> dt.date:
    """Return a run's as_of_date: the date asked for, else the partition's, else the last day complete at `moment`.

    `moment` is when the run was asked for (it carries its own zone); a day is complete when it ended in `timezone`, the
    shop's. So a run started by hand at noon, one that the clock started at 02:00, and a backfill of a partition agree.

    Raises:
        InputError: the partition key is no date.
    """
    if asked is not None:
        return asked
    if partition_key:
        return parse_as_of_date(partition_key)
    return last_complete_day(moment, timezone)
