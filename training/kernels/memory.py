"""Memory and objects that stay while a training runs."""

import ctypes
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Of glibc's malloc.h: their numbers, and what they are set to.
_SETTINGS = {
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: how many free bytes at the end of the heap are given back to the system
    -3: 32
    * 2**20,  # M_MMAP_THRESHOLD: how large an array is that comes from the system, and goes back to it; its greatest
    -2: 64 * 2**20,  # M_TOP_PAD: how many bytes more than needed the heap asks for
}

_LONG = 1.0  # seconds; to collect garbage takes some tenths


@contextmanager
def steady_memory() -> Iterator[None]:
    """Keep freed memory for what is allocated next, and let Python not look for garbage among what is there already.

    Each step of a training allocates and frees some megabytes. Pages that come anew from the system cost it a fault each, and are
    filled with zeros before; and Python would again and again go through all objects of all modules for garbage, a twelfth
    of the time. The C library keeps its setting (only glibc has it).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in _SETTINGS.items():
            mallopt(setting, value)
    started = time.monotonic()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if time.monotonic() - started > _LONG:
            gc.collect()  # Python itself would look at what was frozen very late, while gigabytes of columns wait
