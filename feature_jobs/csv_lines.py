"""CSV lines → their fields, each line for itself, so that a broken one costs itself alone."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from feature_jobs.sail import is_embedded
from nightshelf.raw_logs import Csv

_HIDDEN = "\x01"  # stands in for a delimiter inside quotes


def has_width(raw: Column, layout: Csv, width: int) -> Column:
    """Say whether the line has this many fields, and its quotes are closed."""
    # From_csv fills up short lines and cuts long ones, so the fields are counted apart from it
    unquoted = F.when(raw.contains('"'), F.regexp_replace(raw, '"(?:[^"]|"")*"', "")).otherwise(raw)
    others = F.length(F.replace(unquoted, F.lit(layout.delimiter), F.lit("")))
    delimiters = (F.length(unquoted) - others) / len(layout.delimiter)
    return (delimiters == width - 1) & ~unquoted.contains('"')


def csv_fields_of(raw: Column, layout: Csv, width: int) -> list[Column]:
    """Return the fields of a line that has `width` of them, as texts; an empty one is null."""
    if is_embedded():
        return _split(raw, layout.delimiter, width)
    schema = ", ".join(f"f{n} string" for n in range(width))
    row = F.from_csv(raw, schema, {"sep": layout.delimiter, "quote": '"', "escape": '"'})
    return [row.getField(f"f{n}") for n in range(width)]


def _split(raw: Column, delimiter: str, width: int) -> list[Column]:
    """Split as from_csv would: Sail's own knows no quotes."""

    def hide(part: Column, place: Column) -> Column:
        """Hide the delimiters of a part that is inside quotes, as every second one is."""
        return F.when(place % 2 == 1, F.replace(part, F.lit(delimiter), F.lit(_HIDDEN))).otherwise(part)

    hidden = F.array_join(F.transform(F.split(raw, '"'), hide), '"')
    text = F.when(raw.contains('"'), hidden).otherwise(raw)
    fields = F.split(text, "".join(f"\\x{{{ord(letter):x}}}" for letter in delimiter))
    return [_unquoted(F.get(fields, F.lit(n)), delimiter) for n in range(width)]


def _unquoted(field: Column, delimiter: str) -> Column:
    inner = F.replace(F.substring(field, F.lit(2), F.length(field) - 2), F.lit('""'), F.lit('"'))
    value = F.when(field.startswith('"') & field.endswith('"'), inner).otherwise(F.nullif(field, F.lit("")))
    return F.replace(value, F.lit(_HIDDEN), F.lit(delimiter))
