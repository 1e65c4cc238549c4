import datetime as dt
import json
import uuid
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pytest

from nightshelf.config import Shop
from nightshelf.errors import InputError
from nightshelf.paths import data_docs_file, report_file, truth_dir
from pipelines import report
from pipelines.report import pivot_metrics, read_evidence
from pipelines.stage import Night
from pipelines.warehouse import Warehouse

DAY = dt.date(2026, 2, 5)


@pytest.fixture
def night(tiny_shop: Callable[..., Shop]) -> Night:
    shop = tiny_shop(days=0)
    return Night(shop, DAY, Warehouse(shop), "2026-02-05-report-1")


def publish(night: Night, table: str, rows: list[dict[str, Any]]) -> None:
    names = [name for name in night.warehouse.specs[table].column_names if name != "as_of_date"]
    full = [{"as_of_date": DAY, **{name: row.get(name) for name in names}} for row in rows]
    night.warehouse.publish_arrow(table, pa.Table.from_pylist(full), [DAY], uuid.uuid4().hex)


def record_stage(night: Night, stage: str = "publish") -> None:
    row = {
        "as_of_date": DAY,
        "run_id": "r1",
        "stage": stage,
        "status": "done",
        "started_at": dt.datetime(2026, 2, 6, 2, tzinfo=dt.UTC),
    }
    counts = {"seconds": 12.34, "peak_memory_mb": 900.0, "rows_in": 1_234_567, "rows_out": 7, "rows_quarantined": 0}
    night.warehouse.append("stage_runs", [{**row, **counts, "code_version": "c", "inputs": "{}", "message": ""}])


def publish_everything(night: Night) -> None:
    record_stage(night)
    publish(
        night,
        "source_counts",
        [{"source": "home_log", "rows_read": 10, "kept": 8, "quarantined": 1, "duplicates": 1, "other_days": 0}],
    )
    publish(
        night,
        "quarantine",
        [{"source": "home_log", "reason": "negative_price", "file": "f", "raw": "x", "evidence": "<b>-3</b>"}],
    )
    check = {
        "table_name": "events",
        "severity": "warn",
        "success": False,
        "observed": "1 missing: 07",
        "expected": "24 hours",
    }
    publish(night, "data_checks", [{**check, "expectation": "no_hour_missing", "column_name": "hour"}])
    moved = {
        "kind": "feature",
        "scenario": "*",
        "reference_date": DAY - dt.timedelta(days=1),
        "reference_rows": 90,
        "rows": 40,
    }
    measured = {"psi_noise": 0.01, "ks": 0.5, "js": 0.25, "died": False}
    publish(
        night,
        "feature_drift",
        [
            {**moved, **measured, "name": name, "psi": psi}
            for name, psi in (("calm_feature", 0.005), ("moved_feature", 1.25))
        ],
    )
    metric = {
        "model_version": "2",
        "role": "challenger",
        "task": "click",
        "metric": "auc",
        "lower": 0.70,
        "upper": 0.74,
        "rows": 100,
        "positives": 9,
    }
    publish(
        night, "model_metrics", [{**metric, "scenario": name, "value": 0.72} for name in ("*", "home_feed", "search")]
    )
    decision = {
        "challenger": "2",
        "champion": "1",
        "promoted": True,
        "reason": "Better on clicks.",
        "evidence": json.dumps([{"check": "auc", "observed": 0.72}]),
    }
    publish(night, "promotions", [decision])
    quotas = [("popular", 40, None), ("related", None, None), ("*", None, 0.991)]
    publish(
        night,
        "candidate_quotas",
        [
            {"scenario": "search", "generator": name, "quota": quota, "worth_kept": kept, "worth_found": 1.0}
            | {"ranked_per_user": 55.0, "proposed_per_user": 110.0}
            for name, quota, kept in quotas
        ],
    )
    publish(night, "items", [{"item_id": f"i{n}", "title": f"Lamp {n} & Co"} for n in range(4)])
    publish(night, "user_sequences", [{"user_key": "a", "item_indexes": [1, 2, 3]}])
    place = {
        "p_click": 0.1,
        "source": "popular",
        "reason": "Bought often this week.",
        "model_version": "2",
        "run_id": "r",
    }
    places = [
        (scenario, user, rank) for scenario in ("home_feed", "search") for user in ("a", "b") for rank in (1, 2, 3)
    ]
    publish(
        night,
        "recommendations",
        [{"scenario": s, "user_key": u, "rank": r, "item_id": f"i{r}", "score": 1 / r, **place} for s, u, r in places],
    )
    labels = {f"label_{task}": 1.0 for task in night.shop.tasks} | {f"mask_{task}": 1.0 for task in night.shop.tasks}
    publish(night, "training_examples", [{"impression_id": "e1", "event_date": DAY, "sample_weight": 1.0, **labels}])


