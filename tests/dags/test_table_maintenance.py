"""The maintenance's DAG: one command, when nothing else is due, tried again while a night runs."""

import datetime as dt
import os
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

pytestmark = pytest.mark.airflow
SHOP = "conf/shops/demo.yaml"
MOMENT = dt.datetime(2026, 2, 14, 22, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def dag() -> Any:
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).dags["table_maintenance"]


def test_it_is_one_command(dag: Any, command: Path, airflow_database: None) -> None:
    assert dag.test(run_after=MOMENT, logical_date=None).state == "success"
    assert (command.parent / "calls").read_text().splitlines() == ["maintain", "--shop", SHOP]


def test_a_wrong_shop_runs_nothing(command: Path) -> None:
    from types import SimpleNamespace

    from airflow.sdk.exceptions import AirflowFailException

    from pipelines.airflow_stage import MaintainOperator

    context = {"params": {"shop": SHOP}, "dag_run": SimpleNamespace(conf={"shop": "../secrets.yaml"})}
    with pytest.raises(AirflowFailException):
        MaintainOperator(task_id="maintain").execute(context)
    assert not (command.parent / "calls").exists()


def test_it_comes_on_sunday_after_the_night_and_waits_for_a_long_one(dag: Any) -> None:
    import pendulum
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import TimeRestriction

    since = TimeRestriction(earliest=pendulum.instance(MOMENT), latest=None, catchup=True)
    following = coerce_to_core_timetable(dag.timetable).next_dagrun_info(
        last_automated_data_interval=None, restriction=since
    )
    at = following.run_after.astimezone(ZoneInfo("Asia/Shanghai"))
    assert (at.strftime("%A"), at.hour, at.minute) == ("Sunday", 6, 0)
    (task,) = dag.tasks
    assert task.retries * task.retry_delay == dt.timedelta(hours=6)
    assert "red" in task.doc_md.lower()
