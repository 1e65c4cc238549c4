"""A folder of Parquet files: a version is copied into a folder of its own, then one rename moves the link `current` to it."""

import os
import re
import shutil
from pathlib import Path

from nightshelf.errors import EngineError
from nightshelf.exports import ParquetDrop
from pipelines.exports.version import NAME, Version

LINK = "current"
# The version before stays for who is reading it.
_KEPT = 2


def export(target: ParquetDrop, version: Version, home: Path) -> str:
    """Replace the version that `current` names; return where it is.

    A folder that a killed run left has no link to it, and goes with the next version but one.

    Raises:
        EngineError: the disk is full, or the folder cannot be written.
    """
    drop = target.below(home)
    try:
        _write(version, drop / version.name)
        _move(drop, version.name)
        _sweep(drop, drop / version.name)
    except OSError as error:
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


def _sweep(drop: Path, newest: Path) -> None:
    """Delete the versions but the newest and the one before; whatever else lies there is somebody else's."""
    folders = [folder for folder in drop.iterdir() if folder.is_dir() and not folder.is_symlink()]
    others = [folder for folder in folders if re.fullmatch(NAME, folder.name) and folder != newest]
    others.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in others[_KEPT - 1 :]:
        shutil.rmtree(folder)
