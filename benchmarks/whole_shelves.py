"""The shelves of a whole shop, as the stage `recommend` makes them: 100,000 users, six scenarios, 50,000 items.

Logs, features and a champion are made once, below `home`: on Sail, and of a short training, since outcomes are pure chance in
these logs, so that no gate would let a model pass and the alias is set by hand. Then `recommend` runs as a process of its own.
"""

import datetime as dt
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.big_log import FIRST_DAY, write_big_log
from benchmarks.growth import exponent
from benchmarks.processes import stage, timed
from nightshelf.config import load_shop
from nightshelf.parallel import cores
from nightshelf.paths import artifact_dir, tracking_uri
from pipelines.models import registered_name
from pipelines.stage import Night
from pipelines.warehouse import Warehouse

_DAYS, _EVENTS_PER_USER = 14, 100
_MORE_SCENARIOS = ("product_page", "checkout", "campaign")
_RECIPE = Path("conf/models/ple_funnel.yaml")
_SHORT = {"name": "short", "negative_share": 0.02, "max_epochs": 1}
_READ = re.compile(r"(\d+) candidates of (\d+) users read in ([\d.]+) s")
_TOLD = re.compile(
    r"(\d+) shelves in ([\d.]+) s, \d+/s; (\d+) pairs scored; .*? (\d+)% scored, (\d+)% chose and ordered, (\d+)% made rows"
)


@dataclass(frozen=True)
class Served:
    """What the log tells of parts made side by side, one a core: sums, seconds of all together, shares of their time."""

    parts: int
    users: int
    shelves: int
    pairs: int
    read_s: float
    serving_s: float
    shares: dict[str, float]

    @classmethod
    def of(cls, told: str) -> "Served":
        """Read it from a log."""
        read, served = ([match.groups() for match in pattern.finditer(told)] for pattern in (_READ, _TOLD))
        if not served:
            sys.exit(f"the log tells nothing of shelves:\n{told[-2000:]}")
        parts, side_by_side = len(served), min(cores(), len(served))
        return cls(
            parts=parts,
            users=sum(int(part[1]) for part in read),
            shelves=sum(int(part[0]) for part in served),
            pairs=sum(int(part[2]) for part in served),
            read_s=sum(float(part[2]) for part in read) / side_by_side,
            serving_s=sum(float(part[1]) for part in served) / side_by_side,
            shares={
                name: round(sum(int(part[3 + n]) for part in served) / parts / 100, 3)
                for n, name in enumerate(("scored", "chose", "made_rows"))
            },
        )


def whole_shelves(home: Path, users: int, items: int) -> dict[str, Any]:
    """Return shelves_per_s (of the whole stage), peak_gb, ranked_pairs_per_s, rank_share, where the time goes and its growth."""
    shop, day = _shop(home, users, items), str(FIRST_DAY + dt.timedelta(days=_DAYS - 1))
    if not Warehouse(load_shop(shop)).partitions("candidates"):
        for name in ("clean", "features", "train"):
            timed(stage(name, str(shop), day))
    _crown(shop)
    run = timed(stage("recommend", str(shop), day))
    served = Served.of(run.told)
    growth = {"users": _growth(served, shop, day)} if served.parts > 1 else {}
    bare = json.loads(timed([sys.executable, "-m", "benchmarks.forward_pass", str(shop), day]).printed.splitlines()[-1])
    return {
        "users": users,
        "items": items,
        "shelves_per_s": round(served.shelves / run.seconds),
        "serving_shelves_per_s": round(served.shelves / served.serving_s),
        "peak_gb": round(run.peak_gb, 2),
        "seconds": {"recommend": round(run.seconds, 1), "serving": round(served.serving_s, 1)},
        "parts": served.parts,
        "time_share": served.shares,
        "ranked_pairs_per_s": round(served.pairs / served.serving_s),
        "forward_pairs_per_s": bare["pairs_per_s"],
        "rank_share": round(served.pairs / served.serving_s / bare["pairs_per_s"], 3),
        "growth": growth,
    }


def _growth(served: Served, shop: Path, day: str) -> float:
    """Return how the time to read and serve users grows with them, from half of the parts to all."""
    half = Served.of(timed([sys.executable, "-m", "benchmarks.half_served", str(shop), day]).told)
    small, large = ((some.users, some.read_s + some.serving_s) for some in (half, served))
    return exponent(small, large)


def _shop(home: Path, users: int, items: int) -> Path:
    """Return the shop file of the logs, with six scenarios, exclusions and rules in each, on Sail."""
    file = write_big_log(home, users * _EVENTS_PER_USER, _DAYS, _DAYS, items=items)
    content = yaml.safe_load(file.read_text())
    rules = {"diversity": 0.2, "most_per": {"category_3": 4}, "repeats": 0.1, "explore": 0.05}
    shelf = {**content["scenarios"]["cart"], "exclude": ["purchased_30d"], "rerank": rules}
    content["scenarios"] = dict.fromkeys((*content["scenarios"], *_MORE_SCENARIOS), shelf)
    content["items"]["columns"]["launch_date"] = "launched"  # or nothing would be new, and nothing explored
    recipe = home / "short.yaml"
    recipe.write_text(yaml.safe_dump(yaml.safe_load(_RECIPE.read_text()) | _SHORT, sort_keys=False))
    content |= {"spark": {"engine": "sail"}, "model": str(recipe.absolute())}
    file = home / "whole.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def _crown(file: Path) -> None:
    """Make the challenger the champion."""
    from training import tracking

    shop = load_shop(file)
    tracking.ensure_tracker(tracking_uri(shop), artifact_dir(shop))
    name = registered_name(Night(shop, FIRST_DAY, Warehouse(shop), "crown"))
    version = tracking.get_alias(name, "challenger")
    if version is None:
        sys.exit(f"{file}: there is no challenger; remove {shop.home} and run again")
    tracking.set_alias(name, "champion", version)
