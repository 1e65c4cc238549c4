"""The DAG file: it loads, is light, asks the right questions, and says what to do when a task is red."""

import ast
import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAG_FILES = sorted((ROOT / "dags").glob("*.py"))
HEAVY = {
    "torch",
    "pyspark",
    "pandas",
    "mlflow",
    "numpy",
    "pyarrow",
    "great_expectations",
    "duckdb",
    "pyiceberg",
    "sklearn",
}

pytestmark = pytest.mark.airflow


@pytest.fixture(scope="module")
def dag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(ROOT / "dags"))
    assert bag.import_errors == {}
    return bag.dags["nightly_recommendations"]


def stages_of_a_night() -> list[str]:
    """Read the stages' names from pipelines/stage.py, which this environment cannot import (it needs pyarrow)."""
    tree = ast.parse((ROOT / "pipelines" / "stage.py").read_text())
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if getattr(target, "id", "") == "STAGES":
            return list(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    raise AssertionError("pipelines/stage.py no longer has STAGES; correct this test")


def test_the_tasks_are_the_stages_in_their_order(dag: Any) -> None:
    assert [task.task_id for task in dag.topological_sort()] == stages_of_a_night()
    assert all(len(task.downstream_task_ids) <= 1 for task in dag.tasks)


def test_a_shop_may_have_its_users_served_by_mapped_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag

    from nightshelf.engines import Serving
    from pipelines import airflow_stage

    file, shop = airflow_stage.scheduled_shop()
    wide = shop.model_copy(update={"serving": Serving(tasks=3)})
    monkeypatch.setattr(airflow_stage, "scheduled_shop", lambda: (file, wide))
    bag = DagBag(dag_folder=str(ROOT / "dags/nightly_recommendations.py"))
    assert bag.import_errors == {}
    tasks = bag.dags["nightly_recommendations"].topological_sort()
    stages = stages_of_a_night()
    place = stages.index("recommend")
    assert [task.task_id for task in tasks] == [*stages[:place], "shelves", *stages[place:]]
    mapped = tasks[place]
    assert mapped.is_mapped
    assert mapped.expand_input.value == {"share": ["1/3", "2/3", "3/3"]}
    assert (mapped.retries, mapped.owner, "When red:" in mapped.doc_md) == (2, "nightshelf", True)


def test_every_task_can_be_left_alone_at_night(dag: Any) -> None:
    for task in dag.tasks:
        assert task.retries == 2, task.task_id
        assert task.retry_delay >= dt.timedelta(minutes=1), task.task_id
        assert task.execution_timeout is not None, task.task_id
        assert task.owner == "nightshelf", task.task_id
        assert "When red:" in task.doc_md, f"add {task.task_id} to the list in the DAG's docstring"
    assert {task.task_id for task in dag.tasks if task.pool == "gpu"} == {"retrieve", "train"}
    assert dag.max_active_runs == 1
    assert not dag.catchup
    assert "### A fresh shelf" in dag.doc_md


def test_a_publish_tells_the_storefronts(dag: Any) -> None:
    assert [outlet.name for outlet in dag.get_task("publish").outlets] == ["recommendations"]


def test_the_schedule_names_the_day_that_ended(dag: Any) -> None:
    from airflow.serialization.encoders import coerce_to_core_timetable

    timetable = coerce_to_core_timetable(dag.timetable)
    zone = ZoneInfo("Asia/Shanghai")
    two_o_clock = dt.datetime(2026, 2, 15, 2, tzinfo=zone).astimezone(dt.UTC)
    assert timetable._get_partition_info(two_o_clock)[1] == "2026-02-14"
    days = dt.datetime(2026, 2, 1, tzinfo=dt.UTC), dt.datetime(2026, 2, 3, 23, tzinfo=dt.UTC)
    keys = [info.partition_key for info in timetable.iter_partition_dagrun_infos(earliest=days[0], latest=days[1])]
    assert keys == ["2026-02-01", "2026-02-02", "2026-02-03"]


def test_the_runbooks_backfill_makes_the_nights_that_it_says_one_at_a_time(dag: Any) -> None:
    """Airflow takes a date for its midnight, and a backfill's own limit for the DAG's: ten at once if it has none."""
    from airflow.serialization.encoders import coerce_to_core_timetable

    command = "airflow backfill create --dag-id nightly_recommendations --max-active-runs 1 --from-date "
    assert command in (ROOT / "README.md").read_text()
    dates = (ROOT / "docs" / "runbook.md").read_text().split(command)[1].split()
    first, last = (dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC) for text in (dates[0], dates[2]))
    nights = coerce_to_core_timetable(dag.timetable).iter_partition_dagrun_infos(earliest=first, latest=last)
    assert [night.partition_key for night in nights] == [f"2026-02-{day}" for day in range(10, 15)]


