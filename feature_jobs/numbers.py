"""Numbers from a log's texts, and texts of numbers: alike on every engine."""

from pyspark.sql import Column
from pyspark.sql import functions as F

# Java's own ways to write one, which a cast in the JVM takes and nobody means: 5d, 5f, 0x1p3
_ONLY_JAVA = r"[0-9.][dDfF]\s*$|[xX]"
_EXACT = "decimal(38,9)"
# What logs write where there is no number.
_NOTHING = r"(?i)^\s*(null|none|nil|n/?a|-|\\n)\s*$"


def parse_number(text: Column) -> Column:
    """Return the double that a text writes, or null."""
    return F.when(~text.rlike(_ONLY_JAVA), text).try_cast("double")


def is_no_number(text: Column, number: Column) -> Column:
    """Say whether a text is there that writes no number, and does not say either that there is none."""
    return text.isNotNull() & number.isNull() & ~text.rlike(_NOTHING)


def number_text(number: Column) -> Column:
    """Return a double as digits with a point (5.0, 0.0001, 10000000.0), to nine places; engines differ in exponents."""
    digits = F.rtrim(number.try_cast(_EXACT).cast("string"), F.lit("0"))
    return F.coalesce(
        F.when(digits.endswith("."), F.concat(digits, F.lit("0"))).otherwise(digits), number.cast("string")
    )
