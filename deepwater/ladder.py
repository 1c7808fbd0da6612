"""A book as a depth ladder: asks above, bids below, the spread between them. Text, for terminals of any kind.

`rungs` are what it consists of, for who paints it otherwise (a dashboard with colours); `ladder` is the picture. No
colour is needed: a side is a word, and a bar is as long as what rests up to that level. It knows books, nothing else.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from deepwater.book import Book
from deepwater.timestamps import format_us

__all__ = ["Rung", "ladder", "rungs"]

WIDTH = 80
_BLOCKS = " ▏▎▍▌▋▊▉█"
_MOST_DECIMALS = 12
_LARGEST = 1e15  # from here on a number is written with an exponent, as is one that decimals can not show


class Rung(NamedTuple):
    """A level of a ladder."""

    side: str
    """bid or ask."""
    price: float
    qty: float
    total: float
    """What rests at this price and better ones."""
    share: float
    """`total` as a part of the largest in the ladder, 0 to 1."""


def rungs(book: Book, levels: int = 10) -> tuple[list[Rung], list[Rung]]:
    """Give the best levels of a book, best first: asks, bids.

    Examples
    --------
    >>> from deepwater.book import LEVEL_DTYPE
    >>> book = Book(np.array([(10.0, 1.0), (9.5, 3.0)], LEVEL_DTYPE), np.array([(10.5, 2.0)], LEVEL_DTYPE), 3)
    >>> rungs(book, 1)[1]
    [Rung(side='bid', price=10.0, qty=1.0, total=1.0, share=0.5)]
    """
    sides = [("ask", book.asks[:levels]), ("bid", book.bids[:levels])]
    most = max((float(side["qty"].sum()) for _, side in sides), default=0.0) or 1.0
    asks, bids = (
        [
            Rung(name, price, qty, total, total / most if most < math.inf else 0.0)
            for (price, qty), total in zip(side.tolist(), np.cumsum(side["qty"]).tolist(), strict=True)
        ]
        for name, side in sides
    )
    return asks, bids


def ladder(book: Book, levels: int = 10, *, width: int = WIDTH, title: str = "", ascii_only: bool = False) -> list[str]:
    """Draw a book.

    Parameters
    ----------
    book : Book
    levels : int
        At most so many a side.
    width : int
        Columns of the terminal; no line is wider, from 40 on.
    title : str
        What it is of.
    ascii_only : bool
        Bars of ``#`` instead of blocks.

    Returns
    -------
    list of str
        Lines, without blanks at their end: two of heading, the asks, the spread, the bids.

    Examples
    --------
    >>> from deepwater.book import LEVEL_DTYPE
    >>> book = Book(np.array([(10.0, 1.0), (9.5, 3.0)], LEVEL_DTYPE), np.array([(10.5, 2.0)], LEVEL_DTYPE), 3, 0, True)
    >>> for line in ladder(book, width=44, title="X", ascii_only=True):
    ...     print(line)
    X  before position 3  valid
          price  qty  total
    ask    10.5    2      2  ##########
    ----   spread 0.5, middle 10.25
    bid    10.0    1      1  #####
    bid     9.5    3      4  ###################
    """
    asks, bids = rungs(book, levels)
    rows = [*reversed(asks), *bids]
    price, qty, total = (_numbers([getattr(rung, name) for rung in rows]) for name in ("price", "qty", "total"))
    columns = [_aligned(name, cells) for name, cells in (("price", price), ("qty", qty), ("total", total))]
    lines = [_heading(book, title, width), f"      {'  '.join(column[0] for column in columns)}".rstrip()]
    room = max(0, width - len(lines[1]) - 2)
    for number, rung in enumerate(rows):
        cells = "  ".join(column[number + 1] for column in columns)
        lines.append(f"{rung.side}   {cells}  {_bar(rung.share, room, ascii_only)}".rstrip())
    lines.insert(2 + len(asks), _spread(book))
    return [line[:width] for line in lines]


def _heading(book: Book, title: str, width: int) -> str:
    when = format_us(book.time_us).replace("T", " ").replace("Z", " UTC") if book.time_us else ""
    parts = [title, when, f"before position {book.position:,}", "valid" if book.valid else f"NOT valid: {book.reason}"]
    whole = [part for part in parts if part]
    line = "  ".join(whole)
    if len(line) > width and len(whole) == len(parts):
        del whole[2]  # the position is what a person misses least
        line = "  ".join(whole)
    return line


def _spread(book: Book) -> str:
    bid, ask = book.best_bid, book.best_ask
    if math.isnan(bid) or math.isnan(ask):
        sides = " and ".join(name for name, best in (("asks", ask), ("bids", bid)) if math.isnan(best))
        return f"----   no {sides}"
    decimals = max(_decimals(bid), _decimals(ask))
    crossed = "  CROSSED" if book.crossed else ""
    middle = _number(bid / 2 + ask / 2, decimals + 1)  # halves first: the sum may be no float any more
    return f"----   spread {_number(ask - bid, decimals)}, middle {middle}{crossed}"


def _decimals(value: float) -> int:
    """Digits behind the point of a float, as it is written shortest; 0 of one that is written with an exponent."""
    if not _is_plain(value):
        return 0
    text = np.format_float_positional(value, trim="-")
    return min(_MOST_DECIMALS, len(text.partition(".")[2]))


def _is_plain(value: float) -> bool:
    return value == 0 or 10.0**-_MOST_DECIMALS <= abs(value) < _LARGEST


def _number(value: float, decimals: int) -> str:
    """A number with so many decimals; one that is larger or smaller than any price or quantity with an exponent.

    >>> _number(64699.5, 2), _number(1.7e308, 2), _number(2.5e-13, 2)
    ('64699.50', '1.7e+308', '2.5e-13')
    """
    return f"{value:.{decimals}f}" if _is_plain(value) else f"{value:.6g}"


def _numbers(values: list[float]) -> list[str]:
    """Texts of numbers, with as many decimals as the longest needs; sums are cut to twelve digits."""
    digits = max((_decimals(float(f"{value:.12g}")) for value in values), default=0)
    return [_number(value, digits) for value in values]


def _aligned(title: str, cells: list[str]) -> list[str]:
    width = max(len(title), *map(len, cells)) if cells else len(title)
    return [cell.rjust(width) for cell in (title, *cells)]


def _bar(share: float, room: int, ascii_only: bool) -> str:
    if ascii_only:
        return "#" * math.ceil(share * room - 1e-9)
    eighths = math.ceil(share * room * 8 - 1e-9)
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()
