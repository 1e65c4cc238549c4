"""The operator: exit codes, the environment, injection, kills; the command is a small shell script."""

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.airflow

SHOP = "conf/shops/demo.yaml"
MOMENT = dt.datetime(2026, 2, 14, 18, tzinfo=dt.UTC)  # 02:00 on the 15th in the demo shop


def context(
    conf: dict[str, Any] | None = None, partition_key: str | None = None, logical_date: dt.datetime | None = None
) -> dict[str, Any]:
    """Return what Airflow hands to a task, as far as the operator reads it."""
    params = {"as_of_date": None, "shop": SHOP, "retrain": True, "scenarios": []}
    run = SimpleNamespace(conf=conf, partition_key=partition_key, logical_date=logical_date, run_after=MOMENT)
    return {"params": {**params, **(conf or {})}, "dag_run": run}


def operator(name: str = "clean") -> Any:
    from pipelines.airflow_stage import StageOperator

    return StageOperator(task_id=name)


def arguments(command: Path) -> list[str]:
    return (command.parent / "calls").read_text().splitlines()


def test_a_stage_is_one_command(command: Path) -> None:
    operator().execute(context())
    assert arguments(command) == ["stage", "clean", "--shop", SHOP, "--as-of-date", "2026-02-14", "--retrain"]


def test_the_conf_reaches_the_command(command: Path) -> None:
    conf = {"as_of_date": "2026-02-10", "retrain": False, "scenarios": ["search", "cart"]}
    operator("train").execute(context(conf))
    expected = [
        "stage",
        "train",
        "--shop",
        SHOP,
        "--as-of-date",
        "2026-02-10",
        "--no-retrain",
        "--scenario",
        "search",
        "--scenario",
        "cart",
    ]
    assert arguments(command) == expected


def test_a_share_of_the_shelves_is_one_command(command: Path) -> None:
    from pipelines.airflow_stage import ShelvesOperator

    ShelvesOperator(task_id="shelves", share="2/3").execute(context({"scenarios": ["search"]}))
    told = ["shelves", "2/3", "--shop", SHOP, "--as-of-date", "2026-02-14", "--scenario", "search"]
    assert arguments(command) == told


@pytest.mark.parametrize(
    ("run", "day"),
    [
        ({"partition_key": "2026-02-12"}, "2026-02-12"),  # scheduled, or a backfill of a partition
        ({}, "2026-02-14"),  # triggered by hand with an empty form
        ({"logical_date": MOMENT - dt.timedelta(hours=3)}, "2026-02-13"),  # `dags test`, 23:00 in the shop
    ],
)
def test_the_date_of_each_kind_of_run(command: Path, run: dict[str, Any], day: str) -> None:
    operator().execute(context(**run))
    assert arguments(command)[5] == day


@pytest.mark.parametrize(("code", "retried"), [(2, False), (3, False), (1, True), (4, True), (139, True)])
def test_only_an_engine_failure_is_retried(command: Path, code: int, retried: bool) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    (command.parent / "code").write_text(str(code))
    (command.parent / "then").write_text("echo reading; echo 'nightshelf: no file at raw/search' >&2")
    with pytest.raises(AirflowException) as failure:
        operator().execute(context())
    assert isinstance(failure.value, AirflowFailException) is not retried
    assert f"exit code {code}" in str(failure.value)
    assert str(failure.value).endswith(": nightshelf: no file at raw/search"), (
        "what a page or an alert shows of the log"
    )


@pytest.mark.parametrize(
    "conf",
    [
        {"shop": "conf/shops/absent.yaml"},
        {"shop": "../secrets.yaml"},
        {"scenarios": ["no_such_shelf"]},
        {"scenarios": ["; touch pwned"]},
        {"as_of_date": "$(touch pwned)"},
        {"as_of_date": "{{ 7 * 7 }}"},
        {"retrain": "`touch pwned`"},
        {"unknown": "1"},
        {"shop": "conf/shops/demo.yaml\0"},
    ],
)
def test_a_wrong_conf_fails_at_once_and_runs_nothing(command: Path, conf: dict[str, Any]) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException) as failure:
        operator().execute(context(conf))
    assert "\n" not in str(failure.value)
    assert not (command.parent / "calls").exists()


