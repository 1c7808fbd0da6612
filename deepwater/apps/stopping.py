"""How what runs for ever is ended: a `Stop` that says why, and the signals that call it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

__all__ = ["Stop", "signals"]


class Stop:
    """Asks for the end, and says why. For one event loop."""

    def __init__(self) -> None:
        self.reason = ""
        self._event = asyncio.Event()

    def __call__(self, reason: str = "stop") -> None:
        """End it; the first reason stays."""
        self.reason = self.reason or reason
        self._event.set()

    async def wait(self) -> None:
        """Wait until the end is asked for."""
        await self._event.wait()


@contextlib.contextmanager
def signals(
    stop: Stop,
    hangup: Callable[[], None] | None = None,
    numbers: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
) -> Iterator[None]:
    """Let signals call `stop` with their name; the second one has its usual effect. SIGHUP calls `hangup`.

    The usual effect is there again as soon as the first one came, not when the event loop gets to it: a loop that is
    blocked by somebody's code can be ended by a second one. Elsewhere than in the main thread nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    usual = {number: signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL for number in numbers}

    def give_back() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def end(number: int, _: FrameType | None) -> None:
        give_back()
        loop.call_soon_threadsafe(stop, signal.Signals(number).name)

    for number in numbers:
        signal.signal(number, end)
    if hangup is not None:
        loop.add_signal_handler(signal.SIGHUP, hangup)
    try:
        yield
    finally:
        give_back()
        if hangup is not None:
            loop.remove_signal_handler(signal.SIGHUP)
