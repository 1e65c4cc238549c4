"""The Great Expectations room: check a table against a suite, keep every result, stop the night where a rule says fail.

A suite is a list of GX expectations made by a function beside its stage. Each expectation carries its rule's name in `meta`
and GX's own severity: `critical` stops the night, `warning` is kept and shown. Rules are aggregates (minimum, maximum,
distinct values, nulls), because GX computes those for all columns in one pass, while its value-by-value rules cost about a
second per column and million rows. What spans rows or many columns (gaps in ranks, classes per scenario, unusable values per
feature) is first brought by one SQL statement to a small frame of facts, and the suite then judges the facts.

Traps of GX 1.24 that this file closes: an empty table passes nearly every rule, so `check_table` wants a row count first; a
range lets NaN pass, so `not_nan` makes it an outlier before, and `within` bounds both ends against infinity; an
exception inside a rule looks like a rule that failed, so it is told apart by its message.
"""

import datetime as dt
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from nightshelf.errors import GateError
from pipelines.stage import Night

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import pyspark.sql as ps
    from great_expectations.expectations.expectation import Expectation

# One partition of a few columns fits in memory below this; beyond it Spark reads the same SQL and runs the same suite.
PANDAS_ROWS = 5_000_000
# Larger than any feature and smaller than float32's infinity.
FINITE = 1e30
_NAN = 3e38
_SEVERITY = {"critical": "fail", "warning": "warn"}

Row = dict[str, Any]


def expect(kind: str, rule: str, severity: str = "critical", **arguments: Any) -> Any:
    """Return GX's `Expect{kind}` with its arguments, under the name that data_checks shows; GX itself is imported late."""
    from great_expectations import expectations as gxe

    return getattr(gxe, f"Expect{kind}")(severity=severity, meta={"rule": rule}, **arguments)


def within(
    column: str, low: float, high: float, rule: str = "within_range", severity: str = "critical"
) -> "list[Expectation]":
    """Return the rules that all values of a column lie in [low, high]; a column without any value breaks them."""
    return [
        expect("ColumnMinToBeBetween", f"{rule}_min", severity, column=column, min_value=low),
        expect("ColumnMaxToBeBetween", f"{rule}_max", severity, column=column, max_value=high),
    ]


def none_above_zero(column: str, severity: str = "critical") -> "Expectation":
    """Return the rule that a count of faults is 0 everywhere; `column` is named after the fault."""
    return expect("ColumnValuesToBeBetween", "none", severity, column=column, min_value=0, max_value=0)


def not_nan(column: str) -> str:
    """Return SQL that turns NaN into a value outside every range: GX in pandas skips NaN, and in Spark it passes as not null."""
    return f"CASE WHEN isnan({column}) THEN {_NAN} ELSE {column} END AS {column}"


def read_batch(night: Night, table: str, select: str) -> "pd.DataFrame | ps.DataFrame":
    """Return `SELECT {select}` over the night's partition of a table: pandas through DuckDB, or Spark beyond PANDAS_ROWS.

    `select` is SQL that both engines know; only the columns in it are read.
    """
    import pyarrow as pa

    files = night.warehouse.files(table, [night.as_of_date])
    query = f"SELECT {select} FROM batch_files"
    if row_count(files) > PANDAS_ROWS:
        from feature_jobs.session import spark_session

        session = spark_session(night.shop)
        session.read.parquet(*files).createOrReplaceTempView("batch_files")
        return session.sql(query)
    rows = query_files(night, table, query)
    for at, field in enumerate(rows.schema):  # few distinct values: a dictionary is a tenth of pandas' string objects
        if pa.types.is_string(field.type) and not field.name.endswith("_id"):
            rows = rows.set_column(at, field.name, rows.column(at).dictionary_encode())
    return rows.to_pandas()


def query_files(night: Night, table: str, query: str, day: dt.date | None = None) -> Any:
    """Return the Arrow rows of a query over `batch_files`, the files of a table's partition: the night's, or that of `day`.

    A partition without rows is an empty table of the same columns.
    """
    connection = connect(night)
    days = [day or night.as_of_date]
    files = night.warehouse.files(table, days)
    source = connection.read_parquet(files) if files else connection.from_arrow(night.warehouse.read(table, days))
    source.create_view("batch_files")
    return connection.sql(query).to_arrow_table()


def connect(night: Night) -> "duckdb.DuckDBPyConnection":
    """Open an empty DuckDB that sees every NaN and puts what does not fit in memory below the shop's home.

    Parquet's statistics leave NaN out, and DuckDB 2.0 believes them: it folds `isnan(x)` to false without reading x. Hence the
    optimizer that does so is off.
    """
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET temp_directory = $folder", {"folder": str(night.shop.home / "tmp" / "duckdb")})
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    return connection


def row_count(files: Iterable[str]) -> int:
    """Return the rows of Parquet files, read from their footers."""
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(file).num_rows for file in files)


