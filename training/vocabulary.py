"""Vocabularies as arrays by id: how many ids there are, and what a model of an earlier night knows of each."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightshelf.config import Shop
from nightshelf.feature_tables import OOV_BUCKETS
from nightshelf.features import index_features
from training.columns import day_numbers, read_columns, to_numpy


@dataclass(frozen=True)
class Vocabulary:
    """The ids 0 … n - 1 of one vocabulary; null, the buckets and ids without a value count as known for ever."""

    since: np.ndarray  # int32 [n], day since 1970 from which on the id means its value
    bucket: np.ndarray  # int32 [n], the id that stands for it in a model of an earlier day

    def __len__(self) -> int:
        return len(self.since)

    def as_of(self, day: dt.date) -> np.ndarray:
        """Return for each id the one under which a model of that night knows its value: int64 [n]."""
        is_known = self.since <= (day - dt.date(1970, 1, 1)).days
        return np.where(is_known, np.arange(len(self)), self.bucket)


def load_vocabularies(shop: Shop, files: Sequence[str | Path]) -> dict[str, Vocabulary]:
    """Return column → vocabulary for the categorical features of a shop, from a night's partition.

    Raises:
        InputError, EngineError: as read_columns.
    """
    table = read_columns("vocabularies", files, ["feature", "index", "bucket", "since"])
    return {
        f.name: _vocabulary(table.filter(pc.equal(table["feature"], f.vocabulary)))
        for f in index_features(shop)
        if f.vocabulary
    }


def _vocabulary(rows: pa.Table) -> Vocabulary:
    index = to_numpy(rows["index"], np.int64)
    size = (int(index.max()) if len(index) else OOV_BUCKETS) + 1
    since, bucket = np.zeros(size, np.int32), np.arange(size, dtype=np.int32)
    since[index], bucket[index] = day_numbers(rows["since"]), to_numpy(rows["bucket"], np.int32)
    return Vocabulary(since, bucket)
