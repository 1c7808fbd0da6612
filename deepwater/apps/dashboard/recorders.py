"""The recorders of a store, as their metrics feeds tell: who, whether alive, how fast, how late.

Numbers of a window are differences of two rows (`deepwater.apps.metrics`), so rows that were missed take nothing from
them. The window is of the time that passed: where the rows' clock disagrees with that of this process (it was set), the
latter counts. Whether a recorder lives its feed's lock tells, not the age of its last row.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepwater.apps import metrics, specs
from deepwater.errors import DeepwaterError
from deepwater.feed_status import writer_state
from deepwater.follow import Follower
from deepwater.platform import Platform

__all__ = ["RATE_S", "WINDOW_S", "Recorder", "RecorderWatch", "latency"]

WINDOW_S = 60.0
"""Quantiles are over so many seconds."""
RATE_S = 5.0
_SLOW_S = 1.0
_STEP_S = 3.0  # clocks that are apart by more are not of the same time
_FEEDS_MAX = 500  # a store's recorder writes so many feeds at most, or its history begins later


@dataclass(frozen=True, slots=True)
class Recorder:
    """What one recorder says of itself; counts since it began, or since `RecorderWatch.reset`.

    `state` is "recording", "hangs" (stopped by a signal), "gone" (it died) or "ended". `lag` and `delay` are buckets
    over the last minute: exchange to receipt, receipt to published.
    """

    feed: str
    pid: int
    state: str
    age_us: int
    connected: int
    queued: int
    frame_rate: float
    byte_rate: float
    counts: dict[str, int]
    lag: Any
    delay: Any
    last_error: str


_COUNTS = ("gaps", "lost_frames", "lost_trades", "reconnects", "resyncs", "errors", "bad_frames", "unstored",
           "frames", "bytes", "trades", "levels", "duplicates", "retain_errors", "metrics_errors")  # fmt: skip
_STATES = {"alive": "recording", "elsewhere": "recording", "stopped": "hangs", "dead": "gone", "closed": "ended"}


class RecorderWatch:
    """Follows one metrics feed. One thread."""

    def __init__(self, platform: Platform, name: str) -> None:
        self.name = name
        self._platform = platform
        self._follower: Follower | None = None
        self._rows: deque[tuple[float, Any]] = deque(maxlen=600)  # each with seconds that passed
        self._origin_s: float | None = None  # of those seconds, by the clock of this process
        self._was_set = False
        self._base: tuple[float, Any] | None = None
        self._state = "ended"
        self._slow_due = 0.0

    def look(self, now_us: int) -> Recorder | None:
        """Return what it says now; None if there is no such feed, or nothing in it. Raises nothing."""
        try:
            if self._follower is None:
                self._open()
            if time.monotonic() >= self._slow_due:
                self._slow_due = time.monotonic() + _SLOW_S
                self._state = self._writer_state()
            self._take()
        except (DeepwaterError, OSError):
            self.close()
            self._forget()
            return None
        return self._said(now_us) if self._rows else None

    def _open(self) -> None:
        with self._platform.create_reader(self.name) as reader:
            if reader.layout.dtype != specs.dtype(metrics_kind := specs.METRICS):
                raise DeepwaterError(f"feed {self.name!r} is not of this version ({metrics_kind})")
            begin = max(reader.first, int(reader.end) - _FEEDS_MAX)
            self._follower = reader.follow(position=begin, timeout=0, on_lap="skip")

    def _writer_state(self) -> str:
        with self._platform.create_reader(self.name) as reader:
            writer = writer_state(reader)
        return "ended" if writer is None else _STATES[writer["state"]]

    def _take(self) -> None:
        assert self._follower is not None
        found: list[Any] = []
        while (batch := self._follower.poll()) is not None:
            found += list(batch[batch["subject"] == b""])
        if not found:
            return
        found = [row for row in found if row["started_us"] == found[-1]["started_us"]]
        if self._rows and self._rows[-1][1]["started_us"] != found[0]["started_us"]:
            self._forget()
        seconds, last = self._rows[-1] if self._rows else (0.0, found[0])
        for step, row in zip(self._steps(seconds, last, found), found, strict=True):
            seconds += step
            self._rows.append((seconds, row))

    def _steps(self, seconds: float, last: Any, found: list[Any]) -> list[float]:
        """How long each of these rows is behind the one before: by their clock until that is found to have been set."""
        steps = [(int(row["ts_us"]) - int(old["ts_us"])) / 1e6 for old, row in zip([last, *found], found, strict=False)]
        now_s = time.monotonic()
        if self._origin_s is None:
            self._origin_s = now_s - sum(steps)
        passed = now_s - self._origin_s - seconds
        self._was_set = self._was_set or abs(sum(steps) - passed) > _STEP_S
        return [passed / len(found)] * len(found) if self._was_set else steps

    def _forget(self) -> None:
        """Of a recording that is over."""
        self._rows.clear()
        self._base = self._origin_s = None
        self._was_set = False

    def _before(self, seconds: float) -> tuple[float, Any] | None:
        """The row of so long before the newest; None stands for the recording's beginning."""
        passed, newest = self._rows[-1]
        limit = passed - seconds
        found = next((each for each in reversed(self._rows) if each[0] <= limit), None)
        if found is None and int(newest["ts_us"]) - int(newest["started_us"]) > seconds * 1e6:
            found = self._rows[0]  # we have not looked for so long
        if found is not None and self._base is not None and found[0] < self._base[0]:
            return self._base
        return self._base if found is None else found

    def _said(self, now_us: int) -> Recorder:
        passed, newest = self._rows[-1]
        before = self._before(RATE_S)
        short, window = (metrics.between(each and each[1], newest) for each in (before, self._before(WINDOW_S)))
        since = metrics.between(self._base and self._base[1], newest)
        seconds = max(short["seconds"] if before is None else passed - before[0], 1e-6)
        is_live = self._state == "recording"
        return Recorder(
            feed=self.name, pid=int(newest["pid"]), state=self._state, age_us=now_us - int(newest["ts_us"]),
            connected=int(newest["connected"]) if is_live else 0, queued=int(newest["queued"]) if is_live else 0,
            frame_rate=short["frames"] / seconds if is_live else 0.0,
            byte_rate=short["bytes"] / seconds if is_live else 0.0,
            counts={name: int(since[name]) for name in _COUNTS}, lag=window["lag"], delay=window["delay"],
            last_error=newest["last_error"].decode("latin-1"),
        )  # fmt: skip

    def reset(self) -> None:
        """Count from now."""
        self._base = self._rows[-1] if self._rows else None

    def close(self) -> None:
        """Let go of the feed; a later look opens it again."""
        if self._follower is not None:
            with contextlib.suppress(DeepwaterError, OSError):
                self._follower.close()
            self._follower = None


def latency(buckets: list[Any]) -> tuple[int, int] | None:
    """Return p50 and p99 of added histograms: upper bounds within a factor of two, µs; None of nothing."""
    whole = np.sum(buckets, axis=0) if buckets else np.zeros(metrics.BUCKETS, np.uint64)
    middle, high = metrics.quantile_us(whole, 0.5), metrics.quantile_us(whole, 0.99)
    return None if middle is None or high is None else (middle, high)
