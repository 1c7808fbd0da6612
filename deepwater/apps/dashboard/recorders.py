"""The recorders of a store, as their metrics feeds tell: who, whether alive, how fast, how late.

Numbers of a window are differences of two rows (`deepwater.apps.metrics`), so rows that were missed take nothing from
them. Whether a recorder lives its feed's lock tells, not the age of its last row.
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
        self._rows: deque[Any] = deque(maxlen=600)
        self._base: Any = None
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
            self._rows.clear()
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
        while (batch := self._follower.poll()) is not None:
            for row in batch[batch["subject"] == b""]:
                if self._rows and row["started_us"] != self._rows[-1]["started_us"]:
                    self._rows.clear()
                    self._base = None
                self._rows.append(row)

    def _before(self, seconds: float) -> Any:
        """The row of so long before the newest; None stands for the recording's beginning."""
        newest = self._rows[-1]
        limit = int(newest["ts_us"]) - int(seconds * 1e6)
        found = next((row for row in reversed(self._rows) if row["ts_us"] <= limit), None)
        if found is None and newest["started_us"] < limit:
            found = self._rows[0]  # we have not looked for so long
        if found is not None and self._base is not None and found["ts_us"] < self._base["ts_us"]:
            return self._base
        return self._base if found is None else found

    def _said(self, now_us: int) -> Recorder:
        newest = self._rows[-1]
        short, window = (metrics.between(self._before(s), newest) for s in (RATE_S, WINDOW_S))
        since = metrics.between(self._base, newest)
        passed = max(short["seconds"], 1e-6)
        is_live = self._state == "recording"
        return Recorder(
            feed=self.name, pid=int(newest["pid"]), state=self._state, age_us=now_us - int(newest["ts_us"]),
            connected=int(newest["connected"]) if is_live else 0, queued=int(newest["queued"]) if is_live else 0,
            frame_rate=short["frames"] / passed if is_live else 0.0,
            byte_rate=short["bytes"] / passed if is_live else 0.0,
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
