"""Columns of records as text, a block at a time: for CSV, for JSON, for a table.

Numbers are the shortest text that reads back as the same value. Clocks are ISO 8601 in UTC with six
digits of the second; what a calendar cannot show (from the year 10000 on) is the integer as text.
Text is latin-1, as it is stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater.layout import Column, Layout
from deepwater.timestamps import format_us

__all__ = ["csv_cells", "json_cells", "table_cells"]

Array = npt.NDArray[Any]
_LAST_SHOWN_US = 253_402_300_799_999_999  # the end of the year 9999
_NO_NUMBERS = frozenset({"nan", "inf", "-inf"})
_SPECIAL_IN_CSV = frozenset('",\r\n')


def _times(values: Array) -> list[str]:
    if len(values) and int(values.max()) > _LAST_SHOWN_US:
        return [format_us(us) for us in values.tolist()]
    stamps = np.ascontiguousarray(values).view("M8[us]")
    text: list[str] = np.datetime_as_string(stamps, unit="us", timezone="UTC").tolist()
    return text


def _texts(values: Array, show: Callable[[str], str]) -> list[str]:
    """Decode text; what recurs is decoded once."""
    shown: dict[bytes, str] = {}
    out = []
    for raw in values.tolist():
        text = shown.get(raw)
        if text is None:
            if len(shown) > 10_000:
                shown.clear()
            text = shown[raw] = show(raw.decode("latin-1"))
        out.append(text)
    return out


def _numbers(column: Column, values: Array) -> list[str]:
    """Shortest exact text: Python's for 64 bits, NumPy's for the narrower floats."""
    if column.kind == "bool":
        return ["true" if value else "false" for value in values.tolist()]
    if column.kind == "float" and values.dtype.itemsize < 8:
        return [str(value) for value in values]
    return list(map(repr, values.tolist()))


def _json_numbers(column: Column, values: Array) -> list[str]:
    texts = _numbers(column, values)
    if column.kind != "float" or bool(np.isfinite(values).all()):
        return texts
    return ["null" if text in _NO_NUMBERS else text for text in texts]


def _lists(column: Column, values: Array, numbers: Callable[[Column, Array], list[str]]) -> list[str]:
    """Give each row of an array column as a list in brackets."""
    assert column.count is not None
    flat = numbers(column, values.reshape(-1))
    n = column.count
    return [f"[{', '.join(flat[k : k + n])}]" for k in range(0, len(flat), n)]


def json_cells(layout: Layout, column: Column, values: Array) -> list[str]:
    """Return one JSON value per row; what is no number (NaN, infinity) is null.

    Parameters
    ----------
    layout : Layout
    column : Column
    values : array
        The column's values, strided or not, of shape (rows,) or (rows, N).
    """
    if column.name in layout.clocks:
        return [f'"{text}"' for text in _times(values)]
    if column.kind in ("char", "chars"):
        return _texts(values, json.dumps)
    return _lists(column, values, _json_numbers) if column.count is not None else _json_numbers(column, values)


def csv_cells(layout: Layout, column: Column, values: Array) -> list[str]:
    """Return one CSV cell per row, quoted where RFC 4180 wants it; parameters as for `json_cells`."""
    if column.name in layout.clocks:
        return _times(values)
    if column.kind in ("char", "chars"):
        return _texts(values, quoted)
    if column.count is not None:
        return [quoted(text) for text in _lists(column, values, _numbers)]
    return _numbers(column, values)


def quoted(text: str) -> str:
    """Quote a CSV cell if it must be.

    Examples
    --------
    >>> quoted("a b"), quoted('a "b", c')
    ('a b', '"a ""b"", c"')
    """
    return text if _SPECIAL_IN_CSV.isdisjoint(text) else '"' + text.replace('"', '""') + '"'


def table_cells(layout: Layout, column: Column, values: Array) -> list[str]:
    """Return cells for people: sides in words, decimal points in line, long arrays cut; as for `json_cells`."""
    if column.name in layout.clocks:
        return _times(values)
    if column.name == "side" and column.kind == "char":
        words = _sides(layout)
        return _texts(values, lambda text: words.get(text) or _printable(text))
    if column.kind in ("char", "chars"):
        return _texts(values, _printable)
    if column.count is not None:
        few = [_plain(column, row[:2]) + (["..."] if column.count > 2 else []) for row in values]
        return [f"[{', '.join(items)}]" for items in few]
    texts = _plain(column, values)
    return _in_line(texts) if column.kind == "float" else texts


def _sides(layout: Layout) -> dict[str, str]:
    """Words for the sides: of a book (it has `qty` or `action`, a trade has `size` alone) they are bid and ask."""
    is_book = "action" in layout.names or ("qty" in layout.names and "size" not in layout.names)
    return {"B": "bid" if is_book else "buy", "A": "ask", "S": "sell"}


def _plain(column: Column, values: Array) -> list[str]:
    """Numbers without an exponent where that is readable."""
    if column.kind != "float":
        return _numbers(column, values)
    return [
        np.format_float_positional(value, trim="0") if value == 0 or 1e-9 <= abs(value) < 1e15 else str(value)
        for value in (values if values.dtype.itemsize < 8 else values.tolist())
    ]


def _in_line(texts: list[str]) -> list[str]:
    """Pad behind the fraction so that right-aligned numbers have their decimal points in one column."""
    fractions = [len(text) - text.find(".") if "." in text and "e" not in text else 0 for text in texts]
    longest = max(fractions, default=0)
    return [text + " " * (longest - digits) for text, digits in zip(texts, fractions, strict=True)]


def _printable(text: str) -> str:
    # A record may hold any byte; a terminal must not act on it.
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
