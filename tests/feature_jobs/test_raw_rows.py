"""Raw files in every form that the shop file allows, and lines in every form that logs have."""

import bz2
import datetime as dt
import gzip
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from feature_jobs import raw_files
from feature_jobs.raw_files import check_whole, csv_fields, event_date_of, find_files, first_line, first_lines
from feature_jobs.raw_rows import read_raw_rows, union
from nightshelf.errors import InputError
from nightshelf.raw_logs import Csv, Dimension

pytestmark = pytest.mark.spark


def table(format, **csv):
    return Dimension(path="x", format=format, csv=Csv(**csv), columns={})


def rows_of(spark, files, layout, columns):
    read = union(read_raw_rows(spark, [str(f) for f in files], layout, columns, "sources.x"))
    return {row["raw"]: row for row in read.collect()}


def test_json_lines_tell_broken_ones_apart(spark, tmp_path):
    file = tmp_path / "a.jsonl.gz"
    good = ['{"uid":"a","n":1}', '{"other":1}', ' {"uid":"ü"}', '{"uid":null}', '{"uid":12345678901234567890}']
    broken = ['{"uid":"a', "nope", '[{"uid":"a"}]', '{"uid":"a"}{"uid":"b"}', '{"uid":"a"} x', '{"uid" "a"}']
    file.write_bytes(gzip.compress("\n".join([*good, "", *broken]).encode()))
    rows = rows_of(spark, [file], table("jsonl"), {"user_id": "uid", "n": "n"})
    assert {raw for raw, row in rows.items() if row["is_parsable"]} == set(good)
    assert set(rows) == {*good, *broken}
    assert rows['{"uid":12345678901234567890}']["user_id"] == "12345678901234567890"
    assert rows[' {"uid":"ü"}']["user_id"] == "ü"


def test_a_second_object_on_a_line_is_no_row_that_is_lost(spark, tmp_path):
    file = tmp_path / "a.jsonl"
    good = ['{"uid":"}{"}', '{"uid":[{"n":1},{"n":2}]}', "{ }"]
    broken = ['{"uid":"a"} {"uid":"b"}', '{"uid":"a"},{"uid":"b"}', '{"uid":"a"}],[{"uid":"b"}', '{"uid":"a"} // b}']
    file.write_text("\n".join([*good, *broken]))
    rows = rows_of(spark, [file], table("jsonl"), {"user_id": "uid"})
    assert {raw for raw, row in rows.items() if row["is_parsable"]} == set(good)
    assert set(rows) == {*good, *broken}
    assert [rows[raw]["user_id"] for raw in good] == ["}{", '[{"n":1},{"n":2}]', None]


def test_a_broken_byte_becomes_a_character(spark, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"uid":"\xff\xfe"}\n')
    (row,) = rows_of(spark, [tmp_path / "a.jsonl"], table("jsonl"), {"user_id": "uid"}).values()
    assert row["user_id"] == "��"


def test_csv_finds_columns_by_each_files_own_header(spark, tmp_path):
    (tmp_path / "a.csv").write_text('id;name\n1;"a;""b"""\n2;b;c\n3\n4;"x\n;\n')
    (tmp_path / "b.csv").write_text("\ufeffname;more;id\nz;;9\n")
    rows = rows_of(
        spark, [tmp_path / "a.csv", tmp_path / "b.csv"], table("csv", delimiter=";"), {"id": "id", "title": "name"}
    )
    assert {raw: row["is_parsable"] for raw, row in rows.items()} == {
        '1;"a;""b"""': True, "2;b;c": False, "3": False, '4;"x': False, ";": True, "z;;9": True,
    }  # fmt: skip
    assert rows['1;"a;""b"""']["title"] == 'a;"b"'
    assert rows["z;;9"]["id"] == "9"


