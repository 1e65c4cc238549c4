"""`make up` and `make down`: ports, secrets, settings, and servers that end with all their children."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from nightshelf.config import load_shop
from nightshelf.errors import EngineError, InputError
from pipelines import processes, services
from pipelines.processes import Server


def test_ports_come_from_the_environment() -> None:
    assert services.read_ports({}) == {"AIRFLOW_PORT": 8780, "MLFLOW_PORT": 8790}
    assert services.read_ports({"AIRFLOW_PORT": "9000", "MLFLOW_PORT": ""})["AIRFLOW_PORT"] == 9000


@pytest.mark.parametrize("text", ["80", "65536", "-1", "8e3", "٨٧٨٠", "8780;id", " ", "8790"])
def test_a_wrong_port_is_told_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match="AIRFLOW_PORT") as refusal:
        services.read_ports({"AIRFLOW_PORT": text})
    assert "\n" not in str(refusal.value)


def test_a_taken_port_is_seen() -> None:
    with socket.socket() as owner:
        owner.bind(("127.0.0.1", 0))
        owner.listen()
        port = owner.getsockname()[1]
        assert not services.is_free(port)
    assert services.is_free(port)


def test_a_secret_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "home" / "secret"
    assert services.kept(path, "first") == "first"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert services.kept(path, "second") == "first"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/airflow cannot be made"):
        services.kept(tmp_path / "file" / "airflow" / "jwt_secret", "x")
    monkeypatch.setenv("NIGHTSHELF_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(InputError, match="cannot be made"):
        services.servers(load_shop(services.ROOT / "conf/shops/demo.yaml"), {}, {})


def test_airflows_home_is_a_whole_path() -> None:
    """Airflow refuses the address of a database that is not."""
    assert services.airflow_home({}) == services.ROOT / "var/airflow"
    assert services.airflow_home({"AIRFLOW_HOME": "var/other"}) == services.ROOT / "var/other"
    assert services.airflow_home({"AIRFLOW_HOME": "/some/home"}) == Path("/some/home")


def test_airflow_listens_on_loopback_and_starts_paused(tmp_path: Path) -> None:
    settings = services.airflow_settings(tmp_path, 9000, {"AIRFLOW__CORE__PARALLELISM": "1", "PATH": "/bin"})
    assert settings["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert settings["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:9000/execution/"
    assert settings["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] == "True"
    assert settings["AIRFLOW__CORE__PARALLELISM"] == "1", "the environment overrules"
    assert "PATH" not in settings
    assert len(settings["AIRFLOW__API_AUTH__JWT_SECRET"]) >= 64


def test_no_server_listens_beyond_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHELF_HOME", str(tmp_path / "home"))
    shop = load_shop(services.ROOT / "conf/shops/demo.yaml")
    wanted = services.servers(
        shop, {"AIRFLOW_PORT": 9000, "MLFLOW_PORT": 9001}, {"AIRFLOW_HOME": str(tmp_path / "airflow")}
    )
    assert tuple(server.name for server in wanted) == services.SERVERS
    mlflow = wanted[0].command
    assert mlflow[mlflow.index("--host") + 1] == "127.0.0.1"
    assert wanted[-1].command[-1] == "--skip-serve-logs", "its log server would listen on every address"
    assert all(server.health.startswith("http://127.0.0.1:") for server in wanted)


def server(tmp_path: Path, program: str, port: int = 1) -> Server:
    """Return a small HTTP server, or whatever the program is, as a Server."""
    return Server(
        "small", [sys.executable, "-c", program], dict(os.environ), f"http://127.0.0.1:{port}/", "Directory", tmp_path
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_starts_answers_and_ends_with_its_children(tmp_path: Path) -> None:
    port = free_port()
    program = (
        f"import subprocess, sys, http.server as h; subprocess.Popen([sys.executable, '-c', "
        f"'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)'])\n"
        f"h.HTTPServer(('127.0.0.1', {port}), h.SimpleHTTPRequestHandler).serve_forever()"
    )
    small = server(tmp_path, program, port)
    processes.start(small, tmp_path)
    processes.wait_until_healthy(small, 20)
    group = processes.living_pid(small.pid_file)
    assert group is not None
    assert len(processes.group_members(group)) == 2
    assert processes.end(small.pid_file, 0.5), "the child ignores SIGTERM, so it is killed"
    assert processes.group_members(group) == []
    assert not small.pid_file.exists()
    assert not processes.end(small.pid_file, 0.5), "a second end finds nothing"


def test_what_a_killed_server_leaves_is_seen_and_ended(tmp_path: Path) -> None:
    """Airflow's scheduler, killed by SIGKILL, leaves its workers, which go on with their tasks."""
    program = (
        "import subprocess, sys, time; subprocess.Popen(['sleep', '300']); print('up', flush=True); time.sleep(300)"
    )
    small = server(tmp_path, program)
    processes.start(small, tmp_path)
    while "up" not in small.log_file.read_text():
        time.sleep(0.02)
    group = processes.living_pid(small.pid_file)
    assert group is not None
    psutil.Process(group).kill()
    psutil.Process(group).wait()
    assert processes.living_pid(small.pid_file) is None
    assert processes.living_group(small.pid_file) == group
    assert processes.end(small.pid_file, 5)
    assert processes.group_members(group) == []


def test_a_server_that_ends_at_once_is_told_with_its_log(tmp_path: Path) -> None:
    small = server(tmp_path, "raise SystemExit('no')")
    processes.start(small, tmp_path)
    with pytest.raises(EngineError, match=r"small\.log"):
        processes.wait_until_healthy(small, 20)
    assert "no" in small.log_file.read_text()


def test_a_pid_that_was_given_anew_is_not_ours(tmp_path: Path) -> None:
    """A pid file left by a crash names a pid that now is another's: it must never be signalled."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        pid_file = tmp_path / "old.pid"
        pid_file.write_text(f"{other.pid} {psutil.Process(other.pid).create_time() - 100}")
        assert processes.living_group(pid_file) is None
        assert not processes.end(pid_file, 0.1)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("text", ["", "garbage", "1", "x y", "999999999 1.0"])
def test_a_broken_pid_file_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.pid").write_text(text)
    assert processes.living_pid(tmp_path / "a.pid") is None
    assert processes.living_group(tmp_path / "a.pid") is None
