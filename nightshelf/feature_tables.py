"""The tables that a night's features are in, and the examples and candidates that come of them."""

from nightshelf.config import Shop
from nightshelf.daily_tables import CATEGORY
from nightshelf.features import (
    OWN_HALF_LIFE_DAYS,
    Feature,
    attribute_dense,
    dense_features,
    index_features,
    item_dense,
    item_scenario_dense,
    user_category_dense,
    user_dense,
    user_scenario_dense,
)
from nightshelf.table_spec import AS_OF_DATE, ITEM, SCENARIO, USER, Column, TableSpec

# The ids 1 … OOV_BUCKETS of each vocabulary are shared by the values that have none of their own. A shop's ids begin after them
# for ever: another number needs new vocabularies.
OOV_BUCKETS = 16

# What each entry of a sequence of events tells, list by list.
_EVENT_LISTS = (
    Column("item_indexes", "list<int32>", "vocabulary ids of the items"),
    Column("event_type_indexes", "list<int32>", "1 + place of the event type in features.sequence_events"),
    Column("category_indexes", "list<int32>", "vocabulary ids of the items' third-level categories that day"),
    Column("age_days", "list<float32>", "days from the event to the end of as_of_date"),
)


def _features(features: list[Feature]) -> tuple[Column, ...]:
    return tuple(Column(feature.name, feature.type, feature.meaning) for feature in features)


