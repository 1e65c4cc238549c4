"""Every table of nightshelf, declared once and for all engines: columns, keys, grain.

A column's type is engine-neutral; feature_jobs/schema.py turns it into Spark's, pipelines/warehouse.py into Arrow's and
Iceberg's. Every table has the partition column `as_of_date`. Columns that depend on the shop (features, labels) come
from nightshelf/features.py.
"""

from dataclasses import dataclass
from typing import Literal

from nightshelf.config import Shop
from nightshelf.features import (
    Feature,
    attribute_columns,
    dense_features,
    index_features,
    item_dense,
    item_scenario_dense,
    user_dense,
)

ColumnType = Literal[
    "string", "int32", "int64", "float32", "float64", "bool", "date", "timestamp", "list<int32>", "list<float32>"
]


@dataclass(frozen=True)
class Column:
    """One column: its name, type, meaning (with unit) and whether it may be null."""

    name: str
    type: ColumnType
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class TableSpec:
    """One table: `grain` completes the sentence “one row per …”, `keys` are unique inside a partition."""

    name: str
    grain: str
    keys: tuple[str, ...]
    columns: tuple[Column, ...]

    @property
    def column_names(self) -> list[str]:
        """Return the names of the columns in order."""
        return [column.name for column in self.columns]


AS_OF_DATE = Column("as_of_date", "date", "the last complete day that the row knows; the partition")
_USER = Column("user_key", "string", "keyed hash of the user id")
_ITEM = Column("item_id", "string", "the shop's item id")
_SCENARIO = Column("scenario", "string", "the surface")


def table_specs(shop: Shop) -> dict[str, TableSpec]:
    """Return the spec of every table of this shop, by name."""
    return {spec.name: spec for spec in [*_log_tables(shop), *_feature_tables(shop), *_shelf_tables(shop), *_ledgers()]}


def _log_tables(shop: Shop) -> list[TableSpec]:
    event_columns = (
        Column("event_id", "string", "hash of the source and of every field of the event"),
        Column("event_date", "date", "day of event_ts in the shop's time zone"),
        Column("event_ts", "timestamp", "when it happened, UTC"),
        Column("source", "string", "the log that it came from"),
        _SCENARIO,
        Column("event_type", "string", "what the user did or saw: impression, click, cart, purchase …"),
        _USER,
        _ITEM,
        Column("request_id", "string", "the request that showed the items", True),
        Column("position", "int32", "place in the request, 1 = first", True),
        Column("query", "string", "search text", True),
        Column("quantity", "int32", "pieces", True),
        Column("price", "float64", "price of a piece in the shop's currency", True),
        Column("propensity", "float64", "probability with which the logging policy showed the item there", True),
        Column("dwell_seconds", "float64", "seconds that the user stayed", True),
        Column("anchor_item_id", "string", "the item whose page it was", True),
    )
    return [
        TableSpec(
            "events",
            "thing a user did or saw, in the partition of the day on which its log arrived",
            ("event_id",),
            (AS_OF_DATE, *event_columns),
        ),
        TableSpec(
            "quarantine",
            "log row set aside",
            (),
            (
                AS_OF_DATE,
                Column("source", "string", "the log that it came from"),
                Column("reason", "string", "the rule that set it aside"),
                Column("file", "string", "name of the raw file"),
                Column(
                    "raw",
                    "string",
                    "the row with its user id replaced; letters and digits masked where no id could be told apart",
                ),
                Column("evidence", "string", "the value that broke the rule", True),
            ),
        ),
        TableSpec(
            "source_counts",
            "source and day of its log: rows_read = kept + quarantined + duplicates + other_days",
            ("source",),
            (
                AS_OF_DATE,
                Column("source", "string", "the log"),
                Column("rows_read", "int64", "rows read from the raw files"),
                Column("kept", "int64", "rows that became events"),
                Column("quarantined", "int64", "rows set aside, each with a reason"),
                Column("duplicates", "int64", "rows that repeat another row"),
                Column("other_days", "int64", "rows of files that hold several days which belong to another day"),
            ),
        ),
        TableSpec(
            "items",
            "item of the catalogue of that day",
            ("item_id",),
            (
                AS_OF_DATE,
                _ITEM,
                Column("title", "string", "title", True),
                Column("category_1", "string", "first level of the category path", True),
                Column("category_2", "string", "first two levels of the category path", True),
                Column("category_3", "string", "first three levels of the category path", True),
                Column("brand", "string", "brand", True),
                Column("price", "float64", "price in the shop's currency", True),
                Column("stock", "int64", "pieces in stock", True),
                Column("launch_date", "date", "first day on sale", True),
                *(
                    Column(f"attribute_{name}", "string", f"attribute {name}", True)
                    for name in (shop.items.attributes if shop.items else [])
                ),
            ),
        ),
        TableSpec(
            "users",
            "user of the shop's user table or logs",
            ("user_key",),
            (
                AS_OF_DATE,
                _USER,
                *(Column(f"user_{name}", "string", f"the user's {name}", True) for name in attribute_columns(shop)),
            ),
        ),
        TableSpec(
            "impressions",
            "item shown to a user in a request of a scenario (or drawn as a negative where the log has no impressions)",
            ("impression_id",),
            (
                AS_OF_DATE,
                Column("impression_id", "string", "the event_id of the impression"),
                Column("event_date", "date", "day of the impression in the shop's time zone"),
                Column("impression_ts", "timestamp", "when it was shown, UTC"),
                _SCENARIO,
                _USER,
                _ITEM,
                Column("request_id", "string", "the request", True),
                Column("position", "int32", "place in the request, 1 = first", True),
                Column("propensity", "float64", "probability with which the logging policy showed it", True),
                Column(
                    "sampling_rate",
                    "float64",
                    "share of the possible negatives that this one stands for; 1 for a logged impression",
                ),
            ),
        ),
    ]


