"""Data Docs: one HTML page a night about every check, with its history over the last nights, from data_checks.

Great Expectations builds such pages too, but not for reading without a network: its index is drawn by scripts from
servers elsewhere, its styles and pictures lie there as well, the pages know neither our rules' names nor other nights, and
a number of numpy's own type ends in a traceback in the page (1.24).
"""

import datetime as dt
from typing import Any

from nightshelf.dates import days_back
from nightshelf.paths import data_docs_file
from nightshelf.table_spec import TableSpec
from pipelines.pages import page_template, write_page
from pipelines.stage import Night

# Nights that the history shows, this one included.
NIGHTS = 8
_LOOK_BACK_DAYS = 60
_RANK = {"held": 0, "none": 0, "warn": 1, "fail": 2}

Row = dict[str, Any]


def write_data_docs(night: Night) -> None:
    """Write the page of the night's checks to `nightshelf.paths.data_docs_file`."""
    results = night.warehouse.read("data_checks", days_back(night.as_of_date, _LOOK_BACK_DAYS)).to_pylist()
    write_page(data_docs_file(night.shop, night.as_of_date), render(night, results), night.run_id)


def render(night: Night, results: list[Row]) -> str:
    """Return the page; `results` are rows of data_checks of the night and of nights before it."""
    nights = sorted({row["as_of_date"] for row in results})[-NIGHTS:]
    tables = tables_of(results, night.as_of_date, nights, night.warehouse.specs)
    checks = [check for table in tables for check in table["checks"]]
    return page_template("data_docs.html.j2").render(
        shop=night.shop,
        day=night.as_of_date,
        nights=nights,
        tables=tables,
        checks=checks,
        broken=[check for check in checks if check["status"] != "held"],
    )


def tables_of(results: list[Row], day: dt.date, nights: list[dt.date], specs: dict[str, TableSpec]) -> list[Row]:
    """Return the tables that were checked on `day` in the order of their specs: name, grain, checks, their worst by night.

    A check has what data_checks says of it, its status (held, warn, fail), and that of each of `nights` (none: it did not run).
    """
    past: dict[tuple[str, str, str], dict[dt.date, str]] = {}
    for row in results:
        past.setdefault(_key(row), {})[row["as_of_date"]] = _status(row)
    by_table: dict[str, list[Row]] = {}
    for row in results:
        if row["as_of_date"] == day:
            history = [past[_key(row)].get(other, "none") for other in nights]
            by_table.setdefault(row["table_name"], []).append({**row, "status": _status(row), "history": history})
    places = {name: place for place, name in enumerate(specs)}
    names = sorted(by_table, key=lambda name: (places.get(name.split(".")[0], len(places)), name))
    return [_table(name, by_table[name], specs) for name in names]


def _table(name: str, checks: list[Row], specs: dict[str, TableSpec]) -> Row:
    worst = [max(of_night, key=lambda s: _RANK[s]) for of_night in zip(*(c["history"] for c in checks), strict=True)]
    counts = {status: sum(check["status"] == status for check in checks) for status in ("held", "warn", "fail")}
    return {
        "name": name,
        "grain": specs[name].grain if name in specs else "",
        "checks": checks,
        "worst": worst,
        **counts,
    }


def _key(row: Row) -> tuple[str, str, str]:
    return row["table_name"], row["expectation"], row["column_name"]


def _status(row: Row) -> str:
    return "held" if row["success"] else str(row["severity"])
