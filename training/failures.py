"""How a training that cannot go on says so: with what it did until then, and never by a traceback of an engine."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nightshelf.errors import EngineError
from training.course import TrainingReport
from training.interruption import AskedToEnd

_NO_ROOM = (
    "the accelerator's memory has no room for the model and its optimizers ({}); give the recipe a "
    "smaller embedding_size, narrower layers or embedding_optimizer: rowwise_adagrad, or train on the CPU with "
    "CUDA_VISIBLE_DEVICES= before the command"
)


class TrainingFailed(EngineError):
    """A training ended without a model; `report` tells its rows and the epochs that were done."""

    def __init__(self, message: str, report: TrainingReport) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[type, tuple[str, TrainingReport]]:
        """Say how another process makes it anew: with the report."""
        return TrainingFailed, (str(self), self.report)


def report_of(error: BaseException) -> TrainingReport | None:
    """Return what a training did until this error ended it; None where it had not read its rows."""
    report = getattr(error, "report", None)
    return report if isinstance(report, TrainingReport) else None


@contextmanager
def failures_told(report: TrainingReport) -> Iterator[None]:
    """Let whatever ends a training carry its report (`report_of`); an engine's error becomes TrainingFailed, all else stays.

    A memory that has no room for what is not a batch (those get smaller) is told with the remedy.
    """
    started = time.monotonic()
    try:
        yield
    except BaseException as error:
        report.seconds = time.monotonic() - started
        if isinstance(error, torch.OutOfMemoryError):
            raise TrainingFailed(_NO_ROOM.format(str(error).partition("\n")[0]), report) from error
        if isinstance(error, EngineError) and not isinstance(error, AskedToEnd):
            raise TrainingFailed(str(error), report) from error
        error.report = report  # type: ignore[attr-defined]
        raise
