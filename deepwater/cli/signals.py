"""SIGTERM and SIGHUP would end a process where it stands, with something half-done: they unwind the stack instead."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["terminable"]


@contextlib.contextmanager
def terminable(*of: signal.Signals) -> Iterator[None]:
    """Let SIGTERM and SIGHUP (or those named) be a SystemExit with 128 and their number: what is inside is cleaned up.

    Who ignores one of them (`nohup`) goes on ignoring it. Elsewhere than in the main thread it does nothing.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = of or (signal.SIGTERM, signal.SIGHUP)
    numbers = [each for each in wanted if signal.getsignal(each) == signal.SIG_DFL]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
