"""Tables in files, read in batches: Parquet, Arrow IPC, ``.npy``. CSV and DBN are in modules of their own.

A `Source` is a file that was opened for looking. It can be passed over any number of times, each time in batches, so
that memory stays bounded however long it is (Parquet: by a row group, which is the unit of its encoding; Arrow IPC: by
a record batch as it was written). A file must be a regular one: it is passed over twice, to check and then to write.

A file that Deepwater exported whole carries its layout in the metadata of its schema, under `LAYOUT_KEY`, so that a
feed made from it is the same to the byte. The alternative, to infer the layout each time, loses padding, the widths of
text and descriptions.

Rows are counted from 0 here; whoever speaks to people adds one.

It knows files and columns, nothing of feeds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tokenize
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepwater.arrow import LAYOUT_KEY, columns_from_arrow
from deepwater.errors import RecordError, SchemaError
from deepwater.fields import Field
from deepwater.infer import Columns, arrow_columns, dtype_columns, is_text, record_fields
from deepwater.layout import Layout
from deepwater.wording import cut, short_path, shown

Array = NDArray[Any]
BATCH_ROWS = 65_536
BATCH_BYTES = 16 << 20
_MAX_NPY_HEADER = 1 << 16
_BAD_HEADER = (
    ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError, EOFError, tokenize.TokenError,
)  # fmt: skip


class Batch(NamedTuple):
    """Some rows of a file.

    Attributes
    ----------
    first : int
        The number of its first row in the file, from 0.
    rows : int
    data : object
        What `Source.values` of the same source takes.
    done : int
        How much of `Source.total` was read when this one came.
    """

    first: int
    rows: int
    data: Any
    done: int


class Source:
    """A file of records.

    Parameters
    ----------
    path : str

    Attributes
    ----------
    form : str
        "parquet", "arrow", "npy", "csv" or "dbn".
    total : int or None
        How much there is to read, in `unit` ("records" or "bytes"); None where that is not known.
    layout : Layout or None
        What the file says that its records are, exactly.
    names : tuple of str
        Its columns.
    cut : dict of str to int
        For each column how many of its times the source itself cut to a microsecond, in the last pass.
    """

    form = ""
    unit = "records"

    def __init__(self, path: str) -> None:
        self.path = path
        self.total: int | None = None
        self.layout: Layout | None = None
        self.names: tuple[str, ...] = ()
        self.cut: dict[str, int] = {}

    def batches(self) -> Iterator[Batch]:
        """Pass over the file, from its beginning."""
        raise NotImplementedError

    def columns(self, chosen: tuple[str, ...]) -> Columns:
        """Return those names and types as `infer.record_fields` takes them; may pass over the file to find out."""
        raise NotImplementedError

    def spec_fields(
        self, ts_col: str | None, where: str, chosen: tuple[str, ...]
    ) -> tuple[tuple[Field, ...], str]:
        """Return the fields of a record of the chosen columns, padding included, and its clock.

        Every column of times gets a name that ends in ``_us``: beside `ts_col` only those are clocks.
        """
        columns = self.columns(chosen)
        types = dict(columns)
        if types.get(ts_col or "") == "time":
            ts_col = clock_name(ts_col or "")
        columns = [(clock_name(name) if type_ == "time" else name, type_) for name, type_ in columns]
        return record_fields(columns, ts_col, where)

    def values(self, batch: Batch, layout: Layout, names: dict[str, str]) -> dict[str, Array]:
        """Return the columns of a batch as a packer takes them.

        Parameters
        ----------
        batch : Batch
            Of this source.
        layout : Layout
            What they are wanted for.
        names : dict
            For each column of the layout that of the file.
        """
        raise NotImplementedError

    def notes(self) -> list[str]:
        """Return what is to be said of the file after a pass."""
        return []

    def settings(self) -> dict[str, Any]:
        """Return settings for a feed that is made of it."""
        return {}

    def check_names(self) -> None:
        """Refuse a file that has two columns of one name."""
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise self.refuse(f"two columns are called {shown(twice)}; columns are matched by name", column=twice)

    def refuse(self, text: str, /, **parts: Any) -> RecordError:
        """Return the error that names the file."""
        return RecordError(f"{short_path(self.path)}: {text}", path=self.path, **parts)


def clock_name(name: str) -> str:
    """Return the name of a column of times as that of a clock.

    >>> clock_name("ts_event"), clock_name("ev_us")
    ('ts_event_us', 'ev_us')
    """
    return name if name.endswith("_us") else f"{name}_us"


def check_regular(path: str) -> int:
    """Return the size of a regular file; a pipe would block or end, and is passed over twice.

    Raises
    ------
    OSError
        There is none, or it cannot be looked at.
    RecordError
        It is none.
    """
    info = os.stat(path)
    if stat.S_ISDIR(info.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory; name a file in it", path)
    if not stat.S_ISREG(info.st_mode):
        raise RecordError(f"{short_path(path)}: not a regular file; write what it gives into one first", path=path)
    return info.st_size


@contextlib.contextmanager
def arrow_errors(source: Source) -> Iterator[None]:
    """Let what pyarrow finds wrong in a file name the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        text = cut(" ".join(str(error).split()), 300)
        raise source.refuse(f"not readable as {source.form}: {text}") from error