def test_an_absent_command_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    monkeypatch.setenv("NIGHTSHELF_COMMAND", "/no/such/nightshelf")
    with pytest.raises(AirflowFailException, match="make env"):
        operator().execute(context())


def test_airflows_secrets_stay_with_airflow(command: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "canary-secret")
    monkeypatch.setenv("NIGHTSHELF_HOME", "/some/home")
    operator().execute(context())
    seen = (command.parent / "environment").read_text()
    assert "canary-secret" not in seen
    assert "NIGHTSHELF_HOME=/some/home" in seen


def test_a_timeout_ends_the_stage_with_its_children(command: Path) -> None:
    from airflow.sdk.exceptions import AirflowTaskTimeout
    from airflow.sdk.execution_time.timeout import timeout

    (command.parent / "then").write_text(f"sleep 300 & echo $! > {command.parent}/child; wait")
    task = operator()
    with pytest.raises(AirflowTaskTimeout), timeout(1):
        task.execute(context())
    task.on_kill()
    assert is_gone(int((command.parent / "child").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("victim", ["task", "supervisor"])
def test_a_killed_process_leaves_no_orphan(command: Path, victim: str) -> None:
    """supervisor → task → stage, as Airflow starts them; SIGKILL to either of the first two must end the stage."""
    (command.parent / "then").write_text(f"echo $$ > {command.parent}/stage_pid; exec sleep 300")
    # Like Airflow's task runner, the task turns SIGTERM into on_kill.
    program = (
        "import os, signal, time; pid = os.fork()\n"
        "if pid: open(os.environ['PIDS'], 'w').write(f'{os.getpid()} {pid}'); os.waitpid(pid, 0); raise SystemExit\n"
        "import test_airflow_stage as here; task = here.operator()\n"
        "signal.signal(signal.SIGTERM, lambda *_: (task.on_kill(), os._exit(1)))\n"
        "task.execute(here.context())"
    )
    pids = command.parent / "pids"
    environment = os.environ | {"PIDS": str(pids), "PYTHONPATH": str(Path(__file__).parent)}
    started = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL)
    stage_pid = int(wait_for_text(command.parent / "stage_pid"))
    supervisor_pid, task_pid = map(int, pids.read_text().split())
    os.kill(supervisor_pid if victim == "supervisor" else task_pid, signal.SIGKILL)
    started.wait(10)
    assert is_gone(stage_pid)
    assert is_gone(task_pid)


def test_one_night_through_the_real_dag(command: Path, airflow_database: None) -> None:
    """Every task in the DAG's order, dated by the moment; then a night whose input is wrong: it stops there, untried again."""
    from airflow.dag_processing.dagbag import DagBag

    dag = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"]).dags["nightly_recommendations"]
    run = dag.test(run_after=MOMENT, logical_date=None, run_conf={"retrain": False})
    assert run.state == "success"
    calls = arguments(command)
    stages = [task.task_id for task in dag.topological_sort()]
    assert [calls[at + 1] for at, word in enumerate(calls) if word == "stage"] == stages
    assert {calls[at + 1] for at, word in enumerate(calls) if word == "--as-of-date"} == {"2026-02-14"}
    assert calls.count("--no-retrain") == len(stages)

    (command.parent / "code").write_text("2")
    run = dag.test(run_after=MOMENT + dt.timedelta(seconds=1), logical_date=None)
    assert run.state == "failed"
    tries = {ti.task_id: (ti.state, ti.try_number) for ti in run.get_task_instances()}
    assert tries["clean"] == ("failed", 1)
    assert {state for name, (state, _) in tries.items() if name != "clean"} == {"upstream_failed"}


def wait_for_text(path: Path, seconds: float = 30) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if path.exists() and (text := path.read_text().strip()):
            return text
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear in {seconds} s")


def is_gone(pid: int, seconds: float = 10) -> bool:
    """Say whether the process ends in time; a zombie that nobody reaped counts as ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False
