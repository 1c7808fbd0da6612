"""What a recording has done so far: plain numbers, cheap to add to, easy to show.

Nothing here knows of sockets or feeds. One `Counters` is filled by one event loop; a callback that
wants to keep a state takes a `copy`.
"""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["BadFrame", "Counters", "FeedCounts", "Latency"]

_Bytes = bytes  # inside Counters the name is a field
_BAD_FRAMES_KEPT = 16
_BAD_BYTES_KEPT = 256


@dataclass(slots=True)
class Latency:
    """Durations in microseconds: count, mean, maximum, and quantiles from buckets of powers of two.

    Negative values (the local clock runs behind the exchange's) count as 0.

    Examples
    --------
    >>> latency = Latency()
    >>> for us in (3, 5, 900): latency.add(us)
    >>> latency.count, latency.max_us, latency.quantile_us(0.5), latency.quantile_us(1.0)
    (3, 900, 7, 900)
    """

    count: int = 0
    total_us: int = 0
    max_us: int = 0
    buckets: list[int] = field(default_factory=lambda: [0] * 65)  # [b]: values of b significant bits

    def add(self, us: int) -> None:
        """Count one duration, in µs."""
        us = max(us, 0)
        self.count += 1
        self.total_us += us
        self.max_us = max(self.max_us, us)
        self.buckets[min(us.bit_length(), 64)] += 1

    @property
    def mean_us(self) -> float:
        """The arithmetic mean; 0.0 of nothing."""
        return self.total_us / self.count if self.count else 0.0

    def quantile_us(self, q: float) -> int:
        """An upper bound, within a factor of two, of the `q` quantile (0 <= q <= 1), in µs."""
        due = q * self.count
        seen = 0
        for bits, number in enumerate(self.buckets):
            seen += number
            if number and seen >= due:
                return min((1 << bits) - 1, self.max_us)
        return 0

    def to_json(self) -> dict[str, Any]:
        """Return the numbers a person asks for."""
        return {
            "count": self.count,
            "mean_us": round(self.mean_us, 1),
            "p50_us": self.quantile_us(0.5),
            "p99_us": self.quantile_us(0.99),
            "max_us": self.max_us,
        }


@dataclass(frozen=True, slots=True)
class BadFrame:
    """A frame that could not be used: when it came, why, and its first bytes."""

    recv_us: int
    error: str
    data: bytes


@dataclass(slots=True)
class FeedCounts:
    """Of one feed: gap marks written, records that found no space, and the latencies of what was written."""

    gaps: int = 0
    unstored: int = 0
    lag: Latency = field(default_factory=Latency)
    handling: Latency = field(default_factory=Latency)


@dataclass(slots=True)
class Counters:
    """Totals over all connections of a recording.

    Attributes
    ----------
    frames, bytes : int
        Messages received and their size (after decompression).
    trades, levels, snapshots : int
        Records written to the trades feeds and to the L2 feeds, and L2 snapshots among the latter.
    duplicates : int
        Trades that came again and were not stored again.
    gaps, lost_frames, lost_trades : int
        Breaks of a connection's numbering, the frames and the trades known to be missing.
    connections, reconnects, resyncs : int
        Sessions begun; those that followed a lost one; fresh snapshots asked for after a gap.
    heartbeats, ignored : int
        Heartbeat frames; frames of channels, or events of products, that are not recorded.
    errors, bad_frames : int
        Error frames from the exchange; frames that could not be decoded (`bad_log` has the latest).
    unstored : int
        Records that found no space; each run of them is a gap mark once there is space.
    pruned, retain_errors : int
        Chunks that retention let go; times that it failed for a feed (`last_error` has the latest).
    lag, handling : Latency
        From the exchange's stamp to receipt (as far as the clocks agree); from receipt to written.
    written_bytes : int
        Size of the records written.
    disk_full_s : float or None
        Seconds until the disk is full at the present rate; None: nobody knows, or it will not.
    connected, queued : int
        Connections that are up now; messages that waited when the latest was taken (16 a connection: it reads no more).
    last_frame_us : int
        When the latest message came; 0 before.
    metrics_errors : int
        Times that the feed of metrics could not be written.
    feeds : dict of str to int
        Records written, by feed.
    by_feed : dict of str to FeedCounts
        The rest of what is known by feed.
    last_error : str
        The latest trouble, as one line.
    stopped : str
        Why the recording ended: "duration", "stop", "SIGINT" or "SIGTERM"; empty while it runs.
    """

    frames: int = 0
    bytes: int = 0
    trades: int = 0
    levels: int = 0
    snapshots: int = 0
    duplicates: int = 0
    gaps: int = 0
    lost_frames: int = 0
    lost_trades: int = 0
    connections: int = 0
    reconnects: int = 0
    resyncs: int = 0
    heartbeats: int = 0
    ignored: int = 0
    errors: int = 0
    bad_frames: int = 0
    unstored: int = 0
    pruned: int = 0
    retain_errors: int = 0
    lag: Latency = field(default_factory=Latency)
    handling: Latency = field(default_factory=Latency)
    written_bytes: int = 0
    disk_full_s: float | None = None
    connected: int = 0
    queued: int = 0
    last_frame_us: int = 0
    metrics_errors: int = 0
    feeds: dict[str, int] = field(default_factory=dict)
    by_feed: dict[str, FeedCounts] = field(default_factory=dict)
    bad_log: deque[BadFrame] = field(default_factory=lambda: deque(maxlen=_BAD_FRAMES_KEPT))
    last_error: str = ""
    stopped: str = ""

    def bad(self, recv_us: int, error: str, data: _Bytes) -> None:
        """Count a frame that could not be used, and keep its beginning."""
        self.bad_frames += 1
        self.last_error = f"bad frame: {error}"
        self.bad_log.append(BadFrame(recv_us, error, data[:_BAD_BYTES_KEPT]))

    def feed(self, name: str) -> FeedCounts:
        """Return the counts of a feed, from now on there to be added to."""
        counts = self.by_feed.get(name)
        if counts is None:  # asked with each frame: nothing is made in vain
            self.feeds.setdefault(name, 0)
            counts = self.by_feed[name] = FeedCounts()
        return counts

    def copy(self) -> Counters:
        """Return an independent copy."""
        return copy.deepcopy(self)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the bad frames' bytes and the latencies by feed, as JSON types."""
        out: dict[str, Any] = {}
        for name in (item.name for item in fields(self)):
            value = getattr(self, name)
            if isinstance(value, Latency):
                out[name] = value.to_json()
            elif name == "feeds":
                out[name] = dict(value)
            elif name not in ("bad_log", "by_feed"):
                out[name] = value
        return out
