"""Which columns a sample of raw files shows, and of what kind."""

import bz2
import datetime as dt
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_jobs.raw_schemas import FILES, seen_schema
from nightshelf.raw_logs import Csv, Dimension

pytestmark = pytest.mark.spark


def kinds(spark, files, format, **csv):
    seen = seen_schema(
        spark, [str(file) for file in files], Dimension(path="x", format=format, csv=Csv(**csv), columns={})
    )
    return seen.rows, {name: (column.kind, column.rows) for name, column in seen.columns.items()}


def test_json_lines(spark, tmp_path):
    rows = [{"id": 7, "price": n / 2, "text": "x", "none": None, "list": [1], "is": True, "o": {}} for n in range(20)]
    rows[3] |= {"id": "7"}  # one in twenty does not make another kind
    lines = [json.dumps(row) for row in rows[:-1]] + ["broken {", json.dumps({"id": 7, "rare": 1})]
    (tmp_path / "a.jsonl.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    rows, seen = kinds(spark, [tmp_path / "a.jsonl.bz2"], "jsonl")
    assert rows == 20
    assert seen == {
        "id": ("integer", 20), "price": ("number", 19), "text": ("text", 19), "none": ("empty", 19), "list": ("list", 19),
        "is": ("boolean", 19), "o": ("object", 19), "rare": ("integer", 1),
    }  # fmt: skip


def test_csv(spark, tmp_path):
    (tmp_path / "a.csv").write_text(
        "id;at;price;void;either\n" + "".join(f"-1{n};day {n};{n / 2:g};;{'x' * (n % 2) or 1}\n" for n in range(9))
    )
    expected = {"id": "integer", "at": "text", "price": "number", "void": "empty", "either": "mixed"}
    rows, seen = kinds(spark, [tmp_path / "a.csv"], "csv", delimiter=";")
    assert rows == 9
    assert {name: kind for name, (kind, _) in seen.items()} == expected
    (tmp_path / "head.csv").write_text("id;at\n")
    assert kinds(spark, [tmp_path / "head.csv"], "csv", delimiter=";")[1] == {"id": ("empty", 1), "at": ("empty", 1)}
    (tmp_path / "bare.csv").write_text("1;x\n")
    bare = kinds(spark, [tmp_path / "bare.csv"], "csv", delimiter=";", header=False)
    assert bare == (1, {"_c0": ("integer", 1), "_c1": ("text", 1)})
    (tmp_path / "empty.csv").write_text("")
    assert kinds(spark, [tmp_path / "empty.csv"], "csv") == (0, {})


def test_long_lines_are_looked_at_and_those_that_no_parser_takes_passed_over(spark, tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,q\n1,x\n2," + b"y" * 200_000 + b"\n3,a\rb\n")
    assert kinds(spark, [tmp_path / "a.csv"], "csv") == (3, {"id": ("integer", 3), "q": ("text", 3)})
    (tmp_path / "a.jsonl").write_text("[" * 100_000 + '\n{"id": 1}\n[1]\n')
    assert kinds(spark, [tmp_path / "a.jsonl"], "jsonl") == (1, {"id": ("integer", 1)})


def test_parquet(spark, tmp_path):
    columns = {
        "id": pa.array([1]), "price": pa.array([1.5]), "name": pa.array(["x"]), "at": pa.array([dt.datetime(2026, 2, 1)]),
        "day": pa.array([dt.date(2026, 2, 1)]), "code": pa.array(["x"]).dictionary_encode(), "none": pa.nulls(1),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    rows, seen = kinds(spark, [tmp_path / "a.parquet"], "parquet")
    assert rows == 1
    assert [kind for kind, _ in seen.values()] == ["integer", "number", "text", "time", "date", "text", "empty"]


def test_of_many_files_a_few_are_read_from_the_first_to_the_last(spark, tmp_path):
    files = [tmp_path / f"{n:02}.csv" for n in range(23)]
    for n, file in enumerate(files):
        file.write_text(f"c{n}\n1\n")
    _, seen = kinds(spark, files, "csv")
    assert len(seen) <= FILES
    assert "c0" in seen
    assert any(int(name[1:]) >= 20 for name in seen)
