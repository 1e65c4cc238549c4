"""Training examples as resident columns: one row is one impression, with the features of the day before it."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightshelf.config import Sampled, Shop
from nightshelf.errors import InputError
from nightshelf.example_window import ExampleWindow, Split
from nightshelf.features import SEQUENCE_LENGTH
from training.columns import Files, check_finite, codes, day_numbers, places, read_columns, stack, to_numpy
from training.histories import Histories, load_histories
from training.spec import dense_names, field_names, order_tasks
from training.vocabulary import Vocabulary, load_vocabularies

# The order of the rows, and with it the way of the training, hangs neither on files nor on the key that hashes the users'
# ids: the same logs give the same model. Hashed ids are the last resort.
_ORDER = ["impression_ts", "item_index", "request_id", "position", "impression_id"]


@dataclass(frozen=True)
class TrainingInputs:
    """The files of one night, and which of their examples it learns from.

    `user_sequences` holds every feature_date of the examples; the others after it the night's partition.
    """

    window: ExampleWindow
    training_examples: Files
    user_sequences: Files
    item_features: Files
    vocabularies: Files
    normalization: Files

    @property
    def as_of_date(self) -> dt.date:
        """Return the night."""
        return self.window.as_of_date


@dataclass(frozen=True)
class Examples:
    """Columns of n impressions, oldest first."""

    history: np.ndarray  # int64 [n], row of `histories`
    user_fields: np.ndarray  # int32 [n, user fields], vocabulary ids
    item: np.ndarray  # int32 [n], item_index
    user_dense: np.ndarray  # float32 [n, user features], raw
    target_dense: np.ndarray  # float32 [n, item and item-in-scenario features], raw
    scenario: np.ndarray  # int64 [n], 1 + place in the shop file, 0 unknown
    position: np.ndarray  # int64 [n], 1 = first, 0 unknown
    labels: np.ndarray  # float32 [n, tasks]
    masks: np.ndarray  # float32 [n, tasks]
    weight: np.ndarray  # float32 [n]
    user: np.ndarray  # int64 [n], code of user_key
    request: np.ndarray  # int64 [n], code of request_id, -1 = none
    day: np.ndarray  # int64 [n], feature_date in days since 1970
    is_train: np.ndarray  # bool [n]
    is_validation: np.ndarray  # bool [n]
    histories: Histories
    catalogue: np.ndarray  # int32 [items + 1, item fields], the fields of each item_index
    vocabularies: dict[str, Vocabulary]  # column → the night's ids

    def __len__(self) -> int:
        return len(self.item)


def load_examples(shop: Shop, inputs: TrainingInputs, split: Split | None = None) -> Examples:
    """Read the examples of a night (those of one split, if given), tasks in the order of spec.order_tasks.

    Raises:
        InputError: no files, no rows, a missing column, a value that is not finite.
        EngineError: a file cannot be read.
    """
    user_names, item_names = field_names(shop)
    user_dense, target_dense = dense_names(shop)
    tasks = [task.name for task in order_tasks(shop)]
    labels, masks = [f"label_{t}" for t in tasks], [f"mask_{t}" for t in tasks]
    keys = [
        "impression_id",
        "impression_ts",
        "event_date",
        "feature_date",
        "scenario",
        "user_key",
        "request_id",
        "position",
        "sample_weight",
    ]
    columns = [*keys, *user_names, *item_names, *user_dense, *target_dense, *labels, *masks]
    with ThreadPoolExecutor(1) as beside:
        reading = beside.submit(load_histories, inputs.user_sequences, SEQUENCE_LENGTH)
        table = read_columns("training_examples", inputs.training_examples, columns)
        rows = _order(table, inputs.window, split)
        if not len(rows):
            raise InputError(
                f"training_examples of {inputs.as_of_date}: no {split or ''} rows; give the night more days of logs".replace(
                    "  ", " "
                )
            )
        histories = reading.result()
    few = table.select(["event_date", "feature_date", "scenario", "user_key", "request_id", "position"]).take(rows)
    user_fields, item_fields = (stack(table, names, np.int32, rows) for names in (user_names, item_names))
    days, users = day_numbers(few["feature_date"]), few["user_key"].combine_chunks().dictionary_encode()
    dense = [_finite(table, names, rows) for names in (user_dense, target_dense, labels, masks, ["sample_weight"])]
    return Examples(
        history=histories.rows_of(users, days),
        user_fields=user_fields,
        item=item_fields[:, 0].copy(),
        user_dense=dense[0],
        target_dense=dense[1],
        scenario=places(few["scenario"], list(shop.scenarios)),
        position=np.maximum(to_numpy(few["position"], np.int64), 0),
        labels=dense[2],
        masks=dense[3],
        # A drawn negative counts once: at its weight of a thousand others a fit is all noise. Probabilities of such a shop
        # are those among what was drawn, and rank alike.
        weight=np.ones(len(rows), np.float32) if isinstance(shop.negatives, Sampled) else dense[4][:, 0],
        user=codes(users),
        request=codes(few["request_id"].combine_chunks().dictionary_encode()),
        day=days.astype(np.int64),
        is_train=_is_in(few["event_date"], inputs.window, "train").to_numpy(zero_copy_only=False),
        is_validation=_is_in(few["event_date"], inputs.window, "validation").to_numpy(zero_copy_only=False),
        histories=histories,
        catalogue=load_catalogue(inputs.item_features, item_names, item_fields),
        vocabularies=load_vocabularies(shop, inputs.vocabularies),
    )


def load_catalogue(files: Files, names: list[str], of_examples: np.ndarray | None = None) -> np.ndarray:
    """Return the item fields by item_index: the newest partition's, or the examples' for an item that has left.

    Row 0, and the rows of items that nobody has seen, hold zeros.
    """
    table = read_columns("item_features", files, ["as_of_date", *names])
    table = table.sort_by("as_of_date")
    known = stack(table, names, np.int32)
    parts = [known] if of_examples is None else [of_examples, known]
    catalogue = np.zeros((max(int(part[:, 0].max(initial=0)) for part in parts) + 1, len(names)), np.int32)
    for part in parts:  # of several rows with one index the last holds
        catalogue[part[:, 0]] = part
    catalogue[0] = 0
    return catalogue


def _order(table: pa.Table, window: ExampleWindow, split: Split | None) -> pa.Array:
    """Return the places of the window's rows (of a split, if given) in their order: by time, item and impression."""
    day = table["event_date"]
    chosen = pc.greater(day, _day(window.first_date)) if split is None else _is_in(day, window, split)
    rows = pc.indices_nonzero(chosen)
    keys = table.select(_ORDER).take(rows)
    return rows.take(pc.sort_indices(keys, [(name, "ascending") for name in _ORDER]))


def _is_in(day: pa.ChunkedArray, window: ExampleWindow, split: Split) -> pa.ChunkedArray:
    first, end = window.bounds(split)
    return pc.and_(pc.greater_equal(day, _day(first)), pc.less(day, _day(end)))


def _day(day: dt.date) -> pa.Scalar:
    return pa.scalar(day, pa.date32())


def _finite(table: pa.Table, names: list[str], rows: pa.Array) -> np.ndarray:
    values = stack(table, names, np.float32, rows)
    check_finite(values, names, "training_examples")
    return values
