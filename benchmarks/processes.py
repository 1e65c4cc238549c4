"""A command as a process of its own: how long it takes, its memory at the most, and what it tells."""

import subprocess
import sys
import time
from dataclasses import dataclass

from pipelines.memory import PeakMemory


@dataclass(frozen=True)
class Timed:
    """Seconds, peak memory in GB of the process and all that it started, standard output and standard error."""

    seconds: float
    peak_gb: float
    printed: str
    told: str


def timed(command: list[str]) -> Timed:
    """Run a command; end this program if it fails."""
    print(" ".join(command), file=sys.stderr, flush=True)
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with PeakMemory(process.pid) as memory:
        printed, told = process.communicate()
    seconds, peak = time.perf_counter() - start, memory.mb / 1024
    # What is known is told at once: the whole may take hours, and end before its time
    print(f"    {seconds:.1f} s, {peak:.2f} GB", file=sys.stderr, flush=True)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {process.returncode}:\n{told[-2000:]}")
    return Timed(seconds, peak, printed, told)


def stage(name: str, shop: str, day: str) -> list[str]:
    """Return the command of a stage."""
    return [".venv/jobs/bin/nightshelf", "stage", name, "--shop", shop, "--as-of-date", day]
