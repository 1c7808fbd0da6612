"""One feed's way out: stamps `proc_us`, never steps back, and outlives a full disk.

Invariants
    - `proc_us`, the primary clock, never decreases within the feed, across restarts too: it is the
      local time just before the write, or the last one written if the local clock stepped back;
    - what could not be stored is never silent: while there is no space, records are counted and let
      go, and the first write that finds space is preceded by a gap mark with their number and time.
      A mark may find space where the records behind it do not; then the next try waits, 1 s to 1 min,
      or every frame of a full disk would leave a mark;
    - any other failure of a write is raised: the recorder must not go on beside a damaged feed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from deepwater.apps.counters import Counters
from deepwater.apps.sink import FeedWriter, Records
from deepwater.errors import StorageFullError

__all__ = ["Outlet", "now_us"]

_log = logging.getLogger("deepwater.recorder")
_REASON_BYTES = 72  # what a mark holds
_PAUSE_US, _PAUSE_MAX_US = 1_000_000, 60_000_000


def now_us() -> int:
    """Return the local wall time in µs."""
    return time.time_ns() // 1000


@dataclass(slots=True)
class _Unstored:
    """Records that found no space, and gaps that could not be marked either."""

    rows: int
    from_us: int
    reason: str


class Outlet:
    """Writes one feed. Not thread-safe; one owner.

    Parameters
    ----------
    name : str
        The feed's name, for the counters.
    writer : FeedWriter
        Open; whoever opened it closes it.
    counters : Counters
        `feeds`, `unstored`, and by feed gaps and unstored are counted here.
    last_us : int
        `proc_us` of the feed's last record, 0 of an empty feed.
    now : callable
        Returns µs; for tests.
    """

    def __init__(
        self,
        name: str,
        writer: FeedWriter,
        counters: Counters,
        last_us: int = 0,
        now: Callable[[], int] = now_us,
    ) -> None:
        self.name = name
        self.last_us = last_us
        self._writer = writer
        self._counters = counters
        self._now = now
        self._unstored: _Unstored | None = None
        self._pause_us = 0
        self._retry_us = 0
        self._counts = counters.feed(name)

    @property
    def full(self) -> bool:
        """Whether records are being let go for want of space."""
        return self._unstored is not None

    def write(self, records: Records, snapshot: bool = False) -> bool:
        """Append records as one write; their `proc_us` is set in place.

        Parameters
        ----------
        records : structured array
            Of the feed's dtype; nothing happens if it is empty.
        snapshot : bool
            Mark the first record as the start of a snapshot of all of them.

        Returns
        -------
        bool
            False if there was no space: the records are not stored, and a gap mark will say so.
        """
        if not len(records):
            return True
        stamp = max(self._now(), self.last_us)
        records["proc_us"] = stamp
        missing = self._unstored
        if missing is not None and 0 < self._retry_us - stamp <= _PAUSE_MAX_US:
            self._let_go(len(records), stamp, missing.reason)
            return False
        try:
            self._settle(stamp)
            self._writer.write_batch(records, create_index=snapshot)
        except StorageFullError as error:
            if missing is not None and self._unstored is None:  # marked in vain
                self._pause_us = min(max(2 * self._pause_us, _PAUSE_US), _PAUSE_MAX_US)
                self._retry_us = stamp + self._pause_us
            self._let_go(len(records), stamp, f"storage full: {os.strerror(error.errno) if error.errno else error}")
            return False
        self._pause_us = self._retry_us = 0
        self.last_us = stamp
        self._counters.feeds[self.name] += len(records)
        self._counters.written_bytes += records.nbytes
        return True

    def gap(self, *, lost: int | None, from_us: int, to_us: int, reason: str) -> None:
        """Mark a gap at the present end of the feed.

        Parameters
        ----------
        lost : int or None
            How many records; None if unknown.
        from_us, to_us : int
            The last moment known to be whole, and the first that is again; `to_us` is raised to `from_us`.
        reason : str
            Cut to the 72 bytes of a mark.
        """
        try:
            self._settle(to_us)
            self._mark(lost, from_us, to_us, reason)
        except StorageFullError:
            self._let_go(0, from_us, reason)

    def settle(self) -> None:
        """Mark what is still unmarked, if there is space by now; for the end of a recording."""
        try:
            self._settle(max(self._now(), self.last_us))
        except StorageFullError:
            self._counters.last_error = f"feed {self.name!r}: no space for the mark of what found no space"

    def _settle(self, to_us: int) -> None:
        if self._unstored is not None:
            missing = self._unstored
            self._mark(missing.rows or None, missing.from_us, to_us, missing.reason)
            self._unstored = None

    def _mark(self, lost: int | None, from_us: int, to_us: int, reason: str) -> None:
        short = reason.encode(errors="replace")[:_REASON_BYTES].decode(errors="ignore")
        self._writer.mark_gap(lost=lost, from_us=from_us, to_us=max(from_us, to_us), reason=short)
        self._counts.gaps += 1

    def _let_go(self, rows: int, stamp: int, reason: str) -> None:
        self._counters.unstored += rows
        self._counts.unstored += rows
        self._counters.last_error = f"feed {self.name!r} has no space: {reason}"
        if self._unstored is None:
            self._unstored = _Unstored(0, max(self.last_us, 0) or stamp, reason)
            _log.warning("feed %r has no space (%s); what comes is let go until there is space", self.name, reason)
        self._unstored.rows += rows