# --- Parquet, Arrow IPC ----------------------------------------------------------------------------------


class ArrowSource(Source):
    """A Parquet file, an Arrow IPC file (Feather 2) or an Arrow IPC stream."""

    def __init__(self, path: str, form: str) -> None:
        super().__init__(path)
        self.form = form
        check_regular(path)
        with arrow_errors(self), self._opened() as (schema, rows, _):
            self._schema, self.total = schema, rows
        self.names = tuple(schema.names)
        self.check_names()
        found = (schema.metadata or {}).get(LAYOUT_KEY)
        if found is not None:
            with contextlib.suppress(SchemaError):  # of another version: inferred as any other
                layout = Layout.from_bytes(found)
                self.layout = layout if set(layout.names) == set(self.names) else None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, int | None, Callable[[], Iterator[Any]]]]:
        """Open the file: its schema, how many rows it has if it says so, and its record batches."""
        import pyarrow as pa
        from pyarrow import ipc, parquet

        with pa.OSFile(os.fsencode(self.path), "rb") as file:
            if self.form == "parquet":
                with parquet.ParquetFile(file, pre_buffer=False) as table:
                    yield table.schema_arrow, table.metadata.num_rows, lambda: table.iter_batches(BATCH_ROWS)
            elif file.read(6) == b"ARROW1":
                reader = ipc.open_file(file)
                yield reader.schema, None, lambda: map(reader.get_batch, range(reader.num_record_batches))
            else:
                file.seek(0)
                stream = ipc.open_stream(file)
                yield stream.schema, None, lambda: iter(stream)

    def batches(self) -> Iterator[Batch]:
        """Pass over the file, from its beginning."""
        first = 0
        with arrow_errors(self), self._opened() as (_, _, read):
            for batch in read():
                # Without this offsets and indices of a damaged file reach beyond its buffers, into our memory.
                batch.validate(full=True)
                rows = max(1, min(BATCH_ROWS, BATCH_BYTES * max(1, len(batch)) // max(1, batch.nbytes)))
                for at in range(0, len(batch), rows):
                    piece = batch.slice(at, rows)
                    yield Batch(first, len(piece), piece, first + len(piece))
                    first += len(piece)

    def columns(self, chosen: tuple[str, ...]) -> Columns:
        """Return names and types."""
        import pyarrow as pa

        fields = [self._schema.field(name) for name in self.names if name in chosen]
        texts = [name for name in self.names if name in chosen and is_text(str(self._schema.field(name).type))]
        widths = dict.fromkeys(texts, 0)
        if texts:
            for batch in self.batches():
                found = columns_from_arrow(batch.data.select(texts))
                for name in texts:
                    widths[name] = max(widths[name], _width(found[name]))
        try:
            return arrow_columns(pa.schema(fields), widths)
        except SchemaError as error:
            raise SchemaError(f"{short_path(self.path)}: {error.message}", **error.parts) from error

    def values(self, batch: Batch, layout: Layout, names: dict[str, str]) -> dict[str, Array]:
        """Return the columns of a batch as a packer takes them."""
        found = columns_from_arrow(batch.data.select(list(dict.fromkeys(names.values()))))
        return {name: found[own] for name, own in names.items()}


def _width(values: Array) -> int:
    """How many bytes the longest text has."""
    if values.dtype.kind == "S":
        return int(np.strings.str_len(values).max(initial=0))
    return max(map(len, values.tolist()), default=0)


# --- .npy ------------------------------------------------------------------------------------------------


class NpySource(Source):
    """A structured array that ``np.save`` wrote."""

    form = "npy"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        size = check_regular(path)
        with open(path, "rb") as file:
            self._dtype, rows = self._head(file)
            self._offset = file.tell()
        self.total = rows
        there = (size - self._offset) // self._dtype.itemsize
        if there < rows:
            raise self.refuse(f"cut off: its header promises {rows} records, there are {there}; get it again")
        self.names = tuple(self._dtype.names or ())

    def _head(self, file: IO[bytes]) -> tuple[np.dtype[Any], int]:
        try:
            version = np.lib.format.read_magic(file)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in readers:
                raise self.refuse(f".npy of version {version[0]}.{version[1]}; save it with names in ASCII")
            shape, _, dtype = readers[version](file, max_header_size=_MAX_NPY_HEADER)
        except _BAD_HEADER as error:
            if isinstance(error, RecordError):
                raise
            raise self.refuse(f"not a .npy file: {' '.join(str(error).split())}") from error
        if dtype.hasobject or dtype.names is None or not dtype.itemsize:
            what = cut(str(dtype), 80)
            raise self.refuse(f"an array of {what} holds no records; save a structured array of numbers and text")
        if len(shape) != 1 or shape[0] < 0:
            raise self.refuse(f"an array of shape {shape}; records are one-dimensional: save array.reshape(-1)")
        return dtype, shape[0]

    def batches(self) -> Iterator[Batch]:
        """Pass over the file, from its beginning."""
        size, total = self._dtype.itemsize, self.total or 0
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES // size))
        with open(self.path, "rb") as file:
            file.seek(self._offset)
            for first in range(0, total, rows):
                count = min(rows, total - first)
                data = file.read(count * size)
                if len(data) < count * size:
                    raise self.refuse(f"became shorter while it was read, at row {first + len(data) // size + 1}")
                yield Batch(first, count, np.frombuffer(data, self._dtype), first + count)

    def columns(self, chosen: tuple[str, ...]) -> Columns:
        """Return names and types."""
        return dtype_columns(self._dtype[[name for name in self.names if name in chosen]])[0]

    def values(self, batch: Batch, layout: Layout, names: dict[str, str]) -> dict[str, Array]:
        """Return the columns of a batch as a packer takes them."""
        self._check_fields(names.values())
        return {name: batch.data[own] for name, own in names.items()}

    def _check_fields(self, names: Iterable[str]) -> None:
        """Refuse what means nothing by itself: times of no unit, and bytes of no type."""
        for name in names:
            part = self._dtype[name]
            if part.base.kind in "mM" and np.datetime_data(part.base)[0] == "generic":
                text = f"column {name!r}: {part} has no unit; save it as datetime64[us], or leave it out (columns)"
                raise self.refuse(text, column=name)
            if part.base.kind == "V":
                what = f"{part.itemsize} bytes of no type" if part.names is None else "fields of its own"
                text = f"column {name!r} holds {what} ({part}): save it as numbers or text, or leave it out (columns)"
                raise self.refuse(text, column=name)

    def spec_fields(
        self, ts_col: str | None, where: str, chosen: tuple[str, ...]
    ) -> tuple[tuple[Field, ...], str]:
        """As of any source; of all columns with the gaps that the array has."""
        self._check_fields(chosen)
        if chosen != self.names:
            return super().spec_fields(ts_col, where, chosen)
        columns, gaps = dtype_columns(self._dtype)
        if any(type_ == "time" for _, type_ in columns):
            return super().spec_fields(ts_col, where, chosen)
        return record_fields(columns, ts_col, where, gaps)
