"""How a training that cannot go on says so: with what it did until then, and never by a traceback of an engine."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nightshelf.errors import EngineError
from training.course import Course, TrainingReport
from training.interruption import AskedToEnd


class TrainingFailed(EngineError):
    """A training ended without a model; `report` tells its rows and the epochs that were done."""

    def __init__(self, message: str, report: TrainingReport) -> None:
        super().__init__(message)
        self.report = report


@contextmanager
def memory_told() -> Iterator[None]:
    """Raise an EngineError with the remedy where the memory of an accelerator has no room for what is not a batch."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).partition("\n")[0]
        raise EngineError(
            f"the accelerator's memory has no room for the model, its optimizers or a look at the validation rows ({first}); "
            "give the recipe a smaller embedding_size, narrower layers or embedding_optimizer: rowwise_adagrad, or train on the "
            "CPU with CUDA_VISIBLE_DEVICES= before the command"
        ) from None


@contextmanager
def failures_told(course: Course) -> Iterator[None]:
    """Let an error that ends a training carry its report; one that was asked to end is not over."""
    started = time.monotonic()
    try:
        with memory_told():
            yield
    except AskedToEnd:
        raise
    except EngineError as error:
        course.report.seconds = time.monotonic() - started
        raise TrainingFailed(str(error), course.report) from error
