"""Messages of one connection into the feeds of its products. No sockets, no waiting, and no exchange's protocol.

`Ingest` lives as long as the recording and sees one connection after another::

    ingest.connected()            a new connection
    ingest.frame(data, recv_us)   each message
    ingest.disconnected(reason)   it is gone
    ingest.close()                the recording ends

What a message means says the venue (`venue.Stream.take`). What is guaranteed of every feed of the connection
    - a message is decoded whole before anything of it is written, and is written as one batch a feed:
      a snapshot is one indexed write, the updates of a message are one;
    - what the venue knows to be missing, a lost connection and a restart of the recorder are gap marks, before
      the first record that came after; the latter two in EVERY feed: what was lost might have been for any of
      them. `lost` is None, since it counts records: `reason` and `Counters.lost_frames` count messages;
    - trades that never came are gap marks in their feed, with their number (their ids say so), and
      each trade is stored once, oldest first.

After anything that may have lost deltas a book is wrong until its next snapshot: `stale` holds the
products to ask a fresh one for. Products may come and go (`add`, `remove`) while the connection lives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np

from deepwater.apps.coinbase_venue import COINBASE
from deepwater.apps.counters import Counters
from deepwater.apps.outlet import Outlet, now_us
from deepwater.apps.product_feeds import BookFeed, TradesFeed
from deepwater.apps.roll import Roll
from deepwater.apps.sink import Records, Sink
from deepwater.apps.trade_ids import MISSING_MAX, TradeIds, believed
from deepwater.apps.venue import Batch, FeedKey, FeedPlan, Missed, Venue

__all__ = ["Ingest", "KeepBad", "ProtocolBreach"]

_log = logging.getLogger("deepwater.recorder")
_TEXT_MAX = 300  # of what the exchange says

KeepBad = Callable[[int, str, bytes], None]
"""Keeps a message that could not be used: when it was received (µs), why, the whole of it."""


class ProtocolBreach(Exception):  # noqa: N818 - it ends a connection, not the recording
    """The connection can not be trusted any more: connect anew."""


@dataclass(frozen=True, slots=True)
class _Outage:
    """The stream was interrupted: to be marked when it flows again."""

    reason: str
    from_us: int


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
    channels : sequence of str, optional
        What is recorded; all that the venue has.
    now : callable
        Local time in µs; for tests.
    venue : Venue
        Whose protocol it is.
    keep_bad : callable, optional
        See `KeepBad`.

    Attributes
    ----------
    stale : set of str
        Products whose book is wrong until a fresh snapshot comes. Whoever asks for one removes them.
    asked : dict of str to float
        When fresh snapshots were asked for that have not come, by the clock of who asked.
    roll : Roll
        What is subscribed, and what is to be said to the exchange of that.
    """

    def __init__(
        self,
        sink: Sink,
        products: Sequence[str],
        counters: Counters,
        channels: Sequence[str] | None = None,
        now: Callable[[], int] = now_us,
        venue: Venue = COINBASE,
        keep_bad: KeepBad | None = None,
    ) -> None:
        self._sink = sink
        self._venue = venue
        self._channels = list(venue.channels if channels is None else channels)
        self._counters = counters
        self._now = now
        self._keep_bad = keep_bad
        self._stream = venue.connection()
        self._last_recv_us = 0
        self._outage: _Outage | None = None
        self.stale: set[str] = set()
        self._unsure: set[str] = set()  # products of which something may have been lost before they were answered
        self._back: set[str] = set()  # products that came back on this connection: no snapshot since
        self.asked: dict[str, float] = {}
        self._feeds: dict[FeedKey, BookFeed | TradesFeed] = {}
        self._behind: dict[FeedKey, str] = {}  # feeds that held records when they were opened: why they lack some
        self.roll = Roll(venue, self._channels, self._error, self._refused, self._granted)
        for product in products:
            self.add(product, "recorder restarted")

    # -- products ------------------------------------------------------------------------------------

    def add(self, product: str, reason: str = "not subscribed") -> None:
        """Open the feeds of a product. Those that hold records get a gap mark, when the connection delivers.

        Raises
        ------
        DeepwaterError
            A feed can not be opened; then none of the product stays open.
        """
        opened: list[FeedPlan] = []
        try:
            for plan in self._venue.feeds(product, self._channels):
                opened.append(plan)
                self._feeds[plan.key] = self._open(plan, reason)
        except BaseException:
            for plan in opened:
                self._feeds.pop(plan.key, None)
                self._behind.pop(plan.key, None)
                self._sink.release(plan.spec.feed_name)
            raise
        if FeedKey("book", product) in self._behind:
            self._back.add(product)
        self.roll.add(product)

    def remove(self, product: str) -> None:
        """Mark what is still unmarked in the feeds of a product, and close them."""
        for key in [key for key in self._feeds if key.product == product]:
            if self.interrupted:
                self._mark_outage(key, self._outage, self._now())
            feed = self._feeds.pop(key)
            self._behind.pop(key, None)
            feed.outlet.settle()
            self._sink.release(feed.outlet.name)
        for products in (self.stale, self._unsure, self._back):
            products.discard(product)
        self.asked.pop(product, None)
        self.roll.remove(product)

    def _open(self, plan: FeedPlan, reason: str) -> BookFeed | TradesFeed:
        writer = self._sink.open(plan.spec)
        tail = self._sink.tail(plan.spec, 1 if plan.key.kind == "book" else MISSING_MAX)
        if len(tail):
            self._behind[plan.key] = reason
        last_us = int(tail["proc_us"][-1]) if len(tail) else 0
        outlet = Outlet(plan.spec.feed_name, writer, self._counters, last_us, self._now)
        if plan.key.kind == "book":
            return BookFeed(plan.key.product, outlet, self._counters, self.stale)
        times_us = believed(tail["ev_us"].tolist(), tail["recv_us"].tolist())
        ids = TradeIds.resume(tail["trade_id"].tolist(), times_us)
        return TradesFeed(outlet, self._counters, ids)

    # -- the connection ------------------------------------------------------------------------------

    def connected(self) -> None:
        """Begin a connection: its subscriptions send fresh snapshots."""
        self._stream = self._venue.connection()
        self.roll.begin()
        for products in (self.stale, self._unsure, self._back):
            products.clear()
        self.asked.clear()
        self._counters.connections += 1

    @property
    def interrupted(self) -> bool:
        """Whether a stream that had delivered was lost, and none has delivered since."""
        return self._outage is not None

    def disconnected(self, reason: str) -> None:
        """Remember that the stream was interrupted; the marks follow when one delivers again."""
        if self._outage is None and self._last_recv_us:
            self._outage = _Outage(f"reconnect: {reason}", self._last_recv_us)

    def close(self) -> None:
        """Mark what is still unmarked: an outage that did not end, records that found no space."""
        if self.interrupted:
            self._end_outage(self._now())
        for feed in self._feeds.values():
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
            Whether the connection delivers.

        Raises
        ------
        ProtocolBreach
            If the stream is not the one subscribed to. The message is not stored.
        """
        began = perf_counter_ns()
        counters = self._counters
        counters.frames += 1
        counters.bytes += len(data)
        counters.last_frame_us = recv_us
        message = self._stream.take(data, recv_us)
        counters.heartbeats += message.heartbeat
        counters.ignored += message.ignored
        if self.roll.open:
            self._answered([*message.granted, *(batch.key for batch in message.batches)])
        if message.error:
            self.roll.error(message.error, message.refused)
        if message.bad:
            self._bad(message.bad, data, recv_us)
        if message.delivers:
            self._delivers(message.missed, message.breach, recv_us)
        for batch in self._merged(message.batches):
            feed = self._feeds[batch.key]
            feed.write(batch.records, batch.snapshot, recv_us)
            if len(batch.records):
                self._time(feed, recv_us, int(batch.records["packet_us"][0]), began)
            if self._back and batch.key.kind == "book":
                self._came_back(batch)
            if batch.snapshot and self.asked:
                self.asked.pop(batch.key.product, None)
        if message.delivers and not message.bad:
            counters.handling.add((perf_counter_ns() - began) // 1000)
        return message.delivers

    def _time(self, feed: BookFeed | TradesFeed, recv_us: int, packet_us: int, began: int) -> None:
        counts = self._counters.feed(feed.outlet.name)
        counts.handling.add((perf_counter_ns() - began) // 1000)
        if packet_us:
            counts.lag.add(recv_us - packet_us)
            self._counters.lag.add(recv_us - packet_us)

    def _merged(self, batches: list[Batch]) -> list[Batch]:
        """Leave out feeds that are not recorded; runs of updates of one feed become one write."""
        if len(batches) == 1 and batches[0].key in self._feeds:
            return batches
        runs: list[list[Batch]] = []
        for batch in batches:
            if batch.key not in self._feeds:
                self._counters.ignored += 1
                continue
            last = next((run for run in reversed(runs) if run[0].key == batch.key), None)
            if last is None or batch.snapshot or last[0].snapshot:
                runs.append([batch])
            else:
                last.append(batch)
        return [run[0] if len(run) == 1 else Batch(run[0].key, _joined([part.records for part in run])) for run in runs]

    def _answered(self, keys: list[FeedKey]) -> None:
        """Take note of what comes. If something was lost meanwhile, that may have been the book's snapshot."""
        self.roll.granted(keys)
        late = {key.product for key in keys if key.kind == "book"} & self._unsure
        self.stale |= late
        self._unsure -= late

    def _came_back(self, batch: Batch) -> None:
        """Ask for the book of one that came back, if it goes on as if it had never gone: behind the mark is none."""
        product = batch.key.product
        if product in self._back and (batch.snapshot or self.roll.has(batch.key)):
            self._back.discard(product)
            if not batch.snapshot:
                self.stale.add(product)

    def _error(self, text: str) -> None:
        self._counters.errors += 1
        self._counters.last_error = f"exchange: {_short(text)}"
        _log.warning("the exchange says: %s", _short(text))

    def _refused(self, product: str, text: str) -> None:
        self._counters.errors += 1
        self._counters.last_error = f"product {product} is refused by the exchange: {_short(text)}"
        _log.warning("%s; it is asked for again now and then", self._counters.last_error)

    def _granted(self, product: str) -> None:
        _log.warning("product %s is not refused any more", product)

    def _bad(self, reason: str, data: bytes, recv_us: int) -> None:
        """Count a message that could not be used, and keep it aside."""
        self._counters.bad(recv_us, reason, data)
        _log.warning("%s", reason)
        if self._keep_bad is not None:
            self._keep_bad(recv_us, reason, data)

    # -- continuity ----------------------------------------------------------------------------------

    def _delivers(self, missed: list[Missed], breach: str, recv_us: int) -> None:
        """End an outage, mark what is missing, refuse a stream that is another one."""
        if self._outage is not None or self._behind:
            self._end_outage(recv_us)
        if missed:
            before_us = self._last_recv_us
            for one in missed:
                self._lost(one, one.from_us or before_us, recv_us)
        if breach:
            raise ProtocolBreach(breach)  # the connection ends, and that is marked
        self._last_recv_us = recv_us

    def _lost(self, missed: Missed, from_us: int, to_us: int) -> None:
        """Messages are missing: say so in the feeds they might have been for, and want fresh books."""
        self._counters.gaps += 1
        self._counters.lost_frames += missed.frames
        self._counters.last_error = missed.reason
        for key in self._feeds if missed.feeds is None else missed.feeds:
            feed = self._feeds.get(key)
            if feed is not None:
                if key.kind == "book":
                    (self.stale if self.roll.has(key) else self._unsure).add(key.product)
                feed.outlet.gap(lost=None, from_us=from_us or to_us, to_us=to_us, reason=missed.reason)

    def _end_outage(self, to_us: int) -> None:
        outage, self._outage = self._outage, None
        for key in self._feeds:
            self._mark_outage(key, outage, to_us)
        self._behind.clear()

    def _mark_outage(self, key: FeedKey, outage: _Outage | None, to_us: int) -> None:
        """Mark one feed. One that was opened meanwhile lacks more: all since its own last record."""
        outlet = self._feeds[key].outlet
        behind = self._behind.get(key)
        if behind is not None:
            outlet.gap(lost=None, from_us=outlet.last_us, to_us=to_us, reason=behind)
        elif outage is not None:
            outlet.gap(lost=None, from_us=outage.from_us, to_us=to_us, reason=outage.reason)


def _short(text: str) -> str:
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}..."


def _joined(parts: list[Records]) -> Records:
    """Return the parts as one array; `np.concatenate` would close the gaps of their dtype."""
    out = np.zeros(sum(map(len, parts)), parts[0].dtype)
    at = 0
    for part in parts:
        out[at : at + len(part)] = part
        at += len(part)
    return out
