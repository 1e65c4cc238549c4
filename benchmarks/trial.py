"""One program's way through the plain table, timed: read and batch it, train on it once, predict what was held out.

A program runs in a process of its own; the last line that it prints is the trial's JSON.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.plain_table import LABELS
from training.metrics import auc

Result = TypeVar("Result")


@dataclass(frozen=True)
class Task:
    """What a program is asked: the folder of the table, rows a step, a seed."""

    folder: Path
    batch_size: int
    seed: int


class Program(Protocol):
    """A library, used as its documentation shows."""

    def read(self) -> None:
        """Read both files and keep what is needed of them."""

    def batches(self) -> Iterable[object]:
        """Give the train rows once, batch by batch, as training reads them."""

    def train(self) -> None:
        """Pass once over the train rows."""

    def predict(self) -> np.ndarray:
        """Return the probabilities of the held-out rows [N, tasks]."""


def run_trial(make: Callable[[Task], Program]) -> None:
    """Run the program that `make` returns for the task of the command line: FOLDER BATCH_SIZE SEED THREADS."""
    folder, batch_size, seed, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    task = Task(Path(folder), int(batch_size), int(seed))
    train, held_out = (pq.ParquetFile(task.folder / f"{part}.parquet") for part in ("train", "held_out"))
    rows, held = train.metadata.num_rows, held_out.metadata.num_rows
    program = make(task)

    def load() -> None:
        """Read the train rows and make all batches of an epoch, without a model: what `load` measures."""
        program.read()
        for _ in program.batches():
            pass

    _, load_s = timed(load)
    _, train_s = timed(program.train)
    found, predict_s = timed(program.predict)
    labels = held_out.read(columns=LABELS)
    line = {
        "load": rows / load_s,
        "train": rows / train_s,
        "predict": held / predict_s,
        "auc": [auc(labels[name].to_numpy(), found[:, place]) for place, name in enumerate(LABELS)],
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    print(json.dumps(line))


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """Return what `work` returns, and its seconds."""
    start = time.perf_counter()
    return work(), time.perf_counter() - start