def test_quotes_inside_a_field_move_no_other_field(spark, tmp_path):
    """A delimiter between such quotes may be one or not: the line is set aside, and is no row with shifted columns."""
    lines = {
        'a "b" c,d': ('a "b" c', "d"), '"a"b"c",d': ('"a"b"c"', "d"), '""a"",d': ('""a""', "d"), '"",d': (None, "d"),
        '"a,""b""",d': ('a,"b"', "d"), 'a"b,c"d,e': None, ' "a,b",c': None, '"a,b"c,d': None, '",a': None,
    }  # fmt: skip
    (tmp_path / "a.csv").write_text("\n".join(["x,y", *lines]))
    rows = rows_of(spark, [tmp_path / "a.csv"], table("csv"), {"x": "x", "y": "y"})
    found = {raw: (row["x"] or None, row["y"]) if row["is_parsable"] else None for raw, row in rows.items()}
    assert found == lines


def test_a_long_text_in_quotes_is_a_text(spark, tmp_path):
    long = {'"' + "q" * 200_000 + '"': "q" * 200_000, '"' + 'q""' * 50_000 + '"': 'q"' * 50_000}
    (tmp_path / "a.csv").write_text("\n".join(["x,y", *(f"{text},1" for text in long)]))
    (tmp_path / "b.csv").write_text("\n".join(f"{text},1" for text in long))
    for file, layout, x in (("a.csv", table("csv"), "x"), ("b.csv", table("csv", header=False), "_c0")):
        rows = rows_of(spark, [tmp_path / file], layout, {"x": x}).values()
        assert {row["x"] for row in rows if row["is_parsable"]} == set(long.values())


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_header_is_the_first_line_that_is_not_blank(spark, tmp_path, line_end):
    (tmp_path / "a.csv").write_bytes(line_end.join(["", " ", "x,y", "1,2", "", "3,4"]).encode())
    rows = rows_of(spark, [tmp_path / "a.csv"], table("csv"), {"x": "x", "y": "y"})
    assert {raw: (row["x"], row["y"]) for raw, row in rows.items()} == {"1,2": ("1", "2"), "3,4": ("3", "4")}


@pytest.mark.parametrize("encoding", ["latin-1", "latin1", "ISO-8859-1", "cp1252", "windows-1252"])
def test_an_encoding_goes_by_any_of_its_names(spark, tmp_path, encoding):
    (tmp_path / "a.csv").write_bytes("x\nCafé\n".encode(encoding))
    assert [*rows_of(spark, [tmp_path / "a.csv"], table("csv", encoding=encoding), {"x": "x"})] == ["Café"]


def test_csv_without_header_with_long_delimiter_and_encoding(spark, tmp_path):
    (tmp_path / "a.dat").write_bytes("1::Café\n2::x::y\n".encode("latin-1"))
    layout = table("csv", delimiter="::", header=False, encoding="ISO-8859-1")
    rows = rows_of(spark, [tmp_path / "a.dat"], layout, {"id": "_c0", "title": "_c1"})
    assert rows["1::Café"]["title"] == "Café"
    assert not rows["2::x::y"]["is_parsable"]


def test_parquet_keeps_types_and_reads_every_timestamp(spark, tmp_path):
    moment = dt.datetime(2026, 2, 1, 3, 4, 5)
    for name, kind in (("ns", pa.timestamp("ns")), ("us", pa.timestamp("us", "UTC")), ("text", pa.string())):
        values = [str(moment)] if name == "text" else [moment]
        pq.write_table(pa.table({"id": [7], "at": pa.array(values, kind)}), tmp_path / f"{name}.parquet")
        (frame,) = read_raw_rows(
            spark, [str(tmp_path / f"{name}.parquet")], table("parquet"), {"id": "id", "at": "at"}, "x"
        )
        assert frame.selectExpr("cast(at as string) at", "raw").first()["at"] == "2026-02-01 03:04:05"
    files = [str(tmp_path / "ns.parquet"), str(tmp_path / "us.parquet")]
    assert len(read_raw_rows(spark, files, table("parquet"), {"at": "at"}, "x")) == 2


