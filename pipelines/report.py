"""Stage report: one HTML file about the night, complete in itself: no server, no script, nothing loaded from elsewhere."""

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.identity import key_file
from nightshelf.logs import get_logger
from nightshelf.paths import data_docs_file, report_file, truth_dir
from pipelines import report_sections as sections
from pipelines.pages import number, page_template, write_page
from pipelines.stage import Night, StageResult

if TYPE_CHECKING:
    import duckdb

Row = dict[str, Any]
# Shelves in the comparison with a simulated shop's truth, from the worst to the best that can be.
REFERENCES = ("random", "popularity", "item_knn", "own_history", "ours", "ceiling", "best")
_USERS_SCORED = 500


def run(night: Night) -> StageResult:
    """Write the night's report to `nightshelf.paths.report_file`.

    In a simulated shop it also shows how good the published shelves truly are; no table is made from that.

    Raises:
        InputError: no stage of this night has run yet.
    """
    from pipelines.sql import connect

    tables = connect(night.warehouse)
    page = render(night.shop, night.as_of_date, tables, against_truth(night))
    target = report_file(night.shop, night.as_of_date)
    write_page(target, page, night.run_id)
    rows = tables.execute(
        "SELECT count(*) FROM recommendations WHERE as_of_date = $day", {"day": night.as_of_date}
    ).fetchall()
    return StageResult(
        rows_in=rows[0][0], rows_out=1, inputs=["recommendations", "model_metrics", "stage_runs"], message=str(target)
    )


def render(shop: Shop, day: dt.date, tables: "duckdb.DuckDBPyConnection", truth: Row | None) -> str:
    """Return the report as HTML.

    Args:
        shop: whose night.
        day: the night's as_of_date.
        tables: a connection whose views are the tables.
        truth: what against_truth returned.

    Raises:
        InputError: no stage of this night has run yet.
    """
    stages = sections.stages(tables, day)
    if not stages:
        raise InputError(
            f"{shop.shop} {day}: no stage of this night has run; run `nightshelf run --as-of-date {day}` first"
        )
    facts = _facts(shop, day, tables)
    return page_template("report.html.j2").render(
        shop=shop, day=day, stages=stages, truth=truth, references=REFERENCES, plots=_plots(shop, facts, truth), **facts
    )


def _facts(shop: Shop, day: dt.date, tables: "duckdb.DuckDBPyConnection") -> dict[str, Any]:
    users = sections.example_users(tables, day)
    return {
        "sources": sections.sources(tables, day),
        "by_day": sections.rows_by_day(tables, day, shop.history_days),
        "quarantine": sections.quarantine(tables, day, shop.history_days),
        "checks": sections.checks(tables, day),
        "data_docs": f"../data_docs/{day}/index.html" if data_docs_file(shop, day).exists() else "",
        "drift": sections.drift(tables, day),
        "metrics": pivot_metrics(sections.metrics(tables, day)),
        "promotions": [{**row, "evidence": read_evidence(row["evidence"])} for row in sections.promotions(tables, day)],
        "rates": sections.task_rates(tables, day, shop),
        "shelves": sections.shelves(tables, day),
        "recalls": sections.candidate_recall(tables, day),
        "quotas": sections.candidate_quotas(tables, day),
        "generators": sections.generators(tables, day),
        "top_items": sections.top_items(tables, day),
        "item_shelves": sections.item_shelves(tables, day),
        "beside": _group(sections.shelves_beside(tables, day), "scenario"),
        "users": [
            {**user, "shelves": _group(sections.shelf_of(tables, day, user["user_key"]), "scenario")} for user in users
        ],
    }


def _plots(shop: Shop, facts: dict[str, Any], truth: Row | None) -> dict[str, str]:
    """Return the SVG drawings by name, empty where there is nothing to draw."""
    from pipelines import report_plots as plots

    drawn = dict.fromkeys(("rows", "rates", "auc", "generators", "scores", "truth"), "")
    if facts["by_day"]:
        drawn["rows"] = plots.bars_by_day(facts["by_day"], ["kept", "quarantined", "duplicates"], "rows")
    if facts["rates"]:
        tasks = [name for name, task in shop.tasks.items() if task.kind == "binary"]
        drawn["rates"] = plots.lines_by_day(facts["rates"], tasks, "positive share", percent=True)
    if facts["shelves"]:
        drawn["scores"] = plots.score_boxes(facts["shelves"])
        drawn["generators"] = plots.stacked_shares(facts["generators"], "scenario", "source", "share")
    aucs = [
        {**row, **row["auc"]}
        for row in facts["metrics"]
        if (row.get("auc") or {}).get("value") is not None and row["role"] == "challenger"
    ]
    if aucs:
        drawn["auc"] = plots.intervals(aucs, "AUC on the test days, with 95 % bounds")
    if truth:
        scenarios = truth["scenarios"]
        bars = {
            name: [scenarios[scenario][name] / scenarios[scenario]["best"] for scenario in scenarios]
            for name in REFERENCES
        }
        drawn["truth"] = plots.grouped_bars(list(scenarios), bars, "true utility @10, best = 1")
    return drawn


def against_truth(night: Night) -> Row | None:
    """Return how the night's shelves do against a simulated shop's truth (`simulation.score.score_shelves`), None elsewhere."""
    if not truth_dir(night.shop).is_dir():
        return None
    columns = ("user_key", "scenario", "rank", "item_id")
    shelves = night.warehouse.read("recommendations", [night.as_of_date], columns)
    if not shelves.num_rows:
        return None
    from simulation.score import score_shelves

    try:
        return score_shelves(night.shop, shelves, night.as_of_date, _USERS_SCORED, key_file(night.shop).read_bytes())
    except InputError as error:  # the report of a night that the simulation did not reach is still a report
        get_logger("report").warning("not scored against the truth: %s", error)
        return None


def pivot_metrics(rows: list[Row]) -> list[Row]:
    """Return one row per role, scenario and task with its metrics as columns, each a dictionary of value and bounds."""
    pivot: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = (row["role"], row["scenario"], row["task"])
        line = pivot.setdefault(
            key, {"role": row["role"], "scenario": row["scenario"], "task": row["task"], "rows": 0, "positives": 0}
        )
        line[row["metric"]] = {name: row[name] for name in ("value", "lower", "upper")}
        line["rows"], line["positives"] = max(line["rows"], row["rows"]), max(line["positives"], row["positives"])
    order = {"challenger": 0, "champion": 1}
    return sorted(pivot.values(), key=lambda line: (order.get(line["role"], 2), line["scenario"], line["task"]))


def read_evidence(text: str) -> list[Row]:
    """Return the checks in a promotion's evidence as rows of name and text; JSON of any shape is readable this way."""
    try:
        content = json.loads(text or "[]")
    except ValueError:
        return [{"name": "evidence", "told": text}]
    pairs = content.items() if isinstance(content, dict) else enumerate(content, 1)
    return [{"name": _title(name, value), "told": _tell(value)} for name, value in pairs]


def _title(name: str | int, value: Any) -> str:
    named = next((value[key] for key in ("check", "name") if isinstance(value, dict) and key in value), name)
    return str(named)


def _tell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_tell(inner)}" for name, inner in value.items() if name not in ("check", "name"))
    return number(value) if isinstance(value, float) else str(value)


def _group(rows: list[Row], by: str) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[by], []).append(row)
    return groups
