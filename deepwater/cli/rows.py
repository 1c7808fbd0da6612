"""A window as text, row by row: CSV, JSON lines, a table. Memory is bounded by a block of rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from deepwater.cli import output
from deepwater.cli.cells import csv_cells, json_cells, table_cells
from deepwater.cli.text import Table, count, terminal_width
from deepwater.layout import Column, Layout
from deepwater.window import Window

__all__ = ["short_table", "write_csv", "write_json", "write_table"]

_BLOCK_ROWS = 8192
_BLOCK_BYTES = 4 << 20
_TABLE_BLOCK_ROWS = 500
_SHOWN_ROWS = 10

Cells = Callable[[Layout, Column, npt.NDArray[Any]], list[str]]


def _blocks(
    window: Window, columns: Sequence[Column], cells: Cells, rows: int = _BLOCK_ROWS
) -> Iterator[Iterator[tuple[str, ...]]]:
    """Yield blocks of rows as tuples of text."""
    layout = window.layout
    rows = max(1, min(rows, _BLOCK_BYTES // layout.record_size))
    for records in window.arrays(rows):
        yield zip(*(cells(layout, column, records[column.name]) for column in columns), strict=True)


def _columns(window: Window) -> list[Column]:
    return [window.layout.column(name) for name in window.columns]


def write_csv(window: Window, out: IO[bytes]) -> None:
    """Write a header line and a line for each record, UTF-8, ended by a line feed."""
    out.write((",".join(window.columns) + "\n").encode())
    for rows in _blocks(window, _columns(window), csv_cells):
        out.write(("\n".join(map(",".join, rows)) + "\n").encode())


def write_json(window: Window, out: IO[bytes]) -> None:
    """Write one JSON object a line (JSON lines): a stream can be cut anywhere and read as it comes."""
    template = "{" + ", ".join(f"{json.dumps(name)}: %s" for name in window.columns) + "}\n"
    for rows in _blocks(window, _columns(window), json_cells):
        out.write("".join([template % cells for cells in rows]).encode())


def _table(columns: Sequence[Column]) -> Table:
    text = frozenset(column.name for column in columns if column.kind in ("char", "chars"))
    return Table([column.name for column in columns], left=text)


# --- the table -------------------------------------------------------------------------------------------


def write_table(window: Window, out: IO[bytes], *, everything: bool, chosen: bool, width: int | None) -> str:
    """Write a table that fits the terminal, and return what is to be said about it.

    Parameters
    ----------
    window : Window
    out : binary file
    everything : bool
        All rows; otherwise of a long window only the first and the last ten.
    chosen : bool
        The columns were chosen, keep their order. Otherwise the clock asked for comes first, then what is
        no clock, and the other clocks last: they are what a narrow terminal leaves out.
    width : int, optional
        Columns of the terminal; None: as wide as it gets.
    """
    columns = _columns(window)
    if not chosen:
        clocks = window.layout.clocks
        columns.sort(key=lambda column: (column.name != window.clock, column.name in clocks))
    table = _table(columns)
    shown = 2 * _SHOWN_ROWS
    if everything or len(window) <= shown + 1:
        fit = _write_blocks(table, _blocks(window, columns, table_cells, _TABLE_BLOCK_ROWS), out, width)
        notes = [count(len(window), "row")]
    else:
        fit = _write_ends(table, window, columns, out, width)
        notes = [f"{len(window):,} rows, {shown} shown (--limit N, or --format csv, for more)"]
    if fit < len(columns):
        notes.append(f"no room for {', '.join(table.titles[fit:])} (choose with --columns)")
    return "; ".join(notes)


def _write_blocks(table: Table, blocks: Iterator[Iterator[tuple[str, ...]]], out: IO[bytes], width: int | None) -> int:
    """Write rows as they come. A column that needs more room later takes it from there on."""
    widths = table.widths([])
    fit = table.fitting(widths, width)
    head = [table.titles]
    for block in blocks:
        rows = list(block)
        widths = table.widths(rows, widths)
        if head:
            fit = table.fitting(widths, width)
        out.write(_encoded(table.line(cells, widths[:fit]) for cells in (*head, *rows)))
        head = []
    out.write(_encoded(table.line(cells, widths[:fit]) for cells in head))
    return fit


def _write_ends(table: Table, window: Window, columns: Sequence[Column], out: IO[bytes], width: int | None) -> int:
    rows = _ends(window, columns, _SHOWN_ROWS)
    out.write(_encoded(table.lines(rows, width)))
    return table.fitting(table.widths(rows), width)


def _ends(window: Window, columns: Sequence[Column], few: int) -> list[tuple[str, ...]]:
    """Return the first and the last rows, and between them a row that says that there are more."""
    parts = [window[:few].to_numpy(), window[-few:].to_numpy()] if len(window) > 2 * few else [window.to_numpy()]
    cells = [
        table_cells(window.layout, column, np.concatenate([part[column.name] for part in parts])) for column in columns
    ]
    rows = list(zip(*cells, strict=True))
    if len(parts) > 1:
        rows.insert(few, ("...",) * len(columns))
    return rows


def short_table(window: Window, few: int) -> list[str]:
    """Return a table of the first and the last rows as lines, the columns as they are in the window."""
    columns = _columns(window)
    return _table(columns).lines(_ends(window, columns, few), terminal_width())


def _encoded(lines: Iterable[str]) -> bytes:
    return output.encoded("".join(line + "\n" for line in lines))
