"""How a window looks: the table of its first and last rows as text and as HTML, and why an empty one is empty.

It knows layouts, records, marks and times, nothing of windows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepwater.index import UNKNOWN
from deepwater.layout import Column, Layout
from deepwater.timestamps import MAX_US, format_us, guess_unit
from deepwater.wording import count

Shown = list[tuple[int, np.void]]
_SHOWN_WIDTH = 110
_SHOWN_GAPS = 3


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a feed held, and what was asked of it, for an empty window to show.

    Attributes
    ----------
    first_us, last_us : int
        The lowest and highest value of the clock asked, inclusive; without meaning if the feed is empty.
    records : int
        How many records the feed held.
    lo, hi : int
        The bounds asked for, both inclusive, in microseconds.
    """

    first_us: int
    last_us: int
    records: int
    lo: int
    hi: int


def about_nothing(found: Coverage, clock: str) -> list[str]:
    """Return lines that say why there is no row."""
    lines = []
    if found.lo > found.hi:
        lines.append(f"asked for no {clock} at all: start is after end")
    else:
        low = format_us(found.lo) if found.lo else "the start"
        high = format_us(found.hi) if found.hi < MAX_US else "the end"
        lines.append(f"asked for {clock} {low} to {high}")
    if not found.records:
        lines.append("the feed is empty")
    else:
        covers = f"{format_us(found.first_us)} to {format_us(found.last_us)}"
        lines.append(f"the feed covers {covers} ({count(found.records, 'record')})")
    units = {bound: guess_unit(bound) for bound in (found.lo, found.hi)}
    hint = "integer times are microseconds since the epoch"
    return lines + [f"{bound} looks like {unit}: {hint}" for bound, unit in units.items() if unit]


def about_gaps(marks: NDArray[Any]) -> list[str]:
    """Return a line about the gaps inside; none if there are none."""
    if not len(marks):
        return []
    texts = [gap_text(mark) for mark in marks[:_SHOWN_GAPS]]
    more = [f"and {len(marks) - _SHOWN_GAPS:,} more"] if len(marks) > _SHOWN_GAPS else []
    return [f"{len(marks):,} gap{'s' * (len(marks) > 1)} inside: {'; '.join(texts + more)}"]


def gap_text(mark: np.void) -> str:
    """Return what a gap or dropped mark says: where, how much, when, why."""
    count, begin, stop = (int(mark[name]) for name in ("count", "from_us", "to_us"))
    parts = [f"before position {int(mark['position'])}"]
    if count != UNKNOWN:
        parts.append(f"{count:,} lost")
    if begin or stop:
        parts.append(f"{format_us(begin) if begin else '?'} to {format_us(stop) if stop else '?'}")
    reason = printable(mark["reason"].decode("utf-8", "replace"))
    return ", ".join(parts + [reason] * bool(reason))


def printable(text: str) -> str:
    """Return text that a terminal does not act on: a record, and a mark, may hold any byte."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def cells(layout: Layout, names: Sequence[str], clock: str, shown: Shown, *, is_all: bool) -> list[list[str]]:
    """Return a table of some rows as text: position, the clock asked, what is no clock, and the other clocks last.

    Parameters
    ----------
    shown : list of (int, numpy.void)
        Position and whole record of each row.
    is_all : bool
        Nothing was left out in the middle.
    """
    columns = [layout.column(clock)]
    chosen = [layout.column(name) for name in names if name != clock]
    columns += sorted(chosen, key=lambda column: column.name in layout.clocks)
    table = [["position", *(column.name for column in columns)]]
    for position, record in shown:
        texts = [_cell(layout, column, record[column.name]) for column in columns]
        table.append([str(position), *texts])
    if not is_all:
        table.insert(1 + len(shown) // 2, ["..."] * len(table[0]))
    return table


def _cell(layout: Layout, column: Column, value: Any) -> str:
    if column.name in layout.clocks:
        return format_us(int(value))
    if column.count is not None:
        items = [str(item) for item in value[:2]] + (["..."] if column.count > 2 else [])
        return f"[{', '.join(items)}]"
    if column.kind not in ("char", "chars"):
        return str(value)
    return printable(value.decode("latin-1"))


def aligned(table: list[list[str]]) -> list[str]:
    """Return the table as lines; columns that do not fit are named below it."""
    if not table:
        return []
    widths = [max(map(len, cells)) for cells in zip(*table, strict=True)]
    ends = list(accumulate(width + 2 for width in widths))
    fit = max(2, bisect_right(ends, _SHOWN_WIDTH))
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row[:fit], widths, strict=False)) for row in table]
    left = table[0][fit:]
    if left:
        more = f", and {len(left) - 8} more" if len(left) > 8 else ""
        lines.append(f"also {', '.join(left[:8])}{more}")
    return lines


def html(lines: list[str], table: list[list[str]]) -> str:
    """Return lines and a table, titles first, as HTML."""
    rows = [
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for tag, row in zip(["th"] + ["td"] * len(table), table, strict=False)
    ]
    body = f"<table>{''.join(rows)}</table>" if rows else ""
    return f"<div>{'<br>'.join(map(escape, lines))}{body}</div>"
