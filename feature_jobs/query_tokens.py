"""Query tokens: the words of what users searched for."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

_WORD = r"[\p{L}\p{N}]+"


def tokens(query: Column) -> Column:
    """Return the distinct words of a text in small letters, in their order; null has none."""
    words = F.regexp_extract_all(F.lower(query), F.lit(_WORD), F.lit(0))
    return F.array_distinct(F.coalesce(words, F.array().cast("array<string>")))


def query_tokens(acts: DataFrame) -> DataFrame:
    """Return as_of_date, user_key, event_ts, `place` in the query and `token` of every word of every own query."""
    searched = acts.where("event_type = 'searched'")
    words = F.posexplode(tokens(F.col("query"))).alias("place", "token")
    return searched.select("as_of_date", "user_key", "event_ts", words)
