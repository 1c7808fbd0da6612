"""How late a sleep may end: the timer slack of a thread. Linux, through ctypes.

A Linux thread is woken from a sleep up to 50 µs late by default, so that wake-ups fall together (prctl(2),
PR_SET_TIMERSLACK). Who looks for records between short sleeps is late by that much each time: it asks for 1 ns while
it does so. Elsewhere nothing happens.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

_SET, _GET = 29, 30
_LEAST_NS = 1


@functools.lru_cache(maxsize=1)
def _prctl() -> Any:
    """The call, or None; ctypes loads late."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        call = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_ulong]  # the rest is not looked at by these two
    return call


def tighten() -> int | None:
    """Have this thread woken in time from now on. What to `restore`; None if it is so already, or cannot be."""
    call = _prctl()
    before = call(_GET, 0) if call is not None else _LEAST_NS
    if before <= _LEAST_NS:
        return None
    call(_SET, _LEAST_NS)
    return int(before)


def restore(before: int) -> None:
    """Give this thread back the slack it had, in ns."""
    call = _prctl()
    if call is not None:
        call(_SET, before)
