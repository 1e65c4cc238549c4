"""A folder of Parquet files: a version is copied into a folder of its own, then one rename moves the link `current` to it."""

import os
import re
import shutil
from pathlib import Path

from nightshelf.errors import EngineError
from nightshelf.exports import ParquetDrop
from pipelines.exports.version import NAME, Version

LINK = "current"


def export(target: ParquetDrop, version: Version, home: Path) -> str:
    """Replace the version that `current` names; return where it is.

    The version before stays for who is reading it. What a run that failed wrote goes at once, what a killed one left with the
    next version.

    Raises:
        EngineError: the disk is full, or the folder cannot be written.
    """
    drop = target.below(home)
    try:
        before = (drop / LINK).readlink().name if (drop / LINK).is_symlink() else version.name
        _write(version, drop / version.name)
        _move(drop, version.name)
        _sweep(drop, {before, version.name})
    except OSError as error:
        if not _is_shown(drop, version.name):  # on a full disk it takes the room that the next attempt needs
            shutil.rmtree(drop / version.name, ignore_errors=True)
        raise EngineError(
            f"{error}; mend that and run the stage again: what {drop / LINK} names is whole meanwhile"
        ) from error
    return str(drop / LINK)


def _write(version: Version, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, file in enumerate(version.files):
        _copy(Path(file), folder / f"part-{number:04d}.parquet")
    _sync(folder)


def _move(drop: Path, name: str) -> None:
    """Let the link name a version."""
    fresh = drop / f".{LINK}-{name}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(name)
    fresh.replace(drop / LINK)
    _sync(drop)


def _copy(file: Path, target: Path) -> None:
    with file.open("rb") as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())


def _sync(folder: Path) -> None:
    """Let the disk know the names in a folder before anything relies on them."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _is_shown(drop: Path, name: str) -> bool:
    return os.path.realpath(drop / LINK) == os.path.realpath(drop / name)


def _sweep(drop: Path, kept: set[str]) -> None:
    """Delete all versions but these; whatever else lies there is somebody else's."""
    for folder in [folder for folder in drop.iterdir() if folder.is_dir() and not folder.is_symlink()]:
        if re.fullmatch(NAME, folder.name) and folder.name not in kept:
            shutil.rmtree(folder)
