"""How dense features are scaled: log1p for counts, then mean 0 and deviation 1, as fitted on the train split alone."""

import numpy as np
from pydantic import BaseModel, ConfigDict

# A value further out than this many deviations says no more than one at the edge.
CLIP = 8.0


class NormalizationSpec(BaseModel):
    """Mean and deviation of each dense column after its transform, in the order of `names`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    names: list[str]
    mean: list[float]
    std: list[float]

    def apply(self, raw: np.ndarray, names: list[str]) -> np.ndarray:
        """Scale columns `names` of `raw` [rows, len(names)] to float32."""
        place = [self.names.index(name) for name in names]
        values = _transform(raw, names)
        values -= np.asarray(self.mean, np.float32)[place]
        values /= np.asarray(self.std, np.float32)[place]
        return np.clip(values, -CLIP, CLIP, out=values)


def fit_normalization(raw: np.ndarray, names: list[str]) -> NormalizationSpec:
    """Fit on the rows of `raw` [rows, len(names)]; a constant column gets deviation 1."""
    values = _transform(raw, names)
    mean = values.mean(axis=0, dtype=np.float64)
    std = values.std(axis=0, dtype=np.float64)
    std[std < 1e-6] = 1.0
    return NormalizationSpec(names=names, mean=mean.tolist(), std=std.tolist())


def _transform(raw: np.ndarray, names: list[str]) -> np.ndarray:
    values = raw.astype(np.float32, copy=True)
    for column, name in enumerate(names):
        if "_count_" in name:
            np.log1p(np.maximum(values[:, column], 0), out=values[:, column])
    return values
