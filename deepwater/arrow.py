"""Records to columns, and columns to and from Arrow.

A column of records is strided, so a contiguous column is always a copy. `gather` makes it for Arrow and
pandas alike, a cache-sized block of rows at a time, so that each record is fetched from memory once however
many columns are wanted. Only Arrow over what was gathered is zero-copy.

Clocks are ``timestamp[us, UTC]``; ``char`` is a dictionary of text with uint8 indices (all 256 bytes fit;
text is latin-1, and the NUL character is the empty text, as in NumPy); ``char[N]`` is utf8; ``type[N]`` is a
fixed-size list; padding is left out. The batches of one stream share a dictionary that only grows at its
end, so the indices of earlier batches stay valid under the last one.

It knows layouts and arrays, nothing of feeds, files or windows. pyarrow is loaded when a function needs it.
All functions are safe to call from several threads. Some 500 lines because both directions, and pandas,
share one rule for text and one way to gather.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepwater.errors import RecordError
from deepwater.layout import Column, Layout

if TYPE_CHECKING:
    import pyarrow as pa

Array = NDArray[Any]
Dictionaries = dict[str, list[int]]
"""For each char column the bytes its dictionary holds, in the order of their indices."""

Runs = Iterable[tuple[int, Iterable[Array]]]
"""For each batch how many records it has, and the arrays that hold them."""

LAYOUT_KEY = b"deepwater.layout"
"""Under this key the metadata of a schema holds the layout of whole records (`Layout.to_bytes`)."""
_BLOCK_BYTES = 1 << 18  # of records: a block stays in the second-level cache while its columns are taken
_FEW = 8
_MAX_TEXT = 65_536  # bytes; no record is longer
_SPARE_BYTES = 1 << 28


# --- records to contiguous columns -----------------------------------------------------------------------


def select(layout: Layout, columns: str | Iterable[str] | None) -> tuple[Column, ...]:
    """Look up columns by name; None is all of them in field order, a `str` is one.

    Raises
    ------
    RecordError
        A name is unknown (the nearest is named) or given twice, or there is none.
    """
    if columns is None:
        return layout.columns
    found = tuple(layout.column(name) for name in ((columns,) if isinstance(columns, str) else columns))
    if not found:
        raise RecordError("no column is asked for; name at least one, or leave `columns` out for all")
    names = [column.name for column in found]
    for name in names:
        if names.count(name) > 1:
            raise RecordError(f"column {name!r} is asked for more than once; name it once", column=name)
    return found


def gather(columns: Sequence[Column], arrays: Iterable[Array], rows: int) -> dict[str, Array]:
    """Copy columns of records into contiguous arrays.

    Parameters
    ----------
    columns : sequence of Column
    arrays : iterable of structured arrays
        Pieces of records in order, with the dtype of the layout or a selection that has the columns. Each is
        dropped before the next is asked for.
    rows : int
        How many records they hold together.

    Returns
    -------
    dict of str to numpy.ndarray
        A copy of `rows` items per column: ``uint8`` for ``char`` (one byte each), ``S<N>`` for ``char[N]``,
        shape (rows, N) for ``type[N]``, else the dtype of the field. Columns of one item size share one block
        of memory, which lives as long as any of them.
    """
    out = _allocate(columns, rows)
    at = 0
    for array in arrays:
        _gather_piece(columns, array, out, at)
        at += len(array)
        del array  # not held while the next one is opened
    assert at == rows, (at, rows)
    return out


def _gather_piece(columns: Sequence[Column], array: Array, out: dict[str, Array], at: int) -> None:
    count, step = len(array), max(16, _BLOCK_BYTES // array.itemsize)
    pairs = [(out[column.name][at : at + count], _field(array, column)) for column in columns]
    for start in range(0, count, step):
        for target, source in pairs:
            target[start : start + step] = source[start : start + step]


def _field(array: Array, column: Column) -> Array:
    values: Array = array[column.name]
    # NumPy copies S1 item by item and anything else of one byte at once.
    return values.view(np.uint8) if column.kind == "char" else values


def _allocate(columns: Sequence[Column], rows: int) -> dict[str, Array]:
    """Take one block for all columns of an item size: one large allocation costs less than many small."""
    out: dict[str, Array] = {}
    plain = [column for column in columns if column.count is None and column.kind != "chars"]
    for size in {column.size for column in plain}:
        members = [column for column in plain if column.size == size]
        block = np.empty((len(members), rows * size), np.uint8)
        for row, column in zip(block, members, strict=True):
            out[column.name] = row if column.kind == "char" else row.view(column.item)
    for column in columns:
        if column.name not in out:
            out[column.name] = np.empty(rows, column.dtype)
    return out


def refuse_beyond_int64(name: str, values: Array, holder: str) -> Array:
    """Return a gathered clock as int64, or say that `holder` cannot show it (values above 2^63-1).

    Returns
    -------
    numpy.ndarray
        A view, int64.
    """
    signed: Array = values.view(np.int64)
    if signed.size and int(signed.min()) < 0:
        row = int((signed < 0).argmax())
        raise RecordError(
            f"column {name!r}, row {row}: {int(values[row])} us is above 2^63-1, which {holder} cannot show; "
            f"to_numpy() gives it as an integer, and columns= leaves it out",
            column=name, row=row, value=int(values[row]),
        )  # fmt: skip
    return signed


def distinct(codes: NDArray[np.uint8]) -> list[int]:
    """List the byte values that occur, ascending.

    A char column has few: to peel them off one by one costs a tenth of a histogram.
    """
    if not codes.size:
        return []
    found = [int(codes[0])]
    unseen = codes != codes[0]
    while len(found) < _FEW:
        at = int(unseen.argmax())
        if not unseen[at]:
            return sorted(found)
        found.append(int(codes[at]))
        unseen &= codes != codes[at]
    return [int(value) for value in np.flatnonzero(np.bincount(codes, minlength=256))]


def rank(codes: NDArray[np.uint8], values: Sequence[int]) -> NDArray[np.uint8]:
    """Return for each byte its index in `values`, which has every byte that occurs. A copy, uint8."""
    if len(values) == 1:
        return np.zeros(len(codes), np.uint8)
    if len(values) == 2:
        second: NDArray[np.bool_] = codes == values[1]
        return second.view(np.uint8)
    table = np.zeros(256, np.uint8)
    table[list(values)] = np.arange(len(values), dtype=np.uint8)
    ranks: NDArray[np.uint8] = table.take(codes)
    return ranks


def letter(value: int) -> str:
    """Return the text of one byte of a char column: latin-1; NUL is the empty text."""
    return chr(value) if value else ""


def decode_text(values: Array) -> Array:
    """Decode latin-1 bytes ``S<N>`` to ``U<N>``. A copy of four times the size: call it on blocks.

    Trailing NULs are padding and dropped; others stay.
    """
    width = values.dtype.itemsize
    wide = np.ascontiguousarray(values).view(np.uint8).astype("=u4")
    return wide.view(f"=U{width}").reshape(len(values))


def encode_text(values: Iterable[Any]) -> Array:
    """Encode `str` or `bytes` values to latin-1 ``S<width>``.

    What that cannot hold exactly (other characters, a trailing NUL, values that are no text, a width that no
    record has) comes back as the same values in an object array: the packer knows the field and judges them.
    """
    items = list(values)
    try:
        raw = [item if isinstance(item, bytes) else item.encode("latin-1") for item in items]
    except (UnicodeEncodeError, AttributeError):
        return _objects(items)
    width = max(map(len, raw), default=1) or 1
    if _is_wasteful(len(raw), width, sum(map(len, raw))) or any(item.endswith(b"\0") for item in raw):
        return _objects(items)
    return np.array(raw, f"S{width}")


def _is_wasteful(rows: int, width: int, size: int) -> bool:
    """Tell whether a fixed width is out of proportion: one long value makes every value as wide."""
    return width > _MAX_TEXT or rows * width > max(_SPARE_BYTES, 64 * size)


def _objects(items: Sequence[Any]) -> Array:
    out = np.empty(len(items), object)
    for i, item in enumerate(items):
        out[i] = item
    return out


def look_up(values: Array, codes: Array) -> Array:
    """Return ``values[codes]``, as single bytes where the values are such. A copy."""
    return values.view(np.uint8).take(codes).view("S1") if values.dtype == "S1" else values.take(codes)


# --- to Arrow --------------------------------------------------------------------------------------------


def schema(layout: Layout, columns: str | Iterable[str] | None = None) -> pa.Schema:
    """Return the Arrow schema of a layout.

    Parameters
    ----------
    layout : Layout
    columns : str or iterable of str, optional
        The columns wanted, in this order. Default all, in field order.

    Returns
    -------
    pyarrow.Schema
        Fields carry their description as metadata ``desc``.

    Examples
    --------
    >>> layout = Layout.compile({"feed_name": "t", "ts_col": "t_us", "fields": [
    ...     {"name": "side", "type": "char"}, {"name": "_", "type": "_7"},
    ...     {"name": "t_us", "type": "u64"}, {"name": "px", "type": "f64[3]"}]})
    >>> print(schema(layout))
    side: dictionary<values=string, indices=uint8, ordered=0>
    t_us: timestamp[us, tz=UTC]
    px: fixed_size_list<item: double>[3]
      child 0, item: double
    """
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(c.name, _arrow_type(layout, c), metadata={"desc": c.desc} if c.desc else None)
            for c in select(layout, columns)
        ]
    )


def _arrow_type(layout: Layout, column: Column) -> pa.DataType:
    import pyarrow as pa

    if column.name in layout.clocks:
        return pa.timestamp("us", "UTC")
    if column.kind in ("char", "chars"):
        return pa.dictionary(pa.uint8(), pa.utf8()) if column.kind == "char" else pa.utf8()
    item = pa.from_numpy_dtype(np.dtype(column.item))
    return item if column.count is None else pa.list_(item, column.count)


def record_batch(
    layout: Layout,
    records: Array | Iterable[Array],
    columns: str | Iterable[str] | None = None,
    *,
    rows: int | None = None,
    dictionaries: Dictionaries | None = None,
) -> pa.RecordBatch:
    """Gather records into one Arrow record batch.

    Parameters
    ----------
    layout : Layout
    records : structured array, or iterable of them
        The records, as for `gather`.
    columns : str or iterable of str, optional
        As for `schema`.
    rows : int, optional
        How many records an iterable holds. Required with one.
    dictionaries : dict, optional
        The dictionaries of the batches before this one, extended in place by what is new here.

    Returns
    -------
    pyarrow.RecordBatch
        A copy.

    Raises
    ------
    RecordError
        A clock is above 2^63-1; a column is unknown; a batch has more than 2 GiB of text in one column.
    """
    import pyarrow as pa

    wanted = select(layout, columns)
    if isinstance(records, np.ndarray):
        records, rows = (records,), len(records)
    assert rows is not None, "an iterable does not say how many rows it holds"
    values = gather(wanted, records, rows)
    dictionaries = {} if dictionaries is None else dictionaries
    arrays = [_to_arrow(layout, column, values[column.name], dictionaries) for column in wanted]
    return pa.RecordBatch.from_arrays(arrays, schema=schema(layout, [column.name for column in wanted]))


def _to_arrow(layout: Layout, column: Column, values: Array, dictionaries: Dictionaries) -> pa.Array:
    """Wrap one gathered column; only text and bools are copied again."""
    import pyarrow as pa

    if column.name in layout.clocks:
        refuse_beyond_int64(column.name, values, "an Arrow timestamp")
        return _wrap(pa.timestamp("us", "UTC"), values, len(values))
    if column.kind == "char":
        known = dictionaries.setdefault(column.name, [])
        known += [value for value in distinct(values) if value not in known]
        indices = _wrap(pa.uint8(), rank(values, known), len(values))
        return pa.DictionaryArray.from_arrays(indices, _dictionary(tuple(known)), safe=False)
    if column.kind == "chars":
        return _utf8(column.name, values)
    flat = values.reshape(-1)
    bits = np.packbits(flat, bitorder="little") if column.kind == "bool" else flat
    items = _wrap(pa.from_numpy_dtype(flat.dtype), bits, len(flat))
    return items if column.count is None else pa.FixedSizeListArray.from_arrays(items, column.count)


def _wrap(arrow_type: pa.DataType, values: Array, rows: int) -> pa.Array:
    """Return an Arrow array over the memory of a contiguous array, which it keeps alive."""
    import pyarrow as pa

    return pa.Array.from_buffers(arrow_type, rows, [None, pa.py_buffer(values)])


@lru_cache(maxsize=256)
def _dictionary(values: tuple[int, ...]) -> pa.Array:
    import pyarrow as pa

    return pa.array([letter(value) for value in values], pa.utf8())


def _utf8(name: str, values: Array) -> pa.Array:
    """``S<N>`` as utf8, without an object per value where it is ASCII."""
    import pyarrow as pa

    rows, width = len(values), values.dtype.itemsize
    raw = values.view(np.uint8).reshape(rows, width)
    if raw.size and int(raw.max()) >= 0x80:
        return pa.array(decode_text(values).tolist(), pa.utf8())
    lengths = np.strings.str_len(values)
    ends = np.cumsum(lengths, dtype=np.int64)
    if rows and int(ends[-1]) >= 2**31:
        raise RecordError(
            f"column {name!r}: {int(ends[-1])} bytes of text in one batch, Arrow's utf8 ends at 2^31; "
            f"ask for smaller batches: batches({rows // 8})",
            column=name,
        )
    offsets = np.zeros(rows + 1, np.int32)
    offsets[1:] = ends
    text = raw[np.arange(width) < lengths[:, None]]
    return pa.Array.from_buffers(pa.utf8(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(text)])


def batches(layout: Layout, runs: Runs, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield one record batch per run of records; their dictionaries extend each other."""
    dictionaries: Dictionaries = {}
    for rows, pieces in runs:
        yield record_batch(layout, pieces, columns, rows=rows, dictionaries=dictionaries)


