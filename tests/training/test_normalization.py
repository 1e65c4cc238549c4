import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import KBinsDiscretizer

from nightshelf import parallel
from nightshelf.errors import InputError
from nightshelf.example_window import ExampleWindow
from training.normalization import BUCKETS, CLIP, NormalizationSpec, fit_normalization, fit_scale, load_normalization

COUNT, PRICE, AGE = "user_click_count_7d", "item_log_price", "item_age_days"
NAMES = [COUNT, PRICE, AGE]
DAY = dt.date(2026, 2, 14)


def days(first, count):
    return [first + dt.timedelta(days=n) for n in range(count)]


def write(folder, columns, parts=1):
    """Write columns as `parts` files, whose rows take turns."""
    table, files = pa.table(columns), []
    for part in range(parts):
        files.append(folder / f"{part}.parquet")
        pq.write_table(table.take(np.arange(part, len(table), parts)), files[-1])
    return files


def window(start, validation, end=DAY):
    return ExampleWindow(start, validation, validation + dt.timedelta(days=1), end, ("search",))


def draw(rows, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.lognormal(1, 1, rows).astype(np.float32) for name in NAMES}


@pytest.fixture
def month(tmp_path):
    """Return 30 days of 40 rows, the window that trains on 27 of them, and their file."""
    columns = {**draw(1200), "scenario": ["search"] * 1200, "event_date": np.repeat(days(dt.date(2026, 1, 16), 30), 40)}
    return columns, window(dt.date(2026, 1, 15), dt.date(2026, 2, 12)), write(tmp_path, columns)


def test_scales_are_those_of_the_train_split(month):
    columns, when, files = month
    is_train = columns["event_date"] < when.validation_start
    rows = {row["feature"]: row for row in fit_normalization(files, NAMES, when)}
    for name in NAMES:
        values = columns[name][is_train].astype(np.float64)
        values = np.log1p(values) if name == COUNT else values
        assert (rows[name]["mean"], rows[name]["deviation"]) == pytest.approx((values.mean(), values.std()), rel=1e-5)
    told = [rows[COUNT][key] for key in ("rows", "fitted_from", "fitted_until", "transform")]
    assert told == [27 * 40, dt.date(2026, 1, 16), dt.date(2026, 2, 11), "log1p"]


def test_a_long_history_is_read_no_further_than_it_has_to(month, monkeypatch):
    _, when, files = month
    monkeypatch.setattr("training.normalization._LEAST_ROWS", 401)
    rows = fit_normalization(files, NAMES, when)
    assert {(row["rows"], row["fitted_from"]) for row in rows} == {(440, dt.date(2026, 2, 1))}
    monkeypatch.setattr("training.normalization._LEAST_ROWS", 1)
    assert {row["rows"] for row in fit_normalization(files, NAMES, when)} == {280}


def test_order_and_files_leave_no_trace(month, tmp_path):
    columns, when, files = month
    (tmp_path / "other").mkdir()
    mixed = np.random.default_rng(1).permutation(1200)
    others = write(tmp_path / "other", {name: np.asarray(values)[mixed] for name, values in columns.items()}, 5)
    assert fit_normalization(files, NAMES, when) == fit_normalization(others[::-1], NAMES, when)


def test_nothing_after_the_train_split_moves_a_scale(month, tmp_path):
    columns, when, files = month
    (tmp_path / "other").mkdir()
    later = columns["event_date"] >= when.validation_start
    changed = columns | {name: np.where(later, np.float32(1e6), columns[name]) for name in NAMES}
    assert fit_normalization(files, NAMES, when) == fit_normalization(write(tmp_path / "other", changed), NAMES, when)


def test_rows_of_a_scenario_that_is_gone_move_no_scale(month, tmp_path):
    columns, when, _ = month
    (tmp_path / "other").mkdir()
    is_gone = np.arange(1200) % 2 == 1
    changed = columns | {name: np.where(is_gone, np.float32(1e6), columns[name]) for name in NAMES}
    changed["scenario"] = np.where(is_gone, "cart", "search")
    alone = {name: np.asarray(values)[~is_gone] for name, values in columns.items()}
    found = fit_normalization(write(tmp_path / "other", changed), NAMES, when)
    assert found == fit_normalization(write(tmp_path, alone), NAMES, when)
    assert {row["rows"] for row in found} == {27 * 20}


def test_without_a_row_a_scale_changes_nothing(month):
    _, _, files = month
    rows = fit_normalization(files, NAMES, window(DAY, DAY))
    assert {(row["mean"], row["deviation"], tuple(row["edges"]), row["rows"]) for row in rows} == {(0.0, 1.0, (), 0)}


