"""Frames of one connection into the feeds of its products. No sockets, no waiting.

`Ingest` lives as long as the recording and sees one connection after another::

    ingest.connected()            a new connection: numbers start at 0
    ingest.frame(data, recv_us)   each message
    ingest.disconnected(reason)   it is gone
    ingest.close()                the recording ends

What it guarantees of every feed of the connection
    - a frame is decoded whole before anything of it is written, and is written as one batch a feed:
      a snapshot is one indexed write, the updates of a frame are one;
    - a break in the numbering, a frame that could not be decoded, a lost connection and a restart of
      the recorder are gap marks in EVERY feed, before the first record that came after: the lost
      frame might have been for any of them. `lost` is None, since it counts records: `reason` and
      `Counters.lost_frames` count frames;
    - trades that never came are gap marks in their feed, with their number (their ids say so), and
      each trade is stored once, oldest first.

After anything that may have lost deltas a book is wrong until its next snapshot: `stale` holds the
products to ask a fresh one for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np

from deepwater.apps import coinbase, specs
from deepwater.apps.counters import Counters
from deepwater.apps.outlet import Outlet, now_us
from deepwater.apps.product_feeds import BookFeed, TradesFeed
from deepwater.apps.sequence import Sequence as Numbers
from deepwater.apps.sink import Records, Sink
from deepwater.apps.trade_ids import MISSING_MAX, TradeIds

__all__ = ["Ingest", "ProtocolBreach"]

_log = logging.getLogger("deepwater.recorder")
_TEXT_MAX = 300  # of what the exchange says


class ProtocolBreach(Exception):  # noqa: N818 - it ends a connection, not the recording
    """The connection can not be trusted any more: connect anew."""


@dataclass(slots=True)
class _Batch:
    """What one frame holds for one feed."""

    feed: BookFeed | TradesFeed
    snapshot: bool
    parts: list[Records]

    def records(self) -> Records:
        """Return the parts as one array; `np.concatenate` would close the gaps of their dtype."""
        if len(self.parts) == 1:
            return self.parts[0]
        out = np.zeros(sum(map(len, self.parts)), self.parts[0].dtype)
        at = 0
        for part in self.parts:
            out[at : at + len(part)] = part
            at += len(part)
        return out


@dataclass(frozen=True, slots=True)
class _Outage:
    """The stream was interrupted: to be marked when it flows again.

    `from_us` is None after a restart: each feed's own last record tells.
    """

    reason: str
    from_us: int | None


class Ingest:
    """The feeds of one connection's products. One owner, one event loop.

    Parameters
    ----------
    sink : Sink
        Where the feeds are opened, at once.
    products : sequence of str
        Product ids.
    counters : Counters
        Shared by all connections of the recording.
    channels : sequence of {"level2", "market_trades"}
        What is recorded.
    now : callable
        Local time in µs; for tests.

    Attributes
    ----------
    stale : set of str
        Products whose book is wrong until a fresh snapshot comes. Whoever asks for one removes them.
    """

    def __init__(
        self,
        sink: Sink,
        products: Sequence[str],
        counters: Counters,
        channels: Sequence[str] = ("level2", "market_trades"),
        now: Callable[[], int] = now_us,
    ) -> None:
        self._counters = counters
        self._now = now
        self._numbers = Numbers()
        self._last_recv_us = 0
        self._outage: _Outage | None = None
        self.stale: set[str] = set()
        self._books: dict[str, BookFeed] = {}
        self._trades: dict[str, TradesFeed] = {}
        for product in products:
            if "level2" in channels:
                outlet, _ = self._open(sink, specs.L2, product, 1)
                self._books[product] = BookFeed(product, outlet, counters, self.stale)
            if "market_trades" in channels:
                outlet, tail = self._open(sink, specs.TRADES, product, MISSING_MAX)
                ids = TradeIds.resume(tail["trade_id"].tolist(), tail["ev_us"].tolist())
                self._trades[product] = TradesFeed(outlet, counters, ids)

    def _open(self, sink: Sink, kind: str, product: str, count: int) -> tuple[Outlet, Records]:
        spec = specs.spec(kind, product)
        writer = sink.open(spec)
        tail = sink.tail(spec, count)
        if len(tail):
            self._outage = _Outage("recorder restarted", None)
        last_us = int(tail["proc_us"][-1]) if len(tail) else 0
        return Outlet(spec.feed_name, writer, self._counters, last_us, self._now), tail

    # -- the connection ------------------------------------------------------------------------------

    def connected(self) -> None:
        """Begin a connection: its numbers start at 0 and its subscriptions send fresh snapshots."""
        self._numbers = Numbers()
        self.stale.clear()
        self._counters.connections += 1

    @property
    def interrupted(self) -> bool:
        """Whether a stream that had delivered was lost, and none has delivered since."""
        return self._outage is not None and self._outage.from_us is not None

    def disconnected(self, reason: str) -> None:
        """Remember that the stream was interrupted; the marks follow when one delivers again."""
        if self._outage is None and self._last_recv_us:
            self._outage = _Outage(f"reconnect: {reason}", self._last_recv_us)

    def close(self) -> None:
        """Mark what is still unmarked: an outage that did not end, records that found no space."""
        if self.interrupted:
            self._end_outage(self._now())
        for feed in self._feeds():
            feed.outlet.settle()

    # -- frames --------------------------------------------------------------------------------------

    def frame(self, data: bytes, recv_us: int) -> bool:
        """Take one message.

        Parameters
        ----------
        data : bytes
            The whole message.
        recv_us : int
            Local time of its receipt, µs.

        Returns
        -------
        bool
            Whether it was a frame with a number, that is, the connection delivers.

        Raises
        ------
        ProtocolBreach
            If the numbers step back. The frame is not stored.
        """
        began = perf_counter_ns()
        self._counters.frames += 1
        self._counters.bytes += len(data)
        self._counters.last_frame_us = recv_us
        try:
            frame = coinbase.decode(data)
            if isinstance(frame, coinbase.ErrorFrame):
                self._error(frame)
                return False
            batches = self._batches(frame, recv_us)
        except coinbase.FrameError as error:
            return self._bad(error, data, recv_us)
        self._number(frame.sequence_num, recv_us)
        for batch in batches:
            records = batch.records()
            batch.feed.write(records, batch.snapshot, recv_us)
            if len(records):
                lag_us = recv_us - int(records["packet_us"][0])
                counts = self._counters.feed(batch.feed.outlet.name)
                counts.lag.add(lag_us)
                counts.handling.add((perf_counter_ns() - began) // 1000)
                self._counters.lag.add(lag_us)
        self._counters.handling.add((perf_counter_ns() - began) // 1000)
        return True

    def _batches(self, frame: coinbase.Numbered, recv_us: int) -> list[_Batch]:
        """Everything a frame holds, decoded; nothing is written yet, so it may still be refused."""
        batches: list[_Batch] = []
        if isinstance(frame, coinbase.L2Data):
            for event in frame.events or ():
                records = coinbase.l2_records(frame, event, recv_us)
                self._put(batches, self._books.get(event.product_id), event.type == "snapshot", records)
        elif isinstance(frame, coinbase.MarketTrades):
            for product, trades in coinbase.trades_by_product(frame):
                records = coinbase.trade_records(frame, trades, recv_us)
                self._put(batches, self._trades.get(product), False, records)
        elif isinstance(frame, coinbase.Heartbeats):
            self._counters.heartbeats += 1
        elif isinstance(frame, coinbase.Other):
            self._counters.ignored += 1
        return batches

    def _put(self, batches: list[_Batch], feed: BookFeed | TradesFeed | None, snapshot: bool, records: Records) -> None:
        """Add records to a frame's batches; runs of updates of one feed become one write."""
        if feed is None:
            self._counters.ignored += 1
            return
        last = next((batch for batch in reversed(batches) if batch.feed is feed), None)
        if last is None or snapshot or last.snapshot:
            batches.append(_Batch(feed, snapshot, [records]))
        else:
            last.parts.append(records)

    def _error(self, frame: coinbase.ErrorFrame) -> None:
        text = frame.message if len(frame.message) <= _TEXT_MAX else f"{frame.message[:_TEXT_MAX]}..."
        self._counters.errors += 1
        self._counters.last_error = f"exchange: {text}"
        _log.warning("the exchange says: %s", text)

    def _bad(self, error: coinbase.FrameError, data: bytes, recv_us: int) -> bool:
        """Count a frame that could not be used. With a number its loss is marked here, else by the next."""
        self._counters.bad(recv_us, str(error), data)
        _log.warning("%s", error)
        if error.sequence_num is None:
            return False
        before_us = self._last_recv_us
        self._number(error.sequence_num, recv_us)
        self._lost(1, before_us, recv_us, str(error))
        return True

    # -- continuity ----------------------------------------------------------------------------------

    def _number(self, number: int, recv_us: int) -> None:
        """Take the number of a frame: end an outage, mark a jump, refuse a step back."""
        self._end_outage(recv_us)
        jump = self._numbers.check(number)
        if jump is not None:
            if jump.lost is None:
                raise ProtocolBreach(jump.reason)  # the connection ends, and that is marked
            self._lost(jump.lost, self._last_recv_us, recv_us, jump.reason)
        self._last_recv_us = recv_us

    def _lost(self, frames: int, from_us: int, to_us: int, reason: str) -> None:
        """Frames are missing: say so in every feed, and want fresh books."""
        self._counters.gaps += 1
        self._counters.lost_frames += frames
        self._counters.last_error = reason
        self.stale.update(self._books)
        for feed in self._feeds():
            feed.outlet.gap(lost=None, from_us=from_us or to_us, to_us=to_us, reason=reason)

    def _end_outage(self, to_us: int) -> None:
        outage, self._outage = self._outage, None
        if outage is None:
            return
        for feed in self._feeds():
            from_us = outage.from_us or feed.outlet.last_us
            if from_us:  # a feed that had no record before a restart has no gap
                feed.outlet.gap(lost=None, from_us=from_us, to_us=to_us, reason=outage.reason)

    def _feeds(self) -> list[BookFeed | TradesFeed]:
        return [*self._books.values(), *self._trades.values()]
