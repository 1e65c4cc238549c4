"""One way to tell what happens: a line a step on a terminal or in a log, through the standard logging module."""

import logging
import sys
import time


def configure_logging() -> None:
    """Send nightshelf's log lines to standard error, in UTC."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger("nightshelf")
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


def get_logger(stage: str) -> logging.Logger:
    """Return the logger of a stage."""
    return logging.getLogger(f"nightshelf.{stage}")
