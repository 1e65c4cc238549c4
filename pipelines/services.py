"""`make up` and `make down`: Airflow and MLflow of this checkout, on loopback, for one person on one machine.

Many people and a night that must not stop: docker/compose.yaml and docs/runbook.md.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from nightshelf.config import Shop, load_shop
from nightshelf.errors import EngineError, InputError, NightshelfError
from nightshelf.paths import artifact_dir, tracking_uri
from pipelines.night_request import scheduled_shop_file
from pipelines.processes import Server, end, living_group, start, wait_until_healthy

ROOT = Path(__file__).resolve().parents[1]
STATE = ROOT / "var" / "services"
LOOPBACK = "127.0.0.1"
DEFAULT_PORTS = {"AIRFLOW_PORT": 8780, "MLFLOW_PORT": 8790}
# In the order in which they need each other; `down` ends them from the last. No task defers, so no triggerer is needed.
SERVERS = ("mlflow", "api-server", "dag-processor", "scheduler")
START_SECONDS = 180
# A running stage has this long to end by itself.
STOP_SECONDS = 20


def read_ports(environment: Mapping[str, str]) -> dict[str, int]:
    """Return the ports by the variable that moves each, 8780 and 8790 unless the environment says otherwise.

    Raises:
        InputError: a variable holds no port, or both hold one.
    """
    ports = {}
    for name, default in DEFAULT_PORTS.items():
        text = environment.get(name) or str(default)
        if not (text.isascii() and text.isdecimal() and 1024 <= int(text) <= 65_535):
            raise InputError(f"{name}={text!r} is no port; set a number from 1024 to 65535, e.g. {name}={default}")
        ports[name] = int(text)
    if len(set(ports.values())) < len(ports):
        raise InputError(f"MLFLOW_PORT and AIRFLOW_PORT are both {ports['MLFLOW_PORT']}; set one to another")
    return ports


def is_free(port: int) -> bool:
    """Say whether nobody listens on this port of the loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def airflow_home(environment: Mapping[str, str]) -> Path:
    """Return where this checkout's Airflow keeps its database, logs and passwords."""
    return ROOT / (environment.get("AIRFLOW_HOME") or "var/airflow")


def airflow_settings(home: Path, port: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return Airflow's settings for one machine: loopback, SQLite, two tasks at once, one API worker, paused until asked.

    The environment may overrule each of them, as with Airflow itself.
    """
    here = f"http://{LOOPBACK}:{port}"
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{here}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API__BASE_URL": here,
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__ENABLE_SWAGGER_UI": "False",
        "AIRFLOW__API_AUTH__JWT_SECRET": kept(home / "jwt_secret", secrets.token_urlsafe(48)),
    }
    return settings | {name: value for name, value in environment.items() if name in settings}


def kept(path: Path, fresh: str) -> str:
    """Return the text of a file that only its owner can read, from its first moment on; `fresh` is its first text.

    Raises:
        InputError: its folder cannot be made, or not be written.
    """
    make_folder(path.parent)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(fresh)
    except FileExistsError:
        path.chmod(0o600)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); mend its permissions") from None
    return path.read_text()


def make_folder(path: Path) -> None:
    """Make a folder, and those above it.

    Raises:
        InputError: it cannot be.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be made ({error.strerror}); mend its permissions, or name another folder"
        ) from None


