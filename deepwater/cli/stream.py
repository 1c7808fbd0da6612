"""Records as they come, as text: CSV, JSON lines, a table. What is put is written and flushed at once."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import IO, Any

import numpy.typing as npt

from deepwater.cli import output, rows
from deepwater.cli.cells import table_cells
from deepwater.cli.text import terminal_width
from deepwater.layout import Column, Layout

__all__ = ["CsvStream", "JsonStream", "Stream", "TableStream"]

Array = npt.NDArray[Any]
_SHORTEST_PAGE = 8


class Stream:
    """Takes records of one layout, a batch at a time.

    Parameters
    ----------
    layout : Layout
    columns : sequence of Column
        What is shown, in this order.
    out : binary file
        Stdout; `put` flushes it.

    Attributes
    ----------
    block_rows : int
        The most rows a batch should have: they are text at the same time.
    """

    def __init__(self, layout: Layout, columns: Sequence[Column], out: IO[bytes]) -> None:
        self.layout, self.columns, self._out = layout, columns, out
        self.block_rows = rows.block_rows(layout)

    def put(self, records: Array) -> None:
        """Write records, at least one."""
        self._write(self._text(records))

    def _text(self, records: Array) -> bytes:
        raise NotImplementedError

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        output.flush()

    def close(self) -> None:
        """Write what is due where no record came."""

    @property
    def left_out(self) -> Sequence[str]:
        """The columns that the terminal has no room for."""
        return ()


class CsvStream(Stream):
    """A header, written when this is made, and a line a record."""

    def __init__(self, layout: Layout, columns: Sequence[Column], out: IO[bytes]) -> None:
        super().__init__(layout, columns, out)
        self._write(rows.csv_head(columns))

    def _text(self, records: Array) -> bytes:
        return rows.csv_text(self.layout, self.columns, records)


class JsonStream(Stream):
    """A JSON object a line."""

    def __init__(self, layout: Layout, columns: Sequence[Column], out: IO[bytes]) -> None:
        super().__init__(layout, columns, out)
        self._template = rows.json_template(columns)

    def _text(self, records: Array) -> bytes:
        return rows.json_text(self.layout, self.columns, records, self._template)


class TableStream(Stream):
    """A table that grows.

    A column that once needed more room keeps it, and decimal points stay where the longest fraction put them:
    columns move less and less. On a terminal the titles come again with each page, and whenever other columns
    fit than before (one grew, or the terminal was resized); the day has a line of its own, and times are of it.
    """

    def __init__(self, layout: Layout, columns: Sequence[Column], out: IO[bytes]) -> None:
        super().__init__(layout, columns, out)
        self.block_rows = rows.block_rows(layout, rows.TABLE_BLOCK_ROWS)
        self._table = rows.table_of(columns)
        self._widths = self._table.widths([])
        self._fractions = [0] * len(columns)
        self._fit = 0
        self._rows_to_titles = 0
        self._times = [k for k, column in enumerate(columns) if column.name in layout.clocks]
        self._day = ""

    def _text(self, records: Array) -> bytes:
        texts = list(zip(*(self._cells(k, records) for k in range(len(self.columns))), strict=True))
        days = self._days(texts)
        self._widths = self._table.widths(texts, self._widths)
        fit = self._table.fitting(self._widths, terminal_width())
        if fit != self._fit:
            self._fit, self._rows_to_titles = fit, 0
        widths, page, lines = self._widths[:fit], _page(), []
        for cells, day in zip(texts, days, strict=True):
            if self._rows_to_titles == 0:
                lines.append(self._table.line(self._table.titles, widths))
                self._rows_to_titles = page
            if day:
                lines.append(f"{day} UTC"[: terminal_width()])
            lines.append(self._table.line(cells, widths))
            self._rows_to_titles -= 1
        return rows.encoded_lines(lines)

    def _days(self, texts: list[tuple[str, ...]]) -> list[str]:
        """Cut times to those of a day, on a terminal; return for each row the day it begins, or nothing."""
        days = [""] * len(texts)
        if not self._times or terminal_width() is None:
            return days
        for row, cells in enumerate(texts):
            if cells[self._times[0]].endswith("Z") and (day := cells[self._times[0]][:10]) != self._day:
                self._day = days[row] = day
            texts[row] = tuple(
                cell[11:26] if k in self._times and cell.endswith("Z") and cell[:10] == self._day else cell
                for k, cell in enumerate(cells)
            )
        return days

    def _cells(self, number: int, records: Array) -> list[str]:
        """Return the cells of a column, decimal points where they were before."""
        column = self.columns[number]
        texts = table_cells(self.layout, column, records[column.name])
        if column.kind != "float" or column.count is not None:
            return texts
        # Those of one batch are in line already: each has as much behind the point, in digits or blanks.
        here = next((len(text) - text.find(".") for text in texts if "." in text and "e" not in text), 0)
        self._fractions[number] = fraction = max(here, self._fractions[number])
        return texts if here == fraction else [text + " " * (fraction - here) for text in texts]

    def close(self) -> None:
        """Write the titles if there was no record."""
        if not self._fit:
            self._fit = self._table.fitting(self._widths, terminal_width())
            self._write(rows.encoded_lines([self._table.line(self._table.titles, self._widths[: self._fit])]))

    @property
    def left_out(self) -> Sequence[str]:
        """The columns that the terminal has no room for."""
        return self._table.titles[self._fit :]


def _page() -> int:
    """Rows between two lines of titles: as many as stay on the terminal; without one they come once."""
    if sys.stdout is None or not sys.stdout.isatty():
        return sys.maxsize
    return max(_SHORTEST_PAGE, shutil.get_terminal_size().lines - 2)
