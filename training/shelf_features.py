"""A night's features in memory, as a ranker reads them to score candidates."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.features import Feature, item_dense, item_scenario_dense, sequence_events, user_dense
from training.columns import check_finite, read_columns, stack
from training.data import Files, load_catalogue
from training.histories import Histories, Lengths, padded_histories, read_histories
from training.spec import field_names
from training.vocabulary import Vocabulary, load_vocabularies


@dataclass(frozen=True)
class ShelfFeatures:
    """The features of one night.

    Row 0 of the users is the unknown user, `Feature.unseen` and an empty history; row r + 1 is user_keys[r]; behind them come
    the strangers of `with_strangers`.
    """

    user_keys: list[str]
    item_ids: list[str]
    user_field_names: list[str]
    user_fields: np.ndarray  # int32 [U + 1, user fields]
    user_dense: np.ndarray  # float32 [U + 1, user features], raw
    user_names: list[str]
    user_history: np.ndarray  # int64 [U + 1], rows of histories
    histories: Histories
    item_fields: np.ndarray  # int32 [I, item fields]
    target_dense: dict[str, np.ndarray]  # scenario → float32 [I, item and item-in-scenario features], raw
    target_names: list[str]
    catalogue: np.ndarray  # int32 [items of the vocabulary + 1, item fields]
    vocabularies: dict[str, Vocabulary]  # column → the night's ids
    scenarios: list[str]
    events: list[str]

    @classmethod
    def load(
        cls,
        shop: Shop,
        as_of_date: dt.date,
        user_features: Files,
        item_features: Files,
        item_scenario_features: Files,
        user_sequences: Files,
        vocabularies: Files,
        keep: pc.Expression | None = None,
    ) -> "ShelfFeatures":
        """Read the partitions `as_of_date` of the five tables: of all users, or of those that `keep` holds for, be they none.

        Raises:
            InputError: a table has no rows of that date, lacks a column, or holds a value that is not finite.
            EngineError: a file cannot be read.
        """
        user_names, item_names = field_names(shop)
        user_columns, item_columns = [f.name for f in user_dense(shop)], [f.name for f in item_dense(shop)]
        pair_columns = [f.name for f in item_scenario_dense(shop)]
        users = _partition("user_features", user_features, ["user_key", *user_names, *user_columns], as_of_date, keep)
        items = _partition("item_features", item_features, ["item_id", *item_names, *item_columns], as_of_date)
        pairs = _partition(
            "item_scenario_features", item_scenario_features, ["scenario", "item_id", *pair_columns], as_of_date
        )
        histories = padded_histories(_of_date(read_histories(user_sequences, keep), as_of_date), Lengths.of(shop))
        item_ids, user_keys = items["item_id"].combine_chunks(), users["user_key"].combine_chunks()
        day = np.full(len(user_keys), (as_of_date - dt.date(1970, 1, 1)).days)
        return cls(
            user_keys=user_keys.to_pylist(),
            item_ids=item_ids.to_pylist(),
            user_field_names=user_names,
            user_fields=_after(np.zeros(len(user_names)), stack(users, user_names, np.int32)),
            user_dense=_after(_unseen(user_dense(shop)), _finite(users, user_columns, "user_features")),
            user_names=user_columns,
            user_history=np.concatenate([[0], histories.rows_of(user_keys.dictionary_encode(), day)]),
            histories=histories,
            item_fields=stack(items, item_names, np.int32),
            target_dense=_by_scenario(shop, item_ids, _finite(items, item_columns, "item_features"), pairs),
            target_names=[*item_columns, *pair_columns],
            catalogue=load_catalogue(item_features, item_names),
            vocabularies=load_vocabularies(shop, vocabularies),
            scenarios=list(shop.scenarios),
            events=sequence_events(shop),
        )

    def with_strangers(self, fields: dict[str, np.ndarray]) -> "ShelfFeatures":
        """Return these features with users at the end of whom no more is known than some fields: column → ids [S]."""
        names = self.user_field_names
        count = len(next(iter(fields.values()), np.zeros(0)))
        known = np.zeros((count, len(names)), np.int32)
        for name, ids in fields.items():
            known[:, names.index(name)] = ids
        return replace(
            self,
            user_fields=np.concatenate([self.user_fields, known]),
            user_dense=np.concatenate([self.user_dense, np.repeat(self.user_dense[:1], count, axis=0)]),
            user_history=np.concatenate([self.user_history, np.zeros(count, np.int64)]),
        )

    def user_rows(self, user_keys: Sequence[str]) -> np.ndarray:
        """Return the row of each user key, 0 for an unknown user: int64."""
        return _places(user_keys, self.user_keys) + 1

    def item_rows(self, item_ids: Sequence[str]) -> np.ndarray:
        """Return the row of each item id, -1 for an unknown item: int64."""
        return _places(item_ids, self.item_ids)


def _partition(
    table: str, files: Files, columns: list[str], as_of_date: dt.date, keep: pc.Expression | None = None
) -> pa.Table:
    rows = _of_date(read_columns(table, files, ["as_of_date", *columns], keep), as_of_date)
    if not rows.num_rows and keep is None:
        raise InputError(f"table {table}: no rows of {as_of_date}; run the features stage for that night first")
    return rows


def _of_date(table: pa.Table, as_of_date: dt.date) -> pa.Table:
    return table.filter(pc.equal(table["as_of_date"], pa.scalar(as_of_date, pa.date32()))).combine_chunks()


def _by_scenario(shop: Shop, item_ids: pa.Array, items: np.ndarray, pairs: pa.Table) -> dict[str, np.ndarray]:
    """Put each item's features and those of it in a scenario (Feature.unseen where it has none) side by side."""
    features = item_scenario_dense(shop)
    columns, item_names = [f.name for f in features], [f.name for f in item_dense(shop)]
    place = pc.fill_null(pc.index_in(pairs["item_id"], value_set=item_ids), -1).to_numpy()
    values, where = _finite(pairs, columns, "item_scenario_features"), pairs["scenario"].to_numpy()
    by_scenario = {}
    unseen = np.repeat(_unseen(features)[None], len(item_ids), 0)
    for place_in_row, feature in enumerate(features):
        if isinstance(feature.unseen, str):
            unseen[:, place_in_row] = items[:, item_names.index(feature.unseen)]
    for scenario in shop.scenarios:
        own = unseen.copy()
        chosen = (where == scenario) & (place >= 0)
        own[place[chosen]] = values[chosen]
        by_scenario[scenario] = np.concatenate([items, own], axis=1)
    return by_scenario


def _finite(table: pa.Table, names: list[str], what: str) -> np.ndarray:
    values = stack(table, names, np.float32)
    check_finite(values, names, what)
    return values


def _unseen(features: list[Feature]) -> np.ndarray:
    return np.array([f.unseen if isinstance(f.unseen, float) else 0.0 for f in features], np.float32)


def _after(first: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.concatenate([first[None].astype(values.dtype), values])


def _places(wanted: Sequence[str], known: list[str]) -> np.ndarray:
    found = pc.index_in(pa.array(wanted, pa.string()), value_set=pa.array(known, pa.string()))
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
