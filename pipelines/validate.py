"""The Great Expectations room: check a table against a suite, keep every result, stop the night where a rule says fail.

A suite is a list of GX expectations, each with its rule's name in `meta` and GX's own severity: `critical` stops the night,
`warning` is kept and shown. GX takes about a second per column and million rows, so no table comes to it whole: one SQL
statement brings the table to a small frame of facts (pipelines/rules.py: a fact per rule; elsewhere a row per source,
feature or scenario), and the suite judges the facts.

Traps of GX 1.24 that this file closes: an empty table passes nearly every rule, so `check_table` wants a row count first; an
exception inside a rule looks like a rule that failed, so it is told apart by its message.
"""

import datetime as dt
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from nightshelf.errors import GateError
from nightshelf.logs import get_logger
from nightshelf.paths import scratch_dir
from nightshelf.table_spec import TableSpec
from pipelines.arrow_schema import arrow_schema
from pipelines.example_days import example_window_of
from pipelines.stage import Night

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

_SEVERITY = {"critical": "fail", "warning": "warn"}

Row = dict[str, Any]


def expect(
    kind: str, rule: str, severity: str = "critical", about: str | None = None, told: str = "", **arguments: Any
) -> Any:
    """Return GX's `Expect{kind}` with its arguments, under the name that data_checks shows; GX itself is imported late.

    `about` and `told` are the column and the expected value in data_checks, where they are not those of the arguments.
    """
    from great_expectations import expectations as gxe

    meta = {"rule": rule, "column": arguments.get("column", "") if about is None else about, "told": told}
    return getattr(gxe, f"Expect{kind}")(severity=severity, meta=meta, **arguments)


def none_above_zero(column: str, severity: str = "critical") -> "Expectation":
    """Return the rule that a count of faults is 0 everywhere; `column` is named after the fault."""
    return expect("ColumnValuesToBeBetween", "none", severity, column=column, min_value=0, max_value=0)


def at_least(column: str, rule: str, warn: float | None, fail: float | None) -> "list[Expectation]":
    """Return the rules that a column warns, and fails, below these limits; None = never."""
    limits = ((rule, "warning", warn), (f"roughly_{rule}", "critical", fail))
    return [
        expect("ColumnValuesToBeBetween", name, severity, column=column, min_value=least)
        for name, severity, least in limits
        if least is not None
    ]


def query_files(night: Night, table: str, query: str, day: dt.date | None = None) -> Any:
    """Return the Arrow rows of a query over `batch_files`, the files of a table's partition: the night's, or that of `day`.

    A partition without rows is an empty table of the same columns.
    """
    connection = connect(night)
    batch = batch_of(night, table, day or night.as_of_date)
    view_files(connection, "data_files", batch.files, night.warehouse.specs[table])
    return connection.sql(batch.query(query)).to_arrow_table()


def view_files(connection: "duckdb.DuckDBPyConnection", name: str, files: list[str], spec: TableSpec) -> None:
    """Create the view of a table's data files; without any it has the table's columns and no row."""
    empty = arrow_schema(spec).empty_table()
    (connection.read_parquet(files) if files else connection.from_arrow(empty)).create_view(name)


@dataclass(frozen=True)
class Batch:
    """What a night has of a table: the files, and SQL for the rows of `data_files` that count."""

    files: list[str]
    select: str = "SELECT * FROM data_files"

    def query(self, query: str) -> str:
        """Return the query with `batch_files` defined."""
        return f"WITH batch_files AS ({self.select}) {query}"


def batch_of(night: Night, table: str, day: dt.date) -> Batch:
    """Return the partition of a day; of training_examples all that the night of that day learns from, with their split."""
    if table != "training_examples":
        return Batch(night.warehouse.files(table, [day]))
    window = example_window_of(replace(night, as_of_date=day))
    return Batch(night.warehouse.files(table, window.days), window.select("data_files"))


def connect(night: Night) -> "duckdb.DuckDBPyConnection":
    """Open an empty DuckDB that sees every NaN and puts what does not fit in memory below the shop's home.

    Parquet's statistics leave NaN out, and DuckDB 2.0 believes them: it folds `isnan(x)` to false without reading x. Hence the
    optimizer that does so is off.
    """
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET temp_directory = $folder", {"folder": str(scratch_dir(night.shop) / "duckdb")})
    connection.execute("SET disabled_optimizers = 'statistics_propagation'")
    return connection


def check_table(
    night: Night,
    table: str,
    frame: "pd.DataFrame",
    suite: "list[Expectation]",
    index: tuple[str, ...] = (),
) -> list[Row]:
    """Validate a frame of facts against a suite.

    `index` names columns that tell which row broke a value-by-value rule.

    Returns:
        one row of data_checks per expectation, in the suite's order.

    Raises:
        ValueError: the suite does not begin with a row count.
    """
    if not (suite[0].meta or {}).get("rule", "").startswith("row_count"):
        raise ValueError(
            f"the suite of {table} must begin with a row count: an empty table passes nearly every other rule"
        )
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = cast(Any, {"globally": False})
    asset = context.data_sources.add_pandas("night").add_dataframe_asset(table)
    batch = asset.add_batch_definition_whole_dataframe("night").get_batch({"dataframe": frame})
    wanted = {
        "result_format": "SUMMARY" if index else "BASIC",
        **({"unexpected_index_column_names": list(index)} if index else {}),
    }
    results = batch.validate(gx.ExpectationSuite(name=table, expectations=suite), result_format=wanted).results
    rows = {
        (row["expectation"], row["column_name"]): row
        for row in (_as_row(night, table, result.to_json_dict()) for result in results)
    }
    return [rows[_key(cast(Row, expectation.meta))] for expectation in suite]


def _key(meta: Row) -> tuple[str, str]:
    return meta["rule"], meta["column"]


def _as_row(night: Night, table: str, result: Row) -> Row:
    config = result["expectation_config"]
    rule, column = _key(config["meta"])
    return {
        "as_of_date": night.as_of_date,
        "table_name": table,
        "expectation": rule,
        "column_name": column,
        "severity": _SEVERITY[config["severity"]],
        "success": bool(result["success"]),
        "observed": _short(_exception(result["exception_info"]) or _observed(result["result"], result["success"])),
        "expected": _short(config["meta"]["told"] or _expected(config["kwargs"])),
    }


def _expected(arguments: Row) -> str:
    values = arguments.get("value_set")
    if values is not None:
        return ", ".join(map(str, values))
    bounds = {"min": arguments.get("min_value"), "max": arguments.get("max_value")}
    return ", ".join(f"{name} {_tell(bound)}" for name, bound in bounds.items() if bound is not None)


def _tell(value: Any) -> str:
    """Return a number without needless digits; anything else as it is."""
    if not isinstance(value, float) or value != value:
        return str(value)
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.5g}"


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
        return _tell(result["observed_value"])
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
    """Publish the results of a stage's tables, and write the night's data docs; results of other tables stay as they are."""
    import pyarrow as pa

    from pipelines.data_docs import write_data_docs

    tables = {row["table_name"] for row in rows}
    earlier = [
        row
        for row in night.warehouse.read("data_checks", [night.as_of_date]).to_pylist()
        if row["table_name"] not in tables
    ]
    night.warehouse.publish_arrow(
        "data_checks", pa.Table.from_pylist([*earlier, *rows]), [night.as_of_date], night.run_id
    )
    try:
        write_data_docs(night)
    except Exception as error:  # a page is a convenience: the results are kept, and decide about the night
        get_logger("validate").warning("the data docs of %s were not written: %s", night.as_of_date, error)


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
