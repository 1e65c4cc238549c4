"""What happened, as features count it: the outcomes of the logs and the impressions, logged or drawn, in one shape."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

_COLUMNS = ("as_of_date", "event_date", "scenario", "user_key", "item_id", "event_type", "price")


def exposure(events: DataFrame, impressions: DataFrame) -> DataFrame:
    """Return outcomes and impressions as rows with an event_type; `impression` covers drawn negatives too."""
    outcomes = events.where("event_type <> 'impression'").select(*_COLUMNS)
    shown = impressions.withColumns({"event_type": F.lit("impression"), "price": F.lit(None).cast("double")})
    return outcomes.unionByName(shown.select(*_COLUMNS))
