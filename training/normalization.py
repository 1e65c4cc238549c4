"""How dense features are scaled: log1p for counts, then mean 0 and deviation 1, as fitted on the train split alone.

There is no second implementation: training fits the spec, a model carries it, and scoring applies the same one. The stage
`train` writes it down as the table normalization.
"""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from nightshelf.parallel import in_parallel, row_blocks

# A value further out than this many deviations says no more than one at the edge.
CLIP = 8.0


class NormalizationSpec(BaseModel):
    """Mean and deviation of each dense column after its transform, in the order of `names`.

    A change of what the numbers mean makes another version; models of another one are refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    clip: float = CLIP
    names: list[str]
    mean: list[float]
    std: list[float]

    def apply(self, raw: np.ndarray, names: list[str]) -> np.ndarray:
        """Scale columns `names` of `raw` [rows, len(names)] to float32."""
        place = [self.names.index(name) for name in names]
        mean, std = (np.asarray(of_all, np.float32)[place] for of_all in (self.mean, self.std))
        scaled = np.empty(raw.shape, np.float32)

        def scale(rows: slice) -> None:
            values = _transform(raw[rows], names)
            values -= mean
            values /= std
            np.clip(values, -self.clip, self.clip, out=scaled[rows])

        in_parallel(scale, row_blocks(len(raw)))
        return scaled

    def beside(self, other: "NormalizationSpec") -> "NormalizationSpec":
        """Return the columns of both, these first."""
        return NormalizationSpec(
            names=[*self.names, *other.names], mean=[*self.mean, *other.mean], std=[*self.std, *other.std]
        )


def fit_normalization(raw: np.ndarray, names: list[str], rows: np.ndarray | None = None) -> NormalizationSpec:
    """Fit on `raw` [n, len(names)], or on its rows where `rows` [n] is true; a constant column gets deviation 1."""

    def moments(block: slice) -> tuple[int, np.ndarray, np.ndarray]:
        values = _transform(raw[block] if rows is None else raw[block][rows[block]], names).astype(np.float64)
        return (len(values), values.mean(axis=0), values.var(axis=0)) if len(values) else (0, zero, zero)

    zero = np.zeros(len(names))
    counts, means, variances = (
        np.array(part) for part in zip(*in_parallel(moments, row_blocks(len(raw))), strict=True)
    )
    share = (counts / counts.sum())[:, None]
    mean = (share * means).sum(axis=0)
    std = np.sqrt((share * (variances + np.square(means - mean))).sum(axis=0))
    std[std < 1e-6] = 1.0
    return NormalizationSpec(names=names, mean=mean.tolist(), std=std.tolist())


def transform_of(name: str) -> Literal["log1p", "none"]:
    """Return what a column's values go through before they are scaled: counts have long tails."""
    return "log1p" if "_count_" in name else "none"


def _transform(raw: np.ndarray, names: list[str]) -> np.ndarray:
    values = raw.astype(np.float32, copy=True)
    for column, name in enumerate(names):
        if transform_of(name) == "log1p":
            np.log1p(np.maximum(values[:, column], 0), out=values[:, column])
    return values
