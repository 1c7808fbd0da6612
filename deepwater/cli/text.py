"""Plain text for people: tables that fit the terminal, and numbers as one reads them. No NumPy."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

from deepwater.wording import amount, count, positions_text

__all__ = ["Table", "amount", "clock_span", "count", "paragraph", "positions_text", "seconds", "terminal_width"]

_GAP = 2


def terminal_width() -> int | None:
    """Columns of the terminal: COLUMNS, else what stdout is; None if it is no terminal, so nothing is cut."""
    if "COLUMNS" not in os.environ and not (sys.stdout is not None and sys.stdout.isatty()):
        return None
    return shutil.get_terminal_size().columns


@dataclass(frozen=True, slots=True)
class Table:
    """Lines of a table: titles, and cells of equal number a row.

    Parameters
    ----------
    titles : sequence of str
    left : collection of str
        Titles of the columns that are aligned left; the others are numbers and times.
    indent : int
        Blanks before each line.
    spare : sequence of str
        Titles of the columns that are left out first where there is no room, in this order; then those from the right.
    """

    titles: Sequence[str]
    left: frozenset[str] = frozenset()
    indent: int = 0
    spare: Sequence[str] = ()

    def widths(self, rows: Sequence[Sequence[str]], at_least: Sequence[int] = ()) -> list[int]:
        """Return the width each column needs for these rows, its title, and what it had before."""
        columns = zip(self.titles, *rows, strict=True)
        needed = [max(map(len, column)) for column in columns]
        return [max(pair) for pair in zip(needed, at_least, strict=True)] if at_least else needed

    def fitting(self, widths: Sequence[int], width: int | None) -> int:
        """Return how many of the columns, from the left, fit; at least one."""
        if width is None:
            return len(widths)
        used, fit = self.indent - _GAP, 0
        for needed in widths:
            used += needed + _GAP
            fit += used <= width
        return max(1, fit)

    def line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        """Return one row; columns beyond `widths` are left out."""
        parts = [
            cell.ljust(width) if title in self.left else cell.rjust(width)
            for title, cell, width in zip(self.titles, cells, widths, strict=False)
        ]
        return (" " * self.indent + (" " * _GAP).join(parts)).rstrip()

    def lines(self, rows: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
        """Return the titles and all rows, as many columns as fit into `width`."""
        table, widths = self._kept(rows, width)
        kept = [self.titles.index(title) for title in table.titles]
        cells = ([row[at] for at in kept] for row in rows)
        return [table.line(each, widths) for each in (table.titles, *cells)]

    def left_out(self, rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
        """Return the titles of the columns that do not fit."""
        kept = self._kept(rows, width)[0].titles
        return [title for title in self.titles if title not in kept]

    def _kept(self, rows: Sequence[Sequence[str]], width: int | None) -> tuple[Table, list[int]]:
        """Return this table with the columns that fit, and their widths."""
        needed = dict(zip(self.titles, self.widths(rows), strict=True))
        for title in self.spare:
            if self.fitting(list(needed.values()), width) == len(needed):
                break
            del needed[title]
        fit = self.fitting(list(needed.values()), width)
        return replace(self, titles=list(needed)[:fit], spare=()), list(needed.values())[:fit]


def paragraph(text: str, indent: str, width: int | None) -> str:
    """Wrap text to the terminal; the first line too begins with `indent`."""
    usable = max(20, (width or 100)) if width is None or width > len(indent) + 20 else len(indent) + 20
    return textwrap.fill(text, usable, initial_indent=indent, subsequent_indent=indent)


def seconds(duration_us: float) -> str:
    """Return a duration, in the two units that matter.

    Examples
    --------
    >>> seconds(740), seconds(12_300), seconds(8_040_000), seconds(95e6), seconds(26.5 * 3600e6)
    ('740 us', '12.3 ms', '8.0 s', '1 min 35 s', '1 d 2 h')
    """
    if duration_us < 1000:
        return f"{duration_us:.0f} us"
    if duration_us < 1e6:
        return f"{duration_us / 1e3:.1f} ms"
    if duration_us < 60e6:
        return f"{duration_us / 1e6:.1f} s"
    whole = int(duration_us // 1e6)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def clock_span(first: str, last: str) -> tuple[str, str]:
    """Shorten two times of `format_us` for a listing: whole seconds, the same day named once.

    Examples
    --------
    >>> clock_span("2026-08-09T05:23:42.196708Z", "2026-08-09T06:00:00.000000Z")
    ('2026-08-09 05:23:42', '06:00:00')
    >>> clock_span("2026-08-09T05:23:42.196708Z", "18446744073709551615")
    ('2026-08-09 05:23:42', '18446744073709551615')
    """
    short = [time[:19].replace("T", " ") if time.endswith("Z") else time for time in (first, last)]
    same_day = first[:11] == last[:11] and first.endswith("Z") and last.endswith("Z")
    return short[0], short[1][11:] if same_day else short[1]
