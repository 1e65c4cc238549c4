"""The first half of a night's shards served, as the stage `recommend` serves all of them: half_served SHOP DATE.

What the log tells of the parts is what is asked for; the shelves are thrown away.
"""

import datetime as dt
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from nightshelf.config import load_shop
from nightshelf.logs import configure_logging
from pipelines.serve_parts import make_missing
from pipelines.shelf_inputs import read_catalogue
from pipelines.shelf_plan import plan_shelves
from pipelines.stage import Night
from pipelines.warehouse import Warehouse


def main(shop_file: str, date: str) -> None:
    """Serve them."""
    shop, day = load_shop(Path(shop_file)), dt.date.fromisoformat(date)
    whole = plan_shelves(Night(shop, day, Warehouse(shop), "half-served"))
    plan = replace(whole, shards=whole.shards[: len(whole.shards) // 2])
    make_missing(plan, "half-served", read_catalogue(plan))
    shutil.rmtree(plan.folder)


if __name__ == "__main__":
    configure_logging()
    main(*sys.argv[1:])
