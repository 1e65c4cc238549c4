"""How dense features are scaled: log1p for counts, then mean 0 and deviation 1, clipped; or cut into buckets of equal frequency.

There is no second implementation: the stage `features` fits each night's scales on the train split alone and keeps them as
the table normalization, training reads that table, a model carries what it read, and scoring applies the same.
"""

import datetime as dt
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from nightshelf.errors import InputError
from nightshelf.example_window import ExampleWindow
from nightshelf.parallel import in_parallel, row_blocks
from nightshelf.yamlfile import nearest
from training.columns import Files, day_numbers, places, read_columns, to_numpy

# A value further out than this many deviations says no more than one at the edge.
CLIP = 8.0
BUCKETS = 16
# The newest days that make a week and hold that many rows tell a scale well enough; a longer history is not read for it.
_LEAST_DAYS, _LEAST_ROWS = 7, 1_000_000
_FITTED = ["feature", "version", "clip", "mean", "deviation", "edges"]
# Days since 1970 of a row that does not count
_NEVER = np.iinfo(np.int32).min
# Columns that are read at a time: each reading opens every file.
_TOGETHER = 8


class NormalizationSpec(BaseModel):
    """Mean and deviation of each dense column after its transform, in the order of `names`.

    `edges` has the columns that are read by their bucket instead: 0 and 1 for each, bucket b holding what is above b edges.
    A change of what the numbers mean makes another version; models of another one are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    clip: float = CLIP
    names: list[str]
    mean: list[float]
    std: list[float]
    edges: dict[str, list[float]] = {}

    def width(self, names: list[str]) -> int:
        """Return how many numbers a row of the columns `names` becomes."""
        return sum(len(self.edges[name]) + 1 if name in self.edges else 1 for name in names)

    def apply(self, raw: np.ndarray, names: list[str], into: np.ndarray | None = None) -> np.ndarray:
        """Turn columns `names` of `raw` [rows, len(names)] into float32 [rows, width(names)]: `into`, or a new array."""
        place = [self.names.index(name) for name in names]
        mean, std = (np.asarray(of_all, np.float32)[place] for of_all in (self.mean, self.std))
        ready = np.empty((len(raw), self.width(names)), np.float32) if into is None else into

        def scale(rows: slice) -> None:
            """Fill a range of rows of `ready`: transformed, scaled and clipped, and in buckets where a column has edges."""
            values = _transform(raw[rows], names)
            values -= mean
            values /= std
            if not self.edges:
                np.clip(values, -self.clip, self.clip, out=ready[rows])
                return
            np.clip(values, -self.clip, self.clip, out=values)
            parts = [
                _one_hot(raw[rows, k], self.edges[name]) if name in self.edges else values[:, k : k + 1]
                for k, name in enumerate(names)
            ]
            np.concatenate(parts, axis=1, out=ready[rows])

        in_parallel(scale, row_blocks(len(raw)))
        return ready


def fit_normalization(files: Files, names: list[str], window: ExampleWindow) -> list[dict[str, Any]]:
    """Fit the scales of the columns `names` of training examples; return the rows of the table normalization.

    Values are put in order first, so that the order of rows and files leaves no trace. Without a row of the train split a
    scale changes nothing. Rows of scenarios that the window does not name do not count.

    Raises:
        InputError: there are no files, or a column is missing.
        EngineError: a file cannot be read.
    """
    days = {file: _days_of(file, window.scenarios) for file in files}
    first, end = _fitted_days(list(days.values()), window)
    chosen = {file: _is_between(numbers, first, end) for file, numbers in days.items()}
    chosen = {file: rows for file, rows in chosen.items() if rows.any()}
    common = {
        "as_of_date": window.as_of_date,
        "version": _version(),
        "clip": CLIP,
        "rows": sum(int(rows.sum()) for rows in chosen.values()),
        "fitted_from": first,
        "fitted_until": end - dt.timedelta(days=1),
    }

    def fit(some: list[str]) -> list[dict[str, Any]]:
        """Return the table's rows of some columns, which are read together."""
        parts = [read_columns("training_examples", [file], some).filter(pa.array(chosen[file])) for file in chosen]
        values = {name: [to_numpy(part[name], np.float32) for part in parts] for name in some}
        none = np.empty(0, np.float32)
        return [{**common, "feature": name, **fit_scale(name, np.concatenate([none, *values[name]]))} for name in some]

    groups = [names[n : n + _TOGETHER] for n in range(0, len(names), _TOGETHER)]
    return [row for rows in in_parallel(fit, groups) for row in rows]


