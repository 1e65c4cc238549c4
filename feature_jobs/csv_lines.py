"""CSV lines → their fields, each line for itself, so that a broken one costs itself alone."""

from pyspark.sql import Column
from pyspark.sql import functions as F

from feature_jobs.sail import is_embedded
from nightshelf.raw_logs import Csv

_HIDDEN = "\x01"  # stands in for a delimiter inside quotes
_QUOTED = "\x02"  # stands in for what is between two quotes, and for them


def has_width(raw: Column, layout: Csv, width: int) -> Column:
    """Say whether the line has this many fields, its quotes are closed, and no other reading of them has other fields.

    Quotes around a part of a field mean nothing, so that a delimiter between such ones may be one or not: `a"b,c"d`.
    """
    # From_csv fills up short lines and cuts long ones, so the fields are counted apart from it. No group is repeated in
    # an expression: Java calls itself for each repetition, and a text of some thousand letters would end the process
    unquoted = F.when(raw.contains('"'), F.regexp_replace(raw, '"[^"]*"', _QUOTED)).otherwise(raw)
    first, last = _as_regex(layout.delimiter[0]), _as_regex(layout.delimiter[-1])
    in_part = unquoted.rlike(f"[^{last}{_QUOTED}]{_QUOTED}|{_QUOTED}[^{first}{_QUOTED}]")
    is_plain = ~in_part | (_delimiters(raw, layout.delimiter) == width - 1)
    return (_delimiters(unquoted, layout.delimiter) == width - 1) & ~unquoted.contains('"') & is_plain


def _delimiters(text: Column, delimiter: str) -> Column:
    others = F.length(F.replace(text, F.lit(delimiter), F.lit("")))
    return (F.length(text) - others) / len(delimiter)


def _as_regex(letters: str) -> str:
    return "".join(f"\\x{{{ord(letter):x}}}" for letter in letters)


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
    fields = F.split(text, _as_regex(delimiter))
    return [_unquoted(F.get(fields, F.lit(n)), delimiter) for n in range(width)]


def _unquoted(field: Column, delimiter: str) -> Column:
    inner = F.substring(field, F.lit(2), F.greatest(F.length(field) - 2, F.lit(0)))
    is_whole = field.startswith('"') & field.endswith('"') & ~F.replace(inner, F.lit('""'), F.lit("")).contains('"')
    value = F.when(is_whole, F.replace(inner, F.lit('""'), F.lit('"'))).otherwise(F.nullif(field, F.lit("")))
    return F.replace(value, F.lit(_HIDDEN), F.lit(delimiter))
