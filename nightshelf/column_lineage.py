"""What each column is taken or computed from: columns of other tables, fields of the logs, or what a stage alone knows."""

import re

from nightshelf.lineage import MADE, RAW, made_of
from nightshelf.table_spec import TableSpec

# Of what is computed: table, column, sources; the first rule that fits both names tells. {1} … are the groups of the column's.
_COMPUTED = (
    (r"events|waiting_events", "event_id", "all fields of the log's row"),
    (r"events|waiting_events", "event_date", "event_ts"),
    (r"events|waiting_events", "source|scenario", "shop file: sources"),
    (r"events|waiting_events", "event_type", "shop file: sources, and the log's field that it names"),
    (r"events|waiting_events", "user_key", "the log's field, keyed by the shop's secret"),
    (r"quarantine", "reason", "the rules of the shop file, and what every log must be"),
    (r"quarantine", "source|file|raw|evidence", RAW),
    (r"source_counts", "source", "shop file: sources"),
    (r"source_counts", "taken_back", "waiting_events.event_id"),
    (r"source_counts", "quarantined|expected", "quarantine.reason"),
    (r"source_counts", ".*", RAW),
    (r"source_schemas", ".*", RAW),
    (r"items", "category_.*", "the catalogue's category path"),
    (r"users", "user_key", "the shop's users, keyed by its secret; events.user_key"),
    (r"items|users|events|waiting_events", ".*", "the field that the shop file names"),
    (r"impressions", "impression_id", "events.event_id"),
    (r"impressions", "impression_ts", "events.event_ts"),
    (r"impressions", "sampling_rate", "shop file: negatives"),
    (r"sessions", "session|started_at|seconds", "acts.event_ts, impressions.impression_ts"),
    (r"sessions", "first_scenario|scenario_count", "acts.scenario, impressions.scenario"),
    (r".*_days|sessions", "impression_count", "impressions.impression_id"),
    (r".*_days|sessions", r"\w+_(?:count|attributed)", "acts.event_type"),
    (r"user_days", "log_price.*|priced", "acts.price, items.price"),
    (r"user_days|item_days", "log_dwell_micros|dwelt", "acts.dwell_seconds"),
    (r"user_days", "last_outcome_date", "acts.event_date"),
    (r"vocabularies", "feature", "shop file: the columns that have ids"),
    (r"vocabularies", "bucket", "value"),
    (r"vocabularies", ".*", "user_days.user_key, item_days.item_id, acts.query, items.item_id, and the night before"),
    (r"user_features", "user_index", "vocabularies.index"),
    (r"user_features", r"user_(category_3|brand)_index", "acts.item_id, items.{1}, vocabularies.index"),
    (r"user_features", r"user_(\w+)_index", "users.user_{1}, vocabularies.index"),
    (r"user_features", r"user_session_count_30d", "sessions.session"),
    (r"user_features", r"user_session_minutes_30d", "sessions.seconds"),
    (r"user_features", r"user_mean_log_price_30d", "user_days.log_price_micros, user_days.priced"),
    (
        r"user_features",
        r"user_log_price_deviation_30d",
        "user_days.log_price_square_micros, user_days.log_price_micros, user_days.priced",
    ),
    (r"(?:user|item)_features", r"(user|item)_mean_log_dwell_30d", "{1}_days.log_dwell_micros, {1}_days.dwelt"),
    (r"item_features|item_scenario_features", r"item_(?:scenario_)?recency_days", "item_days.as_of_date"),
    (r"(?:user|user_scenario)_features", r"user_(?:scenario_)?recency_days", "user_days.last_outcome_date"),
    (r"user_features", r"user_in_\w+_impression_count_30d", "user_days.impression_count"),
    (r"user_features", r"user_in_\w+_([^\W_]+)_rate_30d", "user_days.{1}_attributed, user_days.impression_count"),
    (
        r"item_features",
        r"item_(category_3|brand|attribute_\w+?)_(\w+)_rate_30d",
        "item_days.{2}_attributed, item_days.impression_count, items.{1}",
    ),
    (r"item_features", "item_index", "vocabularies.index"),
    (r"item_features", r"(\w+)_index", "items.{1}, vocabularies.index"),
    (r"item_features", "price_band", "items.price, items.category_2"),
    (r"item_features", "item_log_price|item_discount", "items.price"),
    (
        r"item_features",
        "item_age_days",
        "items.launch_date, items.as_of_date, item_days.as_of_date, vocabularies.since",
    ),
    (r"user_category_features", r"user_category_(\w+?)_(?:decayed_)?count_\d+d", "user_category_days.{1}_count"),
    (
        r"user_category_features",
        r"user_category_(\w+)_rate_30d",
        "user_category_days.{1}_count, user_category_days.impression_count, user_features.user_{1}_rate_30d",
    ),
    (r"user_category_features", r"\w+_recency_days", "user_category_days.as_of_date"),
    (
        r"attribute_features",
        "attribute|value|items",
        "items.category_1, items.category_2, items.category_3, items.brand, and the shop's own attributes",
    ),
    (r"attribute_features", r"\w+_recency_days", "item_days.as_of_date"),
    (
        r"item_scenario_features",
        r"item_scenario_(\w+)_rate_30d",
        "item_days.{1}_attributed, item_days.impression_count, item_features.item_{1}_rate_30d",
    ),
    (
        r"user_scenario_features",
        r"user_scenario_(\w+)_rate_30d",
        "user_days.{1}_attributed, user_days.impression_count, user_features.user_{1}_rate_30d",
    ),
    (
        r"user_features|user_scenario_features",
        r"user_(?:scenario_)?(\w+?)_(?:decayed_)?count_\d+d",
        "user_days.{1}_count",
    ),
    (
        r"item_features|item_scenario_features|attribute_features",
        r"(?:item|attribute)_(?:scenario_)?(\w+?)_(?:decayed_)?count_\d+d",
        "item_days.{1}_count",
    ),
    (r"user_features", r"user_(\w+)_rate_30d", "user_days.{1}_attributed, user_days.impression_count"),
    (
        r"item_features|attribute_features",
        r"(?:item|attribute)_(\w+)_rate_30d",
        "item_days.{1}_attributed, item_days.impression_count",
    ),
    (
        r"user_sequences",
        "shown_.*",
        "user_category_days.category_3, user_category_days.impression_count, vocabularies.index",
    ),
    (r"user(?:_scenario)?_sequences", "user_index", "vocabularies.index"),
    (r"user(?:_scenario)?_sequences", "item_indexes", "acts.item_id, vocabularies.index"),
    (r"user(?:_scenario)?_sequences", "event_type_indexes", "acts.event_type"),
    (r"user_sequences", "own_item_indexes", "acts.item_id, vocabularies.index"),
    (r"user_sequences", "own_counts|own_age_days", "acts.as_of_date"),
    (r"user(?:_scenario)?_sequences", "scenario_indexes", "acts.scenario"),
    (r"user(?:_scenario)?_sequences", "category_indexes", "acts.item_id, items.category_3, vocabularies.index"),
    (r"user(?:_scenario)?_sequences", "query_token_indexes", "acts.query, vocabularies.index"),
    (r"user(?:_scenario)?_sequences", "dwell.*", "acts.dwell_seconds"),
    (r"user(?:_scenario)?_sequences", "age.*|.*_age_.*|.*ages.*", "acts.event_ts"),
    (
        r"item_graph",
        "head|tail|relation",
        "acts.item_id, acts.event_type, items.item_id, item_features.price_band, and the shop's own graph",
    ),
    (r"item_graph", "weight|lift", "acts.user_key, acts.item_id"),
    (r"training_examples", "feature_date|hour|weekday", "impressions.impression_ts"),
    (r"training_examples", "labels_as_of", "the night"),
    (r"training_examples", "sample_weight", "impressions.sampling_rate"),
    (r"training_examples", "inverse_propensity", "impressions.propensity"),
    (r"training_examples", "label_spend", "acts.price, acts.quantity"),
    (
        r"training_examples",
        r"label_\w+|mask_\w+",
        "acts.event_type, acts.event_ts, impressions.impression_ts, and the task of the shop file",
    ),
    (r"normalization", "feature|version|transform", "the features of the shop file"),
    (r"normalization", ".*", "training_examples: the column of this name"),
    (r"example_days", ".*", "impressions.impression_ts, acts.event_ts"),
    (
        r"candidates",
        "scenario|generator|generator_score|because",
        "acts.item_id, item_features.item_id, item_scenario_features.item_id, item_graph.tail, items.stock, items.price",
    ),
    (
        r"retrieved_candidates",
        ".*",
        "acts.item_id, and the two-tower model of the night; items.stock, items.price, events.event_type",
    ),
    (r"shelf_drafts", "score", "p_ columns, and the utility of the shop file"),
    (
        r"shelf_drafts",
        r"p_\w+",
        "the champion, of user_features, item_features, item_scenario_features and user_sequences",
    ),
    (r"shelf_drafts", "source|reason", "candidates.generator, candidates.because"),
    (r"shelf_drafts", "propensity|placed_by|rank|rank_by_score", "score, and the rules of the shop file"),
    (r"anchor_lifts", "anchor_category", "acts.item_id, items.category_3"),
    (r"anchor_lifts", "category", "training_examples.item_id, items.category_3"),
    (r"anchor_lifts", "lift", "outcomes, expected"),
    (r"anchor_lifts", "shown|outcomes|expected", "training_examples.sample_weight, and the label of the first task"),
    (r"item_shelf_drafts", "anchor_item_id", "items.item_id"),
    (r"item_shelf_drafts", "lift", "training_examples.item_id, acts.item_id, item_graph.relation"),
    (r"item_shelf_drafts", "source|reason", "item_graph.relation, items.category_3"),
    (r"item_shelf_drafts", "score", "the champion's predictions for an unknown user, lift"),
    (r"item_shelf_drafts", "rank|rank_by_score", "score, and the rules of the shop file"),
    (r"(?:item_)?shelf_drafts|model_metrics", "model_version|role", "the registry of models"),
    (r"(?:item_)?shelf_drafts|stage_runs", "run_id", "the run"),
    (r"stage_runs", ".*", "the run"),
    (r"shelf_status", ".*", "the stage, and the audit's data_checks.success"),
    (r"data_checks", ".*", "the table that was checked"),
    (r"feature_drift", ".*", "training_examples: the column of this name"),
    (r"candidate_recall", "candidates_of", "candidates.as_of_date"),
    (r"candidate_recall", ".*", "candidates.item_id, retrieved_candidates.item_id, acts.item_id"),
    (r"candidate_quotas", "scenario|quota|quota_from|own_weight", "worth, worth_found, worth_kept, and the shop file"),
    (r"candidate_quotas", ".*", "candidates.item_id, retrieved_candidates.item_id, acts.item_id, events.event_type"),
    (r"model_metrics", "task|metric", "the tasks of the shop file"),
    (r"model_metrics", ".*", "training_examples: the labels of the test days; the model's predictions"),
    (r"promotions", ".*", "model_metrics.value, and the gate of the shop file"),
)


def lineage_of(table: str, column: str, specs: dict[str, TableSpec]) -> str:
    """Return what a column is taken or computed from, in words that name columns as `table.column`.

    Raises:
        KeyError: no rule tells.
    """
    if column == "as_of_date":
        return "the night"
    taken = made_of(table, column, specs)
    if taken:
        return taken
    for tables, columns, sources in _COMPUTED:
        found = re.fullmatch(columns, column)
        if found and re.fullmatch(tables, table):
            told = sources.format(None, *found.groups())
            return told if MADE[table].of[:1] == (RAW,) else f"computed: {told}"
    raise KeyError(f"{table}.{column}")
