"""The tables that a day of logs is summed up in, once: a later night reads these, and the logs of its own day alone."""

from nightshelf.config import Shop
from nightshelf.features import outcome_events
from nightshelf.table_spec import AS_OF_DATE, ITEM, SCENARIO, USER, Column, TableSpec

CATEGORY = Column("category_3", "string", "first three levels of the category path", True)


def daily_tables(shop: Shop) -> list[TableSpec]:
    """Return the specs of acts, sessions, user_days, item_days and user_category_days."""
    return [
        TableSpec(
            "acts",
            "thing that a user did: an outcome, an own query (`searched`), a visit to an item's page (`viewed`)",
            ("event_id", "event_type"),
            (
                AS_OF_DATE,
                Column("event_id", "string", "of the event that tells it"),
                Column("event_date", "date", "day of event_ts in the shop's time zone"),
                Column("event_ts", "timestamp", "when it happened, UTC"),
                SCENARIO,
                Column("event_type", "string", "click, cart, purchase …, searched, viewed"),
                USER,
                Column("item_id", "string", "the item: of a query its first result, of a visit the page's"),
                Column("request_id", "string", "the request that showed the item", True),
                Column("query", "string", "search text", True),
                Column("quantity", "int32", "pieces", True),
                Column("price", "float64", "price of a piece in the shop's currency", True),
                Column("dwell_seconds", "float64", "seconds that the user stayed", True),
                Column("rating", "float64", "what the user gave the item, on the log's own scale", True),
            ),
        ),
        TableSpec(
            "sessions",
            "session of a user among what arrived on that day: events of all scenarios without a long pause",
            ("user_key", "session"),
            (
                AS_OF_DATE,
                USER,
                Column("session", "int32", "its place in the user's day, 1 = first"),
                Column("started_at", "timestamp", "its first event, UTC"),
                Column("seconds", "float64", "from its first to its last event"),
                Column("first_scenario", "string", "the scenario that it began in"),
                Column("scenario_count", "int32", "scenarios that it went through"),
                *(Column(f"{event}_count", "int32", f"{event} events") for event in _kinds(shop)),
            ),
        ),
        TableSpec(
            "user_days",
            "user and scenario with an event that arrived on that day",
            ("user_key", "scenario"),
            (
                AS_OF_DATE,
                USER,
                SCENARIO,
                *_counts(shop),
                Column("log_price_micros", "int64", "sum of log(1 + price) of the items of outcomes, in millionths"),
                Column("log_price_square_micros", "int64", "sum of log(1 + price) squared, in millionths"),
                Column("priced", "int32", "outcomes whose item has a price"),
                *_DWELL,
                Column("last_outcome_date", "date", "day of the latest outcome", True),
            ),
        ),
        TableSpec(
            "item_days",
            "item and scenario with an event that arrived on that day",
            ("item_id", "scenario"),
            (AS_OF_DATE, ITEM, SCENARIO, *_counts(shop), *_DWELL),
        ),
        TableSpec(
            "user_category_days",
            "user and third-level category with an event that arrived on that day",
            ("user_key", "category_3"),
            (
                AS_OF_DATE,
                USER,
                CATEGORY,
                *(Column(f"{event}_count", "int32", f"{event} events") for event in _kinds(shop)),
            ),
        ),
    ]


_DWELL = (
    Column("log_dwell_micros", "int64", "sum of log(1 + seconds that the user stayed), in millionths"),
    Column("dwelt", "int32", "events that tell how long the user stayed"),
)


def _kinds(shop: Shop) -> list[str]:
    return ["impression", *outcome_events(shop)]


def _counts(shop: Shop) -> list[Column]:
    counted = [
        Column(f"{event}_count", "int32", f"{event} events, by the log's own scenario") for event in _kinds(shop)
    ]
    counted += [
        Column(f"{event}_attributed", "int32", f"{event} events that belong to an impression of the scenario")
        for event in outcome_events(shop)
    ]
    return counted
