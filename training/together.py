"""Processes of one machine that train one ranker together, started and watched by the one that asks for it.

Where processes are on several machines, torchrun starts them (docs/models.md).
"""

import os
import pickle
import socket
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch.multiprocessing.spawn import ProcessException, start_processes

from nightshelf.errors import EngineError, InputError, NightshelfError
from nightshelf.logs import configure_logging, get_logger
from training.course import TrainingReport
from training.devices import accelerators
from training.interruption import AskedToEnd, asked_to_end
from training.ranks import joined_ranks, rank, ranks, ranks_here
from training.train_ranker import train_ranker

_LOOK_SECONDS = 0.5


def train_together(processes: int, training: Mapping[str, Any]) -> TrainingReport:
    """Return the report of train_ranker(**training) by so many processes, each with an accelerator of its own, or all on the CPU.

    Where torchrun has started several already, these are the ones.

    Raises:
        EngineError: one of them ended, and with it all; or as train_ranker says.
        AskedToEnd: this process was, and so were they.
        InputError: as train_ranker says, or there are fewer accelerators than processes.
    """
    here = accelerators()
    if processes == 1 or ranks() > 1:
        if here > ranks_here():
            told = "%d accelerators are here, and %d trains; `training: {processes: %d}` in the shop file uses all"
            get_logger("train").info(told, here, ranks_here(), here)
        return train_ranker(**training)
    if 0 < here < processes:
        raise InputError(
            f"training.processes = {processes}: {here} accelerators are here, and each process needs one of its own; write "
            f"{here}, or hide them to train on the CPU (CUDA_VISIBLE_DEVICES=)"
        )
    with TemporaryDirectory() as folder, asked_to_end() as asked, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free.getsockname()[1]),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
        }
        free.close()
        outcome = Path(folder) / "outcome"
        started = start_processes(_train, (shared, outcome, training), processes, join=False)
        assert started is not None
        is_told = False
        try:
            while not started.join(_LOOK_SECONDS):
                if asked() and not is_told:  # they end behind their step, with a checkpoint
                    is_told = True
                    for process in started.processes:
                        process.terminate()
        except ProcessException as error:
            if is_told:  # some end at once: they had no step behind which to write a checkpoint
                raise AskedToEnd("training was interrupted; run the stage again") from error
            last = str(error).strip().splitlines()[-1]
            raise EngineError(f"process {error.error_index + 1} of {processes} that train together: {last}") from error
        report = pickle.loads(outcome.read_bytes())
        if isinstance(report, NightshelfError):
            raise report
    assert isinstance(report, TrainingReport)
    return report


def _train(place: int, shared: Mapping[str, str], outcome: Path, training: Mapping[str, Any]) -> None:
    """Train as one of the processes; the first one tells how it ended."""
    os.environ.update(shared, RANK=str(place), LOCAL_RANK=str(place))
    configure_logging()
    report: TrainingReport | NightshelfError
    with joined_ranks():
        try:
            report = train_ranker(**training)
        except NightshelfError as error:
            report = error
        if rank() == 0:
            outcome.write_bytes(pickle.dumps(report))
