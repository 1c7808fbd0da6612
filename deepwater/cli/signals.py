"""SIGTERM and SIGHUP would end a process where it stands, with something half-done.

Here they unwind the stack (`terminable`), or say to who works that it is time to end (`End`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Self

__all__ = ["End", "put_off", "terminable"]


@contextlib.contextmanager
def terminable(*of: signal.Signals) -> Iterator[None]:
    """Let SIGTERM and SIGHUP (or those named) be a SystemExit with 128 and their number: what is inside is cleaned up.

    Who ignores one of them (`nohup`) goes on ignoring it. Elsewhere than in the main thread it does nothing.
    """

    def leave(number: int) -> None:
        raise SystemExit(128 + number)

    with _handled(leave, *of):
        yield


@contextlib.contextmanager
def put_off(number: signal.Signals) -> Iterator[Callable[[], None]]:
    """Keep a signal for who will handle it: modules take a second to load, and it would end that.

    Gives what sends it again, if it came; to be called once it is handled. Rejected: to block it, since a thread that
    a module has begun before would take it, and it would end the process.
    """
    came: list[int] = []

    def again() -> None:
        if came:
            os.kill(os.getpid(), number)

    with _handled(came.append, number):
        yield again


class End:
    """Whether it is time to end: SIGTERM or SIGHUP came, or it was called. A context manager.

    A pipe and not a `threading.Event`: that one's lock may be held by the very thread that a handler interrupts.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._read, self._write = os.pipe()
        self._stack = contextlib.ExitStack()

    def __call__(self, number: int = 0) -> None:
        """Say that it is; from any thread, or a handler."""
        if not self.is_set:
            self.is_set = True
            os.write(self._write, b"x")

    def wait(self, seconds: float) -> bool:
        """Wait until it is, `seconds` at most; return whether it is."""
        select.select([self._read], [], [], seconds)
        return self.is_set

    def __enter__(self) -> Self:
        self.listen()
        return self

    def listen(self) -> None:
        """Take the signals (again: who used an event loop meanwhile has given them back to the system)."""
        self._stack.enter_context(_handled(self))

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        os.close(self._read)
        os.close(self._write)


@contextlib.contextmanager
def _handled(take: Callable[[int], None], *of: signal.Signals) -> Iterator[None]:
    """Let SIGTERM and SIGHUP (or those named) call this, unless they are ignored, or handled by somebody else."""

    def call(number: int, frame: FrameType | None) -> None:
        take(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [each for each in of or (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) == signal.SIG_DFL]
    before = {number: signal.signal(number, call) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
