"""The shelves of a whole shop, as the stage `recommend` makes them: 100,000 users, six scenarios, 50,000 items.

Logs, features and a champion are made once, below `home`: on Sail, and of a short training, since outcomes are pure chance in
these logs, so that no gate would let a model pass and the alias is set by hand. Then `recommend` runs as a process of its own.
"""

import datetime as dt
import json
import re
import sys
from pathlib import Path

import yaml

from benchmarks.big_log import FIRST_DAY, write_big_log
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
_TOLD = re.compile(
    r"(\d+) shelves in ([\d.]+) s, \d+/s; (\d+) pairs scored; .*? (\d+)% scored, (\d+)% chose and ordered, (\d+)% made rows"
)


def whole_shelves(home: Path, users: int, items: int) -> dict[str, object]:
    """Return shelves_per_s (of the whole stage), peak_gb, ranked_pairs_per_s, rank_share and where the time goes."""
    shop, day = _shop(home, users, items), str(FIRST_DAY + dt.timedelta(days=_DAYS - 1))
    if not Warehouse(load_shop(shop)).partitions("candidates"):
        for name in ("clean", "features", "train"):
            timed(stage(name, str(shop), day))
    _crown(shop)
    run = timed(stage("recommend", str(shop), day))
    found = [match.groups() for match in _TOLD.finditer(run.told)]  # a part each
    if not found:
        sys.exit(f"recommend told nothing of its shelves:\n{run.told[-2000:]}")
    shelves, pairs = (sum(int(part[place]) for part in found) for place in (0, 2))
    # Parts are served side by side, one a core
    seconds = sum(float(part[1]) for part in found) / min(cores(), len(found))
    bare = json.loads(timed([sys.executable, "-m", "benchmarks.forward_pass", str(shop), day]).printed.splitlines()[-1])
    return {
        "users": users,
        "items": items,
        "shelves_per_s": round(shelves / run.seconds),
        "serving_shelves_per_s": round(shelves / seconds),
        "peak_gb": round(run.peak_gb, 2),
        "seconds": {"recommend": round(run.seconds, 1), "serving": round(seconds, 1)},
        "parts": len(found),
        "time_share": {
            name: round(sum(int(part[3 + n]) for part in found) / len(found) / 100, 3)
            for n, name in enumerate(("scored", "chose", "made_rows"))
        },
        "ranked_pairs_per_s": round(pairs / seconds),
        "forward_pairs_per_s": bare["pairs_per_s"],
        "rank_share": round(pairs / seconds / bare["pairs_per_s"], 3),
    }


def _shop(home: Path, users: int, items: int) -> Path:
    """Return the shop file of the logs, with six scenarios, exclusions and rules, on Sail."""
    file = write_big_log(home, users * _EVENTS_PER_USER, _DAYS, _DAYS, items=items)
    content = yaml.safe_load(file.read_text())
    shelf = {**content["scenarios"]["cart"], "exclude": ["purchased_30d"]}
    rules = {"diversity": 0.2, "most_per": {"category_3": 4}, "repeats": 0.1, "explore": 0.05}
    content["scenarios"] = dict.fromkeys((*content["scenarios"], *_MORE_SCENARIOS), shelf)
    content["scenarios"]["home_feed"] = {**shelf, "rerank": rules}
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