def _features(features: list[Feature]) -> tuple[Column, ...]:
    return tuple(Column(feature.name, feature.type, feature.meaning) for feature in features)


def _feature_tables(shop: Shop) -> list[TableSpec]:
    labels = []
    for name, task in shop.tasks.items():
        labels.append(Column(f"label_{name}", "float32", f"outcome of task {name}; 0 where mask_{name} is 0"))
        labels.append(
            Column(
                f"mask_{name}",
                "float32",
                f"1 if task {name} (label window {task.label_window}) is mature and defined here",
            )
        )
    return [
        TableSpec(
            "vocabularies",
            "value of a categorical feature",
            ("feature", "value"),
            (
                AS_OF_DATE,
                Column("feature", "string", "the vocabulary: user, item, category_1 …"),
                Column("value", "string", "the value"),
                Column("index", "int32", "its id, stable from night to night; 0 is kept for unknown"),
            ),
        ),
        TableSpec(
            "user_features",
            "user with events up to that day",
            ("user_key",),
            (
                AS_OF_DATE,
                _USER,
                *_features([f for f in index_features(shop) if f.owner == "user"]),
                *_features(user_dense(shop)),
            ),
        ),
        TableSpec(
            "item_features",
            "item of the catalogue or the logs",
            ("item_id",),
            (
                AS_OF_DATE,
                _ITEM,
                *_features([f for f in index_features(shop) if f.owner == "item"]),
                *_features(item_dense(shop)),
            ),
        ),
        TableSpec(
            "item_scenario_features",
            "item and scenario with impressions in the window",
            ("scenario", "item_id"),
            (AS_OF_DATE, _SCENARIO, _ITEM, *_features(item_scenario_dense(shop))),
        ),
        TableSpec(
            "user_sequences",
            "user with events up to that day; the lists run from the oldest to the newest event, or exposure",
            ("user_key",),
            (
                AS_OF_DATE,
                _USER,
                Column("user_index", "int32", "vocabulary id"),
                Column("item_indexes", "list<int32>", "vocabulary ids of the items"),
                Column("event_type_indexes", "list<int32>", "1 + place of the event type in features.sequence_events"),
                Column("scenario_indexes", "list<int32>", "1 + place of the scenario in the shop file"),
                Column("age_days", "list<float32>", "days from the event to the end of as_of_date"),
                Column(
                    "shown_category_indexes", "list<int32>", "vocabulary ids of third-level categories shown in a day"
                ),
                Column("shown_counts", "list<int32>", "impressions of that category on that day of arrival"),
                Column("shown_age_days", "list<float32>", "days from that day to as_of_date"),
            ),
        ),
        TableSpec(
            "item_graph",
            "edge from an item to a related one",
            ("head", "relation", "tail"),
            (
                AS_OF_DATE,
                Column("head", "string", "item id"),
                Column("relation", "string", "co_click, co_cart, co_purchase …"),
                Column("tail", "string", "item id"),
                Column("weight", "float32", "strength: cosine of the two items' user sets, in (0, 1]"),
            ),
        ),
        TableSpec(
            "training_examples",
            "mature or partly mature impression of the training window, with the features of the day before it",
            ("impression_id",),
            (
                AS_OF_DATE,
                Column("impression_id", "string", "the impression"),
                Column("event_date", "date", "day of the impression"),
                Column(
                    "feature_date", "date", "the day whose end the features know: strictly before the impression's day"
                ),
                Column("impression_ts", "timestamp", "when it was shown, UTC"),
                Column("split", "string", "train or validation, by time"),
                _SCENARIO,
                _USER,
                _ITEM,
                Column("request_id", "string", "the request", True),
                Column("position", "int32", "place in the request, 0 where the log has none"),
                Column("propensity", "float32", "of the logging policy, 0 where not recorded"),
                Column("sample_weight", "float32", "1 / sampling rate of the row"),
                *_features(index_features(shop)),
                *_features(dense_features(shop)),
                *labels,
            ),
        ),
    ]


