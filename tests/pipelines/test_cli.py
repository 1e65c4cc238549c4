"""What a person meets on the command line: help with an example, one line for a mistake, the right exit code."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("run", "stage", "simulate", "fetch", "sql", "report", "rollback", "maintain", "why", "doctor")


def nightshelf(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("nightshelf")
    environment = {"PATH": "/usr/bin:/bin", "NIGHTSHELF_HOME": str(home)}
    return subprocess.run(
        [program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_every_command_explains_itself_with_an_example(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from pipelines.cli import app

    for command in COMMANDS:
        told = CliRunner().invoke(app, [command, "--help"])
        assert told.exit_code == 0
        assert f"Example: nightshelf {command}" in " ".join(told.output.split()), command


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--as-of-date", "2126-01-01"], "is not over yet"),
        (["run", "--as-of-date", "yesterday"], "is not a date"),
        (["run", "--as-of-date", "2026-02-14", "--shop", "conf/shops/none.yaml"], "cannot be read"),
        (["run", "--as-of-date", "2026-02-14", "--from", "cleen"], "stage 'cleen' is unknown"),
        (["run", "--as-of-date", "2026-02-14", "--scenario", "moon"], "scenario 'moon' is unknown"),
        (["stage", "publish", "--as-of-date", "2026-02-14"], "no shelf drafts"),
        (["sql", "select 1"], "no night has been published"),
        (["rollback", "--to", "2026-02-13"], "has published no shelves"),
        (["why", "--user", "u1", "--scenario", "search"], "no night has been published"),
        (["run"], "--as-of-date"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], told: str) -> None:
    done = nightshelf(*arguments, home=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "warehouse/data/recommendations").exists()
