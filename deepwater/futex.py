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

    __slots__ = ("_address", "_any", "_ctypes", "_number", "_seconds", "_span", "_syscall", "_word")

    def __init__(self, buffer: Any, offset: int) -> None:
        self._ctypes, self._syscall, number, _ = _calls()
        # Arguments are made once: to convert them costs more than the call.
        self._number = self._ctypes.c_long(number)
        self._word = self._ctypes.c_uint32.from_buffer(buffer, offset)
        self._address = self._ctypes.c_void_p(self._ctypes.addressof(self._word))
        self._any = self._ctypes.c_uint32()
        self._span: Any = None
        self._seconds = -1.0

    def close(self) -> None:
        """Let go of the mapping. Idempotent; nobody may wait here then."""
        self._word = self._address = None

    @property
    def value(self) -> int:
        """The word."""
        return int(self._word.value)

    def wait(self, value: int, seconds: float) -> bool:
        """Sleep until woken, or at most so long; not at all if the word is no longer `value`. Whether woken.

        One thread at a time. Returns on a signal too: Python then runs its handlers, Ctrl-C among them.
        """
        if seconds != self._seconds:
            whole = int(seconds)
            self._seconds = seconds
            self._span = (self._ctypes.c_long * 2)(whole, int((seconds - whole) * 1e9))
        self._any.value = value
        return bool(self._syscall(self._number, self._address, _WAIT, self._any, self._span, None, 0) == 0)

    def wake(self) -> None:
        """Change the word and wake all who sleep on it."""
        self._word.value = (self._word.value + 1) & 0xFFFFFFFF
        self._syscall(self._number, self._address, _WAKE, _ALL, None, None, 0)


@functools.lru_cache(maxsize=1)
def _membarrier() -> Any:
    """Return the call that executes a barrier everywhere, or None; and the one that registers."""
    found = _calls()
    if found is None:
        return None
    ctypes, call, _, number = found
    commands = call(number, _QUERY, 0, 0)
    both = _GLOBAL_EXPEDITED | _REGISTER_GLOBAL_EXPEDITED
    if commands <= 0 or commands & both != both:
        return None
    return call, ctypes.c_long(number)


def register_for_barriers() -> bool:
    """Let `barrier` in other processes reach this one. Whether it will."""
    found = _membarrier()
    return found is not None and bool(found[0](found[1], _REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0)


def barrier() -> bool:
    """Execute a full memory barrier on every running thread of the registered processes. Whether that was done."""
    found = _membarrier()
    return found is not None and bool(found[0](found[1], _GLOBAL_EXPEDITED, 0, 0) == 0)
