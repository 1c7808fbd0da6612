"""The result of a range query: the records of a feed between two bounds, as slices of its chunks.

A window holds parts. A part is some rows of one chunk, opened when it is first touched, so a window over
ten thousand chunks costs nothing until it is read, and `len`, `nbytes`, `position` and slicing never open
one. What is handed out keeps its memory alive by itself: it stays valid after the reader is closed, the chunk
is rotated away, or the feed is deleted.

Iterating gives the slices, not the rows: ``len(list(window))`` counts slices. In NumPy a ``char`` stays
bytes: compare with ``b"B"``. A window is immutable and may be shared among threads; two that touch a part at
once may open it twice, which is harmless.

It knows layouts, arrays and times, nothing of files: parts say how they are opened. More than 400 lines because
this is the surface users meet, and more than half of them are its documentation.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from deepwater import arrow, frames
from deepwater.errors import ChunkGoneError, CorruptFileError, RecordError
from deepwater.index import MARK_DTYPE
from deepwater.layout import Column, Layout
from deepwater.part import Part
from deepwater.timestamps import format_us
from deepwater.unshared import Unshared
from deepwater.window_text import Coverage, Shown, about_gaps, about_nothing, aligned, cells, html

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

__all__ = ["BATCH_ROWS", "KEPT_PARTS", "Coverage", "Part", "Window"]

Array = NDArray[Any]
Gaps = Callable[[int, int], Array]
"""The gap marks with ``after < position <= last``, as a structured array."""

# A mapping costs a descriptor. A window of more parts than this does not keep what it only passes through.
KEPT_PARTS = 256
BATCH_ROWS = 65_536
_BATCH_BYTES = 64 << 20
_TABLE_ROWS = 1 << 20
_TABLE_BYTES = 256 << 20
_SHOWN_ROWS = 3


class Window(Unshared, instead="pickle a copy, window.to_numpy(), or ask a reader there for the same range"):
    """Records of one feed, as slices of its chunks.

    Parameters
    ----------
    layout : Layout
    parts : iterable of Part
        In position order; empty ones are left out.
    clock : str
        The clock that was asked: the index of `to_pandas`, and what the repr shows.
    columns : str or iterable of str, optional
        The columns asked for, in this order. Default all, in field order.
    feed : str
        Name of the feed, for messages.
    coverage : Coverage, optional
        For an empty window to show.
    marks : callable, optional
        How gap marks are found: ``marks(after, last)`` returns those with ``after < position <= last``. Called
        when somebody asks. None: the feed keeps no marks.

    Attributes
    ----------
    layout, clock, feed, coverage
        As given.
    columns : tuple of str
        The columns asked for.
    position : int or None
        Position of the first row; None if the window is empty and no part said where.

    Raises
    ------
    RecordError
        `columns` is empty, or has an unknown name or one twice.

    Notes
    -----
    A window of up to 256 parts keeps each part it has touched. A larger one keeps none, because each open
    chunk costs a descriptor: reading it twice opens its chunks twice.

    Examples
    --------
    >>> layout = Layout.compile({"feed_name": "t", "ts_col": "t_us", "fields": [
    ...     {"name": "t_us", "type": "u64"}, {"name": "px", "type": "f64"}]})
    >>> records = np.array([(1_786_253_022_000_000 + i, i / 2) for i in range(4)], layout.dtype)
    >>> window = Window(layout, [Part(100, 4, records)], clock="t_us", feed="T")
    >>> window["px"], window[1:3].position, len(window), len(list(window))
    (array([0. , 0.5, 1. , 1.5]), 101, 4, 1)
    >>> window
    <Window of 'T': 4 rows in 1 slice, 64 bytes
      t_us 2026-08-09T05:23:42.000000Z to 2026-08-09T05:23:42.000003Z
      position                         t_us   px
           100  2026-08-09T05:23:42.000000Z  0.0
           101  2026-08-09T05:23:42.000001Z  0.5
           102  2026-08-09T05:23:42.000002Z  1.0
           103  2026-08-09T05:23:42.000003Z  1.5>
    """

    __slots__ = (
        "__weakref__",
        "_marks",
        "_parts",
        "_rows",
        "_stops",
        "clock",
        "columns",
        "coverage",
        "feed",
        "layout",
        "position",
    )

    def __init__(
        self,
        layout: Layout,
        parts: Iterable[Part],
        *,
        clock: str,
        columns: str | Iterable[str] | None = None,
        feed: str = "",
        coverage: Coverage | None = None,
        marks: Gaps | None = None,
    ) -> None:
        given = list(parts)
        self.layout = layout
        self.clock = clock
        self.feed = feed
        self.coverage = coverage
        self.columns = layout.names if columns is None else tuple(c.name for c in arrow.select(layout, columns))
        self.position = given[0].position if given else None
        self._marks = marks
        self._parts = [part for part in given if part.rows]
        self._stops = list(accumulate(part.rows for part in self._parts))
        self._rows = self._stops[-1] if self._stops else 0

    # --- what it is ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._rows

    @property
    def nbytes(self) -> int:
        """Bytes of the records, whole records also where columns were selected."""
        return self._rows * self.layout.record_size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The structured dtype of the slices: the record's offsets and size, with the columns asked for."""
        return self.layout.dtype if self._is_whole else self.layout.dtype[list(self.columns)]

    @property
    def is_view(self) -> bool:
        """Whether the slices are views of the feed's memory, not copies (an unsorted clock's rows are)."""
        return all(part.is_view for part in self._parts)

    @property
    def last_position(self) -> int | None:
        """Position of the last row; None if there is no row."""
        return self._parts[-1].position_of(self._parts[-1].rows - 1) if self._parts else None

    @property
    def gaps(self) -> Array:
        """What was missed between its first and its last row: gap and dropped marks, by position; a copy.

        Of dtype `deepwater.index.MARK_DTYPE`. A mark stands before the record at its `position`, so those count with
        ``first row < position <= last row``: one before the first row or after the last is outside. Of a window over
        an unsorted clock, whose rows need not be neighbours, all between its first and last row count. None of a
        ring, which keeps no marks. Read from the marks each time it is asked for.

        Raises
        ------
        ChunkGoneError
            The marks were removed with their records.
        CorruptFileError
            They are damaged.
        """
        last = self.last_position
        if self._marks is None or last is None:
            return np.zeros(0, MARK_DTYPE)
        return self._marks(self._parts[0].position_of(0), last)

    @property
    def _keeps(self) -> bool:
        return len(self._parts) <= KEPT_PARTS

    @property
    def _is_whole(self) -> bool:
        return self.columns == self.layout.names

    # --- slices, columns, rows -----------------------------------------------------------------------

    def __iter__(self) -> Iterator[Array]:
        """Yield the slices: structured, read-only arrays, opened one by one as they are asked for.

        Raises
        ------
        ChunkGoneError
            A slice not yet touched was removed by retention.
        """
        return (self._restricted(array) for array in self._pieces(0, self._rows))

    @overload
    def __getitem__(self, key: str) -> Array: ...
    @overload
    def __getitem__(self, key: slice | list[str]) -> Window: ...
    @overload
    def __getitem__(self, key: int) -> np.void: ...
    def __getitem__(self, key: str | list[str] | slice | int) -> Array | Window | np.void:
        """Take a column, columns, rows, or a row.

        ``window["price"]``
            A column as an array: a strided, read-only view if the window is one slice, else a copy.
        ``window[["price", "size"]]``
            A window with these columns.
        ``window[a:b]``
            A window of rows ``a <= i < b``, counted from the start of this window, negative from its end.
            Opens nothing.
        ``window[i]``
            A copy of one row, a `numpy.void` with fields; ``.item()`` is a tuple.

        Raises
        ------
        RecordError
            The window has no such column.
        IndexError
            There is no such row.
        ValueError
            A slice has a step.
        ChunkGoneError
            A part not yet touched was removed by retention.
        """
        if isinstance(key, str):
            return self._column(self._own(key))
        if isinstance(key, slice):
            return self._cut(key)
        if isinstance(key, list) and all(isinstance(name, str) for name in key):
            return self._like(self._parts, [self._own(name).name for name in key])
        return self._row(_row_number(key))

    def _row(self, index: int) -> np.void:
        at = index + self._rows if index < 0 else index
        if not 0 <= at < self._rows:
            raise IndexError(f"row {index} of a window of {self._rows} rows")
        row: np.void = self._joined(at, at + 1, copy=True)[0]  # np.void.copy() would leave padding as it was
        return row

    def _cut(self, key: slice) -> Window:
        start, stop, step = key.indices(self._rows)
        if step != 1:
            raise ValueError(f"step {step}: a window is cut in steps of 1; slice to_numpy() instead")
        if start >= stop:
            base = self._position_of(start)
            return self._like([] if base is None else [Part(base, 0, np.empty(0, self.layout.dtype))])
        return self._like(part.cut(a, b, keep=self._keeps) for part, a, b in self._ranges(start, stop))

    def _position_of(self, row: int) -> int | None:
        """Return the position of a row, or the one after the last row."""
        if row >= self._rows:
            return self._parts[-1].position_of(self._parts[-1].rows - 1) + 1 if self._parts else self.position
        part, offset, _ = next(self._ranges(row, row + 1))
        return part.position_of(offset)

    def _like(self, parts: Iterable[Part], columns: Sequence[str] | None = None) -> Window:
        columns = self.columns if columns is None else columns
        return Window(self.layout, parts, clock=self.clock, columns=columns, feed=self.feed, coverage=self.coverage,
                      marks=self._marks)  # fmt: skip

    def _own(self, name: str) -> Column:
        column = self.layout.column(name)
        if name not in self.columns:
            raise RecordError(
                f"column {name!r} is in the feed but not in this window, which was read with "
                f"columns={list(self.columns)}; ask for it there",
                column=name,
            )
        return column

    def _column(self, column: Column) -> Array:
        if len(self._parts) == 1:
            array: Array = self._parts[0].array()[column.name]
            return array
        values = arrow.gather((column,), self._pieces(0, self._rows), self._rows)[column.name]
        return values.view("S1") if column.kind == "char" else values

    def _ranges(self, start: int, stop: int) -> Iterator[tuple[Part, int, int]]:
        """Yield the parts that hold rows ``start <= i < stop``, with their own bounds."""
        at = bisect_right(self._stops, start)
        while start < stop:
            part, end = self._parts[at], self._stops[at]
            first = end - part.rows
            yield part, start - first, min(stop, end) - first
            start, at = end, at + 1

    def _pieces(self, start: int, stop: int) -> Iterator[Array]:
        """Yield rows ``start <= i < stop`` as whole records, part by part."""
        for part, a, b in self._ranges(start, stop):
            array = part.array(keep=self._keeps)
            yield array if b - a == part.rows else array[a:b]
            del array  # not held while the next one is opened

    def _restricted(self, array: Array) -> Array:
        return array if self._is_whole else array[list(self.columns)]

    # --- NumPy ---------------------------------------------------------------------------------------

    def _joined(self, start: int, stop: int, *, copy: bool = False) -> Array:
        """Return rows as one array: a view if they lie in one part and no copy is wanted."""
        pieces = self._pieces(start, stop)
        in_one = start < stop and bisect_right(self._stops, start) == bisect_right(self._stops, stop - 1)
        if in_one and not copy:
            return self._restricted(next(pieces))
        size = self.layout.record_size
        raw = np.empty((stop - start) * size, np.uint8)
        at = 0
        for piece in pieces:  # as bytes: NumPy copies a dtype with padding field by field
            raw[at : at + len(piece) * size] = piece.view(np.uint8)
            at += len(piece) * size
            del piece  # not held while the next one is opened
        return self._restricted(raw.view(self.layout.dtype))

    def to_numpy(self) -> Array:
        """Return all rows as one structured array.

        Returns
        -------
        numpy.ndarray
            If the window is one slice, a read-only view of it; else a copy, writeable, its padding zero.
            With columns selected, the bytes between them are the other columns. Clocks are ``uint64``
            microseconds since the epoch, UTC; ``char`` is ``S1``: compare with ``b"B"``.

        Raises
        ------
        ChunkGoneError
            A part not yet touched was removed by retention.
        """
        return self._joined(0, self._rows)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return `to_numpy`, by the rules of NumPy 2: `copy` None copies if it must, False refuses to.

        Raises
        ------
        ValueError
            `copy` is False and the window is several slices, or `dtype` another.
        """
        other = dtype is not None and np.dtype(dtype) != self.dtype
        if copy is False and (other or len(self._parts) > 1):
            why = f"dtype {np.dtype(dtype)} is asked for" if other else f"it is {len(self._parts)} slices"
            raise ValueError(f"a window cannot become one array without a copy: {why}; leave out copy=False")
        array = self._joined(0, self._rows, copy=bool(copy) and not other)
        return array.astype(dtype) if other else array

    def arrays(self, rows: int = BATCH_ROWS) -> Iterator[Array]:
        """Iterate over arrays of exactly `rows` rows, the last one perhaps fewer.

        Returns
        -------
        iterator of numpy.ndarray
            Each a read-only view if its rows lie in one slice, else a copy.

        Raises
        ------
        ValueError
            `rows` is less than 1.
        ChunkGoneError
            A part not yet touched was removed by retention.
        """
        return (self._joined(start, stop) for start, stop in self._steps(rows))

    def _steps(self, rows: int) -> Iterator[tuple[int, int]]:
        step = operator.index(rows)
        if step < 1:
            raise ValueError(f"rows={rows}: a batch has at least one row")
        return ((start, min(start + step, self._rows)) for start in range(0, self._rows, step))

    # --- pandas, Arrow, Polars -----------------------------------------------------------------------

    def to_pandas(self, copy: bool = True) -> pd.DataFrame:
        """Return a DataFrame; its index is the clock asked for, whatever `columns` says.

        Parameters
        ----------
        copy : bool
            False: if the window is one slice, bools and numbers that are no clocks and lie aligned are
            read-only, strided views. The index, other clocks and text are always copied.

        Returns
        -------
        pandas.DataFrame
            Clocks are ``datetime64[us, UTC]``, ``char`` Categorical text, ``char[N]`` `str`, ``type[N]``
            an object column of 1-D arrays. ``attrs["gaps"]`` is the number of `gaps` inside: absent if there
            is none, None if the marks cannot be read. (A number, because pandas copies `attrs` with each step.)

        Raises
        ------
        RecordError
            A clock is above 2^63-1, which pandas cannot show.
        ChunkGoneError
            A part not yet touched was removed by retention.
        """
        pieces: Iterable[Array] = self._pieces(0, self._rows)
        if not copy and len(self._parts) == 1:
            pieces = list(pieces)
        columns = None if self._is_whole else self.columns
        frame = frames.frame(self.layout, pieces, index=self.clock, columns=columns, copy=copy, rows=self._rows)
        try:
            gaps: int | None = len(self.gaps)
        except (ChunkGoneError, CorruptFileError):  # of the marks; the records are at hand
            gaps = None
        if gaps != 0:
            frame.attrs["gaps"] = gaps
        return frame

    def to_arrow(self) -> pa.Table:
        """Return a pyarrow Table: a copy, in chunks of about a million rows.

        Clocks are ``timestamp[us, UTC]``, all of them ordinary columns; ``char`` is a dictionary of text,
        the same one in all chunks; ``char[N]`` text; ``type[N]`` a fixed-size list.

        Raises
        ------
        RecordError
            A clock is above 2^63-1.
        ChunkGoneError
            A part not yet touched was removed by retention.
        """
        rows = max(1, min(_TABLE_ROWS, _TABLE_BYTES // self.layout.record_size))
        return arrow.table(self.layout, self._runs(rows), self.columns)

    def to_polars(self) -> pl.DataFrame:
        """Return a Polars DataFrame, by way of `to_arrow`; ``char`` is Categorical.

        Where Polars is too old to have ``Float16``, ``float16`` becomes ``Float32``.

        Raises
        ------
        ImportError
            Polars is not installed: ``pip install deepwater[polars]``.
        RecordError, ChunkGoneError
            As `to_arrow`.
        """
        try:
            import polars as pl
        except ImportError as error:
            raise ImportError(
                "to_polars() needs Polars, which is not installed: pip install deepwater[polars]",
                name="polars",
            ) from error
        table = self.to_arrow()
        found = pl.from_arrow(table if hasattr(pl, "Float16") else arrow.without_halves(table))
        assert isinstance(found, pl.DataFrame)
        return found

    def batches(self, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Iterate over pyarrow RecordBatches of `rows` rows, the last one perhaps fewer.

        Each is a copy, made when it is asked for. The dictionaries of ``char`` columns only grow at the end
        from batch to batch.

        Raises
        ------
        ValueError
            `rows` is less than 1.
        RecordError, ChunkGoneError
            As `to_arrow`.
        """
        return arrow.batches(self.layout, self._runs(rows), self.columns)

    def _runs(self, rows: int) -> arrow.Runs:
        return ((stop - start, self._pieces(start, stop)) for start, stop in self._steps(rows))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Export as an Arrow C stream, batch by batch: memory stays bounded whatever the window's size.

        An error on the way (`ChunkGoneError`, `RecordError`) reaches the consumer as an error of its own
        with our text.
        """
        rows = max(1, min(BATCH_ROWS, _BATCH_BYTES // self.layout.record_size))
        stream = arrow.reader(self.layout, self._runs(rows), self.columns)
        capsule: object = stream.__arrow_c_stream__(requested_schema)
        return capsule

    # --- to look at ----------------------------------------------------------------------------------

    def __repr__(self) -> str:
        lines, table = _describe(self)
        return "<" + "\n  ".join(lines + aligned(table)) + ">"

    def _repr_html_(self) -> str:
        return html(*_describe(self))


def _row_number(key: Any) -> int:
    if not isinstance(key, bool | np.bool_):  # no row numbers, though Python takes them for such
        with suppress(TypeError):
            return operator.index(key)
    raise TypeError(
        f"a window takes a column name, a list of names, a slice of rows or a row number, not "
        f"{type(key).__name__}; to_numpy() gives an array that takes masks"
    )


# --- text ------------------------------------------------------------------------------------------------


def _describe(window: Window) -> tuple[list[str], list[list[str]]]:
    """Return lines about a window, and a table of its first and last rows with the names on top."""
    rows, slices = len(window), len(window._parts)
    whose = f" of {window.feed!r}" if window.feed else ""
    if not rows:
        found = window.coverage
        return [f"Window{whose}: 0 rows", *(about_nothing(found, window.clock) if found else [])], []
    kind = "" if window.is_view else ", gathered copies"
    many = f"{rows:,} row{'s' * (rows > 1)} in {slices:,} slice{'s' * (slices > 1)}"
    line = f"Window{whose}: {many}, {window.nbytes:,} bytes{kind}"
    try:
        shown = _shown(window)
    except ChunkGoneError as error:
        return [line, f"its rows cannot be shown: {error}"], []
    # The bounds of a sorted clock are its first and last row; of another one they would need a scan.
    between = ("", " to ") if window.is_view else ("first row ", ", last row ")
    ends = zip(between, (shown[0], shown[-1]), strict=True)
    times = [f"{text}{format_us(int(record[window.clock]))}" for text, (_, record) in ends]
    table = cells(window.layout, window.columns, window.clock, shown, is_all=len(shown) == rows)
    return [line, f"{window.clock} {''.join(times)}", *_gaps_inside(window)], table


def _gaps_inside(window: Window) -> list[str]:
    try:
        return about_gaps(window.gaps)
    except (ChunkGoneError, CorruptFileError) as error:
        return [f"gaps inside are not known: {error}"]


def _shown(window: Window) -> Shown:
    """Return position and whole record of the first and last rows; opens at most two or three parts."""
    rows = len(window)
    few = range(rows) if rows <= 2 * _SHOWN_ROWS else (*range(_SHOWN_ROWS), *range(rows - _SHOWN_ROWS, rows))
    found = []
    for row in few:
        part, offset, _ = next(window._ranges(row, row + 1))
        found.append((part.position_of(offset), part.array()[offset]))
    return found
