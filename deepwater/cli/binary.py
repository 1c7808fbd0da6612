"""A window as Parquet, Arrow or ``.npy``, batch by batch. pyarrow is loaded here, late, and only for these formats.

A file of whole records carries their layout (`deepwater.arrow.LAYOUT_KEY`); in ``.npy`` the dtype is it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from deepwater import arrow
from deepwater.window import Window

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FORMS", "Passed", "as_it_is", "write_arrow", "write_npy", "write_parquet"]

FORMS = ("parquet", "arrow", "csv", "npy")
Passed = Callable[[Iterator[Any]], Iterator[Any]]
"""Passes batches on, and sees them."""
_BATCH_BYTES = 8 << 20


def as_it_is(pieces: Iterator[Any]) -> Iterator[Any]:
    """Pass batches on unseen."""
    return pieces


def _rows(window: Window) -> int:
    return max(1, min(131_072, _BATCH_BYTES // window.layout.record_size))


def _batches(window: Window) -> Iterator[pa.RecordBatch]:
    """Yield the window in batches that share their dictionaries.

    An IPC file holds one dictionary a column, and readers that take extensions of it are rare: so the letters
    of `char` columns are collected first. That is one look at a byte a record; the records are in memory or
    will be.
    """
    layout = window.layout
    rows = _rows(window)
    letters = [name for name in window.columns if layout.column(name).kind == "char"]
    seen = {name: np.zeros(256, np.bool_) for name in letters}
    if letters:
        for records in window.arrays(rows):
            for name in letters:
                seen[name][records[name].view(np.uint8)] = True
    known = {name: np.flatnonzero(mask).tolist() for name, mask in seen.items()}
    for records in window.arrays(rows):
        yield arrow.record_batch(layout, records, window.columns, dictionaries=known)


def write_parquet(window: Window, out: IO[bytes], passed: Passed = as_it_is) -> None:
    """Write a Parquet file; a row group a batch.

    Raises
    ------
    RecordError
        A clock is above 2^63-1: Parquet's timestamps end there.
    """
    _write(window, out, "parquet", passed)


def write_arrow(window: Window, out: IO[bytes], *, stream: bool, passed: Passed = as_it_is) -> None:
    """Write Arrow IPC: the stream format, or the file format (Feather 2), which wants to seek when read.

    Raises
    ------
    RecordError
        A clock is above 2^63-1: Arrow's timestamps end there.
    """
    _write(window, out, "stream" if stream else "file", passed)


def _write(window: Window, out: IO[bytes], form: str, passed: Passed) -> None:
    layout = window.layout
    whole = layout if window.columns == layout.names else None
    arrow.write(out, form, arrow.schema(layout, window.columns), passed(_batches(window)), whole)


def write_npy(window: Window, out: IO[bytes], passed: Passed = as_it_is) -> None:
    """Write a ``.npy`` file of records: whole ones as they are stored, chosen columns without gaps."""
    layout = window.layout
    is_whole = window.columns == layout.names
    dtype = layout.dtype if is_whole else np.dtype([(name, layout.column(name).dtype) for name in window.columns])
    head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (len(window),)}
    np.lib.format.write_array_header_2_0(out, head)
    for records in passed(window.arrays(_rows(window))):
        packed = records
        if not is_whole:
            packed = np.empty(len(records), dtype)
            for name in window.columns:
                packed[name] = records[name]
        out.write(packed.view(np.uint8).data)  # as bytes: NumPy copies a dtype with padding field by field
