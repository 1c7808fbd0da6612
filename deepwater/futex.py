"""Three system calls that Python does not have: futex wait, futex wake, membarrier. Linux, through ctypes.

A futex in a shared mapping is named by its file and offset, so any process that maps the file may wait on it
or wake it: no descriptor to hand over, nothing to clean up after a kill. Rejected: *eventfd* (a reader would have
to pass its descriptor to a writer it does not know; measured beside this in ``tests/bench/tails.py``), *a FIFO a
reader* (names to clean up, and a write for each reader), *inotify* (stores into a mapping raise no event).

Where there are none of these calls (another system, another machine, a sandbox), `available` is False.
"""

from __future__ import annotations

import functools
import platform
import sys
from typing import Any

_NUMBERS = {"x86_64": (202, 324), "aarch64": (98, 283)}
"""``futex`` and ``membarrier`` by machine (the kernel's syscall tables)."""
_WAIT, _WAKE = 0, 1
_QUERY, _GLOBAL_EXPEDITED, _REGISTER_GLOBAL_EXPEDITED = 0, 1 << 1, 1 << 2
_ALL = 2**31 - 1


@functools.lru_cache(maxsize=1)
def _calls() -> Any:
    """Return ``(ctypes, syscall, futex number, membarrier number)``, or None; ctypes loads late."""
    numbers = _NUMBERS.get(platform.machine())
    if not sys.platform.startswith("linux") or numbers is None:
        return None
    try:
        import ctypes

        call = ctypes.CDLL(None, use_errno=True).syscall
    except (ImportError, OSError, AttributeError):
        return None
    call.restype = ctypes.c_long
    return ctypes, call, *numbers


def available() -> bool:
    """Whether this system has futexes that can be called from here."""
    return _calls() is not None


class Futex:
    """A 32-bit word in a shared mapping that processes sleep on.

    Parameters
    ----------
    buffer
        A writeable mapping. Held, so that the word stays where it is, until `close`.
    offset : int
        Of the word, a multiple of 4.
    """

    __slots__ = ("_address", "_word")

    def __init__(self, buffer: Any, offset: int) -> None:
        ctypes = _calls()[0]
        self._word = ctypes.c_uint32.from_buffer(buffer, offset)
        self._address = ctypes.c_void_p(ctypes.addressof(self._word))

    def close(self) -> None:
        """Let go of the mapping. Idempotent; nobody may wait here then."""
        self._word = self._address = None

    @property
    def value(self) -> int:
        """The word."""
        return int(self._word.value)

    def wait(self, value: int, seconds: float) -> None:
        """Sleep until woken, or at most so long; not at all if the word is no longer `value`.

        Returns on a signal too: Python then runs its handlers, Ctrl-C among them.
        """
        ctypes, call, number, _ = _calls()
        whole = int(seconds)
        span = (ctypes.c_long * 2)(whole, int((seconds - whole) * 1e9))
        call(number, self._address, _WAIT, ctypes.c_uint32(value), ctypes.byref(span), None, 0)

    def wake(self) -> None:
        """Change the word and wake all who sleep on it."""
        self._word.value = (self._word.value + 1) & 0xFFFFFFFF
        _, call, number, _ = _calls()
        call(number, self._address, _WAKE, _ALL, None, None, 0)


@functools.lru_cache(maxsize=1)
def _has_barrier() -> bool:
    found = _calls()
    if found is None:
        return False
    commands = found[1](found[3], _QUERY, 0, 0)
    both = _GLOBAL_EXPEDITED | _REGISTER_GLOBAL_EXPEDITED
    return bool(commands > 0 and commands & both == both)


def register_for_barriers() -> bool:
    """Let `barrier` in other processes reach this one. Whether it will."""
    if not _has_barrier():
        return False
    _, call, _, number = _calls()
    return bool(call(number, _REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0)


def barrier() -> bool:
    """Execute a full memory barrier on every running thread of the registered processes. Whether that was done."""
    if not _has_barrier():
        return False
    _, call, _, number = _calls()
    return bool(call(number, _GLOBAL_EXPEDITED, 0, 0) == 0)
