"""A window as Parquet or Arrow, batch by batch. pyarrow is loaded here, late, and only for these formats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

import numpy as np

from deepwater import arrow
from deepwater.window import Window

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["write_arrow", "write_parquet"]

_BATCH_BYTES = 8 << 20


def _batches(window: Window) -> Iterator[pa.RecordBatch]:
    """Yield the window in batches that share their dictionaries.

    An IPC file holds one dictionary a column, and readers that take extensions of it are rare: so the letters
    of `char` columns are collected first. That is one look at a byte a record; the records are in memory or
    will be.
    """
    layout = window.layout
    rows = max(1, min(131_072, _BATCH_BYTES // layout.record_size))
    letters = [name for name in window.columns if layout.column(name).kind == "char"]
    seen = {name: np.zeros(256, np.bool_) for name in letters}
    if letters:
        for records in window.arrays(rows):
            for name in letters:
                seen[name][records[name].view(np.uint8)] = True
    known = {name: np.flatnonzero(mask).tolist() for name, mask in seen.items()}
    for records in window.arrays(rows):
        yield arrow.record_batch(layout, records, window.columns, dictionaries=known)


def write_parquet(window: Window, out: IO[bytes]) -> None:
    """Write a Parquet file; a row group a batch.

    Raises
    ------
    RecordError
        A clock is above 2^63-1: Parquet's timestamps end there.
    """
    arrow.write(out, "parquet", arrow.schema(window.layout, window.columns), _batches(window))


def write_arrow(window: Window, out: IO[bytes], *, stream: bool) -> None:
    """Write Arrow IPC: the stream format, or the file format (Feather 2), which wants to seek when read.

    Raises
    ------
    RecordError
        A clock is above 2^63-1: Arrow's timestamps end there.
    """
    arrow.write(out, "stream" if stream else "file", arrow.schema(window.layout, window.columns), _batches(window))
