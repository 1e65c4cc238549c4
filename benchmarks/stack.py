"""make test-stack: tests against real servers, as pytest runs and tells them; its last line is JSON."""

import json
import sys
import time

import pytest


class Outcomes:
    """A plugin of pytest: which tests passed and which did not; an error around a test, or instead of one, is a failure."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take what came of a test's set-up, of the test, or of what follows it."""
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.passed and report.when == "call":
            self.passed.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Take a file that cannot be read as a test that failed."""
        if report.failed:
            self.failed.add(report.nodeid)


def main(arguments: list[str]) -> int:
    """Run pytest and print the line; return pytest's exit code."""
    outcomes, start = Outcomes(), time.perf_counter()
    code = pytest.main(arguments, plugins=[outcomes])
    passed, seconds = outcomes.passed - outcomes.failed, round(time.perf_counter() - start, 1)
    print(json.dumps({"passed": len(passed), "failed": len(outcomes.failed), "seconds": seconds}))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
