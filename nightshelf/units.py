"""The unit of each column, which follows from its name, its type and the shop's tasks."""

import re

from nightshelf.config import Shop
from nightshelf.table_spec import Column

# The first that fits the whole name tells.
_UNITS = (
    (r".*micros", "10⁻⁶ of a natural logarithm"),
    (r".*log_price.*", "natural logarithm of 1 + the shop's currency"),
    (r".*log_dwell.*", "natural logarithm of 1 + seconds"),
    (r"other_days", "rows"),
    (r".*_days", "days"),
    (r".*seconds", "seconds"),
    (r".*minutes.*", "minutes"),
    (r".*_mb", "MiB"),
    (r"price", "the shop's currency"),
    (r".*_rate_30d", "events an impression"),
    (r".*decayed_count.*", "events, weighed"),
    (r"own_counts", "days, weighed"),
    (r".*_count_\d+d", "events; sessions"),
    (r"lift|psi.*", "ratio"),
    (r"item_discount|share|recall|own_weight|sampling_rate|ks|js", "share, 0 … 1"),
    (r"propensity|p_\w+", "probability, 0 … 1"),
    (r"inverse_propensity|sample_weight|weight", "weight"),
    (r"label_\w+|mask_\w+", "0 or 1"),
    (r"score|worth.*", "utility, in the weights of the shop file"),
    (r"generator_score|rating|value|lower|upper|mean|deviation|clip|edges|version", "its own"),
    (r"quantity|stock", "pieces"),
    (r".*_per_user", "items a user"),
    (r"rank|rank_by_score|position|session|price_band", "place, from 1 on"),
    (r"quota|proposed|items", "items"),
    (r"hour", "hour of the day, 0 … 23"),
    (r"weekday", "1 = Monday … 7"),
    (r"index|bucket|.*_index(?:es)?|snapshot_id", "id"),
    (r"shown|outcomes|expected|found|count|positives|dwelt|priced|shown_counts|.*_(?:count|attributed)", "count"),
    (r"rows.*|.*_rows|taken_back|kept|quarantined|duplicates", "rows"),
)  # fmt: skip
_OF_TYPES = {"timestamp": "UTC", "date": "day in the shop's time zone", "string": "", "bool": ""}


def unit_of(column: Column, shop: Shop) -> str:
    """Return the unit of the values of a column of a shop's table; an empty text for words.

    Raises:
        KeyError: a number of which no rule tells the unit.
    """
    if column.type in _OF_TYPES:
        return _OF_TYPES[column.type]
    told = re.fullmatch(r"(?:label|p)_(\w+)", column.name)
    if told and shop.tasks[told[1]].kind == "regression":
        return "the shop's currency" if shop.tasks[told[1]].value in ("amount", "price") else "its own"
    for names, unit in _UNITS:
        if re.fullmatch(names, column.name):
            return unit
    raise KeyError(column.name)