@pytest.mark.parametrize(
    ("zone", "spring"),
    [("Europe/Berlin", "2026-03-29"), ("America/New_York", "2026-03-08"), ("Asia/Jerusalem", "2026-03-27")],
)
def test_the_day_that_has_no_two_o_clock_is_dated_as_any_other(
    zone: str, spring: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.encoders import coerce_to_core_timetable

    from pipelines import airflow_stage

    file, shop = airflow_stage.scheduled_shop()
    there = shop.model_copy(update={"timezone": zone})
    monkeypatch.setattr(airflow_stage, "scheduled_shop", lambda: (file, there))
    bag = DagBag(dag_folder=str(ROOT / "dags/nightly_recommendations.py"))
    assert bag.import_errors == {}
    timetable = coerce_to_core_timetable(bag.dags["nightly_recommendations"].timetable)
    for days_later in range(-1, 2):
        today = dt.date.fromisoformat(spring) + dt.timedelta(days=days_later)
        midnight = dt.datetime.combine(today, dt.time(), ZoneInfo(zone)).astimezone(dt.UTC)
        run = timetable._align_to_next(timetable._get_next(midnight))
        assert run.astimezone(ZoneInfo(zone)).date() == today
        assert timetable._get_partition_info(run)[1] == str(today - dt.timedelta(days=1))


@pytest.mark.parametrize("name", ["as_of_date", "shop", "retrain", "scenarios"])
def test_the_form_takes_its_own_defaults(dag: Any, name: str) -> None:
    dag.params.get_param(name).resolve()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("as_of_date", "2026-02-30"),
        ("as_of_date", "../.."),
        ("shop", "/etc/passwd"),
        ("shop", "conf/shops/../../x.yaml"),
        ("shop", "conf/shops/demo.yaml;id"),
        ("retrain", "no"),
        ("scenarios", ["$(id)"]),
        ("scenarios", "search"),
    ],
)
def test_the_form_refuses_what_is_no_answer(dag: Any, name: str, value: Any) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        dag.params.get_param(name).resolve(value)


def modules_loaded_by(*statements: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after these statements."""
    program = "; ".join(
        ["import sys, json, runpy", *statements, "print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.name)
def test_a_dag_file_is_light(path: Path) -> None:
    """This environment has no torch to load, so the files' own imports are read too."""
    hook = "from airflow.providers.standard.hooks.subprocess import SubprocessHook"
    airflow = hook, "import airflow.sdk as sdk; sdk.DAG; sdk.Param; sdk.Asset"
    extra = modules_loaded_by(*airflow, f"runpy.run_path({str(path)!r})") - modules_loaded_by(*airflow)
    assert extra & HEAVY == set()
    assert imports_of(path, seen=set()) & HEAVY == set()
    assert len(path.read_text().splitlines()) <= 120, (
        "a DAG says when, in what order, for which date; move the rest out"
    )


def imports_of(path: Path, seen: set[Path]) -> set[str]:
    """Return the top-level packages that a file imports outside its functions, following our own modules."""
    if path in seen:
        return set()
    seen.add(path)
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for name in names:
            found.add(name.split(".")[0])
            ours = ROOT / (name.replace(".", "/") + ".py")
            if ours.exists():
                found |= imports_of(ours, seen)
    return found


def test_no_dag_file_bears_the_name_of_a_package() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"airflow", *HEAVY}
    assert {path.stem for path in DAG_FILES} & rooms == set()
    assert not (ROOT / "dags" / "__init__.py").exists()
