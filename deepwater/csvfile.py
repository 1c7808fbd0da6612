"""CSV files as tables: what their columns are, and each cell as its column wants it, exactly or not at all.

The first line names the columns. Cells are read as text and then converted a block at a time, so that a cell that
cannot be is named by row and column. Numbers are decimal; ``nan`` and ``inf`` are floats; times are ISO 8601 (a date,
or a date and a time, with a zone or in UTC) or 15 to 20 digits of microseconds; bools are ``true`` and ``false``; text
is what stands there; a cell of ``type[N]`` is a list in brackets. That is what Deepwater's own export writes. An empty
cell is an empty text, and nothing else: records have no nulls. A quote that is not closed would make one cell of all
rows after it: it is an error (`deepwater.csvquotes`), and so is a row of more or fewer cells than there are names.

A file whose name ends in .gz, .bz2 or .zst is decompressed on the way. It knows nothing of feeds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from deepwater.arrow import columns_from_arrow
from deepwater.csvquotes import Quotes
from deepwater.errors import RecordError, TimeFormatError
from deepwater.infer import Columns, text_of_width
from deepwater.layout import Column, Layout
from deepwater.spans import span_of
from deepwater.tables import Array, Batch, Source, arrow_errors, check_regular
from deepwater.wording import cut

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK_BYTES = 4 << 20
_DATE, _TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}", r"[0-9]{2}(:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?"
_ISO = rf"^{_DATE}([T ]{_TIME}(Z|[-+][0-9]{{2}}:?[0-9]{{2}})?)?$"
_MICROSECONDS = re.compile(r"[0-9]{15,20}")
_NUMBER = {"int64": r"^-?[0-9]+$", "uint64": r"^[0-9]+$", "float64": r"^[-+]?([0-9]|\.[0-9]|inf|nan)"}
_BOOL = r"^(true|false)$"
_CELLS = re.compile(r"CSV parse error: Row #(\d+): Expected (\d+) columns, got (\d+): (.*)", re.DOTALL)
_TYPES = ("bool", "int64", "uint64", "float64", "time", "text")


class CsvSource(Source):
    """A CSV file with a line of names."""

    form, unit = "csv", "bytes"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._size = check_regular(path)
        self.total = self._size
        with self._opened() as (reader, _):
            self.names = tuple(reader.schema.names)
        self.check_names()

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Callable[[], int]]]:
        """Open the file; what pyarrow finds wrong in it is said as people count: rows from 1, without the names."""
        import pyarrow as pa

        quotes = Quotes()
        with arrow_errors(self):
            try:
                with _Opened(self, quotes) as opened:
                    yield opened
            except pa.ArrowInvalid as error:
                if found := _CELLS.match(str(error)):
                    row = int(found[1]) - 1
                    text = f"row {row}: {found[2]} cells expected, {found[3]} found: {cut(found[4], 80)!r}"
                    raise self.refuse(text, row=row) from error
                if "straddling object" in str(error):
                    line = quotes.opened
                    hint = f"; the quote opened at line {line} is perhaps never closed" if line is not None else ""
                    raise self.refuse(f"a row is longer than {_BLOCK_BYTES} bytes{hint}") from error
                raise

    def batches(self) -> Iterator[Batch]:
        """Pass over the file, from its beginning."""
        first, self.cut = 0, {}
        with self._opened() as (reader, done):
            for batch in reader:
                if len(batch):
                    yield Batch(first, len(batch), batch, min(done(), self._size))
                    first += len(batch)

    def columns(self, chosen: tuple[str, ...]) -> Columns:
        """Pass over the file: a type is what all cells of a column can be, the first of `_TYPES`.

        A type that a later block rules out was not tried on the blocks before: then they are passed over again.
        Integers beyond 64 bits are text: as float64 they would lose digits.
        """
        names = [name for name in self.names if name in chosen]
        left = {name: list(_TYPES) for name in names}
        is_late = True
        while is_late:
            is_late, rows = False, 0
            widths, whole = dict.fromkeys(names, 0), dict.fromkeys(names, True)
            for batch in self.batches():
                for name in names:
                    cells = batch.data.column(name)
                    widths[name] = max(widths[name], _longest(cells))
                    before = len(left[name])
                    # Only what can still be the answer is tried; text can always be.
                    while left[name][0] != "text" and not _is(left[name][0], cells):
                        left[name].pop(0)
                    is_late |= rows > 0 and len(left[name]) < before
                    whole[name] = whole[name] and left[name][0] == "float64" and _are_whole(cells)
                rows += batch.rows
        for name in names:
            if rows and whole[name]:
                left[name] = ["text"]
        if not rows:
            raise self.refuse("there is no row to tell the types by; give the feed's --spec")
        found = [(name, left[name][0]) for name in names]
        return [(name, text_of_width(widths[name]) if type_ == "text" else type_) for name, type_ in found]

    def values(self, batch: Batch, layout: Layout, names: dict[str, str]) -> dict[str, Array]:
        """Return the columns of a batch as a packer takes them."""
        return {name: self._converted(layout, name, own, batch.data.column(own)) for name, own in names.items()}

    def _converted(self, layout: Layout, name: str, own: str, cells: pa.Array) -> Array:
        """Return the cells of one column as an array that the rule of the column judges."""
        column = layout.column(name)
        if name in layout.clocks:
            values, cut = _clock(own, cells)
            self.cut[own] = self.cut.get(own, 0) + cut
            return values
        if column.kind in ("char", "chars"):
            return columns_from_arrow(_one_column(own, cells))[own]
        return _scalars(column, own, cells) if column.count is None else _lists(column, own, cells)


class _Watched:
    """The bytes of a file as pyarrow reads them, its quotes looked at."""

    closed = False

    def __init__(self, source: CsvSource, stream: Any, quotes: Quotes) -> None:
        self._source, self._stream, self._quotes = source, stream, quotes

    def read(self, size: int) -> bytes:
        """Return the next block; empty at the end."""
        block: bytes = self._stream.read(size)
        wrong = self._quotes.wrong_in(block) if block else self._quotes.wrong_at_end()
        if wrong is not None:
            raise self._source.refuse(wrong)
        return block

    def close(self) -> None:
        """Who opened the stream closes it."""


class _Opened:
    """A reader of record batches of text, and how many bytes of the file it has taken."""

    def __init__(self, source: CsvSource, quotes: Quotes) -> None:
        import pyarrow as pa

        self._file = pa.OSFile(os.fsencode(source.path), "rb")
        self._names = source.names
        ending = source.path.rpartition(".")[2].lower()
        codec = {"gz": "gzip", "bz2": "bz2", "zst": "zstd"}.get(ending)
        self._stream = pa.CompressedInputStream(self._file, codec) if codec else self._file
        self._watched = _Watched(source, self._stream, quotes)

    def __enter__(self) -> tuple[Any, Callable[[], int]]:
        import pyarrow as pa
        from pyarrow import csv

        # Without names only those are wanted: types do not matter then.
        types = dict.fromkeys(self._names, pa.utf8())
        try:
            reader = csv.open_csv(
                pa.PythonFile(self._watched, "r"),
                read_options=csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
                parse_options=csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=len(types) != 1),
                convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=False),
            )
        except BaseException:
            self._file.close()
            raise
        return reader, self._file.tell

    def __exit__(self, *exc: object) -> None:
        self._stream.close()
        self._file.close()


def _longest(cells: pa.Array) -> int:
    import pyarrow.compute as pc

    return int(pc.max(pc.utf8_length(cells)).as_py() or 0)


# --- what a column is ------------------------------------------------------------------------------------


def _is(type_: str, cells: pa.Array) -> bool:
    """Whether all cells can be read as a type."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pattern = {"bool": _BOOL, "time": _ISO}.get(type_) or _NUMBER[type_]
        if not pc.all(pc.match_substring_regex(cells, pattern, ignore_case=True)).as_py():
            return False
        if type_ in _NUMBER:
            _cast(cells, type_)
        return True
    except pa.ArrowInvalid:
        return False


