"""The tables of what happened: events and what was set aside, the catalogue, the users, the impressions."""

from nightshelf.config import Shop
from nightshelf.features import attribute_columns
from nightshelf.table_spec import AS_OF_DATE, ITEM, SCENARIO, USER, Column, TableSpec


def log_tables(shop: Shop) -> list[TableSpec]:
    """Return the specs of events, of what was set aside or waits, counts, schemas, items, users and impressions."""
    event_columns = (
        Column("event_id", "string", "hash of the source and of every field of the event"),
        Column("event_date", "date", "day of event_ts in the shop's time zone"),
        Column("event_ts", "timestamp", "when it happened, UTC"),
        Column("source", "string", "the log that it came from"),
        SCENARIO,
        Column("event_type", "string", "what the user did or saw: impression, click, cart, purchase …"),
        USER,
        ITEM,
        Column("request_id", "string", "the request that showed the items", True),
        Column("position", "int32", "place in the request, 1 = first", True),
        Column("query", "string", "search text", True),
        Column("quantity", "int32", "pieces", True),
        Column("price", "float64", "price of a piece in the shop's currency", True),
        Column("propensity", "float64", "probability with which the logging policy showed the item there", True),
        Column("dwell_seconds", "float64", "seconds that the user stayed", True),
        Column("rating", "float64", "what the user gave the item, on the log's own scale", True),
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
                Column("file", "string", "name of the raw file, or the table and day where it had waited"),
                Column(
                    "raw",
                    "string",
                    "the row with its user id replaced; letters and digits masked where no id could be told apart",
                ),
                Column("evidence", "string", "the value that broke the rule", True),
            ),
        ),
        TableSpec(
            "waiting_events",
            "event whose item no catalogue knew on the day on which its log arrived; it is one of events once one does",
            (),
            (AS_OF_DATE, *event_columns),
        ),
        TableSpec(
            "source_counts",
            "source and day of its log: rows_read + taken_back = kept + quarantined + duplicates + other_days",
            ("source",),
            (
                AS_OF_DATE,
                Column("source", "string", "the log"),
                Column("rows_read", "int64", "rows read from the raw files"),
                Column(
                    "taken_back",
                    "int64",
                    "waiting events of earlier days whose item a catalogue knows since this day",
                    True,
                ),
                Column("kept", "int64", "rows that became events"),
                Column("quarantined", "int64", "rows set aside, each with a reason"),
                Column("expected", "int64", "those of them whose reason is no fault to the shop file", True),
                Column("duplicates", "int64", "rows that repeat another row"),
                Column("other_days", "int64", "rows of files that hold several days which belong to another day"),
            ),
        ),
        TableSpec(
            "source_schemas",
            "source, or items, users, graph × column of its raw files, as a sample of that day's shows it",
            ("source", "column_name"),
            (
                AS_OF_DATE,
                Column("source", "string", "the log, or items, users, graph"),
                Column("column_name", "string", "the column's name in the raw file"),
                Column("kind", "string", "what its values are: text, integer, number, …; mixed, or empty"),
                Column("share", "float64", "share of the sampled rows that have the column"),
                Column("rows", "int64", "rows sampled (of Parquet: files)"),
            ),
        ),
        TableSpec(
            "items",
            "item of the catalogue of that day",
            ("item_id",),
            (
                AS_OF_DATE,
                ITEM,
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
                USER,
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
                SCENARIO,
                USER,
                ITEM,
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
