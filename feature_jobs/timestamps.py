"""The times of a log in whatever form it has them → UTC timestamps; what is no time becomes null."""

import re

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, TimestampNTZType, TimestampType

from feature_jobs.numbers import parse_number
from nightshelf.raw_logs import TimestampFormat

_EPOCH_END = 4_102_444_800  # 2100-01-01; later ones would overflow, and no log is from there
_DATED = r"^[+-]?\d{4}"
# A day, or a day and a clock, and nothing behind it; whatever else the engine reads names its own zone
_LOCAL = r"^[+-]?\d{4}(-\d{1,2}(-\d{1,2}([T ](\d{1,2}(:\d{1,2}(:\d{1,2}(\.\d*)?)?)?)?)?)?)?$"


def parse_timestamp(value: Column, kind: DataType, style: TimestampFormat, timezone: str) -> Column:
    """Return the moment in UTC that `value` (a column of type `kind`) writes, or null.

    Timestamps of the file's own type are taken as they are; those without a zone, and texts without one, are local
    times of `style.timezone` (default: `timezone`, the shop's).
    """
    zone = style.timezone or timezone
    if isinstance(kind, TimestampType):
        return value
    if isinstance(kind, TimestampNTZType):
        return F.to_utc_timestamp(value.cast("timestamp"), zone)
    text = F.trim(value.cast("string"))
    if style.format in ("epoch_s", "epoch_ms"):
        seconds = parse_number(text) / (1000 if style.format == "epoch_ms" else 1)
        return F.when(
            seconds.between(-_EPOCH_END, _EPOCH_END), F.timestamp_micros((seconds * 1_000_000).cast("bigint"))
        )
    if style.format == "iso8601":
        # An hour without a day would be one of the day on which the night runs
        moment = F.when(text.rlike(_DATED), text).try_cast("timestamp")
        return F.when(text.rlike(_LOCAL), F.to_utc_timestamp(moment, zone)).otherwise(moment)
    moment = F.try_to_timestamp(text, F.lit(style.format))
    has_zone = re.search(r"[XxZzVO]", re.sub(r"'[^']*'", "", style.format))
    return moment if has_zone else F.to_utc_timestamp(moment, zone)
