"""Kills a process of ours before a chosen step of what it does: a call that opens, maps, syncs, renames or removes."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

AUDITED = {"open", "os.rename", "os.link", "os.remove", "mmap.__new__", "os.listdir"}
Action = Callable[[Callable[[], None]], object]


def kill_before(action: Action, fatal: int) -> str:
    """Do something in a child that dies before step `fatal` of it; the step's name, empty if it came to its end.

    `action` is given a function to call where the steps begin to count.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action(_Steps(fatal, writing).begin)
            os._exit(0)
        except BaseException:  # noqa: BLE001 (a child must not go on as its parent)
            traceback.print_exc()
        os._exit(1)
    os.close(writing)
    _, status = os.waitpid(pid, 0)
    name = os.read(reading, 100).decode()
    os.close(reading)
    assert status == (signal.SIGKILL if name else 0), status
    return name


class _Steps:
    def __init__(self, fatal: int, out: int) -> None:
        self._fatal, self._out, self._at = fatal, out, 0

    def begin(self) -> None:
        for name in ("fsync", "pwrite"):
            self._watch(name, getattr(os, name))
        sys.addaudithook(lambda event, _: self._step(event) if event in AUDITED else None)

    def _watch(self, name: str, real: Callable[..., object]) -> None:
        setattr(os, name, lambda *args: (self._step(name), real(*args))[1])

    def _step(self, name: str) -> None:
        if self._at == self._fatal:
            os.write(self._out, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)
        self._at += 1
