"""How many of each generator's proposals a scenario ranks: what the shop file says, and else what past days teach.

A scenario learns from its own outcomes and, the fewer it has, the more from those of all scenarios (learn_quotas.py). What keeps
shelves as they are asked for is never cut: as many popular items as fill any user's shelf after the scenario's exclusions, and
what is new, where the scenario explores.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from nightshelf.generators import GENERATOR_ORDER
from nightshelf.scenarios import Scenario
from pipelines.arrow_schema import arrow_schema
from pipelines.judged_candidates import JudgedCandidates, judged_candidates
from pipelines.learn_quotas import (
    EVEN_OUTCOMES,
    POOLED_OUTCOMES,
    effective_outcomes,
    even_outcomes,
    is_reached,
    learn_quotas,
    own_share,
)
from pipelines.popular_places import popular_places
from pipelines.rules import Rule, between, check_rules
from pipelines.stage import Night
from pipelines.table_suites import unique_rule
from pipelines.validate import Row

TABLE = "candidate_quotas"
ALL = "*"
LEARNED, SHOP_FILE, NOTHING_CUT = "learned", "shop file", "all"
_FRESH = GENERATOR_ORDER.index("fresh")
# Quotas that keep less than this share of what all candidates reached are told, where so many outcomes were judged.
_LEAST_KEPT, _FEWEST_JUDGED = 0.95, 100


@dataclass(frozen=True)
class _Decision:
    """A scenario's quotas by generator, and where each comes from; a generator that is not there is not cut."""

    quotas: dict[str, int]
    quota_from: dict[str, str]
    own_weight: float


def candidate_quotas(night: Night) -> list[Row]:
    """Return a row per scenario and generator, and one of all (`*`) per scenario.

    Without judged days, and where the popular items alone cannot fill a shelf, nothing is cut but what the shop file says.
    """
    judged, places = judged_candidates(night), popular_places(night)
    generators = night.shop.generators
    rows = []
    for number, (name, scenario) in enumerate(night.shop.scenarios.items()):
        decision = _decide(judged, number, scenario, places.get(name), generators)
        common = {"as_of_date": night.as_of_date, "scenario": name, "own_weight": decision.own_weight}
        facts = _facts(judged, number, decision.quotas, generators)
        rows.append({**common, "generator": ALL, **_together(decision, generators), **facts[ALL]})
        for generator in generators:
            quota_from = decision.quota_from.get(generator, NOTHING_CUT)
            quota = {"quota": decision.quotas.get(generator), "quota_from": quota_from}
            rows.append({**common, "generator": generator, **quota, **facts[generator]})
    return rows


def quotas_of(night: Night) -> dict[str, dict[str, int]]:
    """Return scenario → generator → quota of all scenarios; generators that are not cut are left out."""
    found: dict[str, dict[str, int]] = {name: {} for name in night.shop.scenarios}
    if night.as_of_date in night.warehouse.partitions(TABLE):
        for row in night.warehouse.read(TABLE, [night.as_of_date], ("scenario", "generator", "quota")).to_pylist():
            if row["quota"] is not None and row["generator"] != ALL and row["scenario"] in found:
                found[row["scenario"]][row["generator"]] = row["quota"]
    return {name: dict(sorted(quotas.items())) for name, quotas in found.items()}


def check_candidate_quotas(night: Night) -> list[Row]:
    """Publish the night's candidate_quotas; return the results of the rules on it: each scenario keeps nearly all worth."""
    table = pa.Table.from_pylist(candidate_quotas(night), arrow_schema(night.warehouse.specs[TABLE]))
    night.warehouse.publish_arrow(TABLE, table, [night.as_of_date], night.run_id)
    rules = [between("row_count", "", "count(*)", 1, None), unique_rule(night.warehouse.specs[TABLE].keys)]
    return check_rules(night, TABLE, [*rules, *(_keeps_worth(name) for name in night.shop.scenarios)])


def _keeps_worth(scenario: str) -> Rule:
    judged = f"scenario = '{scenario}' AND generator = '{ALL}' AND outcomes >= {_FEWEST_JUDGED} AND worth_found > 0"
    fact = f"coalesce(min(worth_kept / worth_found) FILTER (WHERE {judged}), 1)"
    told = f"at least {_LEAST_KEPT:g} of the worth that all candidates of the last days reached in {scenario}"
    return between("worth_kept", scenario, fact, _LEAST_KEPT, None, "warning", told)


def _decide(
    judged: JudgedCandidates | None, number: int, scenario: Scenario, places: int | None, generators: list[str]
) -> _Decision:
    """Return the quotas of a scenario.

    Args:
        judged: what past days say; None: nothing.
        number: of the scenario.
        scenario: its rules.
        places: the least quota of popular items; None: all of them are needed.
        generators: those that propose.
    """
    named = {name: quota for name, quota in scenario.candidates.quotas.items() if name != "popular" or places}
    if places and "popular" in named:
        named["popular"] = max(named["popular"], places)
    learned: dict[str, int] = {}
    own_weight = 0.0
    if judged is not None and places is not None and judged.worth[:, number].sum() > 0:
        learned, own_weight = _learn(judged, number, scenario, {"popular": places} | named, named, generators)
    quota_from = dict.fromkeys(learned, LEARNED) | dict.fromkeys(named, SHOP_FILE)
    return _Decision(learned | named, quota_from, own_weight)


