"""The tables that a night's features are in, and the examples and candidates that come of them."""

from nightshelf.config import Shop
from nightshelf.features import Feature, dense_features, index_features, item_dense, item_scenario_dense, user_dense
from nightshelf.table_spec import AS_OF_DATE, ITEM, SCENARIO, USER, Column, TableSpec


def _features(features: list[Feature]) -> tuple[Column, ...]:
    return tuple(Column(feature.name, feature.type, feature.meaning) for feature in features)


def feature_tables(shop: Shop) -> list[TableSpec]:
    """Return the specs of vocabularies, features, sequences, graph, examples and candidates."""
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
                USER,
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
                ITEM,
                *_features([f for f in index_features(shop) if f.owner == "item"]),
                *_features(item_dense(shop)),
            ),
        ),
        TableSpec(
            "item_scenario_features",
            "item and scenario with impressions in the window",
            ("scenario", "item_id"),
            (AS_OF_DATE, SCENARIO, ITEM, *_features(item_scenario_dense(shop))),
        ),
        TableSpec(
            "user_sequences",
            "user with events up to that day; the lists run from the oldest to the newest event, or exposure",
            ("user_key",),
            (
                AS_OF_DATE,
                USER,
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
                SCENARIO,
                USER,
                ITEM,
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
