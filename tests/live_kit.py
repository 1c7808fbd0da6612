"""Feeds of both kinds with the same self-checking records, and readers that are known to be waiting."""

from __future__ import annotations

import os
import platform
import queue
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from deepwater import Platform
from deepwater.follow import Follower

SIZE = model.CHECKED.itemsize
KINDS: dict[str, dict[str, Any]] = {
    "feed": {"index_playback": True, "chunk_size_bytes": 10 * SIZE},
    "ring": {"persist": False, "chunk_size_bytes": 100 * SIZE},
}
"""A chunk takes 10 records, so most writes rotate; a ring takes 100, and at most 50 in one write."""
FOR_EVER_S = 10_000.0
"""A bound of sleeps that no test lives to see: who is not woken then hangs, and the deadline tells."""
PATIENCE_S = 10.0
"""How long something that has been told to end may take before the test gives up: it is there for a hang."""
_FUTEX = {"x86_64": "202", "aarch64": "98"}.get(platform.machine())


def spec(kind: str, name: str = "F", **changes: Any) -> dict[str, Any]:
    return {"feed_name": name, "ts_col": "ts_us", "fields": model.CHECKED_FIELDS, **KINDS[kind], **changes}


def batch(first: int, rows: int) -> np.ndarray:
    """Records of one write whose number is its first position."""
    return model.checked_records(first, rows, write=first)


def values_of(record: np.ndarray) -> tuple[Any, ...]:
    """What `write_values` takes, of one record."""
    return (*record.item()[:-1], record["filler"])


def everything(dw: Platform, name: str = "F") -> np.ndarray:
    """All records held, by a reader that has just come."""
    with dw[name] as reader:
        return model.joined(reader.rows(0, 10**9), model.CHECKED).copy()


def delete_feeds(dw: Platform) -> None:
    """A ring stays in shared memory until its feed is deleted."""
    for name in dw:
        dw.delete_feed(name)


def until_asleep(pid: int, thread: int | None = None) -> None:
    """Return once a thread sleeps in the kernel on a futex that processes share; Python's own are private ones."""
    path = Path(f"/proc/{pid}/task/{thread or pid}/syscall")
    if not path.exists() or _FUTEX is None:
        pytest.skip("needs /proc/<pid>/syscall to know who is asleep")
    while True:
        words = path.read_text().split()
        if words[0] == _FUTEX and int(words[2], 16) == 0:
            return
        time.sleep(0.001)


class Tail(threading.Thread):
    """A thread that iterates a follower and hands on what it gets; `error` is what ended it, if anything did."""

    def __init__(self, follower: Follower) -> None:
        super().__init__(name="tail")
        self.follower = follower
        self.error: BaseException | None = None
        self.kept: list[np.ndarray] = []
        self._got: queue.Queue[np.ndarray | None] = queue.Queue()
        self._end = int(follower.position)
        self.start()

    def run(self) -> None:
        try:
            for records in self.follower:
                self._got.put(records)
        except BaseException as error:  # noqa: BLE001 (the test looks at it)
            self.error = error
        self._got.put(None)

    def until_waiting(self, *, words: bool = True) -> None:
        """Return once it waits: asleep, where there are words to sleep on and it does not spin."""
        while not self.follower._in_wait.locked():
            assert self.is_alive(), self.error
            time.sleep(0.001)
        if words and not self.follower._spins:
            until_asleep(os.getpid(), self.native_id)

    def expect(self, stop: int) -> None:
        """Wait until everything up to position `stop` has come, each position once and in order."""
        while self._end < stop:
            records = self._got.get()
            assert records is not None, f"it ended at {self._end}: {self.error}"
            assert records["position"].tolist() == list(range(self._end, self._end + len(records)))
            self.kept.append(records)
            self._end += len(records)
        assert self._end == stop and self._got.empty()