class Page(HTMLParser):
    """Collects what a browser would load, the tags that stay open, and the text."""

    VOID = ("meta", "br", "img", "link", "hr", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.loads += [
            value
            for name, value in attrs
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#")
        ]
        assert tag not in ("script", "link", "iframe")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(night: Night) -> Page:
    report.run(night)
    return Page(report_file(night.shop, DAY).read_text())


def test_the_page_is_whole_and_loads_nothing(night: Night) -> None:
    publish_everything(night)
    page = page_of(night)
    assert page.loads == []
    assert page.open == []


def test_the_page_leads_to_the_data_docs_where_there_are_any(night: Night) -> None:
    publish_everything(night)
    docs = data_docs_file(night.shop, DAY)
    docs.parent.mkdir(parents=True)
    docs.write_text("")
    (link,) = page_of(night).loads
    assert (report_file(night.shop, DAY).parent / link).resolve() == docs.resolve()


def test_the_page_shows_each_part_of_the_night(night: Night) -> None:
    publish_everything(night)
    text = page_of(night).text
    for part in (
        "1\u202f234\u202f567",
        "negative_price",
        "<b>-3</b>",
        "1 missing: 07",
        "moved_feature",
        "the model of 2026-02-04 learned",
        "Promoted",
        "Better on clicks.",
        "0.72",
        "Lamp 1 & Co",
        "Bought often this week.",
        "55 of 110",
    ):
        assert part in text
    assert "the busiest" in text.lower()
    assert "the least known" in text.lower()
    assert "Against the truth" not in text
    assert "calm_feature" not in text  # within chance


def test_the_page_shows_what_stands_beside_items(night: Night) -> None:
    publish_everything(night)
    assert "Beside an item" not in page_of(night).text
    place = {"score": 0.5, "lift": 2.25, "rank_by_score": 1, "model_version": "2", "run_id": "r"}
    beside = [(0, 1, "co_cart"), (0, 2, "popular"), (3, 1, "co_cart"), (3, 0, "same_category")]
    rows = [
        {**place, "scenario": "home_feed", "anchor_item_id": f"i{anchor}", "item_id": f"i{item}", "rank": 1 + n % 2}
        | {"source": source, "reason": f"Shoppers of Lamp {anchor} take it too."}
        for n, (anchor, item, source) in enumerate(beside)
    ]
    publish(night, "item_recommendations", rows)
    text = page_of(night).text
    for part in ("co_cart 50\u202f%, popular 25\u202f%", "Beside Lamp 3 & Co i3", "(co_cart, lift 2.25)"):
        assert part in text
    assert "Shoppers of Lamp 0" not in text


def test_the_same_rows_give_the_same_bytes(night: Night) -> None:
    publish_everything(night)
    report.run(night)
    first = report_file(night.shop, DAY).read_bytes()
    report.run(night)
    assert report_file(night.shop, DAY).read_bytes() == first
    assert [file.name for file in report_file(night.shop, DAY).parent.iterdir()] == ["2026-02-05.html"]


def test_a_night_that_stopped_early_still_has_a_report(night: Night) -> None:
    record_stage(night, "clean")
    text = page_of(night).text
    for part in (
        "No check has run.",
        "No model asked for promotion in this night.",
        "No shelf was published for this night.",
    ):
        assert part in text


def test_a_night_that_never_ran_is_an_error_with_a_remedy(night: Night) -> None:
    with pytest.raises(InputError, match="tiny 2026-02-05: no stage of this night has run; run `nightshelf run"):
        report.run(night)


def test_a_truth_that_was_not_simulated_leaves_the_report_without_that_part(night: Night) -> None:
    publish_everything(night)
    truth_dir(night.shop).mkdir(parents=True)
    (night.shop.home / "keys").mkdir()
    (night.shop.home / "keys" / "identity.key").write_bytes(b"k" * 32)
    assert report.against_truth(night) is None


def test_shelves_against_the_truth_are_drawn_and_told(night: Night) -> None:
    publish_everything(night)
    means = {
        "random": 0.01,
        "popularity": 0.05,
        "item_knn": 0.06,
        "own_history": 0.07,
        "ours": 0.11,
        "ceiling": 0.15,
        "best": 0.2,
    }
    row = {
        **means,
        "gap_closed": 0.4,
        "gap_closed_stderr": 0.01,
        "ceiling_gap_closed": 0.67,
        "unpredictable": {"click": 0.9},
    }
    truth = {"users": 500, "gap_closed_mean": 0.4, "scenarios": {"home_feed": row, "search": row}}
    from pipelines.sql import connect

    page = Page(report.render(night.shop, DAY, connect(night.warehouse), truth))
    assert "Against the truth" in page.text
    assert "true utility @10, best = 1" in page.text
    assert "40\u202f%" in page.text


def test_metrics_are_pivoted_with_the_challenger_first() -> None:
    base = {"scenario": "*", "task": "click", "lower": None, "upper": None, "rows": 5, "positives": 1}
    rows = [
        {**base, "role": role, "metric": metric, "value": value}
        for role in ("champion", "challenger")
        for metric, value in (("auc", 0.7), ("logloss", 0.3))
    ]
    lines = pivot_metrics(rows)
    assert [line["role"] for line in lines] == ["challenger", "champion"]
    assert lines[0]["auc"]["value"] == 0.7
    assert lines[0]["logloss"]["value"] == 0.3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"check": "auc", "observed": 0.123456, "expected": "> 0"}]', [("auc", "observed 0.1235, expected > 0")]),
        ('{"finite": true}', [("finite", "True")]),
        ("", []),
        ("no json", [("evidence", "no json")]),
    ],
)
def test_evidence_of_any_shape_is_readable(text: str, told: list[tuple[str, str]]) -> None:
    assert [(row["name"], row["told"]) for row in read_evidence(text)] == told
