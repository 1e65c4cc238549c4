"""Stage `retrieve`: a two-tower model, trained anew on the acts of the last weeks, proposes what is new to each user."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nightshelf.blocked import blocked_items
from nightshelf.dates import day_bounds_utc, days_back
from nightshelf.errors import InputError
from nightshelf.exclusions import acted_on, common_rules
from nightshelf.features import event_worth, sequence_events
from pipelines.arrow_schema import arrow_schema
from pipelines.candidate_lists import EVERYBODY
from pipelines.kept_away import acted_on_pairs, kept_away
from pipelines.references import reference_rules
from pipelines.rules import check_rules, values_of
from pipelines.stage import Night, StageResult
from pipelines.table_suites import spec_rules
from pipelines.validate import record_checks, stop_on_failure
from pipelines.warehouse import DAY_FOLDER

TABLE = "retrieved_candidates"
GENERATOR = "two_tower"


def run(night: Night) -> StageResult:
    """Publish the night's retrieved_candidates: none, if the shop file names no recipe.

    Raises:
        InputError: there are no items or acts of the night, or the recipe is wrong.
    """
    shop, day = night.shop, night.as_of_date
    if shop.retrieval is None:
        if day in night.warehouse.partitions(TABLE):  # of an earlier run of the night
            empty = arrow_schema(night.warehouse.specs[TABLE]).empty_table()
            night.warehouse.publish_arrow(TABLE, empty, [day], night.run_id)
        return StageResult(message="the shop file has no `retrieval`: the other generators propose alone")
    from training.retrieval.catalogue import load_catalogue
    from training.retrieval.journeys import load_journeys
    from training.retrieval.recipe import load_retrieval_recipe
    from training.retrieval.retrieve import retrieve_items
    from training.retrieval.train_two_tower import train_two_tower

    recipe = load_retrieval_recipe(shop.retrieval)
    days = days_back(day, recipe.acts_days)
    acts = night.warehouse.files("acts", days)
    files = {table: night.warehouse.files(table, [day]) for table in ("item_features", "vocabularies")}
    if not acts or not all(files.values()):
        raise InputError(f"there are no acts or items of {day}; run `nightshelf stage features` first")
    item_ids, catalogue = load_catalogue(shop, files["item_features"], files["vocabularies"])
    events = sequence_events(shop)
    journeys = load_journeys(acts, item_ids, events, list(shop.scenarios))
    may_stand = pc.is_in(item_ids, _items_for_shelves(night)).to_numpy(zero_copy_only=False)
    worth = event_worth(shop)
    bounds = [day_bounds_utc(one, shop.timezone) for one in days]
    midnights = np.array([*(start.timestamp() for start, _ in bounds), bounds[-1][1].timestamp()])
    model = train_two_tower(
        recipe,
        journeys,
        catalogue,
        np.array([0.0, *(worth[event] for event in events)]),
        len(shop.scenarios),
        midnights,
    )
    schema = arrow_schema(night.warehouse.specs[TABLE])
    folder = night.warehouse.new_run_dir(TABLE, night.run_id)
    (folder / f"{DAY_FOLDER}={day}").mkdir()
    user_keys = pa.array(journeys.user_keys, pa.string())
    barred = _barred(night, user_keys, item_ids)
    with pq.ParquetWriter(folder / f"{DAY_FOLDER}={day}" / "part-0.parquet", schema, compression="zstd") as writer:
        for users, items, scores in retrieve_items(model, recipe, journeys, catalogue, midnights, may_stand, barred):
            row, column = np.nonzero(items >= 0)
            count = len(row)
            columns = {
                "as_of_date": pa.array([day] * count, pa.date32()),
                "user_key": user_keys.take(pa.array(users.start + row)),
                "scenario": pa.repeat(EVERYBODY, count),
                "item_id": item_ids.take(pa.array(items[row, column])),
                "generator": pa.repeat(GENERATOR, count),
                "generator_score": pa.array(scores[row, column], pa.float32()),
                "because": pa.nulls(count, pa.string()),
            }
            writer.write_table(pa.table(columns).cast(schema))
    rows = night.warehouse.publish(TABLE, folder, [day], night.summary)
    by_acts = ["events"] if any(map(acted_on, common_rules(shop))) else []
    return StageResult(len(journeys), rows, inputs=["acts", "items", *by_acts, *files], message=_checked(night))


def _items_for_shelves(night: Night) -> pa.Array:
    """Return the ids of the items that some shelf may show to somebody."""
    items = night.warehouse.read("items", [night.as_of_date], ("item_id", "stock", "price"))
    away = np.isin(items["item_id"].to_numpy(), list(blocked_items(night.shop)))
    for rule in common_rules(night.shop):
        if not acted_on(rule):
            away |= kept_away(items, rule)
    return items["item_id"].filter(pa.array(~away)).combine_chunks()


def _barred(night: Night, user_keys: pa.Array, item_ids: pa.Array) -> np.ndarray:
    """Return the numbers of users and of the items that no shelf may show to them, for what they did: int64 [2, P], by user."""
    found = [np.zeros(0, np.int64)]
    for event, days in filter(None, map(acted_on, common_rules(night.shop))):
        if files := night.warehouse.files("events", days_back(night.as_of_date, days)):
            found.append(acted_on_pairs(files, event, user_keys, item_ids))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), max(1, len(item_ids))))


def _checked(night: Night) -> str:
    """Check what was published and record it.

    Raises:
        GateError: a rule of severity fail does not hold.
    """
    known = values_of("known_values", "generator", [GENERATOR])
    rows = check_rules(night, TABLE, [*spec_rules(night, TABLE), known, *reference_rules(night, TABLE)])
    record_checks(night, rows)
    return stop_on_failure(rows)
