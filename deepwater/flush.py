"""Bringing records to the device. ``durable`` never runs ahead of it: sync first, then say so, then sync that."""

from __future__ import annotations

import contextlib

from deepwater import format as fmt
from deepwater.chunk import chunk_name
from deepwater.files import Directory, sync
from deepwater.index import MarkIndex
from deepwater.segment import Segment


def flush_chunk(segment: Segment, count: int) -> None:
    """Sync a chunk's records, and only then say that `count` of them are durable.

    `count` has the SEALED bit once the seal was there to be synced too.
    """
    sync(segment.fd)
    segment.words[fmt.DURABLE] = count
    sync(segment.fd)


def _undurable(directory: Directory, below: int, ids: fmt.Ids) -> list[int]:
    """The sealed chunks that are not known to be on the device, oldest first: back to the first that is."""
    found: list[int] = []
    for chunk_id in range(below - 1, 0, -1):
        try:
            segment = Segment.open(directory, chunk_name(chunk_id), fmt.CHUNK, ids)
        except FileNotFoundError:
            break
        durable = segment.words[fmt.DURABLE] == segment.words[fmt.COMMIT]
        segment.close()
        if durable:
            break
        found.append(chunk_id)
    return found[::-1]


def flush_sealed(directory: Directory, active: int, ids: fmt.Ids) -> None:
    """Bring the sealed chunks before chunk `active` to the device, oldest first, each with its marks."""
    for chunk_id in _undurable(directory, active, ids):
        with contextlib.suppress(FileNotFoundError):  # retention let it go just now
            _flush_sealed(directory, chunk_id, ids)


def _flush_sealed(directory: Directory, chunk_id: int, ids: fmt.Ids) -> None:
    marks = MarkIndex(directory, chunk_id, ids)
    if marks.count:
        marks.flush()
    marks.close()
    segment = Segment.open(directory, chunk_name(chunk_id), fmt.CHUNK, ids, writable=True)
    try:
        flush_chunk(segment, segment.words[fmt.COMMIT])
    finally:
        segment.close()
