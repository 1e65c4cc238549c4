import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

TESTS = """
import pytest

@pytest.fixture
def server():
    yield
    pytest.fail("did not end")

@pytest.fixture
def nobody():
    pytest.fail("did not start")

def test_good(): ...
def test_bad(): assert False
def test_late(server): ...
def test_early(nobody): ...
@pytest.mark.skip
def test_skipped(): ...
"""


def told(folder: Path) -> tuple[int, dict[str, float]]:
    command = [sys.executable, "-m", "benchmarks.stack", str(folder), "--rootdir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def test_the_last_line_counts_each_test_once_and_errors_as_failures(tmp_path: Path) -> None:
    (tmp_path / "test_all.py").write_text(TESTS)
    code, line = told(tmp_path)
    assert code == 1
    assert (line["passed"], line["failed"]) == (1, 3)
    assert line["seconds"] > 0


def test_a_file_that_cannot_be_read_fails(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import nothing_of_that_name")
    code, line = told(tmp_path)
    assert code == 2
    assert (line["passed"], line["failed"]) == (0, 1)
