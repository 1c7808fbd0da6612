"""What a failure says, and with which number the command exits."""

from __future__ import annotations

import json
import os
import traceback
from typing import Any

from deepwater.errors import DeepwaterError
from deepwater.wording import one_line

__all__ = [
    "FAILED", "INTERRUPTED", "OK", "TROUBLE", "USAGE", "UsageError", "describe", "exit_code", "is_debugging", "message",
    "one_line",
]  # fmt: skip

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
TROUBLE = {"gaps": 2, "status": 2, "verify": 3, "repair": 3}
"""Of commands that answer with their exit code: the one that says that there is no answer. The answers are below it."""
DEBUG_VARIABLE = "DEEPWATER_DEBUG"


class UsageError(Exception):
    """The command line is wrong.

    Parameters
    ----------
    text : str
        What is wrong and what would be right.
    prog : str
        The command, as ``deepwater query``.
    """

    def __init__(self, text: str, prog: str = "deepwater") -> None:
        super().__init__(text)
        self.prog = prog


def exit_code(error: BaseException, command: str | None) -> int:
    """Return the exit code for an error of a command: never one that the command answers with.

    >>> [exit_code(UsageError("what?"), name) for name in ("feeds", "gaps", "verify", None)]
    [2, 2, 3, 2]
    """
    return TROUBLE.get(command or "", USAGE if isinstance(error, UsageError) else FAILED)


def is_debugging() -> bool:
    """Whether tracebacks are wanted."""
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def message(error: BaseException) -> str:
    """Return one line for an error: what, where, the way out.

    Examples
    --------
    >>> message(FileNotFoundError(2, "No such file or directory", "a.json"))
    'a.json: No such file or directory'
    >>> message(UsageError("--limit -1: a number of rows is 0 or more", "deepwater query"))
    '--limit -1: a number of rows is 0 or more (deepwater query --help)'
    >>> message(ZeroDivisionError("division by zero"))
    'unexpected ZeroDivisionError: division by zero; DEEPWATER_DEBUG=1 shows where'
    """
    if isinstance(error, UsageError):
        text = f"{error} ({error.prog} --help)"
    elif isinstance(error, DeepwaterError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}" if _is_path(error.filename) else error.strerror
    elif isinstance(error, MemoryError):
        text = f"not enough memory{f': {error}' if str(error) else ''}; ask for less, or for columns"
    else:
        text = f"unexpected {type(error).__name__}: {error}; {DEBUG_VARIABLE}=1 shows where"
    return one_line("; ".join([text, *getattr(error, "__notes__", ())]))


def describe(error: BaseException, *, as_json: bool) -> str:
    """Return what goes to stderr for an error: a line, or a JSON object; after a traceback if one is wanted."""
    if as_json:
        about: dict[str, Any] = {"type": type(error).__name__, "message": message(error)}
        if isinstance(error, DeepwaterError):
            about |= {key: value for key, value in error.parts.items() if key not in about}
        if is_debugging():
            about["traceback"] = "".join(traceback.format_exception(error))
        return json.dumps({"error": about}, default=str)
    prog = error.prog if isinstance(error, UsageError) else "deepwater"
    text = f"{prog}: error: {message(error)}"
    return "".join(traceback.format_exception(error)) + text if is_debugging() else text


def _is_path(name: object) -> bool:
    return isinstance(name, (str, bytes)) and bool(name)
