"""Hearing that the process is asked to end, without ending at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from nightshelf.errors import EngineError


class AskedToEnd(EngineError):
    """Work was ended from outside, and can be taken up again."""


@contextmanager
def asked_to_end() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM or SIGINT came. A second SIGINT acts as it would have done without this.

    A signal that came and met nobody who asked acts when the block is left. Python lets only the main thread hear
    signals; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    heard: list[int] = []
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        """Give both signals back to who heard them before."""
        for number, handler in before.items():
            signal.signal(number, handler)

    def hear(number: int, frame: FrameType | None) -> None:
        """Note the signal, and let a SIGINT that follows act as it would have done without this."""
        heard.append(number)
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in before:
        signal.signal(number, hear)
    try:
        yield lambda: bool(heard)
    finally:
        restore()
    if heard:
        signal.raise_signal(heard[0])


@contextmanager
def signals_end() -> Iterator[None]:
    """Let SIGTERM end the block by AskedToEnd wherever it is, and not the process; SIGINT already raises KeyboardInterrupt.

    Inside asked_to_end that one hears the signal. In another thread than the main one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        """Raise AskedToEnd where the block is."""
        raise AskedToEnd("the stage was interrupted; run it again")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