def test_parquet_times_are_the_same_microseconds_in_every_type(spark, tmp_path):
    # As quotients of doubles some of these would be a microsecond less
    micros = [1_769_961_600_123_456 + n * 7_777_777 for n in range(500)]
    moments = pa.array([n * 1000 for n in micros], pa.timestamp("ns"))
    pq.write_table(pa.table({"at": moments}), tmp_path / "ns.parquet")
    pq.write_table(pa.table({"at": moments}), tmp_path / "int96.parquet", use_deprecated_int96_timestamps=True)
    kinds = {}
    for name in ("ns", "int96"):
        (frame,) = read_raw_rows(spark, [str(tmp_path / f"{name}.parquet")], table("parquet"), {"at": "at"}, "x")
        kinds[name] = dict(frame.dtypes)["at"], frame.agg(F.min("raw")).first()[0]
        found = frame.select(F.unix_micros(F.col("at").cast("timestamp")).alias("n")).collect()
        assert sorted(row["n"] for row in found) == micros, name
    # The old type holds moments, the other one local times
    assert kinds["ns"] == ("timestamp_ntz", '{"at":"2026-02-01T16:00:00.123"}')
    assert kinds["int96"] == ("timestamp", '{"at":"2026-02-01T16:00:00.123Z"}')


def test_parquet_numbers_without_a_sign_are_read(spark, tmp_path):
    kinds = {"a": pa.uint8(), "b": pa.uint16(), "c": pa.uint32(), "d": pa.uint64()}
    most = {name: 2**kind.bit_width - 1 for name, kind in kinds.items()}
    pq.write_table(pa.table({n: pa.array([most[n]], kind) for n, kind in kinds.items()}), tmp_path / "a.parquet")
    (row,) = rows_of(spark, [tmp_path / "a.parquet"], table("parquet"), dict(zip(kinds, kinds, strict=True))).values()
    assert {name: int(row[name]) for name in kinds} == most


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_missing_column_names_file_and_columns(spark, tmp_path, format):
    file = tmp_path / f"a.{format}"
    if format == "csv":
        file.write_text("uid,sku\n1,2\n")
    else:
        pq.write_table(pa.table({"uid": [1], "sku": [2]}), file)
    with pytest.raises(
        InputError,
        match=rf"a\.{format}: no column 'ts', which sources.x names for event_ts; columns there: uid, sku; correct",
    ):
        read_raw_rows(spark, [str(file)], table(format), {"user_id": "uid", "event_ts": "ts"}, "sources.x")


def test_a_truncated_parquet_file_is_told(spark, tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 half")
    with pytest.raises(InputError, match=r"a\.parquet: is no whole Parquet file"):
        read_raw_rows(spark, [str(tmp_path / "a.parquet")], table("parquet"), {"id": "id"}, "x")


def test_files_are_found_by_pattern_folder_and_scheme(spark, tmp_path):
    for name in ("d/b.csv", "d/a.csv", "d/.hidden.csv", "d/_tmp.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n1\n")
    expected = [str(tmp_path / "d" / name) for name in ("a.csv", "b.csv")]
    assert find_files(spark, f"{tmp_path}/d/*.csv") == expected
    assert find_files(spark, f"{tmp_path}/d") == expected
    assert find_files(spark, f"file://{tmp_path}/*/a.csv") == expected[:1]
    assert find_files(spark, f"{tmp_path}/none/*") == []


@pytest.mark.skipif("NIGHTSHELF_TEST_ENGINE" in os.environ, reason="Sail reads such names")
def test_a_name_that_spark_cannot_read_is_told(spark, tmp_path):
    (tmp_path / "12:00.csv").write_text("x\n1\n")
    with pytest.raises(InputError, match=r"12:00\.csv: Spark reads no file with a colon in its name; rename it"):
        find_files(spark, f"{tmp_path}/*.csv")


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.bz2", "a.parquet"])
def test_the_file_that_ends_too_early_is_told(tmp_path, name):
    rows = "".join(f"{n},{n * 7919 % 100_003}\n" for n in range(100_000)).encode()
    if name.endswith("parquet"):
        pq.write_table(pa.table({"x": [str(n) for n in range(9999)]}), tmp_path / name, compression="snappy")
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:2000] + b"\xff" * 2000 + whole[4000:])
    else:
        whole = {"gz": gzip, "bz2": bz2}[name.rsplit(".", 1)[1]].compress(rows)
        (tmp_path / name).write_bytes(whole[:-2000])
    (tmp_path / "good.csv.gz").write_bytes(gzip.compress(rows))
    check_whole([str(tmp_path / "good.csv.gz"), "s3a://bucket/x.gz"])
    with pytest.raises(InputError, match=rf"{name}: cannot be read to its end \(.+\); bring the file again"):
        check_whole([str(tmp_path / "good.csv.gz"), str(tmp_path / name)])


