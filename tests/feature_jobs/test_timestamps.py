"""Every way in which a log may write its time."""

import pytest
from pyspark.sql import functions as F

from feature_jobs.timestamps import parse_timestamp
from nightshelf.raw_logs import TimestampFormat

pytestmark = pytest.mark.spark
CASES = {
    "epoch_ms": {
        "1770000000123": "2026-02-02 02:40:00.123", "-5": "1969-12-31 23:59:59.995",
        "x": None, "0x1p30": None, "9e99": None, "NaN": None, "": None,
    },
    "epoch_s": {"1770000000": "2026-02-02 02:40:00", "1770000000.5": "2026-02-02 02:40:00.5", "253402300800": None},
    "iso8601": {
        "2026-02-02T02:40:00Z": "2026-02-02 02:40:00", "2026-02-02T02:40:00+0100": "2026-02-02 01:40:00",
        "2026-02-02 02:40:00": "2026-02-01 18:40:00", "2026-02-02": "2026-02-01 16:00:00",
        "2026-02-02 02:40:00 CET": "2026-02-02 01:40:00", "2026-02-02T02:40:00 Europe/Berlin": "2026-02-02 01:40:00",
        "2026-02-02 02:40:00 GMT+01:00": "2026-02-02 01:40:00", "2026-02-02T02:40:00.5 Z": "2026-02-02 02:40:00.5",
        "2026-02-02T02:40": "2026-02-01 18:40:00", "2026-02-02 2:4:0.": "2026-02-01 18:04:00", "2026": "2025-12-31 16:00:00",
        "2026-02-30T00:00:00Z": None, "x": None, "10:00:00": None, "T10:00": None,
    },
    "dd.MM.yyyy HH:mm": {"02.02.2026 02:40": "2026-02-01 18:40:00", "31.02.2026 02:40": None, "2026-02-02": None},
    "yyyy-MM-dd'T'HH:mm:ssXXX": {"2026-02-02T02:40:00+09:00": "2026-02-01 17:40:00"},
}  # fmt: skip


@pytest.mark.parametrize("style", CASES)
def test_texts_become_utc_or_null(spark, style):
    frame = spark.createDataFrame([(text,) for text in CASES[style]], "v string")
    parsed = parse_timestamp(F.col("v"), frame.schema["v"].dataType, TimestampFormat(format=style), "Asia/Shanghai")
    assert {row[0]: row[1] for row in frame.select("v", parsed.cast("string")).collect()} == CASES[style]


def test_the_files_own_types_are_taken_as_they_are(spark):
    frame = spark.sql("select timestamp'2026-02-02 02:40:00' as a, timestamp_ntz'2026-02-02 02:40:00' as b")
    style = TimestampFormat(format="iso8601", timezone="America/New_York")
    parsed = [
        parse_timestamp(F.col(n), frame.schema[n].dataType, style, "Asia/Shanghai").cast("string") for n in ("a", "b")
    ]
    assert tuple(frame.select(*parsed).first()) == ("2026-02-02 02:40:00", "2026-02-02 07:40:00")
