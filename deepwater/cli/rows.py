"""Records as text, row by row: CSV, JSON lines, a table. Memory is bounded by a block of rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from deepwater.cli import output
from deepwater.cli.binary import Passed, as_it_is
from deepwater.cli.cells import csv_cells, json_cells, table_cells
from deepwater.cli.text import Table, count, terminal_width
from deepwater.layout import Column, Layout
from deepwater.window import Window

__all__ = [
    "TABLE_BLOCK_ROWS", "block_rows", "csv_head", "csv_text", "encoded_lines", "for_people", "json_template",
    "json_text", "short_table", "table_of", "texts", "write_csv", "write_json", "write_table",
]  # fmt: skip

TABLE_BLOCK_ROWS = 500
_BLOCK_ROWS = 8192
_BLOCK_BYTES = 4 << 20
_SHOWN_ROWS = 10
_ABOUT = frozenset({"side", "price", "size", "qty"})

Array = npt.NDArray[Any]
Cells = Callable[[Layout, Column, Array], list[str]]


def block_rows(layout: Layout, at_most: int = _BLOCK_ROWS) -> int:
    """How many rows are made text at a time."""
    return max(1, min(at_most, _BLOCK_BYTES // layout.record_size))


def texts(layout: Layout, columns: Sequence[Column], cells: Cells, records: Array) -> Iterator[tuple[str, ...]]:
    """Return the cells of each of the records."""
    return zip(*(cells(layout, column, records[column.name]) for column in columns), strict=True)


def _columns(window: Window) -> list[Column]:
    return [window.layout.column(name) for name in window.columns]


# --- CSV, JSON -------------------------------------------------------------------------------------------


def csv_head(columns: Sequence[Column]) -> bytes:
    """Return the header line."""
    return (",".join(column.name for column in columns) + "\n").encode()


def csv_text(layout: Layout, columns: Sequence[Column], records: Array) -> bytes:
    """Return a line for each of the records (at least one), UTF-8, ended by a line feed."""
    return ("\n".join(map(",".join, texts(layout, columns, csv_cells, records))) + "\n").encode()


def json_template(columns: Sequence[Column]) -> str:
    """Return the line of a record, with a ``%s`` for each value."""
    return "{" + ", ".join(f"{json.dumps(column.name)}: %s" for column in columns) + "}\n"


def json_text(layout: Layout, columns: Sequence[Column], records: Array, template: str) -> bytes:
    """Return a line for each of the records: one JSON object."""
    return "".join([template % cells for cells in texts(layout, columns, json_cells, records)]).encode()


def write_csv(window: Window, out: IO[bytes], passed: Passed = as_it_is) -> None:
    """Write a header line and a line for each record, UTF-8, ended by a line feed."""
    columns = _columns(window)
    out.write(csv_head(columns))
    for records in passed(window.arrays(block_rows(window.layout))):
        out.write(csv_text(window.layout, columns, records))


def write_json(window: Window, out: IO[bytes]) -> None:
    """Write one JSON object a line (JSON lines): a stream can be cut anywhere and read as it comes."""
    columns = _columns(window)
    template = json_template(columns)
    for records in window.arrays(block_rows(window.layout)):
        out.write(json_text(window.layout, columns, records, template))


# --- the table -------------------------------------------------------------------------------------------


def for_people(layout: Layout, columns: Sequence[Column], clock: str) -> list[Column]:
    """Order columns nobody chose: the clock asked for, then what is no clock, then the other clocks.

    The last are what a narrow terminal leaves out. Of trades and levels what they are about comes first.
    """
    about = _ABOUT if _ABOUT & {column.name for column in columns} >= {"side", "price"} else frozenset()
    return sorted(columns, key=lambda column: (
        column.name != clock, column.name in layout.clocks, column.name not in about))  # fmt: skip


def table_of(columns: Sequence[Column]) -> Table:
    """Return the table these columns make: text is aligned left."""
    text = frozenset(column.name for column in columns if column.kind in ("char", "chars"))
    return Table([column.name for column in columns], left=text)


def write_table(window: Window, out: IO[bytes], *, everything: bool, chosen: bool, width: int | None) -> str:
    """Write a table that fits the terminal, and return what is to be said about it.

    Parameters
    ----------
    window : Window
    out : binary file
    everything : bool
        All rows; otherwise of a long window only the first and the last ten.
    chosen : bool
        The columns were chosen, keep their order.
    width : int, optional
        Columns of the terminal; None: as wide as it gets.
    """
    columns = _columns(window)
    if not chosen:
        columns = for_people(window.layout, columns, window.clock)
    table = table_of(columns)
    shown = 2 * _SHOWN_ROWS
    if everything or len(window) <= shown + 1:
        blocks = window.arrays(block_rows(window.layout, TABLE_BLOCK_ROWS))
        fit = _write_blocks(table, (texts(window.layout, columns, table_cells, block) for block in blocks), out, width)
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
        out.write(encoded_lines(table.line(cells, widths[:fit]) for cells in (*head, *rows)))
        head = []
    out.write(encoded_lines(table.line(cells, widths[:fit]) for cells in head))
    return fit


def _write_ends(table: Table, window: Window, columns: Sequence[Column], out: IO[bytes], width: int | None) -> int:
    rows = _ends(window, columns, _SHOWN_ROWS)
    out.write(encoded_lines(table.lines(rows, width)))
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
    return table_of(columns).lines(_ends(window, columns, few), terminal_width())


def encoded_lines(lines: Iterable[str]) -> bytes:
    """Encode lines for people."""
    return output.encoded("".join(line + "\n" for line in lines))