def fit_scale(name: str, values: np.ndarray) -> dict[str, Any]:
    """Return transform, mean, deviation and the edges of buckets of the column `name`, from its float32 values [n].

    A column with one value has deviation 1 and one bucket.
    """
    ordered = np.sort(values)
    scaled = _transform(ordered[:, None], [name])[:, 0].astype(np.float64)
    mean, deviation = (float(scaled.mean()), float(scaled.std())) if len(scaled) else (0.0, 1.0)
    last = (np.arange(1, BUCKETS) * len(ordered) - 1) // BUCKETS  # of each bucket but the highest
    cuts = np.unique(ordered[last]) if len(ordered) else ordered
    return {
        "transform": transform_of(name),
        "mean": mean,
        "deviation": deviation if deviation >= 1e-6 else 1.0,
        "edges": cuts[cuts < ordered[-1:]].tolist(),
    }


def load_normalization(files: Files, names: list[str], bucketize: list[str]) -> NormalizationSpec:
    """Read how the columns `names` are scaled from the table normalization; those in `bucketize` are read by their bucket.

    Raises:
        InputError: there are no files, a column has no scale of this version or one that means nothing, or `bucketize` names one
            that is not dense.
        EngineError: a file cannot be read.
    """
    rows = {row["feature"]: row for row in read_columns("normalization", files, _FITTED).to_pylist()}
    for name in names:
        if name not in rows or rows[name]["version"] != _version():
            raise InputError(
                f"table normalization: feature {name!r} has no scale of version {_version()}; run the features stage again"
            )
        mean, deviation = rows[name]["mean"], rows[name]["deviation"]
        if not (math.isfinite(mean) and 0 < deviation < math.inf):
            raise InputError(
                f"table normalization: feature {name!r} has the mean {mean:g} and the deviation {deviation:g}, by which nothing "
                "can be scaled; run the features stage again"
            )
    for name in bucketize:
        if name not in names:
            raise InputError(f"recipe.bucketize: {name!r} is no dense feature of this shop; {nearest(name, names)}")
    (clip,) = {rows[name]["clip"] for name in names} or {CLIP}
    return NormalizationSpec(
        clip=clip,
        names=names,
        mean=[rows[name]["mean"] for name in names],
        std=[rows[name]["deviation"] for name in names],
        edges={name: rows[name]["edges"] for name in bucketize},
    )


def _version() -> int:
    return int(NormalizationSpec.model_fields["version"].default)


def transform_of(name: str) -> Literal["log1p", "none"]:
    """Return what a column's values go through before they are scaled: counts have long tails."""
    return "log1p" if "_count_" in name else "none"


def _transform(raw: np.ndarray, names: list[str]) -> np.ndarray:
    values = raw.astype(np.float32, copy=True)
    for column, name in enumerate(names):
        if transform_of(name) == "log1p":
            np.log1p(np.maximum(values[:, column], 0), out=values[:, column])
    return values


def _one_hot(values: np.ndarray, edges: list[float]) -> np.ndarray:
    bucket = np.searchsorted(np.asarray(edges, np.float32), values.astype(np.float32), side="left")
    return np.eye(len(edges) + 1, dtype=np.float32)[bucket]


def _fitted_days(days: list[np.ndarray], window: ExampleWindow) -> tuple[dt.date, dt.date]:
    """Return the first of the newest days of the train split that are enough, and the day after its last."""
    start, end = window.bounds("train")
    first, rows = end, 0
    while first > start and ((end - first).days < _LEAST_DAYS or rows < _LEAST_ROWS):
        first -= dt.timedelta(days=1)
        rows += sum(int(_is_between(numbers, first, first + dt.timedelta(days=1)).sum()) for numbers in days)
    return first, end


def _days_of(file: Path | str, scenarios: tuple[str, ...]) -> np.ndarray:
    """Return the days since 1970 of a file's rows, for those of other scenarios one that no window holds."""
    rows = read_columns("training_examples", [file], ["event_date", "scenario"])
    return np.where(places(rows["scenario"], list(scenarios)) > 0, day_numbers(rows["event_date"]), _NEVER)


def _is_between(days: np.ndarray, first: dt.date, end: dt.date) -> np.ndarray:
    numbers = [(day - dt.date(1970, 1, 1)).days for day in (first, end)]
    return (days >= numbers[0]) & (days < numbers[1])
