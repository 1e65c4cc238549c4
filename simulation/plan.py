"""What a simulated shop is made from: the few numbers that decide everything, and where its truth lies."""

import datetime as dt
import json
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from nightshelf.dates import day_bounds_utc
from nightshelf.errors import InputError
from simulation.catalogue import Catalogue, make_catalogue
from simulation.people import People, chunk_count, make_people
from simulation.traffic import NO_REQUEST_DAYS, Clock

IMPRESSIONS_PER_USER_DAY = 6.0


@dataclass(frozen=True)
class Plan:
    """The numbers that decide a simulated shop; kept in truth/plan.json."""

    first_day: str
    users: int
    items: int
    seed: int
    impressions_per_user_day: float
    timezone: str

    def __post_init__(self) -> None:
        if self.users < 1 or self.items < 40 or self.impressions_per_user_day <= 0 or self.seed < 0:
            raise InputError(
                f"a shop of {self.users} users, {self.items} items, {self.impressions_per_user_day} impressions per user and day,"
                f" seed {self.seed} cannot be simulated; give at least 1 user and 40 items, and numbers above 0"
            )

    @property
    def chunks(self) -> int:
        """Return the number of user chunks."""
        return chunk_count(self.users)

    @property
    def zone(self) -> ZoneInfo:
        """Return the shop's time zone."""
        return ZoneInfo(self.timezone)

    def date(self, day: int) -> dt.date:
        """Return the date of a day number."""
        return dt.date.fromisoformat(self.first_day) + dt.timedelta(days=day)

    def day(self, date: dt.date) -> int:
        """Return the day number of a date."""
        return (date - dt.date.fromisoformat(self.first_day)).days

    def clock(self, day: int) -> Clock:
        """Return the day's bounds and those of the days on which its outcomes may still come."""
        bounds = [day_bounds_utc(self.date(day + later), self.timezone)[0] for later in range(NO_REQUEST_DAYS + 1)]
        return Clock(day, self.date(day).weekday(), np.array([int(bound.timestamp() * 1000) for bound in bounds]))

    def save(self, truth: Path) -> None:
        """Write the plan below the truth's folder."""
        truth.mkdir(parents=True, exist_ok=True)
        (truth / "plan.json").write_text(json.dumps(asdict(self), indent=1))


def load_plan(truth: Path) -> Plan | None:
    """Return the plan of the shop whose truth lies at `truth`, or None."""
    path = truth / "plan.json"
    if not path.exists():
        return None
    known = {field.name for field in fields(Plan)}
    return Plan(**{name: value for name, value in json.loads(path.read_text()).items() if name in known})


@lru_cache(maxsize=2)
def catalogue_of(plan: Plan) -> Catalogue:
    """Return the plan's goods."""
    return make_catalogue(plan.items, plan.seed)


@lru_cache(maxsize=4)
def people_of(plan: Plan, chunk: int) -> People:
    """Return one chunk of the plan's users."""
    return make_people(catalogue_of(plan), plan.users, chunk)


def day_folder(truth: Path, date: dt.date) -> Path:
    """Return the folder that holds the truth of one simulated day; it appears when all of the day's logs are in place."""
    return truth / "days" / date.isoformat()
