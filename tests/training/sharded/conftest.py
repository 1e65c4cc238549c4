"""Processes that torchrun starts, each running one file of this folder."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def torchrun():
    """Return torchrun(program, processes, *arguments, fails=False): runs it, and returns what it told; it must (not) succeed."""

    def run(program: str, processes: int, *arguments: object, fails: bool = False) -> str:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        path = Path(__file__).with_name(program)
        done = subprocess.run([*command, path, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr

    return run
