"""Checkpoints: the course of a training in a folder, from which a training that was killed goes on, bit by bit the same.

checkpoint.json names the file of tensors in use with its hash, and is replaced last: whoever dies while writing leaves the
checkpoint before. It also says what the training hangs on. The tensors are read without unpickling code. Where each process
has a part of the embedding table, each writes a file of its own, and as many processes must go on.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nightshelf.errors import EngineError
from nightshelf.logs import get_logger
from training.artifact import file_hash
from training.course import Course
from training.data import Examples
from training.interruption import AskedToEnd, asked_to_end
from training.ranking_model import RankingModel
from training.ranks import any_rank, every_rank, rank, wait_for_all
from training.sharded_table import ShardedTable

log = get_logger("train")

MANIFEST = "checkpoint.json"
SECONDS_BETWEEN = 120.0


@contextmanager
def resumable(
    course: Course, examples: Examples, folder: Path | None, seconds_between: float
) -> Iterator[Callable[[], None]]:
    """Take a course up where its checkpoint left it, and yield what is to be called before each batch.

    That writes a checkpoint from time to time, and when a process is asked to end. Without a folder it does nothing.

    Where the disk has no room for a checkpoint, training goes on without, and the log says so.

    Raises:
        AskedToEnd: a process was; the checkpoint is written, or why it is not is told.
    """
    if folder is None:
        yield lambda: None
        return
    origin, has_part = training_origin(course.model, examples), _has_part(course.model)
    state = read_checkpoint(folder, origin, rank() if has_part else 0)
    is_left, is_there = any_rank(state is None, state is not None)
    if is_left and is_there:
        log.warning("the checkpoint in %s lacks a process's part, training starts afresh", folder)
    elif state is not None:
        course.load_state_dict(state)
        log.info("the checkpoint in %s is taken up at epoch %d, batch %d", folder, course.epoch, course.batch + 1)
    written = time.monotonic()
    with asked_to_end() as asked:

        def pause() -> None:
            """Write a checkpoint if it is time, or if a process was asked to end; all ranks decide alike.

            Raises:
                AskedToEnd: one was; the checkpoint is written.
            """
            nonlocal written
            is_asked, is_due = any_rank(asked(), time.monotonic() - written > seconds_between)
            if not is_asked and not is_due:
                return
            failed = ""
            if rank() == 0 or has_part:
                try:
                    write_checkpoint(folder, course, origin)
                except EngineError as error:
                    failed = str(error)
            wait_for_all()  # whoever ended sooner would have torchrun end the one that writes
            written = time.monotonic()
            if is_asked and failed:
                raise AskedToEnd(f"training was interrupted, and {failed}, then run the stage again")
            if is_asked:
                raise AskedToEnd(
                    f"training was interrupted; run the stage again and it goes on at epoch {course.epoch}, "
                    f"batch {course.batch + 1}"
                )
            if failed:
                log.warning("training goes on, but %s", failed)

        yield pause


def training_origin(model: RankingModel, examples: Examples) -> dict[str, str]:
    """Return what a training hangs on, hashed part by part; the model holds its first weights, a parent's among them."""
    e = examples
    rows = [e.user, e.day, e.request, e.history, e.item, e.scenario, e.position, e.labels, e.masks, e.weight]
    rows += [] if e.inverse_propensity is None else [e.inverse_propensity]
    columns = [e.user_fields, e.user_dense, e.target_dense, e.catalogue]
    columns += [column for column in vars(e.histories).values() if isinstance(column, np.ndarray)]
    code = [path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py"))]
    weights = _hash(*(tensor.cpu().contiguous().numpy() for tensor in model.state_dict().values()))
    parts = every_rank(weights) if _has_part(model) else [weights]
    return {
        "recipe": _hash(model.spec.recipe.model_dump_json().encode()),
        "model": _hash(model.spec.model_dump_json(exclude={"recipe"}).encode()),
        "first weights": _hash(*(part.encode() for part in parts)),
        "examples": _hash(*map(np.ascontiguousarray, [*rows, e.is_train, e.is_validation])),
        "features": _hash(*map(np.ascontiguousarray, columns)),
        "code": _hash(torch.__version__.encode(), *code),
        "processes": str(len(parts)),  # those that have a part each
    }


def write_checkpoint(folder: Path, course: Course, origin: dict[str, str]) -> None:
    """Write where a course is; a crash at any moment leaves the checkpoint before or this one.

    If each rank has a part of the table, all write at once.

    Raises:
        EngineError: a rank could not write; the checkpoint before is still there.
    """
    started, turn, has_part = time.monotonic(), _free_turn(folder), _has_part(course.model)
    path, told = _part(folder, turn, rank() if has_part else 0), ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            torch.save(course.state_dict(), file)
            _flush(file)
        own = file_hash(path)
    except (OSError, RuntimeError) as error:
        path.unlink(missing_ok=True)  # half a file would take the room that is missing
        own, told = "", _cause(error)
    hashes = every_rank(own) if has_part else [own]
    manifest = {"file": turn, "sha256": hashes, "epoch": course.epoch, "batch": course.batch}
    try:
        if all(hashes) and not rank():
            with (folder / f"{MANIFEST}.new").open("w", encoding="utf-8") as file:
                json.dump({**manifest, "origin": origin}, file, indent=1)
                _flush(file)
            (folder / f"{MANIFEST}.new").replace(folder / MANIFEST)
    except OSError as error:
        told = str(error)
    if told or not all(hashes):
        raise EngineError(
            f"no checkpoint can be written into {folder} ({told or 'another process could not'}), the one before counts, if "
            "there is one; make room there"
        )
    log.info(
        "checkpoint at epoch %d, batch %d: %.1f MB in %.3f s",
        course.epoch,
        course.batch + 1,
        path.stat().st_size / 1e6,
        time.monotonic() - started,
    )


def _free_turn(folder: Path) -> str:
    """Return which of the two files the checkpoint in use does not need."""
    try:
        used = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["file"]
    except (OSError, ValueError, KeyError, TypeError):
        used = ""
    return "second.pt" if used == "first.pt" else "first.pt"


def _cause(error: BaseException) -> str:
    """Return what the system said; torch tells of a disk that is full as of a place in a file."""
    while not isinstance(error, OSError) and error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split())[:200]


def read_checkpoint(folder: Path, origin: dict[str, str], part: int) -> dict[str, Any] | None:
    """Return the state of the course that a folder's part holds; None, and a line in the log, if it is of no use here."""
    if not (folder / MANIFEST).exists():
        return None
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        path, theirs = _part(folder, manifest["file"], part), manifest["origin"]
        other = [name for name in origin if theirs.get(name) != origin[name]]
        if other:
            log.warning(
                "the checkpoint in %s is left aside, training starts afresh: other %s", folder, ", ".join(other)
            )
            return None
        if file_hash(path) != manifest["sha256"][part]:
            raise ValueError(f"{path.name} differs from its hash")
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        log.warning("the checkpoint in %s is broken, training starts afresh: %s", folder, error)
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _has_part(model: RankingModel) -> bool:
    """Say whether each rank has a part of the model alone."""
    return isinstance(model.fields.table, ShardedTable)


def _part(folder: Path, turn: str, part: int) -> Path:
    """Return the file of a part: first.pt, then 1.first.pt, …"""
    return folder / (f"{part}.{turn}" if part else turn)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _hash(*parts: Any) -> str:
    """Hash anything with a buffer."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