def _learn(
    judged: JudgedCandidates,
    number: int,
    scenario: Scenario,
    least: dict[str, int],
    named: dict[str, int],
    generators: list[str],
) -> tuple[dict[str, int], float]:
    """Return the quotas that cut something, and the weight of the scenario's own outcomes.

    Args:
        judged: what past days say, something of this scenario's worth among it.
        number, scenario: the scenario.
        least: lower bounds of quotas.
        named: quotas that are given.
        generators: those that propose.
    """
    of_named = [named.get(name, np.iinfo(np.int64).max) if name in generators else 0 for name in GENERATOR_ORDER]
    most = np.minimum(judged.proposed, of_named)
    from_below = np.array([least.get(name, 0) for name in GENERATOR_ORDER])
    if scenario.rerank.explore:
        from_below[_FRESH] = most[_FRESH]
    ranks, worth, own_weight = _expected(judged, number)
    quotas = learn_quotas(
        ranks, worth, judged.costs, np.minimum(from_below, most), most, at_most=scenario.candidates.at_most
    )
    cut = {
        name: int(quota)
        for name, quota, proposed in zip(GENERATOR_ORDER, quotas, judged.proposed, strict=True)
        if quota < proposed and name in generators
    }
    return cut, own_weight


def _expected(judged: JudgedCandidates, number: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return what candidates of a scenario may be expected to reach: ranks, worth (it sums to 1), weight of its own outcomes.

    Its own outcomes beside those of all scenarios, as it would value them, and those beside a world in which any proposal is
    as good as another. A mixture of coverage functions is one, so that what learn_quotas promises holds.
    """
    is_found = judged.ranks.any(axis=1)
    even_ranks, even = even_outcomes(judged.costs)
    expected, own_weight = even, 0.0
    ranks = np.concatenate([even_ranks, judged.ranks[is_found]])
    for of, prior in ((is_found, EVEN_OUTCOMES), (is_found & (judged.scenarios == number), POOLED_OUTCOMES)):
        worth = np.where(of, judged.worth[:, number], 0.0)[is_found]
        squares = np.where(of, judged.squares[:, number], 0.0)[is_found]
        own_weight = own_share(effective_outcomes(worth.sum(), squares.sum()), prior)
        share = worth / max(worth.sum(), 1e-12)
        before = np.concatenate([expected, np.zeros(len(ranks) - len(expected))])
        expected = own_weight * np.concatenate([np.zeros(len(even)), share]) + (1 - own_weight) * before
    return ranks, expected, own_weight


def _facts(
    judged: JudgedCandidates | None, number: int, quotas: dict[str, int], generators: list[str]
) -> dict[str, Row]:
    """Return for each generator, and all together, what it proposed and what the scenario's own outcomes say of it."""
    if judged is None:
        counts = {"proposed": 0, "ranked_per_user": 0.0, "proposed_per_user": 0.0, "outcomes": 0}
        return dict.fromkeys((ALL, *generators), counts | {"worth": 0.0, "worth_found": 0.0, "worth_kept": 0.0})
    is_own = judged.scenarios == number
    ranks, worth = judged.ranks[is_own], judged.worth[is_own, number]
    most = np.array([judged.proposed[place] if name in generators else 0 for place, name in enumerate(GENERATOR_ORDER)])
    quota = np.minimum([quotas.get(name, np.iinfo(np.int64).max) for name in GENERATOR_ORDER], most)
    is_ranked = np.arange(judged.costs.shape[1]) < quota[:, None]
    facts = {}
    for name in (ALL, *generators):
        of = np.array([name in (ALL, generator) for generator in GENERATOR_ORDER])
        facts[name] = {
            "proposed": int(most[of].sum()),
            "ranked_per_user": float((judged.costs * is_ranked)[of].sum()),
            "proposed_per_user": float(judged.costs[of & (most > 0)].sum()),
            "outcomes": int(judged.outcomes[is_own].sum()),
            "worth": float(worth.sum()),
            "worth_found": float(worth[is_reached(ranks, np.where(of, most, 0))].sum()),
            "worth_kept": float(worth[is_reached(ranks, np.where(of, quota, 0))].sum()),
        }
    return facts


def _together(decision: _Decision, generators: list[str]) -> Row:
    """Return the quota of all generators together, and where most of it comes from."""
    is_cut_everywhere = all(name in decision.quotas for name in generators)
    sources = set(decision.quota_from.values())
    quota_from = LEARNED if LEARNED in sources else SHOP_FILE if sources else NOTHING_CUT
    return {"quota": sum(decision.quotas.values()) if is_cut_everywhere else None, "quota_from": quota_from}