def reader(layout: Layout, runs: Runs, columns: Sequence[str] | None = None) -> pa.RecordBatchReader:
    """Return `batches` as a RecordBatchReader: each is made when it is asked for, none is kept."""
    import pyarrow as pa

    return pa.RecordBatchReader.from_batches(schema(layout, columns), batches(layout, runs, columns))


def table(layout: Layout, runs: Runs, columns: Sequence[str] | None = None) -> pa.Table:
    """Return `batches` as one Table, one chunk a batch, all chunks of a column with the same dictionary."""
    import pyarrow as pa

    found = pa.Table.from_batches(batches(layout, runs, columns), schema(layout, columns))
    for i, column in enumerate(found.columns):
        if pa.types.is_dictionary(column.type) and column.num_chunks > 1:
            last = column.chunk(column.num_chunks - 1).dictionary
            chunks = [pa.DictionaryArray.from_arrays(c.indices, last, safe=False) for c in column.chunks]
            found = found.set_column(i, found.field(i), pa.chunked_array(chunks, column.type))
    return found


def without_halves(data: pa.Table) -> pa.Table:
    """Return a table with float16, in lists too, as float32: for libraries that know no float16."""
    import pyarrow as pa

    def wide(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_fixed_size_list(kind):
            return pa.list_(wide(kind.value_type), kind.list_size)
        return pa.float32() if kind == pa.float16() else kind

    return data.cast(pa.schema([field.with_type(wide(field.type)) for field in data.schema]))


# --- from Arrow ------------------------------------------------------------------------------------------


def columns_from_arrow(data: Any) -> dict[str, Array]:
    """Return the columns of anything that speaks Arrow, for the packer.

    Parameters
    ----------
    data : object with ``__arrow_c_stream__`` or ``__arrow_c_array__``
        A Table, RecordBatch, RecordBatchReader (consumed), Polars frame, or a window.

    Returns
    -------
    dict of str to numpy.ndarray
        Numbers and bools as they are, timestamps and dates as ``datetime64`` of their unit in UTC, text and
        binary as ``S<width>`` (see `encode_text`), lists of equal length as arrays of shape (rows, N). Views
        of the Arrow memory where it allows, read-only and valid for as long as they are referenced.

    Raises
    ------
    RecordError
        `data` is no table; a value is null (column and row are named); no field holds the type; two columns
        have one name.

    Examples
    --------
    >>> import pyarrow
    >>> columns_from_arrow(pyarrow.table({"side": ["B", "S"]}))
    {'side': array([b'B', b'S'], dtype='|S1')}
    """
    import pyarrow as pa

    try:
        found = data if isinstance(data, pa.Table) else pa.table(data)
    except (TypeError, ValueError) as error:
        raise RecordError(f"expected a table of columns, found {type(data).__name__}: {error}") from error
    out: dict[str, Array] = {}
    for name, column in zip(found.column_names, found.columns, strict=True):
        if name in out:
            raise RecordError(f"two columns are called {name!r}; columns are matched by name", column=name)
        row, arrays = 0, []
        for chunk in column.chunks or [pa.array([], column.type)]:
            arrays.append(_from_arrow(name, row, chunk))
            row += len(chunk)
        out[name] = _concatenate(arrays)
    return out


def _concatenate(arrays: list[Array]) -> Array:
    if len(arrays) == 1:
        return arrays[0]
    if len({(array.dtype.kind, array.shape[1:]) for array in arrays}) == 1:
        return np.concatenate(arrays)
    return _objects(list(chain.from_iterable(arrays)))


def _from_arrow(name: str, row: int, values: pa.Array) -> Array:
    """One chunk of a column whose first value is row `row`."""
    import pyarrow as pa

    kind, is_ = values.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _from_arrow(name, row, values.storage)
    if values.null_count:
        _refuse_null(name, row + values.is_null().index(pa.scalar(True)).as_py())
    if is_.is_dictionary(kind):
        if values.dictionary.null_count:
            return _from_arrow(name, row, values.dictionary_decode())
        return look_up(_from_arrow(name, 0, values.dictionary), values.indices.to_numpy())
    if is_.is_fixed_size_list(kind) or is_.is_list(kind) or is_.is_large_list(kind):
        return _from_lists(name, row, values)
    if is_.is_fixed_size_binary(kind) and kind.byte_width:
        start = values.offset * kind.byte_width
        return np.frombuffer(values.buffers()[1], f"S{kind.byte_width}", len(values), start)
    if str(kind) in ("string", "large_string", "string_view", "binary", "large_binary", "binary_view"):
        return _from_text(values)
    plain = (is_.is_boolean, is_.is_integer, is_.is_floating, is_.is_timestamp, is_.is_date)
    if any(test(kind) for test in plain):
        found: Array = values.to_numpy(zero_copy_only=False)
        return found
    raise RecordError(f"column {name!r}: no field holds Arrow's {kind}; cast or drop it", column=name)


def _refuse_null(name: str, row: int) -> None:
    message = f"column {name!r}, row {row}: null; a record has a value in every field, so fill it first"
    raise RecordError(message, column=name, row=row)


def _from_lists(name: str, row: int, values: pa.Array) -> Array:
    """Lists of one length as (rows, N), else an object array of 1-D arrays."""
    import pyarrow as pa

    fixed = pa.types.is_fixed_size_list(values.type)
    lengths = np.full(len(values), values.type.list_size) if fixed else values.value_lengths().to_numpy()
    ends = np.cumsum(lengths)
    items = values.flatten()
    if items.null_count:  # it is named by the row of its list
        item = items.is_null().index(pa.scalar(True)).as_py()
        _refuse_null(name, row + int(ends.searchsorted(item, "right")))
    flat = _from_arrow(name, row, items)
    width = values.type.list_size if fixed else int(lengths[0]) if len(lengths) else 0
    if (lengths == width).all():
        return flat.reshape(len(values), width, *flat.shape[1:])
    return _objects(np.split(flat, ends[:-1]))


def _from_text(values: pa.Array) -> Array:
    """Text or binary without nulls as ``S<width>``, vectorised where the bytes are ASCII."""
    import pyarrow as pa

    wide = values.cast(pa.large_string() if "string" in str(values.type) else pa.large_binary())
    _, places, content = wide.buffers()
    rows = len(values)
    offsets = np.frombuffer(places, np.int64, rows + 1, wide.offset * 8) if rows else np.zeros(1, np.int64)
    lengths = np.diff(offsets)
    size, width = int(lengths.sum()), int(lengths.max(initial=1))
    if not size:
        return np.zeros(rows, "S1")
    text = np.frombuffer(content, np.uint8, size, int(offsets[0]))
    last = text[(np.cumsum(lengths) - 1)[lengths > 0]]
    is_ascii = "binary" in str(values.type) or int(text.max()) < 0x80
    if _is_wasteful(rows, width, size) or not last.all() or not is_ascii:
        return encode_text(values.to_pylist())
    out = np.zeros((rows, width), np.uint8)
    out[np.arange(width) < lengths[:, None]] = text
    return out.view(f"S{width}").reshape(rows)


# --- streams ---------------------------------------------------------------------------------------------


def decompressed(path: str, compression: str) -> Any:
    """Open a compressed file for reading bytes (pyarrow has the codecs, Python 3.11 has no zstd).

    Returns
    -------
    pyarrow.NativeFile
        A context manager with `read`; the caller closes it.
    """
    import pyarrow as pa

    # As bytes: a name need not be UTF-8.
    return pa.input_stream(pa.OSFile(os.fsencode(path), "rb"), compression=compression)


def write(
    out: IO[bytes], form: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], layout: Layout | None = None
) -> None:
    """Write batches to a binary file as they come.

    Parameters
    ----------
    form : {"parquet", "file", "stream"}
        Parquet, a row group a batch; or Arrow IPC, as a file (Feather 2) or as a stream.
    layout : Layout, optional
        Of whole records: it is kept in the file, for who makes a feed of it.
    """
    from pyarrow import ipc, parquet

    if layout is not None:
        schema = schema.with_metadata({**(schema.metadata or {}), LAYOUT_KEY: layout.to_bytes()})

    opened: dict[str, Any] = {"parquet": parquet.ParquetWriter, "file": ipc.new_file, "stream": ipc.new_stream}
    with opened[form](out, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
