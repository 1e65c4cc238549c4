"""The airflow environment's tests: a fresh AIRFLOW_HOME and database; none of it is for the jobs environment."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

if find_spec("airflow") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    # Airflow reads its configuration once, when it is first imported: so before any test module is.
    _home = tempfile.TemporaryDirectory(prefix="nightshelf-airflow-")
    os.environ |= {
        "AIRFLOW_HOME": _home.name,
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    }
    os.environ.pop("NIGHTSHELF_SHOP", None)  # who exports it for `make up` tests the demo shop all the same


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Make Airflow's tables in the session's SQLite file."""
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Name a small shell script as the command that stages call.

    It writes its arguments, one a line, to `calls` beside it, its environment to `environment`, runs the lines of `then`
    if there are any, and ends with the code in `code`.
    """
    script = tmp_path / "nightshelf"
    here = str(tmp_path)
    script.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> {here}/calls\nenv > {here}/environment\n"
        f"if [ -f {here}/then ]; then . {here}/then; fi\nexit $(cat {here}/code 2>/dev/null || echo 0)\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("NIGHTSHELF_COMMAND", str(script))
    yield script