def _are_whole(cells: pa.Array) -> bool:
    """Whether all cells are integers, of whatever size."""
    import pyarrow.compute as pc

    return bool(pc.all(pc.match_substring_regex(cells, _NUMBER["int64"])).as_py())


# --- cells to values -------------------------------------------------------------------------------------


def _cast(cells: pa.Array, type_: str) -> Array:
    import pyarrow as pa

    found: Array = cells.cast(pa.from_numpy_dtype(np.dtype(type_))).to_numpy(zero_copy_only=False)
    return found


def _one_column(name: str, cells: pa.Array) -> pa.Table:
    import pyarrow as pa

    return pa.table({name: cells})


def _scalars(column: Column, own: str, cells: pa.Array) -> Array:
    type_ = column.type.partition("[")[0].replace("byte", "uint8")
    pattern = _BOOL if type_ == "bool" else _NUMBER["float64" if column.kind == "float" else "int64"]
    found = _all_or_none(cells, pattern, type_)
    if found is not None and column.kind == "float" and np.isinf(found).any():
        beyond = [row for row in np.flatnonzero(np.isinf(found)) if "inf" not in cells[int(row)].as_py().lower()]
        if beyond:
            raise _bad(own, int(beyond[0]), cells, f"is beyond {type_}")
    if found is None:
        row = _first_bad(cells, lambda some: _all_or_none(some, pattern, type_) is not None)
        raise _bad(own, row, cells, f"is no {type_}")
    return found


