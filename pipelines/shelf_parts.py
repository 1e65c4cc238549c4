"""The shelves of users shard by shard: each a folder of files that is there as a whole or not at all.

Who makes them does not matter: the stage `recommend`, the tasks of a Spark job, or `nightshelf shelves` before it, side by side
(serve_parts.py). What a killed attempt had finished, the next one takes over, if its plan is the same.
"""

import datetime as dt
import json
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import pyarrow as pa

from nightshelf.logs import get_logger
from pipelines.candidate_lists import pack_candidates
from pipelines.drafts import ShelfFiles
from pipelines.first_look import PredictFor, worth_to_anybody
from pipelines.predictors import predictors
from pipelines.rerank import chance_of
from pipelines.segments import Segments
from pipelines.serve import serve, serve_strangers
from pipelines.shelf_inputs import read_candidates, read_catalogue, read_exclusions
from pipelines.shelf_plan import ShelfPlan
from pipelines.shelf_rows import Catalogue, RowMaker
from pipelines.shelves import Stockroom
from pipelines.strangers import Strangers
from pipelines.user_shards import UserShard

TOLD = "told.json"


@dataclass(frozen=True)
class Service:
    """Who is served, and with what; `worth` is by scenario that is ranked what each item is worth to anybody [items]."""

    plan: ShelfPlan
    user_keys: list[str]
    predict_for: PredictFor
    worth: dict[str, np.ndarray]
    room: Stockroom
    maker: RowMaker

    @classmethod
    def of(
        cls,
        plan: ShelfPlan,
        shard: UserShard,
        run_id: str,
        catalogue: Catalogue,
        segments: Segments | None = None,
        place: int = 0,
    ) -> "Service":
        """Read what the users of a shard, the one with this place, and strangers of some segments are served with."""
        found = predictors(plan, shard, catalogue.item_ids, segments.fields if segments else None, place)
        users = found.user_keys
        lists = pack_candidates(read_candidates(plan, shard), users, catalogue.item_ids, plan.quotas)
        exclusions = read_exclusions(plan, shard, users, catalogue)
        room = Stockroom(lists, exclusions, catalogue.groups, str(plan.as_of_date), chance_of(users))
        maker = RowMaker(plan, run_id, pa.array(users or [""]), catalogue, lists.texts)
        worth = worth_to_anybody(plan.shop.scenarios, found.of(np.array([-1])), len(catalogue.item_ids))
        return cls(plan, users, found.of, worth, room, maker)

    def shelves(self, whose: str, workers: int = 0) -> Iterator[tuple[str, pa.Table]]:
        """Yield wanted scenario and rows of the users, whom the log calls `whose`, served by so many threads (0: one a core)."""
        users, plan = len(self.user_keys), self.plan
        with_what = (plan.shop.scenarios, self.predict_for, self.worth, self.room, self.maker)
        every = serve(users, *with_what, whose, workers, plan.leaning)
        return ((name, rows) for name, rows in every if name in plan.scenarios)

    def of_strangers(self, strangers: Strangers) -> Iterator[tuple[str, np.ndarray, pa.Table]]:
        """Yield wanted scenario, and the number of each row with the rows, of those of whom no more than a segment is known."""
        scenarios = self.plan.shop.scenarios
        room = replace(self.room, exclusions=replace(self.room.exclusions, acted_on=strangers.acted_on))
        every = serve_strangers(strangers.numbers, scenarios, self.predict_for, self.worth, room, self.maker)
        return ((name, numbers, rows) for name, numbers, rows in every if name in self.plan.scenarios)


def make_part(plan: ShelfPlan, number: int, run_id: str, catalogue: Catalogue | None = None, workers: int = 0) -> int:
    """Make the shelves of a shard, unless they are there; return the rows.

    Raises:
        InputError, EngineError: features or model cannot be read.
    """
    target, log = plan.part(number), get_logger("recommend")
    if not target.exists():
        started = time.time()
        service = Service.of(plan, plan.shards[number], run_id, catalogue or read_catalogue(plan), place=number)
        users, read, seconds = len(service.user_keys), service.room.lists.rows, time.time() - started
        whose = f"part {number + 1} of {len(plan.shards)}"
        log.info("%s: %d candidates of %d users read in %.1f s", whose, read, users, seconds)
        fresh = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
        fresh.mkdir(parents=True)
        try:
            with ShelfFiles(fresh, plan.shop, "shelf_drafts", plan.scenarios) as files:
                for name, table in service.shelves(whose, workers):
                    files.add(name, table)
            told: dict[str, Any] = {
                "rows_in": service.room.lists.rows,
                "rows_out": files.rows,
                "seconds": time.time() - started,
            }
            told |= {"run_id": run_id, "started_at": started, "peak_memory_mb": getrusage(RUSAGE_SELF).ru_maxrss / 1024}
            (fresh / TOLD).write_text(json.dumps(told))
            fresh.rename(target)
        except BaseException as error:
            shutil.rmtree(fresh, ignore_errors=True)
            if not (isinstance(error, OSError) and target.exists()):  # another attempt at the same was first
                raise
    return int(json.loads((target / TOLD).read_text())["rows_out"])


def helpers(plan: ShelfPlan, run_id: str) -> list[dict[str, Any]]:
    """Return the rows of stage_runs of whoever but the attempt `run_id` made parts of a plan, an attempt a row."""
    parts = [json.loads((plan.part(number) / TOLD).read_text()) for number in range(len(plan.shards))]
    rows = []
    for other in sorted({part["run_id"] for part in parts} - {run_id}):
        own = [part for part in parts if part["run_id"] == other]
        row = {name: sum(part[name] for part in own) for name in ("seconds", "rows_in", "rows_out")}
        row |= {"peak_memory_mb": max(part["peak_memory_mb"] for part in own), "rows_quarantined": 0}
        row |= {"as_of_date": plan.as_of_date, "run_id": other, "stage": "shelves", "status": "done"}
        row |= {"started_at": dt.datetime.fromtimestamp(min(part["started_at"] for part in own), dt.UTC)}
        row |= {
            "code_version": plan.code,
            "inputs": "{}",
            "message": f"{len(own)} of {len(parts)} parts of the shelves",
        }
        rows.append(row)
    return rows
