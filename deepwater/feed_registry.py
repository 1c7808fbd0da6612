"""The feed registry: one row for each sealed chunk, so that opening a feed opens no chunk to search it.

It is a cache of the chunks' seals. Readers use what is valid of it and walk the chunk headers for
the rest; a missing, short or damaged registry costs time, never data, and the next writer makes it
anew. It grows in place by doubling, so mappings made before stay true. Rows of chunks that retention let go are
passed over, and left out when the next writer makes the file anew.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.chunk import static_of
from deepwater.errors import CorruptFileError, DeepwaterError
from deepwater.files import Directory
from deepwater.layout import Layout
from deepwater.oldest import Oldest
from deepwater.schema import FeedSpec
from deepwater.segment import Segment, read_published
from deepwater.timestamps import now_us

Rows = npt.NDArray[Any]
_INITIAL_ROWS = 64
_MASK = 2**64 - 1
_UNWRITTEN = (OSError, DeepwaterError)
"""What may keep a row from being written, and may not fail the write that sealed the chunk."""


@lru_cache(maxsize=64)
def row_layout(clocks: int) -> Layout:
    """The layout of a row for a feed with that many clocks."""
    words = ["chunk_id", "base", "count", "created_us", "sealed_us", "capacity"]
    fields = [{"name": name, "type": "uint64"} for name in words]
    fields.append({"name": "_", "type": "_8"})
    fields += [{"name": name, "type": f"uint64[{clocks}]"} for name in ("min", "max", "unsorted")]
    fields.append({"name": "check", "type": "uint64"})
    return Layout.compile(FeedSpec.from_json({"feed_name": "registry", "ts_col": "created_us", "fields": fields}))


@lru_cache(maxsize=64)
def odd_weights(words: int) -> npt.NDArray[np.uint64]:
    """The first outputs of splitmix64 (Steele, Lea, Flood 2014) from seed 0, made odd."""
    out, state = [], 0
    for _ in range(words):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        out.append((z ^ (z >> 31)) | 1)
    return np.array(out, np.uint64)


def row_checks(rows: Rows) -> npt.NDArray[np.uint64]:
    """The check word that each row should have (the last word of a row is its check)."""
    words = np.ascontiguousarray(rows).view(np.uint64).reshape(len(rows), -1)[:, :-1]
    return np.asarray((words * odd_weights(words.shape[1])).sum(axis=1, dtype=np.uint64))


def make_row(layout: Layout, chunk_id: int, capacity: int, created_us: int, seal: fmt.Seal) -> Rows:
    """The row of a sealed chunk, an array of one."""
    row = np.zeros(1, row_layout(len(layout.clocks)).dtype)
    row["chunk_id"], row["base"], row["count"] = chunk_id, seal.base_position, seal.records
    row["created_us"], row["sealed_us"], row["capacity"] = created_us, seal.sealed_us, capacity
    for k, bounds in enumerate(seal.clocks):
        row["min"][0, k], row["max"][0, k], row["unsorted"][0, k] = bounds.low, bounds.high, bounds.unsorted
    row["check"] = row_checks(row)
    return row


def registry_name(feed: str) -> str:
    """The file name of a feed's registry."""
    return f"{feed}.reg"


def read_rows(directory: Directory, feed: str, layout: Layout, ids: fmt.Ids, oldest: Oldest) -> Rows:
    """The valid rows from the oldest chunk held on, a copy, ascending by chunk id without a hole.

    Empty when there is no registry. One that begins later, or has another position for the oldest chunk, is not
    believed.
    """
    rows = valid_rows(directory, feed, layout, ids)
    begins = int(rows["chunk_id"][0]) if len(rows) else 0
    if not 0 < begins <= oldest.chunk_id:
        return rows[:0]
    rows = rows[oldest.chunk_id - begins :]
    return rows if len(rows) and rows["base"][0] == oldest.position else rows[:0]