def test_the_day_of_a_file_comes_from_its_path(spark):
    def day(pattern, path):
        return spark.range(1).select(event_date_of(pattern, F.lit(path))).first()[0]

    assert day("raw/{event_date}/*.gz", "file:///a%20b/raw/2026-02-01/x.gz") == dt.date(2026, 2, 1)
    assert day("/a b/{event_date}.csv", "file:///a%20b/2026-02-01.csv") == dt.date(2026, 2, 1)
    assert day("../logs/./{event_date}.csv", "file:///logs/2026-02-01.csv") == dt.date(2026, 2, 1)
    assert day("s3a://bucket/{event_date}/v{event_date}", "s3a://bucket/2026-02-01/v2026-02-01/part") == dt.date(
        2026, 2, 1
    )
    assert day("raw/{event_date}/*.gz", "file:///raw/other/x.gz") is None


def test_first_lines_of_plain_and_compressed_files(spark, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    assert first_line(spark, str(tmp_path / "empty.csv"), "UTF-8") is None
    assert csv_fields('a,"b,c"', ",") == ["a", "b,c"]
    text = "\ufeffä,b\r\n1,2\n3,4\n".encode()
    (tmp_path / "plain.csv").write_bytes(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "a.csv.bz2").write_bytes(bz2.compress(text))
    for name in ("plain.csv", "a.csv.gz", "a.csv.bz2"):
        assert first_lines(spark, str(tmp_path / name), "UTF-8", 2) == ["ä,b", "1,2"], name
        assert first_line(spark, str(tmp_path / name), "UTF-8") == "ä,b"
    (tmp_path / "half.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n")[:12])
    with pytest.raises(InputError, match=r"half\.csv\.gz: cannot be read"):
        first_line(spark, str(tmp_path / "half.csv.gz"), "UTF-8")


@pytest.mark.skipif("NIGHTSHELF_TEST_ENGINE" in os.environ, reason="Sail packs no lz4")
def test_a_packing_that_python_does_not_know_is_left_to_spark(spark, tmp_path, monkeypatch):
    rows = spark.createDataFrame([("ä,b",), ("1,2",), ("3,4",)], "v string").coalesce(1)
    rows.write.option("compression", "lz4").text(str(tmp_path / "packed"))
    (file,) = (tmp_path / "packed").glob("*.lz4")
    assert first_lines(spark, str(file), "UTF-8", 2) == ["ä,b", "1,2"]
    monkeypatch.setattr(raw_files, "is_embedded", lambda: True)
    with pytest.raises(
        InputError, match=r"lz4: Sail does not read \.lz4; pack it as \.gz or \.bz2, or take `engine: sail` out"
    ):
        find_files(spark, f"{tmp_path}/packed/*.lz4")
