"""A synthetic market: books that are traded against, the same for the same seed.

Each product is an `Auction`: resting levels in integer ticks and lots (no float drifts), an order
flow that adds, changes and removes levels near the touch, and market orders that eat the best levels
and so print trades at the prices the book showed. It never crosses, trade ids count up by one, and
now and then it deletes a level that is not there, as the real feed does.

Nothing here knows of frames, sockets or the wall clock: the caller passes the time.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from deepwater.errors import DeepwaterError

__all__ = ["Auction", "Change", "Market", "Print", "Step"]

_LOT_DIGITS = 8
_SNAPSHOT_TRADES = 100
# price, digits of a tick, typical order in units of the base currency
_KNOWN = {
    "BTC-USD": (65_000.0, 2, 0.05),
    "ETH-USD": (1_920.0, 2, 0.8),
    "SOL-USD": (148.0, 2, 12.0),
    "XRP-USD": (0.62, 4, 2_000.0),
    "DOGE-USD": (0.118, 5, 9_000.0),
}


@dataclass(frozen=True, slots=True)
class Change:
    """A level's new absolute quantity; texts as they go over the wire, "0" = gone."""

    side: str  # "bid" or "offer"
    price: str
    quantity: str


@dataclass(frozen=True, slots=True)
class Print:
    """A trade; `side` is the maker's, "BUY" or "SELL"."""

    trade_id: int
    price: str
    size: str
    side: str
    time_us: int


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did: changes in order, trades oldest first."""

    time_us: int
    changes: list[Change]
    trades: list[Print]


def decimal_text(units: int, digits: int) -> str:
    """Return ``units / 10**digits`` as the exchange writes numbers: plain, no trailing zeros.

    Examples
    --------
    >>> decimal_text(6469950, 2), decimal_text(33, 8), decimal_text(0, 8), decimal_text(1900, 0)
    ('64699.5', '0.00000033', '0', '1900')
    """
    if not digits:
        return str(units)
    text = f"{units:0{digits + 1}d}"
    return f"{text[:-digits]}.{text[-digits:]}".rstrip("0").rstrip(".")


class _Side:
    """Resting quantity by price, in ticks; `prices` ascending."""

    def __init__(self, name: str, maker: str, best: int) -> None:
        self.name = name
        self.maker = maker
        self.best_at = best  # index of the best price: -1 of bids, 0 of offers
        self.away = -1 if best else 1  # direction of worse prices
        self.prices: list[int] = []
        self.lots: dict[int, int] = {}

    @property
    def best(self) -> int:
        return self.prices[self.best_at]

    def put(self, price: int, lots: int) -> None:
        """Set a level; 0 removes it, and may name one that is not there."""
        if lots and price not in self.lots:
            insort(self.prices, price)
        elif not lots and price in self.lots:
            del self.prices[bisect_left(self.prices, price)]
        if lots:
            self.lots[price] = lots
        else:
            self.lots.pop(price, None)


class Auction:
    """One product's market.

    Parameters
    ----------
    product : str
        Known products start near their price; any other at a price drawn from its name and the seed.
    seed : int
    depth : int
        Levels a side to begin with, and about as many later.
    """

    def __init__(self, product: str, seed: int = 0, depth: int = 500) -> None:
        if depth < 10:
            raise DeepwaterError(f"depth {depth}: expected at least 10 levels a side", depth=depth)
        self.product = product
        self._rng = random.Random(f"{seed}/{product}")
        price, self.digits, self._order = _KNOWN.get(product, (round(10.0 ** self._rng.uniform(-1, 3), 4), 4, 50.0))
        self.depth = depth
        self.bids = _Side("bid", "BUY", -1)
        self.offers = _Side("offer", "SELL", 0)
        self.last_trades: deque[Print] = deque(maxlen=_SNAPSHOT_TRADES)
        self._trade_id = self._rng.randrange(10**6, 10**9)
        middle = round(price * 10**self.digits)
        for side in (self.bids, self.offers):
            at = middle + (side.away + 1) // 2
            for level in range(depth):
                side.put(at, self._lots())
                at += side.away * self._distance(1 + level / 20)
                if at <= 0:
                    break

    def warm(self, time_us: int) -> None:
        """Trade until there are 100 trades to show, the last at `time_us`."""
        while len(self.last_trades) < _SNAPSHOT_TRADES:
            missing = _SNAPSHOT_TRADES - len(self.last_trades)
            self.step(time_us - missing * 100_000)

    def snapshot(self) -> list[Change]:
        """Return the whole book, best first, bids and then offers."""
        return [
            Change(side.name, decimal_text(price, self.digits), decimal_text(side.lots[price], _LOT_DIGITS))
            for side, prices in ((self.bids, reversed(self.bids.prices)), (self.offers, self.offers.prices))
            for price in prices
        ]

    def step(self, time_us: int) -> Step:
        """Let a few orders arrive at `time_us` (µs)."""
        step = Step(time_us, [], [])
        for _ in range(1 + min(int(self._rng.expovariate(0.35)), 40)):
            chance = self._rng.random()
            side = self.bids if self._rng.random() < 0.5 else self.offers
            if chance < 0.07:
                self._market_order(side, step)
            elif chance < 0.08:
                self._set(step, side, side.best + side.away * 1_000_003, 0)  # not there
            elif chance < 0.40 and len(side.prices) > self.depth // 2:
                self._set(step, side, self._near(side), 0)
            else:
                self._quote(side, step)
        return step

    def _quote(self, side: _Side, step: Step) -> None:
        """Add or change a level: mostly behind the touch, inside a wide spread, never across."""
        spread = self.offers.best - self.bids.best
        if spread > 1 and self._rng.random() < 0.5:
            price = side.best - side.away * self._rng.randrange(1, spread)
        elif len(side.prices) < self.depth and self._rng.random() < 0.5:
            price = side.best + side.away * self._distance(8)
        else:
            price = self._near(side)
        if price > 0:
            self._set(step, side, price, self._lots())

    def _market_order(self, side: _Side, step: Step) -> None:
        """Eat the best levels of `side`; each level eaten from is one trade with its maker."""
        left = self._lots() * 3
        while left and len(side.prices) > 5:
            price = side.best
            there = side.lots[price]
            taken = min(left, there)
            left -= taken
            self._set(step, side, price, there - taken)
            self._trade_id += 1
            trade = Print(
                self._trade_id,
                decimal_text(price, self.digits),
                decimal_text(taken, _LOT_DIGITS),
                side.maker,
                step.time_us + len(step.trades),
            )
            step.trades.append(trade)
            self.last_trades.append(trade)

    def _set(self, step: Step, side: _Side, price: int, lots: int) -> None:
        if price <= 0:
            return
        side.put(price, lots)
        step.changes.append(Change(side.name, decimal_text(price, self.digits), decimal_text(lots, _LOT_DIGITS)))

    def _near(self, side: _Side) -> int:
        """Return the price of a level that is there, mostly near the touch."""
        rank = min(int(self._rng.expovariate(0.08)), len(side.prices) - 1)
        return side.prices[-1 - rank if side.best_at else rank]

    def _distance(self, mean: float) -> int:
        return 1 + int(self._rng.expovariate(1 / mean))

    def _lots(self) -> int:
        """An order's size: log-normal, in lots of 1e-8."""
        return 1 + int(self._order * math.exp(self._rng.gauss(0, 1.2)) * 10**_LOT_DIGITS)


class Market:
    """Several products, each with an order flow of its own.

    Parameters
    ----------
    products : sequence of str
    seed : int
        The same seed and the same calls give the same market.
    depth : int
        Levels a side.

    Examples
    --------
    >>> one, two = (Market(["BTC-USD"], seed=7)["BTC-USD"].step(10**15) for _ in range(2))
    >>> one == two
    True
    """

    def __init__(self, products: Sequence[str], seed: int = 0, depth: int = 500) -> None:
        self._auctions = {product: Auction(product, seed, depth) for product in products}
        if not self._auctions:
            raise DeepwaterError("a market without products: name at least one, e.g. BTC-USD")

    @property
    def products(self) -> list[str]:
        """The product ids, in the order given."""
        return list(self._auctions)

    def __getitem__(self, product: str) -> Auction:
        return self._auctions[product]

    def __contains__(self, product: object) -> bool:
        return product in self._auctions
