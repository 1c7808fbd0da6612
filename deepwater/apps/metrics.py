"""The recorder's counters as records of a feed, and what a reader makes of them.

A recording writes ``schemas/dw-metrics.json`` about once a second as ONE write: a row for the whole recording (its
`subject` is empty) and one for each feed. So a reader sees a second whole or not at all, and the venue does not matter.

Invariants
    - all counts, sums and buckets rise from 0 at `started_us` on; the rest (`connected`, `queued`) is as it is now.
      What happened in a window is the difference of two rows of one subject and one `started_us`, whatever was missed
      in between; a row that a reader never saw takes nothing from it. What is beyond 2**64 - 1 stays there;
    - a latency is kept in 32 buckets of powers of two, so any quantile of any window is known to a factor of two, and
      histograms of several feeds or recordings may be added.

The feed is a ring, ``DW-METRICS-<n>``: n is the first number from 1 on that no other recorder of the store holds, and
the next recorder goes on in it. Of 4 MiB: some twenty minutes of four feeds, two of thirty products.

Rejected: *differences instead of totals* (a lapped reader would lose counts, and each window would be a sum); *one
feed for each product* (a hundred rings, and what belongs to the connection in all or none of them); *a name made of
the process id or the products* (a feed would be left behind by every start); *finer buckets* (the record grows, and
whoever needs microseconds has the clocks of the records themselves).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater.apps import specs
from deepwater.apps.counters import Counters, FeedCounts, Latency

__all__ = ["BUCKETS", "PREFIX", "between", "quantile_us", "rows", "upper_us"]

Rows = npt.NDArray[Any]
PREFIX = "DW-METRICS-"
BUCKETS = 32
_TOTALS = (
    "gaps", "unstored", "frames", "bytes", "last_frame_us", "connected", "queued", "trades", "levels", "snapshots",
    "duplicates", "lost_frames", "lost_trades", "connections", "reconnects", "resyncs", "heartbeats", "ignored",
    "errors", "bad_frames", "pruned", "retain_errors", "metrics_errors",
)  # fmt: skip
_MOST = 2**64 - 1
_NOW = frozenset({"ts_us", "started_us", "pid", "connected", "queued", "subject", "last_frame_us", "last_error"})


def rows(counters: Counters, started_us: int, ts_us: int) -> Rows:
    """Return what is to be written now.

    Parameters
    ----------
    counters : Counters
    started_us, ts_us : int
        When the recording began, and now, µs.

    Returns
    -------
    ndarray of ``specs.dtype("dw-metrics")``, shape (1 + feeds,)
        New memory; the row of the recording first.
    """
    out = np.zeros(1 + len(counters.by_feed), specs.dtype(specs.METRICS))
    out["ts_us"], out["started_us"], out["pid"] = ts_us, started_us, os.getpid()
    total = out[0]
    for name in _TOTALS:
        total[name] = _clamped(getattr(counters, name))
    total["records"] = _clamped(sum(counters.feeds.values()))
    total["last_error"] = counters.last_error.encode("latin-1", "replace")
    _put(total, counters.lag, counters.handling)
    for row, (name, counts) in zip(out[1:], counters.by_feed.items(), strict=True):
        _put_feed(row, name, counters.feeds[name], counts)
    return out


def _put_feed(row: Any, name: str, records: int, counts: FeedCounts) -> None:
    row["subject"], row["records"] = name.encode(), _clamped(records)
    row["gaps"], row["unstored"] = _clamped(counts.gaps), _clamped(counts.unstored)
    _put(row, counts.lag, counts.handling)


def _put(row: Any, lag: Latency, delay: Latency) -> None:
    for name, latency in (("lag", lag), ("delay", delay)):
        row[name] = np.array([_clamped(count) for count in buckets(latency)], np.uint64)  # a list would be int64
        row[f"{name}_sum_us"] = _clamped(latency.total_us)


def _clamped(number: int) -> int:
    """What a field holds: ids that jump by 2**63 are so many lost trades, and sums have no bound in Python."""
    return min(number, _MOST)


def buckets(latency: Latency) -> list[int]:
    """Return the 32 buckets of a latency: the last holds all that are longer than 2**30 µs."""
    return [*latency.buckets[: BUCKETS - 1], sum(latency.buckets[BUCKETS - 1 :])]


def between(older: Any, newer: Any) -> dict[str, Any]:
    """Return what happened between two rows of one subject: differences of counts, the rest as of the newer.

    Parameters
    ----------
    older, newer : record of ``specs.dtype("dw-metrics")``
        `older` of another recording, or None, stands for the beginning of the newer's.

    Examples
    --------
    >>> kind = specs.dtype(specs.METRICS)
    >>> older, newer = np.zeros(2, kind)
    >>> newer["ts_us"], newer["frames"], newer["delay"][6] = 60_000_000, 40, 40
    >>> found = between(older, newer)
    >>> found["frames"], found["seconds"], quantile_us(found["delay"], 0.99)
    (40, 60.0, 63)
    """
    same = older is not None and older["started_us"] == newer["started_us"] and older["ts_us"] <= newer["ts_us"]
    since = int(older["ts_us"] if same else newer["started_us"])
    found: dict[str, Any] = {"seconds": (int(newer["ts_us"]) - since) / 1e6}
    for name in newer.dtype.names:
        value = newer[name]
        if name not in _NOW and same:
            value = value - older[name]
        found[name] = value if value.ndim else value.item()
    return found


def quantile_us(counts: npt.NDArray[np.uint64], q: float) -> int | None:
    """Return an upper bound of the `q` quantile, within a factor of two, µs; None of nothing.

    Parameters
    ----------
    counts : ndarray of uint64, shape (32,)
        Buckets, as of `lag` and `delay`.
    q : float
        From 0 to 1.
    """
    total = int(counts.sum())
    if not total:
        return None
    due = max(1, int(np.ceil(q * total)))
    return upper_us(int(np.searchsorted(np.cumsum(counts), np.uint64(due))))


def upper_us(bucket: int) -> int:
    """Return the longest duration that is counted in a bucket, µs; of the last one there is none: its shortest."""
    return (1 << bucket) - 1 if bucket < BUCKETS - 1 else 1 << (BUCKETS - 2)
