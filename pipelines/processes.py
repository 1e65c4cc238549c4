"""Servers that outlive the command which started them: a pid file, a log, and a process group of its own for each."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from nightshelf.errors import EngineError


@dataclass(frozen=True)
class Server:
    """One server: its command, environment, and the address that answers with `expected` in its text once it is up."""

    name: str
    command: list[str]
    environment: dict[str, str]
    health: str
    expected: str
    state: Path

    @property
    def pid_file(self) -> Path:
        """Return the file that says which process it is."""
        return self.state / f"{self.name}.pid"

    @property
    def log_file(self) -> Path:
        """Return the file of its output."""
        return self.state / f"{self.name}.log"


def start(server: Server, folder: Path) -> None:
    """Start a server in a session of its own, so that a Ctrl-C meant for `make` does not reach it."""
    server.state.mkdir(parents=True, exist_ok=True)
    with server.log_file.open("wb") as log:
        process = subprocess.Popen(
            server.command,
            env=server.environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    server.pid_file.write_text(f"{process.pid} {psutil.Process(process.pid).create_time()}")


def wait_until_healthy(server: Server, seconds: float) -> None:
    """Return once the server answers well.

    Raises:
        EngineError: it ended, or did not answer in time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not living_pid(server.pid_file):
            raise EngineError(f"{server.name} ended as it started; see {server.log_file}")
        if server.expected in answer_of(server.health):
            return
        time.sleep(0.5)
    raise EngineError(f"{server.name} is not well at {server.health} after {seconds:.0f} s; see {server.log_file}")


def answer_of(url: str) -> str:
    """Return the text at an address, without blanks; empty if there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return "".join(answer.read().decode().split())
    except (urllib.error.URLError, OSError, UnicodeDecodeError):
        return ""


def end(pid_file: Path, patience: float) -> bool:
    """End the server of a pid file with all its children, and say whether one was there.

    Its first process is asked first (SIGTERM: it ends its own children), then what outlives the patience, then killed. If it
    is gone itself, all are asked at once.
    """
    group = living_group(pid_file)
    if group is not None:
        ask = os.kill if living_pid(pid_file) else os.killpg
        with suppress(ProcessLookupError):
            ask(group, signal.SIGTERM)
        for insistence in (signal.SIGTERM, signal.SIGKILL):
            _, left = psutil.wait_procs(group_members(group), timeout=patience)
            if not left:
                break
            with suppress(ProcessLookupError):
                os.killpg(group, insistence)
            patience = min(patience, 5)
        psutil.wait_procs(group_members(group), timeout=patience)
    pid_file.unlink(missing_ok=True)
    return group is not None


def group_members(group: int) -> list[psutil.Process]:
    """Return the living processes of a group, zombies aside."""
    found = []
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def living_pid(pid_file: Path) -> int | None:
    """Return the process that a pid file names, if it still is the one that was started (pids are used again)."""
    try:
        pid, started = pid_file.read_text().split()
        process = psutil.Process(int(pid))
        lives = str(process.create_time()) == started and process.status() != psutil.STATUS_ZOMBIE
    except (FileNotFoundError, ValueError, psutil.Error):
        return None
    return process.pid if lives else None


def living_group(pid_file: Path) -> int | None:
    """Return the group of the server that a pid file names, if any process of it lives: a killed scheduler leaves workers.

    While one does, the system gives the group's number to no new process: a group led by another one is not ours.
    """
    if (leader := living_pid(pid_file)) is not None:
        return leader
    try:
        pid, started = pid_file.read_text().split()
        group, born = int(pid), float(started)
        members = {process.pid: process.create_time() for process in group_members(group)}
    except (FileNotFoundError, ValueError, psutil.Error):
        return None
    is_another = born < psutil.boot_time() or group in members or any(since < born for since in members.values())
    return group if members and not is_another else None
