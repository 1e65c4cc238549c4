"""The bounds of what a table may hold: the part `checks` of a shop file."""

from typing import Annotated

from pydantic import AfterValidator, Field

from nightshelf.yamlfile import Strict


def _band(value: tuple[float, float] | None) -> tuple[float, float] | None:
    if value and not 0 <= value[0] < value[1]:
        raise ValueError(f"{list(value)} is no range; write the lower bound first, e.g. [0.5, 2]")
    return value


Band = Annotated[tuple[float, float] | None, AfterValidator(_band)]


class Checks(Strict):
    """When a table's content is suspicious (a warning), or stops the night. null = never.

    rows: tonight's rows as a multiple of the median of the last nights.
    filled: the share of a column's values that are not empty, as a multiple of the median of the last nights.
    missing: share of the rows that name a user or item which the table they refer to does not know.
    label_rate: how many times as high, or as low, a task's rate in a scenario may be as on the days before.
    psi: a feature's or label's population stability index against what the serving model learned, beyond chance.
    shelf_kept: share of the places whose item stood on the user's shelf of the night before.
    shelf_items: distinct items of a scenario's shelves, as a multiple of the night before's.
    shelf_filled: filled places, as a share of those that can be filled whatever is excluded (pipelines/shelf_length.py).
    shelf_places: places of a shelf, as a multiple of the night before's.
    shelf_scores: Kolmogorov-Smirnov distance of a scenario's scores from the night before's.
    stump_auc: AUC with which one threshold on one feature may tell a task's label.
    """

    rows_warn: Band = (0.5, 2.0)
    rows_fail: Band = (0.1, 10.0)
    filled_warn: float | None = Field(0.8, gt=0, le=1)
    filled_fail: float | None = Field(0.2, gt=0, le=1)
    missing_warn: float | None = Field(0.001, ge=0, le=1)
    missing_fail: float | None = Field(0.05, ge=0, le=1)
    label_rate_warn: float | None = Field(4.0, gt=1)
    psi_warn: float | None = Field(0.25, gt=0)
    psi_fail: float | None = Field(10.0, gt=0)
    shelf_kept_warn: Band = (0.02, 0.999)
    shelf_items_warn: Band = (0.5, 2.0)
    shelf_items_fail: Band = (0.05, 1e9)
    shelf_filled_warn: float | None = Field(0.98, gt=0, le=1)
    shelf_filled_fail: float | None = Field(0.8, gt=0, le=1)
    shelf_places_warn: float | None = Field(0.9, gt=0, le=1)
    shelf_places_fail: float | None = Field(0.6, gt=0, le=1)
    shelf_scores_warn: float | None = Field(0.5, gt=0, le=1)
    stump_auc_fail: float = Field(0.98, gt=0.5, le=1)