def test_values_are_scaled_and_clipped_block_by_block(monkeypatch):
    monkeypatch.setattr(parallel, "_ROWS", 7)
    raw = np.stack(list(draw(40).values()), axis=1)
    spec = NormalizationSpec(names=NAMES, mean=[0.5, 2.0, 4.0], std=[1.0, 2.0, 0.01])
    expected = (np.column_stack([np.log1p(raw[:, 0]), raw[:, 1:]]) - [0.5, 2.0, 4.0]) / [1.0, 2.0, 0.01]
    np.testing.assert_allclose(spec.apply(raw, NAMES), np.clip(expected, -CLIP, CLIP), rtol=1e-4, atol=1e-5)
    assert spec.apply(raw[:, 1:2], [PRICE]).ravel() == pytest.approx(
        expected[:, 1].clip(-CLIP, CLIP), rel=1e-4, abs=1e-5
    )
    assert spec.apply(np.full((1, 1), 1e9), [PRICE]).item() == CLIP


def test_buckets_are_those_of_an_independent_discretizer():
    values = np.random.default_rng(0).permutation(np.arange(1600, dtype=np.float32))
    spec = bucketed(values)
    oracle = KBinsDiscretizer(BUCKETS, encode="onehot-dense", strategy="quantile", quantile_method="inverted_cdf")
    expected = oracle.fit(values[:, None]).transform(values[:, None])
    found = spec.apply(values[:, None], [AGE])
    assert found.shape == expected.shape
    # An edge itself is the last of its bucket here, the first of the next one there.
    inside = ~np.isin(values, spec.edges[AGE])
    np.testing.assert_array_equal(found[inside], expected[inside])
    assert found.sum(0) == pytest.approx(np.full(BUCKETS, 100))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60))
def test_each_value_is_in_one_bucket_and_no_bucket_is_empty(numbers):
    values = np.array(numbers, np.float32)
    spec = bucketed(values)
    found = spec.apply(values[:, None], [AGE])
    assert found.shape[1] == spec.width([AGE]) <= BUCKETS
    assert (found.sum(1) == 1).all()
    assert (found.sum(0) > 0).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(found.argmax(1)[order]) >= 0).all()


def test_a_bucket_takes_the_place_of_its_column():
    spec = NormalizationSpec(names=NAMES, mean=[0.0] * 3, std=[1.0] * 3, edges={PRICE: [1.0, 3.0]})
    raw = np.array([[0.0, 1.0, 5.0], [0.0, 1.5, 6.0], [0.0, 9.0, 7.0]])
    assert spec.width(NAMES) == 5
    assert spec.apply(raw, NAMES).tolist() == [[0, 1, 0, 0, 5], [0, 0, 1, 0, 6], [0, 0, 0, 1, 7]]


def test_loaded_scales_are_those_that_were_fitted(month, tmp_path):
    _, when, files = month
    rows = fit_normalization(files, NAMES, when)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "scales.parquet")
    spec = load_normalization([tmp_path / "scales.parquet"], [AGE, COUNT], [AGE])
    by_name = {row["feature"]: row for row in rows}
    assert (spec.names, spec.mean) == ([AGE, COUNT], [by_name[AGE]["mean"], by_name[COUNT]["mean"]])
    assert spec.edges == {AGE: by_name[AGE]["edges"]}
    pq.write_table(pa.Table.from_pylist([row | {"clip": 5.0} for row in rows]), tmp_path / "narrow.parquet")
    assert load_normalization([tmp_path / "narrow.parquet"], [AGE], []).clip == 5.0
    pq.write_table(pa.Table.from_pylist([row | {"version": 2} for row in rows]), tmp_path / "later.parquet")
    with pytest.raises(InputError, match=f"feature '{AGE}' has no scale of version 1"):
        load_normalization([tmp_path / "later.parquet"], [AGE], [])
    with pytest.raises(InputError, match="feature 'luck' has no scale"):
        load_normalization([tmp_path / "scales.parquet"], ["luck"], [])
    with pytest.raises(
        InputError, match=r"recipe.bucketize: 'item_age' is no dense feature of this shop; did you mean 'item_age_days'"
    ):
        load_normalization([tmp_path / "scales.parquet"], [AGE, COUNT], ["item_age"])


def bucketed(values):
    edges = fit_scale(AGE, values)["edges"]
    return NormalizationSpec(names=[AGE], mean=[0.0], std=[1.0], edges={AGE: edges})
