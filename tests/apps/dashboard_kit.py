"""What the tests of the dashboard share: an exchange and a recorder as processes, and feeds written by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deepwater import Platform
from deepwater.apps import specs
from processes import Worker

DEADLINE_S = 60
_EXCHANGE = """
    import sys
    from deepwater.apps.exchange import Synthetic, serve
    from deepwater.apps.venues import find_venue
    products, venue = ["BTC-USD", "ETH-USD", "SOL-USD"], find_venue(sys.argv[1])
    stream = lambda: Synthetic(products, seed=1, rate=float(sys.argv[2]), depth=40, session=venue.exchange_session)
    serve(stream, port=0, faults=sys.argv[3:], on_ready=lambda uri: print(uri, flush=True))
"""
_RECORDER = """
    import sys
    from deepwater.apps.recorder import run_recorder
    from deepwater.apps.venues import find_venue
    def status(counters):
        print(counters.levels, flush=True)
    venue = find_venue(sys.argv[1])
    run_recorder(sys.argv[2], sys.argv[4:], sys.argv[3], on_status=status, venue=venue)
"""


class Market(Worker):
    """A local exchange with a synthetic market; `uri` is where it listens."""

    def __init__(self, rate: float = 100, *faults: str, venue: str = "coinbase") -> None:
        super().__init__(_EXCHANGE, venue, rate, *faults, timeout=240)
        self.uri = self.readline()


class ForeignRecorder(Worker):
    """A recorder that is not the dashboard's."""

    def __init__(self, uri: str, store: Path, *products: str, venue: str = "coinbase") -> None:
        super().__init__(_RECORDER, venue, uri, store, *products, timeout=240)
        while int(self.readline()) < 100:
            pass

    def end(self) -> None:
        """Let it end well: it leaves nothing in shared memory but its metrics."""
        self.process.terminate()
        self.process.wait()


def until(condition: Callable[[], Any], what: str = "it did not come to hold") -> Any:
    """Wait until a condition holds; the deadline is for a deadlock, not for slowness."""
    end = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return found


def levels(*rows: tuple[bytes, float, float], kind: bytes = b"U", us: int = 1_786_309_548_000_000) -> np.ndarray:
    """Records of a book feed: (side, price, qty) each."""
    out = np.zeros(len(rows), specs.dtype(specs.L2))
    out["type"], out["proc_us"] = kind, us
    for at, (side, price, qty) in enumerate(rows):
        out[at]["side"], out[at]["price"], out[at]["qty"] = side, price, qty
    return out


def make_trades(count: int, us: int = 1_786_309_548_000_000) -> np.ndarray:
    """Records of a trades feed."""
    out = np.zeros(count, specs.dtype(specs.TRADES))
    out["type"], out["side"] = b"T", b"B"
    out["trade_id"] = np.arange(count)
    out["proc_us"] = out["ev_us"] = us + np.arange(count)
    out["price"], out["size"] = 100.0 + np.arange(count), 0.5
    return out


def open_feeds(dw: Platform, product: str) -> tuple[Any, Any]:
    """Writers of a product's feeds, which are made: the book's and the trades'."""
    names = [dw.create_feed(specs.spec(kind, product)) for kind in (specs.L2, specs.TRADES)]
    return dw.create_writer(names[0]), dw.create_writer(names[1])
