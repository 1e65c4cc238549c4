"""Which stage makes each table, and of what: the tables that its rows are computed from, first those that lend most columns."""

from dataclasses import dataclass

from nightshelf.table_spec import TableSpec

RAW = "raw logs"


@dataclass(frozen=True)
class Made:
    """The stage that makes a table, and the tables (or RAW) that it is made of."""

    stage: str
    of: tuple[str, ...]


MADE = {
    "events": Made("clean", (RAW, "waiting_events")),
    "quarantine": Made("clean", (RAW, "waiting_events")),
    "waiting_events": Made("clean", (RAW,)),
    "source_counts": Made("clean", (RAW, "waiting_events")),
    "source_schemas": Made("clean", (RAW,)),
    "items": Made("clean", (RAW,)),
    "users": Made("clean", (RAW, "events")),
    "impressions": Made("features", ("events",)),
    "acts": Made("features", ("events",)),
    "sessions": Made("features", ("acts", "impressions")),
    "user_days": Made("features", ("acts", "impressions", "items")),
    "item_days": Made("features", ("acts", "impressions")),
    "user_category_days": Made("features", ("acts", "impressions", "items")),
    "vocabularies": Made("features", ("user_days", "item_days", "acts", "items", "users")),
    "user_features": Made("features", ("user_days", "item_days", "sessions", "acts", "items", "users", "vocabularies")),
    "item_features": Made("features", ("item_days", "items", "vocabularies")),
    "item_scenario_features": Made("features", ("item_days", "item_features")),
    "user_sequences": Made("features", ("acts", "user_category_days", "items", "vocabularies")),
    "user_scenario_sequences": Made("features", ("acts", "items", "vocabularies")),
    "user_category_features": Made("features", ("user_category_days", "user_features")),
    "user_scenario_features": Made("features", ("user_days", "user_features")),
    "attribute_features": Made("features", ("item_days", "items")),
    "item_graph": Made("features", ("acts", "items", "item_features", "vocabularies", RAW)),
    "training_examples": Made(
        "features", ("impressions", "user_features", "item_features", "item_scenario_features", "acts")
    ),
    "normalization": Made("features", ("training_examples",)),
    "example_days": Made("features", ("impressions", "acts")),
    "candidates": Made("features", ("acts", "items", "item_features", "item_scenario_features", "item_graph")),
    "candidate_recall": Made("validate_examples", ("candidates", "retrieved_candidates", "acts")),
    "candidate_quotas": Made("validate_examples", ("candidates", "retrieved_candidates", "acts", "items", "events")),
    "feature_drift": Made("validate_examples", ("training_examples",)),
    "retrieved_candidates": Made("retrieve", ("acts", "items", "events", "item_features", "vocabularies")),
    "model_metrics": Made("evaluate", ("training_examples", "user_sequences")),
    "promotions": Made("promote", ("model_metrics",)),
    "shelf_drafts": Made(
        "recommend",
        ("candidates", "retrieved_candidates", "candidate_quotas", "items", "users", "events", "user_features", "item_features",
         "item_scenario_features", "user_sequences", "vocabularies", "training_examples", "acts"),
    ),
    "anchor_lifts": Made("recommend", ("training_examples", "acts", "items", "item_graph")),
    "item_shelf_drafts": Made(
        "recommend", ("items", "item_graph", "training_examples", "acts", "item_features", "item_scenario_features")
    ),
    "recommendations": Made("publish", ("shelf_drafts",)),
    "item_recommendations": Made("publish", ("item_shelf_drafts",)),
    "shelf_status": Made("publish", ("recommendations",)),
    "data_checks": Made("both validations and publish", ()),
    "stage_runs": Made("every stage", ()),
}  # fmt: skip


# They bear the name of a column of what their table is made of, and are something else.
_COMPUTED = {
    ("candidates", "scenario"), ("retrieved_candidates", "scenario"), ("shelf_drafts", "source"), ("shelf_drafts", "propensity"),
    ("candidate_quotas", "scenario"), ("anchor_lifts", "lift"), ("item_shelf_drafts", "lift"), ("shelf_status", "reason"),
}  # fmt: skip


def made_of(table: str, column: str, specs: dict[str, TableSpec]) -> str:
    """Return the column of another table that a column is taken from as it is, `table.column`, or an empty text."""
    made = MADE[table]
    if column == "as_of_date" or RAW in made.of[:1] or (table, column) in _COMPUTED:
        return ""
    return next((f"{name}.{column}" for name in made.of if name in specs and column in specs[name].column_names), "")
