"""The Makefile and the scripts behind it: short, listed, and clear about what a machine lacks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TOOLS = ("sh", "sed", "head", "awk", "dirname", "cat")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a folder of programs that stands for a machine's PATH: Python 3.11, Java 17 and the usual tools."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    # A copy of the interpreter's path by exec, because a link to it would lose its standard library.
    program(folder / "python3.11", f'exec {sys.executable} "$@"')
    program(folder / "java", "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2")
    program(folder / "df", disk(free_gb=8))
    return folder


def disk(free_gb: int) -> str:
    """Return a line of shell that answers like `df -P`, so that no test hangs on the room of this machine's disk."""
    return f"printf 'Filesystem 1024-blocks Used Available Capacity Mounted\\n/dev/a 1 1 {free_gb << 20} 1%% /\\n'"


def program(path: Path, line: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def check_machine(machine: Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/check-machine as a fresh clone in `folder` would, with nothing on the PATH but `machine`."""
    environment = {"PATH": str(machine), **variables}
    return subprocess.run(
        [ROOT / "scripts" / "check-machine"], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_a_good_machine_names_its_python(machine: Path, tmp_path: Path) -> None:
    done = check_machine(machine, tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    assert Path(done.stdout.strip()).exists()


def test_python_may_be_called_python3(machine: Path, tmp_path: Path) -> None:
    (machine / "python3.11").rename(machine / "python3")
    assert check_machine(machine, tmp_path).returncode == 0


def test_what_is_missing_is_told_in_one_line(machine: Path, tmp_path: Path) -> None:
    def told(**variables: str) -> str:
        done = check_machine(machine, tmp_path, **variables)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        return done.stderr

    program(machine / "df", disk(free_gb=5))
    assert "5 GB of disk are free" in told()
    assert "need 6: make room" in told()
    program(machine / "df", disk(free_gb=8))
    assert "JAVA_HOME" in told(JAVA_HOME="/no/such/java")
    program(machine / "java", "echo 'java version \"1.8.0_392\"' >&2")
    assert "is Java 8; Spark needs 17" in told()
    (machine / "java").unlink()
    assert "install Java 17" in told()
    program(machine / "python3.11", "exit 1")
    assert "no Python 3.11" in told()


def test_pips_settings_reach_uv(tmp_path: Path) -> None:
    """uv reads none of pip's configuration; a folder that does not exist would stop it."""
    tools = tmp_path / ".venv" / "tools" / "bin"
    tools.mkdir(parents=True)
    program(tools / "pip", "case $3 in global.index-url) echo https://pypi.example/simple;; *) exit 1;; esac")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    given = {"PIP_FIND_LINKS": f"{wheels} /no/such/folder", "PIP_EXTRA_INDEX_URL": "https://a.example file:///b"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")} | given
    done = subprocess.run(
        [ROOT / "scripts" / "pip-settings"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        f"--find-links {wheels}",
        "--index-url https://pypi.example/simple",
        "--extra-index-url https://a.example --index-strategy unsafe-best-match",
    ]


def test_each_target_is_short_and_listed() -> None:
    recipes = re.findall(r"^([a-z-]+):(.*)\n((?:\t.*\n?)*)", MAKEFILE, flags=re.MULTILINE)
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert len(recipes) >= 10
    for target, rest, recipe in recipes:
        assert recipe.count("\n") <= 3, target
        assert "## " in rest, f"say after ## what `make {target}` does"
        assert f"make {target} " in listed


def test_every_script_that_is_called_exists() -> None:
    texts = [MAKEFILE, *(path.read_text() for path in (ROOT / "scripts").iterdir())]
    for name in {name for text in texts for name in re.findall(r"\bscripts/([a-z-]+)", text)}:
        assert os.access(ROOT / "scripts" / name, os.X_OK), name


def test_scripts_parse() -> None:
    for script in (ROOT / "scripts").iterdir():
        shell = "bash" if "bash" in script.read_text().splitlines()[0] else "sh"
        subprocess.run([shell, "-n", script], check=True)


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in text
    assert text.strip().splitlines()[-2:] == ["make test", "make test-long"]
    assert "lint" in re.search(r"^test:(.*?)##", MAKEFILE, re.MULTILINE)[1].split()


def test_locks_hold_pins_alone_and_no_build() -> None:
    for name in ("jobs", "airflow"):
        lines = (ROOT / "requirements" / f"{name}.lock").read_text().splitlines()
        assert len(lines) > 100
        assert [
            line
            for line in lines
            if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[0-9][0-9a-z.!]*(post\d+)?( ; .*)?", line)
        ] == []
    airflow = {line.split("==")[0] for line in lines}
    assert not airflow & {"numpy", "pandas", "pyarrow", "torch", "pyspark"}
