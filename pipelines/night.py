"""A night: the stages in their order."""

import datetime as dt
import time

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.logs import get_logger
from pipelines.stage import STAGES, run_stage


def run_night(
    shop: Shop,
    as_of_date: dt.date,
    first: str = "",
    last: str = "",
    retrain: bool = True,
    scenarios: tuple[str, ...] = (),
) -> dict[str, float]:
    """Run the stages from `first` until `last` (default: all).

    Returns:
        the seconds of each stage, by name.

    Raises:
        InputError: a stage or a scenario is unknown, or the stages are in the wrong order.
    """
    seconds = {}
    for name in _between(first, last):
        check_scenarios(shop, scenarios)
        start = time.perf_counter()
        run_stage(name, shop, as_of_date, retrain, scenarios)
        seconds[name] = time.perf_counter() - start
    get_logger("night").info(
        "%s %s: %s", shop.shop, as_of_date, ", ".join(f"{k} {v:.1f} s" for k, v in seconds.items())
    )
    return seconds


def _between(first: str, last: str) -> list[str]:
    names = list(STAGES)
    for name in (first, last):
        if name and name not in names:
            raise InputError(f"stage {name!r} is unknown; the stages are, in order: {', '.join(names)}")
    chosen = names[names.index(first) if first else 0 : names.index(last) + 1 if last else None]
    if not chosen:
        raise InputError(f"stage {last!r} comes before {first!r}; the stages are, in order: {', '.join(names)}")
    return chosen


def check_scenarios(shop: Shop, scenarios: tuple[str, ...]) -> None:
    """Refuse a scenario that the shop does not have.

    Raises:
        InputError: names it and those that are known.
    """
    unknown = [name for name in scenarios if name not in shop.scenarios]
    if unknown:
        raise InputError(f"scenario {unknown[0]!r} is unknown; the shop has {', '.join(shop.scenarios)}")
