"""What a writer does before its first write, and after a write that failed: find the end of the feed.

The end is the first chunk that is not sealed. Whatever lies behind it was never visible: spares, and
chunks of a write that did not get to its one store. They are removed, the last first; marks of records
that were not published are taken back; the registry is completed from the seals. Nothing of this
moves a published record, and doing it twice changes nothing. The feed begins where retention says (`deepwater.oldest`),
which may let chunks go meanwhile: it takes no lock that a writer holds.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import Any

import numpy as np

from deepwater.chunk import Chunk, WritableChunk, chunk_ids, chunk_name
from deepwater.errors import CorruptFileError
from deepwater.feed_files import Feed
from deepwater.feed_registry import Rows, make_row, read_rows
from deepwater.files import TEMPORARY, Directory
from deepwater.index import MarkIndex, index_name
from deepwater.oldest import ALL, Oldest, read_oldest

_INDEX = re.compile(r"chunk_(\d{8,19})\.idx")


def recover(directory: Directory, feed: Feed) -> tuple[Rows, WritableChunk | None]:
    """Bring a feed's directory to a state to append to. Under the feed's lock.

    Returns
    -------
    rows : numpy.ndarray
        A registry row for each sealed chunk.
    chunk : WritableChunk or None
        The chunk to append to; None when the feed has none yet.

    Raises
    ------
    CorruptFileError
        A chunk is missing or damaged: nothing is removed or written then.
    """
    _remove_temporaries(directory, feed.name)
    rows, active, ids = _find_end(directory, feed)
    _remove_beyond(directory, active.id if active is not None else 0, ids)
    if active is None:
        return rows, None
    chunk_id = active.id
    active.close()
    chunk = WritableChunk.open(directory, chunk_id, feed.layout, feed.ids, writable=True)
    assert isinstance(chunk, WritableChunk)
    _refuse_links(chunk)
    marks = MarkIndex(directory, chunk_id, feed.ids)
    marks.drop_beyond(chunk.base + chunk.state()[0])
    marks.close()
    return rows, chunk


def _find_end(directory: Directory, feed: Feed) -> tuple[Rows, Chunk | None, list[int]]:
    """Rows, the first chunk that is not sealed, and the ids of all chunk files; anew if retention came in between."""
    while True:
        oldest = read_oldest(directory, feed.ids)
        try:
            rows = read_rows(directory, feed.name, feed.layout, feed.ids, oldest)
            ids = chunk_ids(directory)
            return *_walk(directory, feed, rows, ids, oldest), ids
        except CorruptFileError:
            if read_oldest(directory, feed.ids) == oldest:
                raise


def _walk(directory: Directory, feed: Feed, rows: Rows, ids: list[int], oldest: Oldest) -> tuple[Rows, Chunk | None]:
    """From the last registered chunk to the first that is not sealed."""
    if not ids and not len(rows) and oldest == ALL:
        _refuse_orphan_index(directory)
        return rows, None
    chunk_id = int(rows["chunk_id"][-1]) + 1 if len(rows) else oldest.chunk_id
    base = int(rows["base"][-1] + rows["count"][-1]) if len(rows) else None if oldest == ALL else oldest.position
    more: list[Any] = []
    while True:
        chunk = _open(directory, feed, chunk_id, base, alone=base is None and ids == [chunk_id])
        if chunk is None:
            return rows, None
        count, sealed = chunk.state()
        if not sealed:
            return np.concatenate([rows, *more]) if more else rows, chunk
        more.append(make_row(feed.layout, chunk.id, chunk.capacity, chunk.segment.identity.created_us, chunk.seal()))
        chunk_id, base = chunk.id + 1, chunk.base + count
        chunk.close()


def _open(directory: Directory, feed: Feed, chunk_id: int, base: int | None, alone: bool) -> Chunk | None:
    path = directory.name_of(chunk_name(chunk_id))
    try:
        chunk = Chunk.open(directory, chunk_id, feed.layout, feed.ids)
    except FileNotFoundError:
        why = f"chunk {chunk_id - 1} is sealed, so there was one" if chunk_id > 1 else "later ones are there"
        reason = f"chunk {chunk_id} is missing: {why}"
        raise CorruptFileError(f"{path}: {reason}; restore it from a copy", path=path, reason=reason) from None
    if chunk is None and alone:
        return None  # the feed's only chunk was prepared and never became part of it
    if chunk is None or (base is not None and chunk.base != base):
        found = "has no whole activation block" if chunk is None else f"begins at position {chunk.base}"
        reason = f"{found}, expected position {base or 0}, the end of the chunk before"
        raise CorruptFileError(f"{path}: {reason}", path=path, reason=reason)
    return chunk


def _remove_beyond(directory: Directory, last: int, ids: list[int]) -> None:
    """Remove what was never visible. An index goes before its chunk, so that none is ever left over."""
    names = directory.names()
    indexes = [int(match[1]) for name in names if (match := _INDEX.fullmatch(name))]
    for chunk_id in sorted({i for i in (*ids, *indexes) if i > last}, reverse=True):
        directory.remove(index_name(chunk_id))
        directory.remove(chunk_name(chunk_id))


def _refuse_orphan_index(directory: Directory) -> None:
    """Marks without a chunk prove that there was one: an index is made after its chunk and removed before it."""
    for name in directory.names():
        if _INDEX.fullmatch(name):
            path, reason = directory.name_of(name), "its chunk is missing"
            raise CorruptFileError(f"{path}: {reason}; restore it from a copy", path=path, reason=reason)


def _remove_temporaries(directory: Directory, feed: str) -> None:
    """Remove the chunks a killed writer was making; a second name of a finished one among them.

    Settings are replaced without the lock: their temporary files are left alone for a minute.
    """
    for name in directory.names():
        if name.startswith((f"{TEMPORARY}chunk_", f"{TEMPORARY}{feed}.reg")):
            directory.remove(name)
        elif name.startswith(f"{TEMPORARY}settings"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - os.stat(name, dir_fd=directory.fd).st_mtime > 60:
                    directory.remove(name)


def _refuse_links(chunk: WritableChunk) -> None:
    """A second name for the file is a backup (``cp -al``) that appending would change."""
    links = os.fstat(chunk.segment.fd).st_nlink
    if links > 1:
        reason = f"it has {links} hard links (a backup by cp -al?), and appending would change them all"
        raise CorruptFileError(
            f"{chunk.segment.path}: {reason}: put a copy of it in its place", path=chunk.segment.path, reason=reason
        )
