"""What quotas of candidates save and lose, on a day that they did not know: `python -m benchmarks.candidate_quotas --shop FILE`.

The shop needs three nights at least. The quotas are those that the night before its newest would have learned, with several
budgets; what they keep is measured by the newest day's outcomes. Prints one JSON line: at_most → candidates a user that the first
look scores, candidates a user and scenario, and the share of the worth of all candidates that the quotas keep.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from nightshelf.config import Shop, load_shop
from nightshelf.generators import GENERATOR_ORDER, Candidates
from pipelines.candidate_lists import CANDIDATE_TABLES, CandidateLists, Quotas, pack_candidates
from pipelines.candidate_quotas import ALL, candidate_quotas
from pipelines.candidate_recall import night_before
from pipelines.judged_candidates import JudgedCandidates, judged_candidates
from pipelines.learn_quotas import is_reached
from pipelines.stage import Night
from pipelines.warehouse import Warehouse

_BUDGETS = (500, 150, 100, 75)


def main() -> None:
    """Measure the quotas of the night before the newest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shop", type=Path, default=Path("conf/shops/demo.yaml"))
    shop = load_shop(parser.parse_args().shop)
    days = Warehouse(shop).partitions("candidates")
    newest = Night(shop, days[-1], Warehouse(shop), "benchmark") if len(days) > 2 else None
    eve = night_before(newest, days[-1]) if newest else None
    judged = judged_candidates(newest, days=1) if newest else None
    if newest is None or eve is None or judged is None:
        sys.exit(f"{shop.home}: fewer than three nights, or a newest day without outcomes; run another night first")
    night = replace(newest, as_of_date=eve)
    told = {"all": _measure(night, judged, {name: {} for name in shop.scenarios})}
    for budget in _BUDGETS:
        told[str(budget)] = _measure(night, judged, _learned(night, shop, budget))
    sys.stdout.write(json.dumps(told) + "\n")


def _learned(night: Night, shop: Shop, budget: int) -> dict[str, dict[str, int]]:
    """Return the quotas that a night learns with a budget."""
    scenarios = {
        name: scenario.model_copy(update={"candidates": Candidates(at_most=budget)})
        for name, scenario in shop.scenarios.items()
    }
    found: dict[str, dict[str, int]] = {name: {} for name in scenarios}
    for row in candidate_quotas(replace(night, shop=shop.model_copy(update={"scenarios": scenarios}))):
        if row["generator"] != ALL and row["quota"] is not None:
            found[row["scenario"]][row["generator"]] = row["quota"]
    return found


def _measure(night: Night, judged: JudgedCandidates, quotas: Quotas) -> dict[str, float]:
    """Return candidates a user of a night, in all scenarios together and in one on average, and what they keep of its worth."""
    read, day = night.warehouse.read, [night.as_of_date]
    tables = [read(table, day) for table in CANDIDATE_TABLES]
    users = sorted(set(read("user_features", day, ("user_key",))["user_key"].to_pylist()))
    items = sorted(read("items", day, ("item_id",))["item_id"].to_pylist())
    lists = pack_candidates([pa.table(table) for table in tables], users, items, quotas)
    found = kept = 0.0
    for number, of in enumerate(quotas.values()):
        is_own = judged.scenarios == number
        ranks, worth = judged.ranks[is_own], judged.worth[is_own, number]
        quota = np.array([of.get(generator, np.iinfo(np.int64).max) for generator in GENERATOR_ORDER])
        found += worth[ranks.any(axis=1)].sum()
        kept += worth[is_reached(ranks, quota)].sum()
    a_scenario = float(np.mean([_a_user(lists, [name]) for name in quotas]))
    return {
        "first_look": round(_a_user(lists, list(quotas)), 1),
        "a_scenario": round(a_scenario, 1),
        "worth_kept": round(kept / found, 4),
    }


def _a_user(lists: CandidateLists, names: list[str]) -> float:
    """Return how many candidates a user has within the quotas of any of these scenarios, on average."""
    own, shared = lists.of_users(names, np.arange(len(lists.items))), lists.of_everybody(names)[0]
    return float(((own >= 0) & ~np.isin(own, shared)).sum(axis=1).mean() + len(shared))


if __name__ == "__main__":
    main()
