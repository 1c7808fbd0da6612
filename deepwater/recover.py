"""What a writer does before its first write, and after a write that failed: find the end of the feed.

The end is the first chunk that is not sealed. Whatever lies behind it was never visible: spares, and
chunks of a write that did not get to its one store. They are removed, the last first; marks of records
that were not published are taken back; the registry is completed from the seals. Nothing of this
moves a published record, and doing it twice changes nothing. The feed begins where retention says (`deepwater.oldest`),
which may let chunks go meanwhile: it takes no lock that a writer holds.

After an unclean shutdown of the machine, and in a copy of a live store, the page cache is not what it was: a
chunk that is not known to be on the device, and was not written since this boot into this very file, counts only as
far as it is proven (`deepwater.checksums`). The feed ends at the first that is not proven whole. That chunk is cut
there, what was lost is counted in a mark (kind ``dropped``) and said in a warning, and what lies behind is removed.
Steps, each of which may be the last before a kill: the mark; later chunks, from the last; the words of the clocks; the
commit word; the owner.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import warnings

import numpy as np

from deepwater import format as fmt
from deepwater.checksums import ChunkSums, make_sure, read_sums, sums_name
from deepwater.chunk import (
    Chunk,
    WritableChunk,
    chunk_ids,
    chunk_name,
    create_chunk,
    ends_a_copy,
    refuse_to_end_before,
)
from deepwater.errors import CorruptFileError, StorageFullError
from deepwater.feed_files import Feed
from deepwater.feed_registry import Rows, make_row, read_rows, valid_rows
from deepwater.files import TEMPORARY, Directory
from deepwater.index import DROPPED, UNKNOWN, MarkIndex, index_name, pack_mark
from deepwater.oldest import ALL, Oldest, read_oldest
from deepwater.timestamps import now_us

_WAY_OUT = "restore it from a copy, or see deepwater repair"
_INDEX = re.compile(r"chunk_(\d{8,19})\.(?:idx|crc)")


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
    rows, active, ids, oldest = _find_end(directory, feed)
    refuse_to_end_before(directory, active.id if active is not None else _following(rows, oldest)[0], feed.ids)
    if active is not None:
        _refuse_lost_count(directory, feed, active)
    if active is None and (len(rows) or oldest != ALL):
        return rows, _activate_spare(directory, feed, *_following(rows, oldest))
    if active is not None and active.is_doubted:
        _note_dropped(directory, feed, active, ids)
    _remove_beyond(directory, active.id if active is not None else 0, ids)
    if active is None:
        return rows, None
    chunk_id, proven = active.id, active.state()[0] if active.is_doubted else None
    active.close()
    chunk = WritableChunk.open(directory, chunk_id, feed.layout, feed.ids, writable=True)
    assert isinstance(chunk, WritableChunk)
    _refuse_links(chunk)
    if proven is not None:
        _drop_cut_snapshots(directory, feed, chunk_id, chunk.base + proven)
        chunk.take_back(proven)
    if not chunk.is_of_now:
        _cut_sums(directory, chunk)
        _drop_damaged_marks(directory, feed, chunk_id)
    marks = MarkIndex(directory, chunk_id, feed.ids)
    marks.drop_beyond(chunk.base + chunk.state()[0])
    marks.close()
    return rows, chunk


def _sure_rows(directory: Directory, feed: Feed, rows: Rows) -> Rows:
    """The rows without those, at the end, of chunks that are not sure to be as it says: `_walk` looks at these."""
    keep = len(rows)
    while keep:
        try:
            chunk = Chunk.open(directory, int(rows["chunk_id"][keep - 1]), feed.layout, feed.ids)
        except FileNotFoundError:
            break  # `_walk` says what is missing
        sure = chunk is not None and chunk.is_sure and chunk.state() == (int(rows["count"][keep - 1]), True)
        if chunk is not None:
            chunk.close()
        if sure:
            break
        keep -= 1
    return rows[:keep]


def _activate_spare(directory: Directory, feed: Feed, chunk_id: int, base: int) -> WritableChunk:
    """A new chunk after the last sealed one. There was one, and it was never synced, or not yet there to be copied."""
    _remove_beyond(directory, chunk_id - 1, chunk_ids(directory))
    _note_lost(directory, feed, chunk_id, base, ends_a_copy(directory, chunk_id - 1, feed.layout, feed.ids))
    create_chunk(directory, chunk_id, feed.layout, feed.ids, feed.settings.chunk_size_bytes)
    return WritableChunk.activate(directory, chunk_id, feed.layout, feed.ids, base)


def _refuse_lost_count(directory: Directory, feed: Feed, active: Chunk) -> None:
    """Raise if a chunk was sealed, or held more records, by what was said of it later: its word is damaged.

    What a writer of another boot said of it proves nothing, but for the durable word, which is of the same sector.
    """
    word, durable = (active.segment.words[index] for index in (fmt.COMMIT, fmt.DURABLE))
    was_sealed, held, count = durable >= fmt.SEALED, durable & fmt.COUNT_MASK, word & fmt.COUNT_MASK
    if active.is_of_now:
        sums, complete = read_sums(directory, active)
        slots = [fmt.parse_tail(active.segment.read(offset, fmt.TAIL_SIZE)) for offset in fmt.TAIL_OFFSETS]
        held = max(held, len(sums) * active.segment.identity.block_records, *(slot[0] for slot in slots if slot))
        rows = valid_rows(directory, feed.name, feed.layout, feed.ids)
        was_sealed |= complete or active.id in rows["chunk_id"]
    reason = f"it counts {count} records, and there were {held}" if held > count else ""
    if was_sealed and word < fmt.SEALED:
        reason = "it was sealed, and its commit word does not say so"
    if reason:
        path = active.segment.path
        active.close()
        raise CorruptFileError(f"{path}: {reason}; see deepwater verify", path=path, reason=reason)


def _note_dropped(directory: Directory, feed: Feed, active: Chunk, ids: list[int]) -> None:
    """Say how many published records are lost: what the chunk and those after it say they held, less what is proven."""
    proven = active.state()[0]
    dropped = min(active.segment.words[fmt.COMMIT] & fmt.COUNT_MASK, active.capacity) - proven
    if active.segment.words[fmt.COMMIT] >= fmt.SEALED:
        dropped += _counted_beyond(directory, feed, active.id, ids)
    position = active.base + proven
    marks = MarkIndex(directory, active.id, feed.ids)
    try:
        marks.drop_damaged()
        if dropped and not marks.has(position, DROPPED):
            reason = "the machine went down before they were on the device"
            marks.drop_beyond(position)
            marks.append(pack_mark(position, now_us(), dropped, DROPPED, reason=reason))
            text = (
                f"feed {feed.name!r}: the machine went down, or this is a copy of a live store: {dropped:,} records "
                f"from position {position} on are not there and are dropped (durability 'interval' or 'always', or "
                f"flush(), bounds what can be lost)"
            )
            warnings.warn(text, UserWarning, stacklevel=6)
    finally:
        marks.close()


def _note_lost(directory: Directory, feed: Feed, chunk_id: int, base: int, copied: bool) -> None:
    """Say that a feed ends early, and nobody knows how much is lost, in the marks of the chunk to come."""
    marks = MarkIndex(directory, chunk_id, feed.ids)
    try:
        if marks.has(base, DROPPED):
            return
        if copied:
            reason = "the copy was made while they were written"
            why = (
                f"this is a copy made while the feed was written: the records from position {base} on were not copied"
            )
        else:
            reason = "the machine went down before they were on the device"
            why = (
                f"the machine went down, or this is a copy: the records from position {base} on are dropped, how many "
                f"is not known (durability 'interval' or 'always', or flush(), bounds what can be lost)"
            )
        marks.append(pack_mark(base, now_us(), UNKNOWN, DROPPED, reason=reason))
        warnings.warn(f"feed {feed.name!r}: {why}", UserWarning, stacklevel=7)
    finally:
        marks.close()


def _counted_beyond(directory: Directory, feed: Feed, chunk_id: int, ids: list[int]) -> int:
    """What the chunks after a sealed one say they hold, as far as the chain of seals goes."""
    total = 0
    for following in (k for k in ids if k > chunk_id):
        try:
            chunk = Chunk.open(directory, following, feed.layout, feed.ids)
        except (FileNotFoundError, CorruptFileError):
            break
        if chunk is None:
            break
        count, sealed = chunk.state()
        chunk.close()
        total += count
        if not sealed:
            break
    return total


def _drop_damaged_marks(directory: Directory, feed: Feed, chunk_id: int) -> None:
    marks = MarkIndex(directory, chunk_id, feed.ids)
    marks.drop_damaged()
    marks.close()


def _drop_cut_snapshots(directory: Directory, feed: Feed, chunk_id: int, end: int) -> None:
    """Take back the mark of a snapshot that begins in an earlier chunk and reaches over the cut.

    It would count again, with other records, once there are as many. It is the last mark before the cut.
    """
    for earlier in reversed([k for k in chunk_ids(directory) if k < chunk_id]):
        marks = MarkIndex(directory, earlier, feed.ids)
        try:
            if marks.count:
                marks.drop_beyond(end)
                return
        except CorruptFileError:  # they do not count
            return
        finally:
            marks.close()


def _cut_sums(directory: Directory, chunk: WritableChunk) -> None:
    """Forget the checksums of records that the chunk does not hold: those may have come to the device alone."""
    sums = ChunkSums(directory, chunk.segment)
    try:
        sums.cut(chunk.state()[0])
    except StorageFullError:
        directory.remove(sums_name(chunk.id))
    finally:
        sums.close()


def _find_end(directory: Directory, feed: Feed) -> tuple[Rows, Chunk | None, list[int], Oldest]:
    """Rows, the first chunk that is not sealed, and the ids of all chunk files; anew if retention came in between."""
    while True:
        oldest = read_oldest(directory, feed.ids)
        try:
            rows = read_rows(directory, feed.name, feed.layout, feed.ids, oldest)
            rows = _sure_rows(directory, feed, rows)
            ids = chunk_ids(directory)
            return *_walk(directory, feed, rows, ids, oldest), ids, oldest
        except CorruptFileError:
            if read_oldest(directory, feed.ids) == oldest:
                raise


def _following(rows: Rows, oldest: Oldest) -> tuple[int, int]:
    """Id and base of the chunk after those of the rows."""
    if not len(rows):
        return oldest.chunk_id, oldest.position
    return int(rows["chunk_id"][-1]) + 1, int(rows["base"][-1] + rows["count"][-1])


def _walk(directory: Directory, feed: Feed, rows: Rows, ids: list[int], oldest: Oldest) -> tuple[Rows, Chunk | None]:
    """From the last registered chunk to the first that is not sealed."""
    if not ids and not len(rows) and oldest == ALL:
        _refuse_orphan_index(directory)
        return rows, None
    chunk_id = int(rows["chunk_id"][-1]) + 1 if len(rows) else oldest.chunk_id
    base = int(rows["base"][-1] + rows["count"][-1]) if len(rows) else None if oldest == ALL else oldest.position
    more: list[Rows] = []
    while True:
        chunk = _open(directory, feed, chunk_id, base)
        if chunk is None:
            return _joined(rows, more), None
        make_sure(directory, chunk)
        count, sealed = chunk.state()
        if not sealed:
            return _joined(rows, more), chunk
        if chunk.is_doubted:
            _drop_damaged_marks(directory, feed, chunk_id)
        more.append(make_row(feed.layout, chunk.id, chunk.capacity, chunk.segment.identity.created_us, chunk.seal()))
        chunk_id, base = chunk.id + 1, chunk.base + count
        chunk.close()


def _joined(rows: Rows, more: list[Rows]) -> Rows:
    """All of the rows, padding included, which `numpy.concatenate` would leave out."""
    return np.frombuffer(b"".join([rows.tobytes(), *(row.tobytes() for row in more)]), rows.dtype)


def _open(directory: Directory, feed: Feed, chunk_id: int, base: int | None) -> Chunk | None:
    path = directory.name_of(chunk_name(chunk_id))
    try:
        chunk = Chunk.open(directory, chunk_id, feed.layout, feed.ids)
    except FileNotFoundError:
        if ends_a_copy(directory, chunk_id - 1, feed.layout, feed.ids):
            return None
        why = f"chunk {chunk_id - 1} is sealed, so there was one" if chunk_id > 1 else "later ones are there"
        reason = f"chunk {chunk_id} is missing: {why}"
        raise CorruptFileError(f"{path}: {reason}; {_WAY_OUT}", path=path, reason=reason) from None
    if chunk is not None and base is not None and chunk.base != base:
        reason = f"begins at position {chunk.base}, expected position {base}, the end of the chunk before"
        raise CorruptFileError(f"{path}: {reason}", path=path, reason=reason)
    return chunk


def _remove_beyond(directory: Directory, last: int, ids: list[int]) -> None:
    """Remove what was never visible. An index goes before its chunk, so that none is ever left over."""
    names = directory.names()
    indexes = [int(match[1]) for name in names if (match := _INDEX.fullmatch(name))]
    for chunk_id in sorted({i for i in (*ids, *indexes) if i > last}, reverse=True):
        directory.remove(index_name(chunk_id))
        directory.remove(sums_name(chunk_id))
        directory.remove(chunk_name(chunk_id))


def _refuse_orphan_index(directory: Directory) -> None:
    """Marks without a chunk prove that there was one: an index is made after its chunk and removed before it."""
    for name in directory.names():
        if _INDEX.fullmatch(name):
            path, reason = directory.name_of(name), "its chunk is missing"
            raise CorruptFileError(f"{path}: {reason}; {_WAY_OUT}", path=path, reason=reason)


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
