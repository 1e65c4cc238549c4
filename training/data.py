"""Training examples as resident columns: one row is one impression, with the features of the day before it."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.example_window import ExampleWindow, Split
from nightshelf.features import root_task
from nightshelf.paths import scratch_dir
from nightshelf.tasks import Sampled
from training.columns import Files, Range, fill_rows, read_columns, stack
from training.drawn import corrects_draws, drawn_logit
from training.example_keys import by_first_sight, read_example_keys
from training.histories import Histories, Lengths, bytes_of_histories, load_histories
from training.own_negatives import Rows, own_negatives
from training.spec import dense_names, field_names, order_tasks
from training.storage import Storage
from training.vocabulary import Vocabulary, load_vocabularies

_DAY = dt.timedelta(days=1)


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
    scenario: np.ndarray  # int64 [n], 1 + place in the shop file
    position: np.ndarray  # int64 [n], 1 = first, 0 unknown
    labels: np.ndarray  # float32 [n, tasks]
    masks: np.ndarray  # float32 [n, tasks]
    weight: np.ndarray  # float32 [n]
    inverse_propensity: np.ndarray | None  # float32 [n], where it was asked for
    drawn: np.ndarray  # float32 [n], what the drawing of negatives adds to a logit
    user: np.ndarray  # int64 [n], code of user_key
    request: np.ndarray  # int64 [n], code of request_id, -1 = none
    day: np.ndarray  # int64 [n], feature_date in days since 1970
    is_train: np.ndarray  # bool [n]
    is_validation: np.ndarray  # bool [n]
    histories: Histories
    catalogue: np.ndarray  # int32 [items + 1, item fields], the fields of each item_index
    vocabularies: dict[str, Vocabulary]  # column → the night's ids
    storage: Storage  # where the columns lie

    def __len__(self) -> int:
        return len(self.item)


def load_examples(shop: Shop, inputs: TrainingInputs, split: Split | None = None, propensity: bool = False) -> Examples:
    """Read the examples of a night (those of one split, if given), tasks in the order of spec.order_tasks.

    Their inverse_propensity is read only where it is asked for by `propensity`.

    Raises:
        InputError: no files, no rows, a missing column, a value that is not finite or out of its range.
        EngineError: a file cannot be read; or the columns fit neither into memory nor onto the disk below the shop's home.
    """
    files, sequences = inputs.training_examples, inputs.user_sequences
    user_names, item_names = field_names(shop)
    user_dense, target_dense = dense_names(shop)
    tasks = [task.name for task in order_tasks(shop)]
    labels, masks = [f"label_{t}" for t in tasks], [f"mask_{t}" for t in tasks]
    keys = read_example_keys(files, list(inputs.window.scenarios))
    rows = keys.sort(files, _is_in(keys.event_date, inputs.window, split) & (keys.scenario > 0))
    if not len(rows):
        of_split = f"{split} " if split else ""
        raise InputError(
            f"training_examples of {inputs.as_of_date}: no {of_split}rows; give the night more days of logs"
        )
    floats, ids = [user_dense, target_dense, labels, masks, ["sample_weight"]], [user_names, item_names]
    floats.append(["inverse_propensity"] if propensity else [])
    # Dense columns lie there as they are, and scaled.
    width = 4 * sum(len(names) for names in [*floats, *ids, user_dense, target_dense, tasks])
    lengths = Lengths.of(shop)
    storage = Storage.for_columns(len(rows) * width + bytes_of_histories(sequences, lengths), scratch_dir(shop))
    blocks = [(storage.zeros((len(rows), len(names)), np.float32), names) for names in floats]
    blocks += [(storage.zeros((len(rows), len(names)), np.int32), names) for names in ids]
    places = np.full(len(keys), -1, np.int64)
    places[rows] = np.arange(len(rows))
    with ThreadPoolExecutor(1) as beside:
        reading = beside.submit(load_histories, sequences, lengths, storage)
        of_groups = np.split(places, np.cumsum(keys.row_groups)[:-1])
        fill_rows("training_examples", files, blocks, of_groups, _ranges(shop, [*user_names, *item_names]))
        histories = reading.result()
    dense_of_users, dense_of_targets, label, mask, weight, inverse, user_fields, item_fields = (a for a, _ in blocks)
    days, event_date = keys.feature_date[rows], keys.event_date[rows]
    users = keys.users_of(rows)
    history, item = histories.rows_of(users, days), item_fields[:, 0].copy()
    user, is_train = by_first_sight(users.indices.to_numpy()), _is_in(event_date, inputs.window, "train")
    chances: list[np.ndarray] = []
    if corrects_draws(shop):
        chosen = label[:, tasks.index(root_task(shop))] > 0
        columns = Rows(days, keys.scenario[rows], user, history, item, chosen)
        chances = _with_own_items(columns, is_train, histories.own, (item, dense_of_targets, item_fields))
    return Examples(
        history=history,
        user_fields=user_fields,
        item=item,
        user_dense=dense_of_users,
        target_dense=dense_of_targets,
        scenario=keys.scenario[rows].astype(np.int64),
        position=keys.positions_of(rows),
        labels=label,
        masks=mask,
        # A drawn negative counts once: at its weight of a thousand others a fit is all noise. Probabilities of such a shop
        # are those among what was drawn, and rank alike.
        weight=np.ones(len(rows), np.float32) if isinstance(shop.negatives, Sampled) else weight[:, 0],
        inverse_propensity=inverse[:, 0] if propensity else None,
        drawn=drawn_logit(shop, dense_of_targets, target_dense, *chances),
        user=user,
        request=keys.requests_of(rows),
        day=days.astype(np.int64),
        is_train=is_train,
        is_validation=_is_in(event_date, inputs.window, "validation"),
        histories=histories,
        catalogue=load_catalogue(inputs.item_features, item_names, item_fields),
        vocabularies=load_vocabularies(shop, inputs.vocabularies),
        storage=storage,
    )


def _with_own_items(
    rows: Rows, is_train: np.ndarray, own: np.ndarray, of_items: tuple[np.ndarray, ...]
) -> list[np.ndarray]:
    """Put own items in place of some negatives of training, in the columns `of_items`; return of_pool and of_own of Swaps [n]."""
    some = np.flatnonzero(is_train)
    swaps = own_negatives(rows.take(some), own)
    for column in of_items:
        column[some[swaps.out]] = column[some[swaps.into]]
    of_pool, of_own = np.ones(len(is_train), np.float32), np.zeros(len(is_train), np.float32)
    of_pool[some], of_own[some] = swaps.of_pool, swaps.of_own
    return [of_pool, of_own]


def _ranges(shop: Shop, ids: list[str]) -> dict[str, Range]:
    """Return column of the training examples → its least and its most value, where one outside means nothing to a loss."""
    ranges = dict.fromkeys(["sample_weight", "inverse_propensity", *ids], (0.0, np.inf))
    for name, task in shop.tasks.items():
        ranges[f"mask_{name}"] = (0.0, 1.0)
        ranges[f"label_{name}"] = (0.0, 1.0 if task.kind == "binary" else np.inf)
    return ranges


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


def _is_in(event_date: np.ndarray, window: ExampleWindow, split: Split | None) -> np.ndarray:
    """Return which days since 1970 belong to a split, or to the window."""
    first, end = window.bounds(split) if split else (window.first_date + _DAY, dt.date.max)
    number, after = ((day - dt.date(1970, 1, 1)).days for day in (first, end))
    return (event_date >= number) & (event_date < after)