def _shelf_tables(shop: Shop) -> list[TableSpec]:
    return [
        TableSpec(
            "candidates",
            "user, scenario, item and generator worth ranking (scenario `*`: for all of them; user `*`: for everybody)",
            ("user_key", "scenario", "item_id", "generator"),
            (
                AS_OF_DATE,
                _USER,
                _SCENARIO,
                _ITEM,
                Column("generator", "string", "popular, affinity, related, own_history …"),
                Column("generator_score", "float32", "the generator's own score, larger is better"),
                Column(
                    "because",
                    "string",
                    "what ties it to the user: the category, the brand or the item of the user's history; null if nothing does",
                    True,
                ),
            ),
        ),
        TableSpec(
            "shelf_drafts",
            "row that wants to be published in recommendations",
            ("user_key", "scenario", "rank"),
            _shelf_columns(shop),
        ),
        TableSpec("recommendations", "user × scenario × rank", ("user_key", "scenario", "rank"), _shelf_columns(shop)),
    ]


def _shelf_columns(shop: Shop) -> tuple[Column, ...]:
    predictions = (
        Column(
            f"p_{name}",
            "float64",
            f"predicted {name}: "
            + ("expected value" if task.kind == "regression" else "probability after an impression"),
            True,
        )
        for name, task in shop.tasks.items()
    )
    return (
        AS_OF_DATE,
        _SCENARIO,
        _USER,
        Column("rank", "int32", "1 = best"),
        _ITEM,
        Column("score", "float64", "expected utility: the predictions weighted as the shop file says"),
        *predictions,
        Column("source", "string", "the candidate generator"),
        Column("reason", "string", "why it is there, in a sentence"),
        Column("model_version", "string", "the registered model that ranked it; popularity while the shop has none"),
        Column("run_id", "string", "the run that wrote it"),
    )


def _ledgers() -> list[TableSpec]:
    return [
        TableSpec(
            "stage_runs",
            "finished attempt of a stage",
            ("run_id",),
            (
                AS_OF_DATE,
                Column("run_id", "string", "the attempt"),
                Column("stage", "string", "the stage"),
                Column("status", "string", "done or failed"),
                Column("started_at", "timestamp", "UTC"),
                Column("seconds", "float64", "wall time"),
                Column("peak_memory_mb", "float64", "largest resident memory of the process and its children"),
                Column("rows_in", "int64", "rows read"),
                Column("rows_out", "int64", "rows written"),
                Column("rows_quarantined", "int64", "rows set aside"),
                Column("code_version", "string", "hash of nightshelf's source files"),
                Column("inputs", "string", "JSON: table → snapshot id that was read"),
                Column("message", "string", "the error, or empty"),
            ),
        ),
        TableSpec(
            "data_checks",
            "expectation on a table",
            ("table_name", "expectation", "column_name"),
            (
                AS_OF_DATE,
                Column("table_name", "string", "the table that was checked"),
                Column("expectation", "string", "the rule"),
                Column("column_name", "string", "the column, or empty"),
                Column("severity", "string", "fail or warn"),
                Column("success", "bool", "whether it held"),
                Column("observed", "string", "what was seen"),
                Column("expected", "string", "what was asked for"),
            ),
        ),
        TableSpec(
            "model_metrics",
            "model_version × scenario × task × metric on the validation days",
            ("model_version", "scenario", "task", "metric"),
            (
                AS_OF_DATE,
                Column("model_version", "string", "the registered version"),
                Column("role", "string", "challenger or champion"),
                Column("scenario", "string", "the surface, or `*` for all together"),
                Column("task", "string", "the learning target, or `*`"),
                Column("metric", "string", "auc, gauc, logloss, ndcg, rmse, pcoc (predicted over observed) …"),
                Column("value", "float64", "the metric; null where it is not defined", True),
                Column("lower", "float64", "lower 95 % bound (bootstrap over users)", True),
                Column("upper", "float64", "upper 95 % bound (bootstrap over users)", True),
                Column("rows", "int64", "validation rows behind it"),
                Column("positives", "int64", "positive rows behind it"),
            ),
        ),
        TableSpec(
            "promotions",
            "decision of the promotion gate",
            ("challenger",),
            (
                AS_OF_DATE,
                Column("challenger", "string", "model version that asked"),
                Column("champion", "string", "model version that held the alias, or empty"),
                Column("promoted", "bool", "whether the alias moved"),
                Column("reason", "string", "the decision in a sentence"),
                Column("evidence", "string", "JSON: every check with observed and expected"),
            ),
        ),
    ]
