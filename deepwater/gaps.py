"""Where a feed is contiguous, and what it missed. Functions of readers.

A *gap* is what a mark says (kinds gap and dropped), the beginning that was removed (retention, or a ring that
overwrote it), and, where a caller wants that, a pause of a clock. A *span* is a run of positions without a gap: cut at
every gap, at nothing else.

A span has two times. Its records lie from `from_us` to `to_us`. Nothing was missed from `whole_from_us` to
`whole_to_us`, which reaches further where it is known to: to the times that the gap's own mark gives (a feed may have
been silent long before something was missed), and to the bounds asked for where the feed goes on beyond them. The
times of a mark are the writer's, of the primary clock: on another clock they say nothing.

A clock may step back across a gap. Then the missing records may belong anywhere where both sides have records, so
what lies in two spans lies in no interval of `Contiguity.intervals`, nor of `common`. Clock values 0 and 2^64-1 are
no times.

Cost: the marks are read, and the chunks that a gap cuts are opened. Only a pause is searched in records, in blocks of
NumPy, and chunks too short in time to hold one are not opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater import marks
from deepwater.chain import Chain
from deepwater.cuts import REMOVED, SILENCE, SPAN_DTYPE, answer
from deepwater.held import Held
from deepwater.reader import Reader
from deepwater.timestamps import MAX_US, duration_us, format_us, resolve

INTERVAL_DTYPE = np.dtype([("from_us", np.uint64), ("to_us", np.uint64)])
"""What `common` returns: µs, both inclusive."""

__all__ = ["INTERVAL_DTYPE", "REMOVED", "SILENCE", "SPAN_DTYPE", "Contiguity", "common", "contiguous"]

Array = npt.NDArray[Any]
Stamps = npt.NDArray[np.uint64]
_FAR = np.uint64(MAX_US)
_SHOWN = 8


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Contiguity:
    """Where a feed is contiguous on a clock. Made by `contiguous`; copies, valid for ever.

    Attributes
    ----------
    feed, clock : str
    lo, hi : int
        The bounds asked for, µs, both inclusive; 0 and 2^64-1 where there was none.
    spans : numpy.ndarray of `SPAN_DTYPE`
        By position. One without records (``first == stop``) lies between two records: nothing happened then and
        nothing was missed.
    gaps : numpy.ndarray of `deepwater.index.MARK_DTYPE`
        By position: `count` records (2^64-1: unknown) were missed before the record at `position`, between `from_us`
        and `to_us` (0: unknown), for a `reason`. Of the kinds gap and dropped (marks), removed and silence.
    """

    feed: str
    clock: str
    lo: int
    hi: int
    spans: Array
    gaps: Array

    @property
    def records(self) -> int:
        """How many records the spans hold."""
        return int(self.spans["records"].sum())

    @property
    def extent(self) -> tuple[int, int] | None:
        """What time this is about, µs, inclusive: the bounds asked for, else what is held; None: no time at all."""
        known = self.spans[self.spans["whole_to_us"] > 0]
        if not len(known) and (self.lo == 0 or self.hi == MAX_US or self.lo > self.hi):
            return None
        low = self.lo or int(known["whole_from_us"].min())
        return low, int(known["whole_to_us"].max()) if self.hi == MAX_US else self.hi

    @property
    def covered_us(self) -> int:
        """How long nothing was missed, µs: the lengths of the `intervals`."""
        found = self.intervals()
        return int((found["to_us"] - found["from_us"]).sum())

    @property
    def share(self) -> float:
        """`covered_us` as a part of the `extent`, 0 to 1; 1 of an extent of no length that is held."""
        extent = self.extent
        if extent is None:
            return 0.0
        length = extent[1] - extent[0]
        return self.covered_us / length if length else float(len(self.intervals()) > 0)

    def intervals(self) -> Array:
        """The times at which nothing is known to be missing, by time, apart from one another; of `INTERVAL_DTYPE`.

        What lies in two spans lies in none of them: there something is missing, and nobody knows of which side.
        """
        known = self.spans[self.spans["whole_to_us"] > 0]
        return _where(known["whole_from_us"], known["whole_to_us"], 1)

    def __repr__(self) -> str:
        lines = [f"Contiguity of {self.feed!r} on {self.clock}: {_number(len(self.spans), 'span')}, "
                 f"{_number(len(self.gaps), 'gap')}, {self.share:.2%} covered"]  # fmt: skip
        lines += [
            f"positions {first} to {stop}: {format_us(begin)} to {format_us(end)}, {_number(records, 'record')}"
            for first, stop, records, _, _, begin, end in self.spans[:_SHOWN].tolist()
        ]
        more = [f"and {len(self.spans) - _SHOWN:,} more"] if len(self.spans) > _SHOWN else []
        return "<" + "\n  ".join(lines + more) + ">"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def contiguous(reader: Reader, start: Any = None, end: Any = None, *, clock: str | None = None,
               silence: Any = None) -> Contiguity:  # fmt: skip
    """Say where a feed is contiguous: its spans, and the gaps between them.

    Parameters
    ----------
    reader : Reader
        Of a durable feed, or of a ring, which keeps no marks: it knows only what it has overwritten.
    start, end : optional
        Any time form of `deepwater.timestamps`, both inclusive; a str or a date names a period. Of the feed what lies
        from the first to the last record within them. Default: all that is held.
    clock : str, optional
        Which clock the times are of; the primary one by default. It need not be sorted.
    silence : str, timedelta, optional
        A pause of the clock longer than this is a gap too (``"5s"``): where its running maximum jumps by more.

    Returns
    -------
    Contiguity

    Raises
    ------
    RecordError, TimeFormatError
        There is no such clock; a bound is no time, or `silence` no duration.
    CorruptFileError, ChunkGoneError

    Notes
    -----
    One look at what is published. A gap at the very end of a feed, where no record has followed yet, is in `gaps`.
    In the thread of the reader.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from deepwater import Platform
    >>> with TemporaryDirectory() as place, Platform(place) as dw:
    ...     _ = dw.create_feed({"feed_name": "A", "fields": [{"name": "t_us", "type": "u64"}], "ts_col": "t_us"})
    ...     with dw.create_writer("A") as writer:
    ...         _ = writer.write_batch({"t_us": [10, 20, 30]})
    ...         _ = writer.mark_gap(lost=3, from_us=35, to_us=60, reason="reconnect")
    ...         _ = writer.write_batch({"t_us": [70, 80]})
    ...     found = contiguous(dw["A"])
    >>> found.spans[["first", "stop", "from_us", "to_us", "whole_to_us"]].tolist(), found.gaps["count"].tolist()
    ([(0, 3, 10, 30, 35), (3, 5, 70, 80, 80)], [3])
    >>> found.covered_us, found.extent
    (45, (10, 80))
    """
    number = reader._clock(clock)
    bounds = resolve(start, end)
    pause = None if silence is None else duration_us(silence)
    chain = reader._chain
    noted = reader.gaps()  # of what is published by then: `stop`
    stop = chain.end if isinstance(chain, Chain) else MAX_US

    def question(held: Held) -> tuple[Array, Array]:
        return answer(held, min(stop, held.end), number, bounds, noted, pause)

    name = reader.layout.clocks[number]
    spans, gaps = reader._ask(question) if bounds.lo <= bounds.hi else (np.zeros(0, SPAN_DTYPE), marks.none())
    return Contiguity(reader.feed, name, bounds.lo, bounds.hi, spans, gaps)


def common(feeds: Iterable[Reader | Contiguity], start: Any = None, end: Any = None, *,
           clock: str | Mapping[str, str] | None = None, silence: Any = None) -> Array:  # fmt: skip
    """Say when none of several feeds misses anything: the intersection of their `Contiguity.intervals`.

    Parameters
    ----------
    feeds : iterable of Reader or Contiguity
        At least one. What `contiguous` returned is taken as it is: so feeds may have different clocks and pauses.
    start, end, silence : optional
        For readers, as in `contiguous`.
    clock : str, or mapping of feed name to str, optional
        A clock of all readers, or of some; the primary clock of a feed by default.

    Returns
    -------
    numpy.ndarray
        Of `INTERVAL_DTYPE`, by time, apart from one another: µs, both inclusive, as `Reader.read` takes them.

    Raises
    ------
    ValueError
        No feed.
    RecordError, TimeFormatError, CorruptFileError, ChunkGoneError
        As `contiguous`.

    Examples
    --------
    ::

        for a, b in common([dw["CB-TRADES-BTC-USD"], dw["CB-L2-BTC-USD"]], "2026-08-09").tolist():
            trades, book = dw["CB-TRADES-BTC-USD"].read(a, b), dw["CB-L2-BTC-USD"].read(a, b)
    """
    found = []
    for feed in feeds:
        if isinstance(feed, Reader):
            of = clock.get(feed.feed) if isinstance(clock, Mapping) else clock
            feed = contiguous(feed, start, end, clock=of, silence=silence)
        found.append(feed.intervals())
    if not found:
        raise ValueError("common() of no feed: give at least one reader")
    every = np.concatenate(found)
    return _where(every["from_us"], every["to_us"], len(found))


# --- intervals ---------------------------------------------------------------------------------------


def _where(starts: Stamps, stops: Stamps, depth: int) -> Array:
    """The times in exactly `depth` of the intervals ``start <= t <= stop``; intervals that only touch stay apart."""
    edges = np.concatenate((starts, np.minimum(stops, _FAR - np.uint64(1)) + np.uint64(1)))
    steps = np.repeat(np.array([1, -1]), len(starts))
    order = np.lexsort((steps, edges))  # at one time intervals end before others begin: they stay apart
    edges, inside = edges[order], np.cumsum(steps[order])
    found = np.flatnonzero((inside[:-1] == depth) & (edges[:-1] < edges[1:]))
    out = np.zeros(len(found), INTERVAL_DTYPE)
    out["from_us"], out["to_us"] = edges[found], edges[found + 1] - np.uint64(1)
    return out
