"""The items that a two-tower model knows, with what its item tower reads of each."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from nightshelf.config import Shop
from training.columns import Files, read_columns, stack
from training.spec import field_names, field_sizes
from training.vocabulary import load_vocabularies


@dataclass(frozen=True)
class Catalogue:
    """Items by their place in the order of their ids. fields: int64 [I, F]; sizes: field → number of ids."""

    fields: np.ndarray
    sizes: dict[str, int]


def load_catalogue(shop: Shop, item_features: Files, vocabularies: Files) -> tuple[pa.Array, Catalogue]:
    """Return the item ids of a night, in ascending order, and their fields.

    Raises:
        InputError: no files, or a missing column.
        EngineError: a file cannot be read.
    """
    _, names = field_names(shop)
    items = read_columns("item_features", item_features, ["item_id", *names]).sort_by("item_id")
    sizes = field_sizes(shop, load_vocabularies(shop, vocabularies))
    fields = stack(items, names, np.int32).astype(np.int64)
    return items["item_id"].combine_chunks(), Catalogue(fields, {name: sizes[name] for name in names})
