"""One Airflow task = one command: operators that run the jobs environment's command line and understand its exit codes.

No shell takes part: a command is an argument list made from values that were checked (pipelines.night_request).
"""

import ctypes
import datetime as dt
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import BaseOperator, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from nightshelf.config import Shop, load_shop
from nightshelf.errors import GateError, InputError
from pipelines.night_request import SHOP_PATTERN, NightRequest, decide_as_of_date, read_request, scheduled_shop_file

if TYPE_CHECKING:
    from airflow.sdk.definitions.mappedoperator import MappedOperator

ROOT = Path(__file__).resolve().parents[1]
GPU_POOL = "gpu"
# A second attempt meets the same rows and the same gate: these exit codes end the task at once.
NO_RETRY = {InputError.exit_code: "the input or the configuration is wrong", GateError.exit_code: "a gate said no"}
# What Airflow keeps for itself: its database, its signing keys, its own interpreter.
PRIVATE_PREFIXES = ("AIRFLOW__", "_AIRFLOW", "__AIRFLOW", "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
GRACE_SECONDS = 20
_PR_SET_PDEATHSIG = 1


def scheduled_shop() -> tuple[str, Shop]:
    """Return the shop that the schedule serves, `$NIGHTSHELF_SHOP`, as a path below the repository and as its content.

    Raises:
        InputError: the variable names no file of conf/shops, or the file is wrong.
    """
    name = scheduled_shop_file(os.environ)
    return name, load_shop(ROOT / name)


def shop_files() -> list[str]:
    """Return the shop files that the trigger form offers."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "conf" / "shops").glob("*.yaml"))


def shop_param(default: str) -> Param:
    """Return the field of the trigger form that asks for a shop file."""
    return Param(
        default,
        type="string",
        pattern=SHOP_PATTERN,
        examples=shop_files(),
        title="Shop",
        description="A shop file of conf/shops.",
    )


def triage_notes(doc: str) -> dict[str, str]:
    """Return what a DAG's docstring says of each stage (the list items "- `stage`: what. *Red:* what then") as its own notes."""
    items = re.findall(r"^- `(\w+)`: (.*?)\*Red:\*\s(.*?)(?=^- |\Z)", doc, flags=re.MULTILINE | re.DOTALL)
    return {name: " ".join(f"{what} **When red:** {remedy}".split()) for name, what, remedy in items}


def stage(name: str, notes: Mapping[str, str], hours: float = 2, **options: Any) -> "StageOperator":
    """Return the task of one stage: two retries for failures of an engine, none for bad input or a gate's no.

    `hours` limits one attempt; `options` are any other of Airflow's (pool, outlets).
    """
    return StageOperator(**_unattended(name, notes, hours), **options)


def shelves(notes: Mapping[str, str], tasks: int, hours: float) -> "list[MappedOperator]":
    """Return the mapped task that serves a night's users in so many shares side by side; none, if `recommend` does so alone."""
    if tasks == 1:
        return []
    shares = [f"{share}/{tasks}" for share in range(1, tasks + 1)]
    return [ShelvesOperator.partial(**_unattended("shelves", notes, hours)).expand(share=shares)]


def _unattended(name: str, notes: Mapping[str, str], hours: float) -> dict[str, Any]:
    """Return the options of a task that can be left alone at night."""
    return {
        "task_id": name,
        "doc_md": notes[name],
        "owner": "nightshelf",
        "retries": 2,
        "retry_delay": dt.timedelta(minutes=2),
        "execution_timeout": dt.timedelta(hours=hours),
    }


class CommandOperator(BaseOperator):
    """Run one command of the jobs environment and understand its exit code."""

    def command(self, context: Any) -> list[str]:
        """Return the argument list.

        Raises:
            InputError: the request is wrong, or there is no such program.
        """
        raise NotImplementedError

    @cached_property
    def hook(self) -> SubprocessHook:
        """Return the hook that runs the command in a session of its own."""
        return SubprocessHook()

    def execute(self, context: Any) -> None:
        """Run the command.

        Raises:
            AirflowFailException: exit code 2 or 3, or a request that is wrong: not worth a retry.
            AirflowException: any other failure: retried.
        """
        try:
            command = self.command(context)
        except InputError as error:
            raise AirflowFailException(str(error)) from None
        self.log.info("%s", shlex.join(command))
        with ends_with_parent():
            done = self.hook.run_command(command, env=stage_environment(os.environ), cwd=str(ROOT))
        code, last_line = done.exit_code, done.output.strip()
        if code in NO_RETRY:
            raise AirflowFailException(f"{self.task_id}: exit code {code}, {NO_RETRY[code]}: {last_line}")
        if code != 0:
            raise AirflowException(f"{self.task_id}: exit code {code}; the lines above say why, the last: {last_line}")

    def on_kill(self) -> None:
        """End the command with all its children: ask, wait, insist."""
        process = self.hook.sub_process
        if process is None or process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            os.killpg(process.pid, signal.SIGKILL)


class StageOperator(CommandOperator):
    """Run `nightshelf stage NAME …` for the night that the run's params, partition or moment say."""

    def command(self, context: Any) -> list[str]:
        """Return the argument list of the stage that the task is named after."""
        return stage_command(self.task_id, *read_night(context))


class ShelvesOperator(CommandOperator):
    """Run `nightshelf shelves SHARE …`, one of the mapped tasks that serve the users of a night side by side."""

    def __init__(self, *, share: str, **options: Any) -> None:
        super().__init__(**options)
        self.share = share

    def command(self, context: Any) -> list[str]:
        """Return the argument list of the share."""
        request, day = read_night(context)
        words = scenario_words(request)
        return jobs_command("shelves", self.share, "--shop", request.shop, "--as-of-date", str(day), *words)


class MaintainOperator(CommandOperator):
    """Run `nightshelf maintain` for the shop that the run's params name."""

    def command(self, context: Any) -> list[str]:
        """Return the argument list of the maintenance."""
        run = context["dag_run"]
        request = read_request({**context["params"], **(run.conf or {})})
        return jobs_command("maintain", "--shop", request.shop)


def read_night(context: Mapping[str, Any]) -> tuple[NightRequest, dt.date]:
    """Return what was asked for and its as_of_date, from a task's context.

    Airflow accepts conf keys that the form does not know, so the conf is checked again. The moment is the logical date
    where there is one (`dags test` and the REST form set it to when they were called), else run_after.

    Raises:
        InputError: a key or value is wrong, or the shop has no such scenario.
    """
    run = context["dag_run"]
    request = read_request({**context["params"], **(run.conf or {})})
    shop = load_shop(ROOT / request.shop)
    unknown = [name for name in request.scenarios if name not in shop.scenarios]
    if unknown:
        raise InputError(f"{request.shop}: {unknown[0]!r} is no scenario; known: {', '.join(shop.scenarios)}")
    moment = run.logical_date or run.run_after
    return request, decide_as_of_date(request.as_of_date, run.partition_key, moment, shop.timezone)


def stage_command(name: str, request: NightRequest, as_of_date: dt.date) -> list[str]:
    """Return the argument list of a stage.

    Raises:
        InputError: there is no such program.
    """
    retrain = "--retrain" if request.retrain else "--no-retrain"
    day, scenarios = str(as_of_date), scenario_words(request)
    return jobs_command("stage", name, "--shop", request.shop, "--as-of-date", day, retrain, *scenarios)


def scenario_words(request: NightRequest) -> list[str]:
    """Return the arguments that name the scenarios of a request."""
    return [word for scenario in request.scenarios for word in ("--scenario", scenario)]


def jobs_command(*words: str) -> list[str]:
    """Return the argument list of a command; `$NIGHTSHELF_COMMAND` names another program than the jobs environment's.

    Raises:
        InputError: there is no such program.
    """
    given = os.environ.get("NIGHTSHELF_COMMAND") or str(ROOT / ".venv" / "jobs" / "bin" / "nightshelf")
    program = shutil.which(given)
    if program is None:
        raise InputError(
            f"NIGHTSHELF_COMMAND {given!r} is no program; run `make env`, or set it to the jobs environment's nightshelf"
        )
    # Where the operating system can, it ends the stage when this process dies, however it dies.
    guard = [setpriv, "--pdeathsig", "TERM", "--"] if (setpriv := shutil.which("setpriv")) else []
    return [*guard, program, *words]


def stage_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that a stage sees: the task's, without Airflow's own secrets and interpreter."""
    return {name: value for name, value in environment.items() if not name.startswith(PRIVATE_PREFIXES)}


@contextmanager
def ends_with_parent() -> Iterator[None]:
    """Have this process asked to end (SIGTERM, hence on_kill) if its parent dies: a killed supervisor leaves no orphan.

    Without it the task would run on beside the copy that the scheduler starts after its heartbeat timeout. Linux only.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "prctl"):
        yield
        return
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_PDEATHSIG, 0)