def _all_or_none(cells: pa.Array, pattern: str, type_: str) -> Array | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.all(pc.match_substring_regex(cells, pattern, ignore_case=True)).as_py():
        return None
    try:
        return _cast(cells, type_)
    except pa.ArrowInvalid:
        return None


def _first_bad(cells: pa.Array, is_good: Callable[[pa.Array], bool]) -> int:
    """Return the first row that is not good; there is one. Each step looks at half as many."""
    low, high = 0, len(cells)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_good(cells[low:middle]) else (low, middle)
    return low


def _bad(own: str, row: int, cells: pa.Array, why: str) -> RecordError:
    text = cells[row].as_py()
    why = f"{text[:60]!r} {why}" if text else "is empty; records have no nulls"
    return RecordError(f"column {own!r}, row {row}: {why}", column=own, row=row, why=why, value=text)


def _clock(own: str, cells: pa.Array) -> tuple[Array, int]:
    """Return times as datetime64 or as integers, and how many were cut to a microsecond here."""
    found = _all_or_none(cells, _NUMBER["uint64"], "uint64")
    if found is None:
        found = _iso_times(cells)
    if found is not None:
        return found, 0
    out, cut = np.empty(len(cells), np.uint64), 0  # of several forms: one by one
    for row, text in enumerate(cells.to_pylist()):
        try:
            out[row], is_cut = _moment(text)
        except (TimeFormatError, OverflowError):
            raise _bad(own, row, cells, "is no time: write 2026-08-09T05:23:42.5Z or us since the epoch") from None
        cut += is_cut
    return out, cut


def _moment(text: str) -> tuple[int, bool]:
    """One time as microseconds, and whether it lay between two; before 1970 and beyond 2^64-1 is an OverflowError."""
    if _MICROSECONDS.fullmatch(text):
        return int(text), False
    if not re.match(_ISO, text):
        raise TimeFormatError("no time", value=text)
    first, last = span_of(text, "time", 0)
    if min(first, last) < 0:
        raise OverflowError
    return min(first, last), last < first


def _iso_times(cells: pa.Array) -> Array | None:
    """Return ISO 8601 text as datetime64 of the coarsest unit that holds it, us or ns; None if some of it is not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.all(pc.match_substring_regex(cells, _ISO)).as_py():
        return None
    for unit in ("us", "ns"):
        for zone in ("UTC", None):
            try:
                found: Array = cells.cast(pa.timestamp(unit, zone)).to_numpy(zero_copy_only=False)
                return found
            except pa.ArrowInvalid:
                continue
    return None


def _lists(column: Column, own: str, cells: pa.Array) -> Array:
    """Cells as ``[1.5, nan, 2]``, all of N items."""
    import pyarrow as pa

    item = Column(column.name, column.type.partition("[")[0], column.kind, 0, column.size, column.item, None)
    texts: list[str] = []
    for row, text in enumerate(cells.to_pylist()):
        items = [part.strip() for part in text[1:-1].split(",")] if text[:1] + text[-1:] == "[]" else []
        if len(items) != column.count:
            raise _bad(own, row, cells, f"is no list of {column.count} as [1, 2]")
        texts += items
    try:
        return _scalars(item, own, pa.array(texts, pa.utf8())).reshape(len(cells), column.count or 0)
    except RecordError as error:
        row = error.parts["row"] // (column.count or 1)
        raise RecordError(
            f"column {own!r}, row {row}: {error.parts['why']}", **{**error.parts, "row": row}) from None  # fmt: skip
