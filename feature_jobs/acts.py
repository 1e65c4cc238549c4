"""Acts: what users did themselves, a tenth of a log with impressions. Sequences, graph, candidates and labels read them."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from feature_jobs.schema import conform
from nightshelf.config import Shop
from nightshelf.tables import table_specs


def acts(events: DataFrame, shop: Shop) -> DataFrame:
    """Return every outcome, and what a request itself tells of the user's wish.

    `searched` is the first result of an own query; `viewed` the item on whose page the request was made.
    """
    outcomes = events.where("event_type <> 'impression'")
    requests = events.where("event_type = 'impression' and position = 1")
    searched = requests.where("query is not null").withColumn("event_type", F.lit("searched"))
    viewed = requests.where("anchor_item_id is not null").withColumns(
        {"event_type": F.lit("viewed"), "item_id": F.col("anchor_item_id")}
    )
    return conform(outcomes.unionByName(searched).unionByName(viewed), table_specs(shop)["acts"])
