"""The newest trades of a feed, as far as it is a feed of trades."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deepwater.apps.dashboard.feeds import FeedWatch
from deepwater.errors import DeepwaterError

__all__ = ["TradeRow", "last_price", "newest", "side_of"]

_TRADE_COLUMNS = {"ev_us": ("<u8", "<i8"), "side": ("|S1",), "price": ("<f8", "<f4"), "size": ("<f8", "<f4")}


@dataclass(frozen=True, slots=True)
class TradeRow:
    """One trade; `side` is that of `View.side_of`: B, S or U."""

    time_us: int
    side: str
    price: float
    size: float


def newest(watch: FeedWatch | None, count: int) -> list[tuple[int, bytes, float, float]]:
    """Time, side, price and size, the newest last; nothing of a feed that has other columns."""
    if watch is None or watch.reader is None:
        return []
    dtype = watch.reader.dtype
    if not all(name in (dtype.names or ()) and dtype[name].str in kinds for name, kinds in _TRADE_COLUMNS.items()):
        return []
    try:
        found: list[tuple[int, bytes, float, float]]
        found = watch.reader.latest(count).to_numpy()[list(_TRADE_COLUMNS)].tolist()
    except (DeepwaterError, OSError):
        return []
    return found


def side_of(trades: FeedWatch | None) -> str:
    """Whose side a trade's is; only the description of the column says so."""
    if trades is None or trades.reader is None:
        return "side"
    text = next((column.desc for column in trades.reader.layout.columns if column.name == "side"), "").lower()
    found = [(text.index(word), word) for word in ("maker", "taker") if word in text]
    return min(found)[1] if found else "side"


def last_price(trades: FeedWatch | None) -> float | None:
    """What was paid last; a record that a repair put in the place of a lost one is no trade."""
    found = newest(trades, 1)
    return found[0][2] if found and math.isfinite(found[0][2]) else None
