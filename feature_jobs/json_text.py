"""A row as JSON, for people who look at what was set aside: the same text on every engine."""

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DoubleType, FloatType, StructField, TimestampNTZType, TimestampType

from feature_jobs.numbers import number_text

_LOCAL = "yyyy-MM-dd'T'HH:mm:ss.SSS"
_MOMENT = f"{_LOCAL}'Z'"


def json_row(fields: list[StructField]) -> Column:
    """Return a JSON object of these columns; what is null is left out."""
    shown = F.to_json(F.struct(*(_shown(quoted(f.name), f.dataType).alias(f.name) for f in fields)))
    for field in fields:
        if isinstance(field.dataType, (FloatType, DoubleType)):  # a text so far
            key = f'"{field.name}":'
            shown = F.regexp_replace(shown, f'{key}"(-?[0-9.]+)"', f"{key}$1")
    return shown


def quoted(name: str) -> Column:
    """Return the column of this name, whatever letters it has."""
    return F.col(f"`{name.replace('`', '``')}`")


def _shown(column: Column, kind: DataType) -> Column:
    if isinstance(kind, (FloatType, DoubleType)):
        return number_text(column)
    if isinstance(kind, TimestampNTZType):
        return F.date_format(column.cast("timestamp"), _LOCAL)
    return F.date_format(column, _MOMENT) if isinstance(kind, TimestampType) else column
