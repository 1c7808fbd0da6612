"""What an exchange with faults really had, beside what it sent: the oracle of recordings that were hurt on purpose.

`Truth` stands between a synthetic market and its clients: it keeps every frame that was made, lost ones too, and which
of them were sent, in which order. A feed is then held against it, by json and dicts and nothing of deepwater but the
incremental book that is judged:

- every book that says it is to be trusted is the exchange's at that frame;
- a gap is marked where something is missing between two records of a feed (another connection, a frame that did not
  come in its order, a trade id that was jumped over), and nowhere else;
- each trade is there once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepwater.apps.exchange_session import ClientSession, Outgoing
from deepwater.apps.market import Market, Step
from deepwater.book import OrderBook
from deepwater.reader import Reader

Sides = tuple[list[tuple[float, float]], list[tuple[float, float]]]
_MICRO = 1000


@dataclass
class _Connection:
    made: list[dict[str, Any]] = field(default_factory=list)  # numbered frames, in order
    come: set[int] = field(default_factory=set)  # numbers sent in their order
    last: int = -1

    def sent(self, number: int) -> None:
        if number > self.last:
            self.come.add(number)
            self.last = number


class Truth:
    """Keeps what one exchange does. `session` is for `Synthetic`, `on_send` for `Exchange`."""

    def __init__(self) -> None:
        self.connections: list[_Connection] = []
        self._now_us = 0

    def session(self, market: Market) -> _Session:
        self.connections.append(_Connection())
        return _Session(ClientSession(market, self._clock), self.connections[-1])

    def on_send(self, ordinal: int, data: bytes) -> None:
        frame = json.loads(data)
        if "sequence_num" in frame:
            self.connections[ordinal].sent(frame["sequence_num"])

    def _clock(self) -> int:
        """No two frames have the same stamp, so a record's `packet_us` names its frame."""
        self._now_us = max(time.time_ns() // _MICRO, self._now_us + 1)
        return self._now_us * _MICRO

    # -- what is wrong with a feed ---------------------------------------------------------------------

    def wrong(self, reader: Reader, product: str, kind: str, *, without_gaps: bool = False) -> list[str]:
        """Say everything in which a feed is not what it has to be; `kind` "L2" or "TRADES"."""
        rows, marks = reader.rows(reader.first, reader.end).to_numpy(), reader.marks()
        if without_gaps:
            marks = reader.snapshots()
        found = self.wrong_gaps(rows, set(reader.gaps()["position"].tolist()), kind)
        if kind == "TRADES":
            ids = rows["trade_id"].tolist()
            return found + (["a trade is there twice"] if len(set(ids)) < len(ids) else [])
        return found + self._wrong_books(rows, self._places(rows), marks, product)

    def _places(self, rows: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
        """Connection and number of the frame of each row."""
        named = {
            _micros(frame["timestamp"]): (ordinal, frame["sequence_num"])
            for ordinal, connection in enumerate(self.connections)
            for frame in connection.made
        }
        return [named[stamp] for stamp in rows["packet_us"].tolist()]

    def wrong_gaps(self, rows: np.ndarray[Any, Any], marked: set[int], kind: str) -> list[str]:
        """Say where a mark is missing, and where one is that should not be there; `marked` are positions."""
        places = self._places(rows)
        wanted = {at for at in range(1, len(rows)) if self._is_hole(places[at - 1], places[at])}
        if kind == "TRADES":
            ids = rows["trade_id"]
            highest = np.maximum.accumulate(ids)
            wanted |= {int(at) + 1 for at in np.flatnonzero(ids[1:] > highest[:-1] + 1)}
        inside = {at for at in marked if 0 < at < len(rows)}
        return [f"no gap at {at}: {places[at - 1]} {places[at]}" for at in sorted(wanted - inside)] + [
            f"a gap at {at} where nothing is missing: {places[at - 1]} {places[at]}" for at in sorted(inside - wanted)
        ]

    def _is_hole(self, before: tuple[int, int], after: tuple[int, int]) -> bool:
        if before[0] != after[0]:
            return True
        come = self.connections[before[0]].come
        return any(number not in come for number in range(before[1] + 1, after[1]))

    def _wrong_books(
        self, rows: np.ndarray[Any, Any], places: list[tuple[int, int]], marks: np.ndarray[Any, Any], product: str
    ) -> list[str]:
        book, found, trusted = OrderBook(), [], 0
        books, ordinal = iter(()), -1
        cuts = [at for at in range(1, len(rows)) if places[at] != places[at - 1]]
        for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
            if places[start][0] != ordinal:
                ordinal = places[start][0]
                books = self._books(ordinal, product)
            sides = next(sides for number, sides in books if number == places[start][1])
            book.apply(rows[start:stop], marks)
            if book.valid:
                trusted += 1
                now = book.book()
                if (dict(now.bids.tolist()), dict(now.asks.tolist())) != sides:
                    found.append(f"the book at {stop} is wrong: frame {places[start]}")
                if now.crossed:
                    found.append(f"the book at {stop} is crossed")
        return found if trusted else [*found, "no book was ever to be trusted"]

    def _books(self, ordinal: int, product: str) -> Iterator[tuple[int, tuple[dict[float, float], dict[float, float]]]]:
        """Number and book after each frame of a product that was made, sent or not."""
        book: dict[str, dict[float, float]] = {"bid": {}, "offer": {}}
        for frame in self.connections[ordinal].made:
            for event in frame["events"] if frame["channel"] == "l2_data" else ():
                if event["product_id"] != product:
                    continue
                if event["type"] == "snapshot":
                    book = {"bid": {}, "offer": {}}
                for level in event["updates"]:
                    side, price = book[level["side"]], float(level["price_level"])
                    side[price] = float(level["new_quantity"])
                    if not side[price]:
                        del side[price]
                yield frame["sequence_num"], (book["bid"], book["offer"])


class _Session:
    """A client's side of the market whose frames are all kept."""

    def __init__(self, session: ClientSession, connection: _Connection) -> None:
        self._session = session
        self._connection = connection

    def _kept(self, frames: list[Outgoing]) -> list[Outgoing]:
        self._connection.made += [json.loads(data) for number, data in frames if number >= 0]
        return frames

    def receive(self, text: str | bytes) -> list[Outgoing]:
        return self._kept(self._session.receive(text))

    def step(self, product: str, step: Step) -> list[Outgoing]:
        return self._kept(self._session.step(product, step))

    def heartbeat(self) -> list[Outgoing]:
        return self._kept(self._session.heartbeat())


def _micros(text: str) -> int:
    """Of a stamp with at most six digits of a second, as `Truth` makes them."""
    return int(np.datetime64(text.removesuffix("Z"), "us").astype(np.int64))