def check_table(
    night: Night,
    table: str,
    frame: "pd.DataFrame | ps.DataFrame",
    suite: "list[Expectation]",
    index: tuple[str, ...] = (),
) -> list[Row]:
    """Validate a frame (pandas or Spark) against a suite.

    `index` names columns that tell which row broke a value-by-value rule; meant for small frames of facts.

    Returns:
        one row of data_checks per expectation, in the suite's order.

    Raises:
        ValueError: the suite does not begin with a row count.
    """
    if suite[0].expectation_type != "expect_table_row_count_to_be_between":
        raise ValueError(
            f"the suite of {table} must begin with a row count: an empty table passes nearly every other rule"
        )
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = cast(Any, {"globally": False})
    sources = context.data_sources
    source: Any = sources.add_pandas("night") if hasattr(frame, "iloc") else sources.add_spark("night")
    batch = (
        source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("night").get_batch({"dataframe": frame})
    )
    wanted = {
        "result_format": "SUMMARY" if index else "BASIC",
        **({"unexpected_index_column_names": list(index)} if index else {}),
    }
    results = batch.validate(gx.ExpectationSuite(name=table, expectations=suite), result_format=wanted).results
    rows = {
        (row["expectation"], row["column_name"]): row
        for row in (_as_row(night, table, result.to_json_dict()) for result in results)
    }
    return [rows[_key(expectation.configuration.to_json_dict())] for expectation in suite]


def _key(config: Row) -> tuple[str, str]:
    kwargs = config["kwargs"]
    return config["meta"]["rule"], str(kwargs.get("column", ""))


def _as_row(night: Night, table: str, result: Row) -> Row:
    config = result["expectation_config"]
    rule, column = _key(config)
    ignored = ("batch_id", "column")
    expected = {name: value for name, value in config["kwargs"].items() if name not in ignored and value is not None}
    return {
        "as_of_date": night.as_of_date,
        "table_name": table,
        "expectation": rule,
        "column_name": column,
        "severity": _SEVERITY[config["severity"]],
        "success": bool(result["success"]),
        "observed": _short(_exception(result["exception_info"]) or _observed(result["result"], result["success"])),
        "expected": _short(
            ", ".join(f"{name.removesuffix('_value')} {value}" for name, value in expected.items()) or "all rows"
        ),
    }


def _observed(result: Row, success: bool) -> str:
    broken = result.get("partial_unexpected_index_list")
    if broken:
        return "; ".join(" ".join(f"{name}={value}" for name, value in row.items()) for row in broken)
    missing, unexpected = result.get("partial_missing_list"), result.get("partial_unexpected_list")
    if result.get("missing_count") and missing:
        return f"{result['missing_count']} missing: {', '.join(map(str, missing))}"
    if result.get("unexpected_count") and unexpected:
        return f"{result['unexpected_count']} unexpected: {', '.join(sorted(set(map(str, unexpected))))}"
    if result.get("unexpected_count"):
        return f"{result['unexpected_count']} rows"
    if result.get("observed_value") is not None:
        return str(result["observed_value"])
    return "as expected" if success else "no value"


def _exception(info: Row) -> str:
    """Return the message of an exception inside a rule; GX nests one entry per metric when a metric raised."""
    parts = [info] if "raised_exception" in info else list(info.values())
    messages = [str(part["exception_message"]).strip() for part in parts if part.get("raised_exception")]
    return f"the rule could not run: {messages[0]}" if messages else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "…"


def record_checks(night: Night, rows: list[Row]) -> None:
    """Publish the results of a stage's tables; those of other tables of the same night stay as they are."""
    import pyarrow as pa

    tables = {row["table_name"] for row in rows}
    earlier = [
        row
        for row in night.warehouse.read("data_checks", [night.as_of_date]).to_pylist()
        if row["table_name"] not in tables
    ]
    night.warehouse.publish_arrow(
        "data_checks", pa.Table.from_pylist([*earlier, *rows]), [night.as_of_date], night.run_id
    )


def stop_on_failure(rows: list[Row]) -> str:
    """Return a sentence on the checks, for the stage's ledger.

    Raises:
        GateError: a rule of severity fail does not hold; nothing behind this stage may run.
    """
    broken = [row for row in rows if not row["success"]]
    failed = [row for row in broken if row["severity"] == "fail"]
    if failed:
        first = failed[0]
        where = f"{first['table_name']}.{first['column_name']}".removesuffix(".")
        more = f" (and {len(failed) - 1} more in data_checks)" if len(failed) > 1 else ""
        told = f"observed {first['observed']}, expected {first['expected']}{more}"
        raise GateError(f"check {first['expectation']} on {where} {first['as_of_date']}: {told}")
    warned = [f"{row['table_name']}.{row['column_name']} {row['expectation']}" for row in broken]
    return (
        f"{len(rows)} checks held"
        if not warned
        else f"{len(rows) - len(warned)} checks held, {len(warned)} warnings: {', '.join(warned[:5])}"
    )
