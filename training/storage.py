"""Where large columns lie: in memory while they fit, else in mapped files, whose pages the system reads and drops as it needs."""

import mmap
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nightshelf.errors import EngineError
from nightshelf.logs import get_logger
from training.ranks import every_rank, ranks_here

log = get_logger("train")

# Of the memory that is free, the part that columns may take: a training needs the rest.
_SHARE = 0.5
_CGROUP = Path("/sys/fs/cgroup")


class Storage:
    """Makes columns.

    Args:
        folder: where mapped files lie, which vanish with the process, however it ends; None keeps columns in memory.
        room: bytes of memory that pages of mapped files may take.
        size: bytes of all columns that it is made for.
    """

    def __init__(self, folder: Path | None = None, room: int = 0, size: int = 0) -> None:
        self.folder, self.room, self.size = folder, room, size
        self._maps: dict[int, mmap.mmap] = {}  # by the address of the column

    @classmethod
    def for_columns(cls, size: int, scratch: Path) -> "Storage":
        """Return storage for so many bytes: in memory, or in files below `scratch` if memory has no room for them.

        Of several processes, each with columns of its own, all decide alike, by the one with the least: they share batches.
        """
        room = int(min(map(int, every_rank(str(free_memory() // ranks_here())))) * _SHARE)
        if size <= room:
            return cls(size=size)
        log.info(
            "columns of %.1f GB do not fit into %.1f GB of memory: they lie in %s", size / 1e9, room / 1e9, scratch
        )
        return cls(scratch, room, size)

    @property
    def is_mapped(self) -> bool:
        """Return whether columns lie in files."""
        return self.folder is not None

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Return a column of zeros.

        Raises:
            EngineError: the disk has no room for it.
        """
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if self.folder is None or not size:
            return np.zeros(shape, dtype)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as file:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk says so now, not by a signal later
                mapped = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise EngineError(
                f"{self.folder}: no room for a column of {size / 1e9:.1f} GB ({error.strerror}); free that much disk there, "
                "or give the training more memory"
            ) from None
        column = np.frombuffer(mapped, dtype).reshape(shape)
        self._maps[column.ctypes.data] = mapped
        return column

    def ask_for(self, column: np.ndarray, first: int, end: int) -> None:
        """Have the system read rows first .. end of a column from its file; return before they are there."""
        mapped = self._maps.get(column.ctypes.data)
        if mapped is None or end <= first:
            return
        start = first * column.strides[0] // mmap.PAGESIZE * mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, start, end * column.strides[0] - start)


def free_memory() -> int:
    """Return how many bytes this process may still take: the machine's, or its container's where that has less."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = ((_CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return free if limit == "max" else max(0, min(free, int(limit) - int(used)))
    except (OSError, ValueError):
        return free
