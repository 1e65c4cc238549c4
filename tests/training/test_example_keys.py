"""The order of examples, beside a plain sort of the whole table."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from training.example_keys import by_first_sight, read_example_keys

_BY = ["impression_ts", "item_index", "request_id", "position", "impression_id"]
_FIRST = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@st.composite
def tables(draw):
    """Return rows of which many are equal in all but their ids."""
    rows = draw(st.integers(1, 40))
    few = st.integers(0, 2)

    def column(values):
        return draw(st.lists(values, min_size=rows, max_size=rows))

    seconds = column(few)
    return pa.table({
        "impression_id": draw(st.permutations([f"{n:03d}" for n in range(rows)])),
        "impression_ts": pa.array([_FIRST + dt.timedelta(seconds=s) for s in seconds], pa.timestamp("us", "UTC")),
        "item_index": pa.array(column(few), pa.int32()),
        "position": pa.array(column(st.none() | few), pa.int32()),
        "request_id": pa.array(column(st.none() | st.sampled_from(["b", "a", "c"])), pa.string()),
        "user_key": column(st.sampled_from(["u", "v", "w"])),
        "scenario": column(st.sampled_from(["search", "cart", "moon"])),
        "event_date": pa.array([_FIRST.date()] * rows), "feature_date": pa.array([_FIRST.date()] * rows),
    })  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(table=tables(), group=st.integers(1, 50), keep=st.integers(1, 3))
def test_rows_go_by_time_item_request_place_and_id(tmp_path_factory, table, group, keep):
    folder = tmp_path_factory.mktemp("keys")
    cut = len(table) // 3
    files = [folder / "a.parquet", folder / "b.parquet"]
    for file, part in zip(files, (table.slice(0, cut), table.slice(cut)), strict=True):
        pq.write_table(part, file, row_group_size=group)
    keys = read_example_keys(files, ["cart", "search"])
    chosen = np.arange(len(table)) % keep == 0
    rows = keys.sort(files, chosen)
    kept = table.filter(pa.array(chosen))
    expected = kept.take(pc.sort_indices(kept, [(name, "ascending") for name in _BY]))
    found = table.take(pa.array(rows))
    assert found["impression_id"].to_pylist() == expected["impression_id"].to_pylist()
    assert keys.scenario[rows].tolist() == [{"cart": 1, "search": 2}.get(s, 0) for s in found["scenario"].to_pylist()]
    assert keys.positions_of(rows).tolist() == [p or 0 for p in found["position"].to_pylist()]
    assert keys.users_of(rows).to_pylist() == found["user_key"].to_pylist()
    requests, codes = found["request_id"].to_pylist(), keys.requests_of(rows).tolist()
    assert len(set(zip(requests, codes, strict=True))) == len(set(requests)) == len(set(codes))
    assert {code for code, name in zip(codes, requests, strict=True) if name is None} <= {-1}


def test_codes_are_numbered_as_they_come():
    assert by_first_sight(np.array([7, 3, 7, 9, 3])).tolist() == [0, 1, 0, 2, 1]
    assert by_first_sight(np.array([], np.int32)).tolist() == []