def valid_rows(directory: Directory, feed: str, layout: Layout, ids: fmt.Ids) -> Rows:
    """The valid rows, a copy, ascending by chunk id without a hole; empty when there is no registry.

    A damaged header counts as no registry, and rows from the first damaged one on are left out:
    the chunks themselves know better.
    """
    dtype = row_layout(len(layout.clocks)).dtype
    try:
        rows = read_published(directory, registry_name(feed), fmt.FEED_REGISTRY, ids, dtype)
    except (FileNotFoundError, CorruptFileError):
        return np.zeros(0, dtype)
    return valid_prefix(rows)


def valid_prefix(rows: Rows) -> Rows:
    """The rows up to the first that is damaged or does not follow from the one before."""
    if not len(rows):
        return rows
    good = rows["check"] == row_checks(rows)
    good[1:] &= rows["chunk_id"][1:] == rows["chunk_id"][:-1] + np.uint64(1)
    good[1:] &= rows["base"][1:] == rows["base"][:-1] + rows["count"][:-1]
    return rows if good.all() else rows[: int(np.argmin(good))]


class FeedRegistry:
    """The registry as its writer holds it. Under the feed's lock.

    Nothing here may fail a write: `add` reports nothing, and what it could not write is added when
    there is space, or by the next writer.
    """

    __slots__ = ("_directory", "_feed", "_ids", "_layout", "_missing", "_segment")

    def __init__(self, directory: Directory, feed: str, layout: Layout, ids: fmt.Ids) -> None:
        self._directory, self._feed, self._layout, self._ids = directory, feed, layout, ids
        self._segment: Segment | None = None
        self._missing: list[Rows] = []

    def adopt(self, rows: Rows) -> None:
        """Make the file hold exactly `rows`: append what is missing, or make it anew."""
        self._close_segment()
        self._missing = [rows[k : k + 1] for k in range(len(rows))]
        with contextlib.suppress(*_UNWRITTEN):
            if not len(rows) and not self._directory.exists(registry_name(self._feed)):
                return  # made with the first sealed chunk
            have = valid_rows(self._directory, self._feed, self._layout, self._ids)
            if self._stored() == len(have) <= len(rows) and have.tobytes() == rows[: len(have)].tobytes():
                self._missing = self._missing[len(have) :]
            else:
                self._close_segment()
                self._directory.remove(registry_name(self._feed))
            self._write_missing()

    def _stored(self) -> int:
        """How many rows the file has; -1 if it is none of ours."""
        try:
            return self._open().count()
        except CorruptFileError:
            return -1

    def add(self, row: Rows) -> None:
        """Append the row of a chunk that has just been sealed."""
        self._missing.append(row)
        with contextlib.suppress(*_UNWRITTEN):
            self._write_missing()

    def close(self) -> None:
        """Drop the mapping."""
        with contextlib.suppress(*_UNWRITTEN):
            self._write_missing()
        self._close_segment()

    def _close_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def _open(self) -> Segment:
        if self._segment is None:
            name = registry_name(self._feed)
            if not self._directory.exists(name):
                layout = row_layout(len(self._layout.clocks))
                static = static_of(layout)
                plan = fmt.plan(fmt.FEED_REGISTRY, self._ids, 0, static, layout.record_size, _INITIAL_ROWS, now_us())
                Segment.create(self._directory, name, plan, static)
            self._segment = Segment.open(self._directory, name, fmt.FEED_REGISTRY, self._ids, writable=True)
        return self._segment

    def _write_missing(self) -> None:
        while self._missing:
            segment, row = self._open(), self._missing[0]
            count = segment.count()
            if count == segment.rows:
                grown = segment.grow(segment.identity.data_offset + 2 * count * row.itemsize)
                segment.close()
                self._segment = segment = grown
            segment.write(segment.identity.data_offset + count * row.itemsize, row.tobytes())
            segment.publish(count + 1)
            self._missing.pop(0)
