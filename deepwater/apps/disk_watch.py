"""Warns when the disk will be full within a day at the present rate.

The rate is that of the records written, from the counters: free space itself moves in steps of whole chunks, which are
allocated ahead. Where retention let chunks go meanwhile, it is what free space lost, if that is less. Both are taken
over the last hour, or since the recording began; the first minute says nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from pathlib import Path
from typing import NamedTuple

from deepwater.apps.counters import Counters

__all__ = ["DAY_S", "DiskWatch", "Forecast"]

_log = logging.getLogger("deepwater.recorder")
DAY_S = 86_400.0
_EVERY_S, _WINDOW_S, _LEAST_S, _SAY_AGAIN_S = 10.0, 3600.0, 60.0, 3600.0


class _Sample(NamedTuple):
    time_s: float
    free: int
    written: int
    pruned: int


class Forecast:
    """When a disk will be full. No clock, no disk: whoever has them adds samples.

    Examples
    --------
    >>> forecast = Forecast()
    >>> [forecast.add(60.0 * minute, 10**9, 10**6 * minute, 0) for minute in range(3)]
    [None, 60000.0, 60000.0]
    """

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()

    def add(self, time_s: float, free: int, written: int, pruned: int) -> float | None:
        """Add what is so at a time, and say in how many seconds the disk is full; None: unknown, or never.

        Parameters
        ----------
        time_s : float
            By any clock that does not step back.
        free, written : int
            Bytes free now, and bytes of records written so far.
        pruned : int
            Chunks let go so far.
        """
        now = _Sample(time_s, free, written, pruned)
        self._samples.append(now)
        while time_s - self._samples[0].time_s > _WINDOW_S:
            self._samples.popleft()
        first = self._samples[0]
        length_s = time_s - first.time_s
        if length_s < _LEAST_S:
            return None
        grown = now.written - first.written
        if now.pruned > first.pruned:
            grown = min(grown, first.free - now.free)
        return free * length_s / grown if grown > 0 else None


class DiskWatch:
    """Looks at the disk of a store while it is recorded.

    Parameters
    ----------
    base_path : path
        The store; it exists by the time `run` looks.
    every_s : float
        Seconds between two looks.
    """

    def __init__(self, base_path: str | Path, every_s: float = _EVERY_S) -> None:
        self._path = base_path
        self._every_s = every_s
        self._forecast = Forecast()
        self._said_s: float | None = None

    async def run(self, counters: Counters) -> None:
        """Keep `counters.disk_full_s` and warn, once an hour at most; runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self.look(counters, loop.time())
            await asyncio.sleep(self._every_s)

    def look(self, counters: Counters, now_s: float) -> None:
        """Look once."""
        try:
            system = os.statvfs(self._path)
        except OSError:
            return  # the recording will say what is wrong with its store
        free = system.f_bavail * system.f_frsize
        left_s = self._forecast.add(now_s, free, counters.written_bytes, counters.pruned)
        counters.disk_full_s = left_s
        if left_s is None or left_s >= DAY_S:
            return
        if self._said_s is None or now_s - self._said_s >= _SAY_AGAIN_S:
            self._said_s = now_s
            counters.last_error = f"the disk of {self._path} will be full in {left_s / 3600:.1f} h at the present rate"
            _log.warning("%s", counters.last_error)
