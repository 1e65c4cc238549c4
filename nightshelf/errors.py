"""Every error a user can meet, and the exit code that goes with it.

    NightshelfError
    ├── InputError      2   the input or the configuration is wrong: a retry cannot help
    ├── GateError       3   a gate said no: which check, observed against expected
    └── EngineError     4   an engine or a service failed: a retry may help

A message is one line: the value, the place, the remedy.
"""

import re


def without_login(text: str, instead: str = "***@") -> str:
    """Return a text, such as an address or what a client says of it, with something else for the logins of its addresses."""
    return re.sub(r"//[^/\s]*@", f"//{instead}", text)


class NightshelfError(Exception):
    """Base of all errors that are told in one line, without a traceback."""

    exit_code = 4


class InputError(NightshelfError):
    """The input or the configuration is wrong (value, place, remedy)."""

    exit_code = 2


class GateError(NightshelfError):
    """A gate said no (which check, observed against expected)."""

    exit_code = 3


class EngineError(NightshelfError):
    """An engine or a service failed."""

    exit_code = 4
