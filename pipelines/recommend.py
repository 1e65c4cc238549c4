"""Stage `recommend`: the champion ranks every known user's candidates in every scenario; users without a history
get what it ranks for their segment, less what rules exclude for what they did long ago, and `*`, for whoever comes tomorrow for
the first time, what it ranks for an unknown user.
Then, where a scenario has an anchor, each item gets a shelf for whoever is at it.
"""

import shutil
from dataclasses import replace

from nightshelf.lineage import MADE
from nightshelf.logs import get_logger
from nightshelf.paths import shelf_parts_dir
from nightshelf.scenarios import Scenario
from pipelines.candidate_lists import CANDIDATE_TABLES
from pipelines.drafts import Drafts
from pipelines.preselection import chosen_from
from pipelines.recommend_items import draft_item_shelves
from pipelines.rerank import Groups
from pipelines.segments import segments_of
from pipelines.serve_parts import make_missing
from pipelines.shelf_inputs import read_catalogue
from pipelines.shelf_parts import Service, helpers
from pipelines.shelf_plan import ShelfPlan, plan_shelves
from pipelines.shelf_rows import Catalogue, for_all
from pipelines.shelves import Stockroom
from pipelines.stage import Night, StageResult
from pipelines.strangers import strangers_of
from pipelines.user_shards import NOBODY
from pipelines.warehouse import row_count


def run(night: Night) -> StageResult:
    """Write the night's shelf drafts: all scenarios, or those that are asked for and the published rows of the others."""
    plan = plan_shelves(night)
    catalogue = read_catalogue(plan)
    _check_blocked(plan, catalogue)
    _check_groups(plan, catalogue.groups)
    there = make_missing(plan, night.run_id, catalogue)
    segments = segments_of(night, plan.read("user_features", ("user_key",))["user_key"].combine_chunks())
    service = Service.of(plan, NOBODY, night.run_id, catalogue, segments)
    _check_exploration(plan, service.room)
    shown, _ = service.room.lists.of_everybody(list(plan.shop.scenarios))
    strangers = strangers_of(plan, segments, catalogue.keys, shown)
    with Drafts(night, "shelf_drafts", plan.scenarios) as drafts:
        for number in range(len(plan.shards)):
            drafts.take(plan.part(number))
        for name, numbers, table in service.of_strangers(strangers):
            for some in for_all(table, numbers, strangers.members):
                drafts.add(name, some)
    others = [name for name in night.shop.scenarios if name not in plan.scenarios]
    rows, others_did = drafts.publish("recommendations", others), helpers(plan, night.run_id)
    for folder in shelf_parts_dir(night.shop).glob(f"{night.as_of_date}-*"):
        shutil.rmtree(folder)
    written = ["shelf_drafts"]
    if night.shop.anchors:
        written += ["item_shelf_drafts", "anchor_lifts"]
        exclusions, worth = service.room.exclusions, {name: service.worth[name] for name in plan.scenarios}
        rows += draft_item_shelves(night, catalogue.items, worth, exclusions, catalogue.groups, plan.model_version)
    return StageResult(
        row_count(file for table in CANDIDATE_TABLES for file in plan.files[table]),
        rows,
        inputs=sorted({table for name, made in MADE.items() if name in written for table in made.of}),
        message=f"model {plan.model_version}" + (f"; {there} of {len(plan.shards)} parts were there" if there else ""),
        helpers=others_did,
    )


def _check_groups(plan: ShelfPlan, groups: Groups) -> None:
    """Tell which groups with a least share of the places nothing belongs to."""
    for name, scenario in plan.shop.scenarios.items():
        for column, shares in scenario.rerank.least.items():
            strange = [value for value in shares if value not in groups.values[column]]
            if strange:
                told = "scenarios.%s.rerank.least: no item has %s = %r; known: %s"
                known = ", ".join(groups.values[column][:10]) or "none"
                get_logger("recommend").warning(told, name, column, strange[0], known)


def _check_exploration(plan: ShelfPlan, room: Stockroom) -> None:
    """Tell which scenarios explore and have nothing to draw from."""
    for name in plan.scenarios:
        scenario = plan.shop.scenarios[name]
        if scenario.rerank.explore and (why := nothing_to_explore(name, scenario, room)):
            get_logger("recommend").warning("scenarios.%s.rerank.explore: no place goes to chance: %s", name, why)


def nothing_to_explore(name: str, scenario: Scenario, room: Stockroom) -> str | None:
    """Return why no place of a scenario can go to chance, None if some can."""
    shown = room.exclusions.anybody(scenario.exclude)
    if not shown[room.lists.new_in_shop(name)].any():
        if shown[replace(room.lists, quotas={}).new_in_shop(name)].any():
            return "its quotas, of before it explored, rank nothing that is new; run validate_examples again, then recommend"
        return "nothing that it may show is new in the shop"
    if shown.sum() <= chosen_from(scenario.top_n):
        return f"all {shown.sum()} items that it may show are scored in full for everybody"
    return None


def _check_blocked(plan: ShelfPlan, catalogue: Catalogue) -> None:
    """Tell which blocked items the catalogue does not have."""
    strange = sorted(plan.blocked.difference(catalogue.item_ids))
    if strange:
        get_logger("recommend").warning("blocked: %d items are not in the catalogue, e.g. %s", len(strange), strange[0])
