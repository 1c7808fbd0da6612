"""The two feeds of a product: its book and its trades, each with the rule that is its own."""

from __future__ import annotations

import numpy as np

from deepwater.apps.counters import Counters
from deepwater.apps.outlet import Outlet
from deepwater.apps.sink import Records
from deepwater.apps.trade_ids import TradeIds, believed

__all__ = ["BookFeed", "TradesFeed"]


class BookFeed:
    """``CB-L2-<product>``: snapshots and deltas, just as they come.

    Parameters
    ----------
    product : str
    outlet : Outlet
    counters : Counters
        `levels` and `snapshots` are counted here.
    stale : set of str
        `product` is added when there is space again after deltas were let go for want of it: the
        feed's end does not rebuild to the book until a snapshot is written, which removes it.
    """

    def __init__(self, product: str, outlet: Outlet, counters: Counters, stale: set[str]) -> None:
        self.outlet = outlet
        self._product = product
        self._counters = counters
        self._stale = stale

    def write(self, records: Records, snapshot: bool, recv_us: int) -> None:
        """Append the levels of one frame; a snapshot is one indexed write.

        A snapshot without levels is a valid book that is empty, and a mark is of a record: if the venue has
        not made one of it, it is a bid at 0 of quantity 0, which removes what is not there.
        """
        if snapshot and not len(records):
            records = np.zeros(1, records.dtype)
            records["type"], records["side"], records["recv_us"] = b"S", b"B", recv_us
        was_full = self.outlet.full
        if not self.outlet.write(records, snapshot):
            return
        self._counters.levels += len(records)
        if snapshot:
            self._counters.snapshots += 1
            self._stale.discard(self._product)
        elif was_full:
            self._stale.add(self._product)


class TradesFeed:
    """``CB-TRADES-<product>``: each trade once; ids that never came are gap marks.

    Parameters
    ----------
    outlet : Outlet
    counters : Counters
        `trades`, `duplicates` and `lost_trades` are counted here.
    ids : TradeIds
        What the feed holds already.
    """

    def __init__(self, outlet: Outlet, counters: Counters, ids: TradeIds) -> None:
        self.outlet = outlet
        self._counters = counters
        self._ids = ids

    def write(self, records: Records, snapshot: bool, recv_us: int) -> None:
        """Append the new ones of one frame's trades (oldest first). `snapshot` is not used.

        They are one write, but for ids jumped over or begun anew: those are marked just before the
        trade behind them, with the time from the feed's last record to `recv_us`. A trade that was
        missing may come yet; then it is stored behind its mark.
        """
        times_us = believed(records["ev_us"].tolist(), records["recv_us"].tolist())
        new, holes = self._ids.admit(records["trade_id"].tolist(), times_us)
        self._counters.duplicates += new.count(False)
        start = 0
        for index, hole in holes:
            self._append(records[start:index], new[start:index])
            self._counters.lost_trades += hole.lost or 0
            from_us = self.outlet.last_us or recv_us
            self.outlet.gap(lost=hole.lost, from_us=from_us, to_us=recv_us, reason=hole.reason)
            start = index
        self._append(records[start:], new[start:])

    def _append(self, records: Records, new: list[bool]) -> None:
        fresh = records if all(new) else records[np.array(new)]
        if self.outlet.write(fresh):
            self._counters.trades += len(fresh)
        else:
            self._ids.withdraw(fresh["trade_id"].tolist())