def servers(shop: Shop, ports: Mapping[str, int], environment: Mapping[str, str]) -> list[Server]:
    """Return the servers of this checkout; MLflow's shows the runs of `shop`.

    The scheduler serves no logs over a port of its own, which would be open to the network: the UI reads the files.

    Raises:
        InputError: a folder cannot be made.
    """
    artifacts = artifact_dir(shop)
    make_folder(artifacts)
    store = ["--backend-store-uri", tracking_uri(shop), "--artifacts-destination", str(artifacts)]
    address = ["--host", LOOPBACK, "--port", str(ports["MLFLOW_PORT"]), "--workers", "1"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    airflow = {**environment, **airflow_settings(airflow_home(environment), ports["AIRFLOW_PORT"], environment)}
    at, command = airflow["AIRFLOW__API__BASE_URL"], [str(ROOT / "scripts" / "airflow-env"), "airflow"]
    health = f"{at}/api/v2/monitor/health"
    mlflow = [str(ROOT / ".venv/jobs/bin/mlflow"), "server", *store, *address]
    return [
        Server(
            "mlflow", mlflow, {**environment, **quiet}, f"http://{LOOPBACK}:{ports['MLFLOW_PORT']}/health", "OK", STATE
        ),
        Server("api-server", [*command, "api-server"], airflow, health, '"metadatabase":{"status":"healthy"}', STATE),
        Server(
            "dag-processor", [*command, "dag-processor"], airflow, health, '"dag_processor":{"status":"healthy"', STATE
        ),
        Server(
            "scheduler",
            [*command, "scheduler", "--skip-serve-logs"],
            airflow,
            health,
            '"scheduler":{"status":"healthy"',
            STATE,
        ),
    ]


def up() -> None:
    """Start the servers, wait until they answer, and print where to look and how to log in.

    Raises:
        InputError: a port is taken, they run already, a folder cannot be made, or the file of `$NIGHTSHELF_SHOP` is wrong.
        EngineError: a server ended, or did not answer in time.
    """
    ports = read_ports(os.environ)
    if running := [name for name in SERVERS if living_group(STATE / f"{name}.pid")]:
        raise InputError(f"{', '.join(running)} of this checkout runs already; `make down` ends it")
    for variable, port in ports.items():
        if not is_free(port):
            raise InputError(f"port {port} on {LOOPBACK} is taken; end its owner, or set {variable} to another")
    shop = load_shop(ROOT / scheduled_shop_file(os.environ))
    wanted = servers(shop, ports, os.environ)
    passwords = Path(wanted[-1].environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    kept(passwords, json.dumps({"admin": secrets.token_urlsafe(12)}))
    prepare_databases(shop, wanted)
    try:
        # A task asks the API server for its work: the scheduler comes when that answers.
        for together in (wanted[:-1], wanted[-1:]):
            for server in together:
                start(server, ROOT)
            for server in together:
                wait_until_healthy(server, START_SECONDS)
    except BaseException:
        down()
        raise
    print(
        f"Airflow   {wanted[-1].environment['AIRFLOW__API__BASE_URL']}   user admin, password in {passwords}\n"
        f"MLflow    http://{LOOPBACK}:{ports['MLFLOW_PORT']}\n"
        f"Logs      {STATE}/*.log\n"
        "Nights    Dags > nightly_recommendations > Trigger; a paused DAG lets what is triggered wait.\n"
        "          Unpaused, it makes last night at once, and from then on each night by itself."
    )


def prepare_databases(shop: Shop, wanted: list[Server]) -> None:
    """Bring both databases up to date before several processes open them.

    Raises:
        EngineError: one of them cannot be.
    """
    mlflow, scheduler = wanted[0], wanted[-1]
    for server, command in (
        (mlflow, [mlflow.command[0], "db", "upgrade", tracking_uri(shop)]),
        (scheduler, [scheduler.command[0], "true"]),
    ):
        done = subprocess.run(command, env=server.environment, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            last = " ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-1:])
            raise EngineError(f"the database of {server.name} cannot be brought up to date: {last}")


def down() -> None:
    """End the servers, those that need others first; nothing happens if none runs."""
    for name in reversed(SERVERS):
        if end(STATE / f"{name}.pid", STOP_SECONDS):
            print(f"{name} ended")


def main(arguments: list[str]) -> int:
    """Run `up` or `down`; return the exit code."""
    actions = {"up": up, "down": down}
    try:
        actions[arguments[0]]()
    except NightshelfError as error:
        print(f"nightshelf: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