def feature_tables(shop: Shop) -> list[TableSpec]:
    """Return the specs of vocabularies, features, sequences, graph, examples with their scales and days."""
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
            "value of a categorical feature that has an id of its own, or lost one that no other value got yet",
            ("feature", "value"),
            (
                AS_OF_DATE,
                Column("feature", "string", "the vocabulary: user, item, category_1 …"),
                Column("value", "string", "the value"),
                Column(
                    "index",
                    "int32",
                    f"its id, stable from night to night; 0 is kept for null, 1..{OOV_BUCKETS} for values without an id",
                ),
                Column(
                    "bucket",
                    "int32",
                    f"the id that it shares while it has none: 1 + first 8 hex digits of its SHA-256, modulo {OOV_BUCKETS}",
                ),
                Column(
                    "since", "date", "the night that gave the id to this value; before it, it may have been another's"
                ),
                Column("last_seen", "date", "the newest day whose events or tables show the value"),
                Column(
                    "count",
                    "int64",
                    "of users and items the events, else the most items (or users) that bear it in one day's table; "
                    "0 if no day that the night read shows it",
                ),
                Column("evicted_on", "date", "the night that took the id away; null while the value has it", True),
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
                *_EVENT_LISTS,
                Column("scenario_indexes", "list<int32>", "1 + place of the scenario in the shop file"),
                Column("dwell_seconds", "list<float32>", "seconds that the user stayed, 0 where the log does not tell"),
                Column("query_token_indexes", "list<int32>", "vocabulary ids of the words of the user's own queries"),
                Column("query_token_age_days", "list<float32>", "days from the query to the end of as_of_date"),
                Column(
                    "shown_category_indexes", "list<int32>", "vocabulary ids of third-level categories shown in a day"
                ),
                Column("shown_counts", "list<int32>", "impressions of that category on that day of arrival"),
                Column("shown_age_days", "list<float32>", "days from that day to as_of_date"),
                Column(
                    "own_item_indexes", "list<int32>", "vocabulary ids of items that the user may want again (`rebuy`)"
                ),
                Column(
                    "own_counts",
                    "list<float32>",
                    f"days on which the user chose it, halved each {OWN_HALF_LIFE_DAYS:g} days",
                ),
                Column("own_age_days", "list<float32>", "days from the last of them to as_of_date"),
            ),
        ),
        TableSpec(
            "user_scenario_sequences",
            "user and scenario with events up to that day; the lists run from the oldest to the newest event",
            ("user_key", "scenario"),
            (
                AS_OF_DATE,
                USER,
                SCENARIO,
                *_EVENT_LISTS,
            ),
        ),
        TableSpec(
            "user_category_features",
            "user and third-level category with an event in 30 days",
            ("user_key", "category_3"),
            (AS_OF_DATE, USER, CATEGORY, *_features(user_category_dense(shop))),
        ),
        TableSpec(
            "user_scenario_features",
            "user and scenario with an event that counts there in 30 days",
            ("user_key", "scenario"),
            (AS_OF_DATE, USER, SCENARIO, *_features(user_scenario_dense(shop))),
        ),
        TableSpec(
            "attribute_features",
            "category of any level, brand or other attribute that an item of item_features bears",
            ("attribute", "value"),
            (
                AS_OF_DATE,
                Column("attribute", "string", "column of the table items: category_1, brand, attribute_…"),
                Column("value", "string", "what the items have there"),
                Column("items", "int32", "items that bear it"),
                *_features(attribute_dense(shop)),
            ),
        ),
        TableSpec(
            "item_graph",
            "edge from an item to a related one, or to what it is",
            ("head", "relation", "tail"),
            (
                AS_OF_DATE,
                Column("head", "string", "item id"),
                Column(
                    "relation",
                    "string",
                    "co_view, co_click, co_cart, co_purchase … (users of both), in_category_1 … in_category_3, of_brand, "
                    "has_<attribute>, in_price_band, or one of the shop's own",
                ),
                Column(
                    "tail",
                    "string",
                    "item id; of what an item is, column and value: category_3:a/b/c, brand:…, attribute_…:…, price_band:7; "
                    "of the shop's own, what its file says",
                ),
                Column(
                    "weight",
                    "float32",
                    "co_: cosine of the two items' users, the fresher the heavier, in (0, 1]; else 1",
                ),
                Column(
                    "lift", "float32", "co_: users of both over what chance would give; null for what is no co_", True
                ),
            ),
        ),
        TableSpec(
            "training_examples",
            "mature or partly mature impression, in the partition of its arrival, with the features of the day before its own",
            ("impression_id",),
            (
                AS_OF_DATE,
                Column("impression_id", "string", "the impression"),
                Column("event_date", "date", "day of the impression"),
                Column(
                    "feature_date", "date", "the day whose end the features know: strictly before the impression's day"
                ),
                Column("impression_ts", "timestamp", "when it was shown, UTC"),
                Column("labels_as_of", "date", "the night up to whose end labels and masks know"),
                SCENARIO,
                USER,
                ITEM,
                Column("request_id", "string", "the request", True),
                Column("position", "int32", "place in the request, 0 where the log has none"),
                Column("propensity", "float32", "of the logging policy, 0 where not recorded"),
                Column("sample_weight", "float32", "1 / sampling rate of the row"),
                Column("inverse_propensity", "float32", "1 / propensity, at most 100; 1 where not recorded"),
                Column("hour", "int32", "hour of the impression in the shop's time zone, 0..23"),
                Column("weekday", "int32", "day of the impression in the shop's time zone, 1 = Monday .. 7"),
                *_features(index_features(shop)),
                *_features(dense_features(shop)),
                *labels,
            ),
        ),
        TableSpec(
            "normalization",
            "dense feature of the examples, and how tonight's model scales it: transform, minus mean, by deviation, clipped",
            ("feature",),
            (
                AS_OF_DATE,
                Column("feature", "string", "the column of training_examples"),
                Column("version", "int32", "of what these numbers mean"),
                Column("transform", "string", "log1p or none"),
                Column("mean", "float64", "mean of the transformed values"),
                Column("deviation", "float64", "their standard deviation; 1 where they are all the same"),
                Column("clip", "float64", "values further out than this many deviations are cut"),
                Column(
                    "edges",
                    "list<float32>",
                    "between 16 equally frequent buckets (fewer where values repeat), as they are",
                ),
                Column("rows", "int64", "examples that it was fitted on: those of the newest days of the train split"),
                Column("fitted_from", "date", "the first of these days"),
                Column("fitted_until", "date", "the last day of the train split"),
            ),
        ),
        TableSpec(
            "example_days",
            "partition of training_examples that the night wrote",
            ("example_date",),
            (
                AS_OF_DATE,
                Column("example_date", "date", "the partition: the day on which its impressions arrived"),
                Column(
                    "reason",
                    "string",
                    "new, ripening (a label window may have ended), or late events (came after that, and changed a label)",
                ),
            ),
        ),
    ]
