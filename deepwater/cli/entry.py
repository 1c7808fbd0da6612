"""The entry point: understand the command line, run the command, say how it ended."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from deepwater.cli import arguments, completion, failures, output

if TYPE_CHECKING:
    import argparse

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        Its words, without the program's name. Default those of the process.

    Returns
    -------
    int
        The exit code: see `deepwater.cli`. Never raises.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        output.keep_standard_descriptors()
        return _guarded(words)
    except KeyboardInterrupt:  # once more, while the first was being reported
        output.abandon_stdout()
        return failures.INTERRUPTED


def _guarded(words: list[str]) -> int:
    as_json, command = arguments.wants_json(words), arguments.command_in(words)
    try:
        code = _run(words)
    except BaseException as error:  # noqa: BLE001 - a person at a terminal is owed one line, whatever it is
        code = _report(error, as_json, command)
    try:
        output.flush()
    except (output.PipeClosed, OSError) as error:
        code = code or _report(error, as_json, command)
    return code


def _run(words: list[str]) -> int:
    if words[:2] == ["completion", completion.ASKED]:  # whatever follows is a line that is not finished
        output.write("".join(f"{word}\n" for word in completion.words_for(words[2:])))
        return failures.OK
    args = arguments.parse(words)
    module, _, name = args.run.partition(":")
    with _loaded_whole():
        loaded = importlib.import_module(f"deepwater.cli.{module}")
    command: Callable[[argparse.Namespace], int] = getattr(loaded, name)
    with _warnings_said():
        return command(args)


def _report(error: BaseException, as_json: bool, command: str | None) -> int:
    """Say what went wrong, if anything did, and return the exit code."""
    if isinstance(error, output.PipeClosed):
        output.abandon_stdout()
        return failures.OK
    if isinstance(error, SystemExit):  # argparse has shown its help or its version, or a signal ended it
        for note in getattr(error, "__notes__", ()):
            output.say(f"deepwater: terminated: {note}")
        return error.code if isinstance(error.code, int) else failures.OK
    if isinstance(error, KeyboardInterrupt):
        for note in getattr(error, "__notes__", ()):
            output.say(f"deepwater: interrupted: {note}")
        if failures.is_debugging():
            output.say(failures.describe(error, as_json=as_json))
        return failures.INTERRUPTED
    output.say(failures.describe(error, as_json=as_json))
    return failures.exit_code(error, command)


@contextlib.contextmanager
def _loaded_whole() -> Iterator[None]:
    """Hold a Ctrl-C back while modules are loaded: NumPy takes one for a broken installation, and says so at length."""
    usual = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not usual:
        yield
        return
    came = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: came.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if came.is_set():
        raise KeyboardInterrupt


@contextlib.contextmanager
def _warnings_said() -> Iterator[None]:
    """Show what the library warns of (never more than that) as lines on stderr."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning):
            output.say(f"deepwater: warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield
