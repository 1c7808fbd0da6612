"""Marks of a whole feed: snapshots, gaps, and where playback starts. Functions of a chain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater.chain import Chain
from deepwater.chunk import chunk_name
from deepwater.errors import ChunkGoneError
from deepwater.index import DROPPED, GAP, MARK_DTYPE, SNAPSHOT, count_marks, index_name, read_marks

Marks = npt.NDArray[Any]
KINDS = {"snapshot": (SNAPSHOT,), "gap": (GAP, DROPPED), "session": (b"session",), "dropped": (DROPPED,)}


def marks(chain: Chain, kind: str | None = None) -> Marks:
    """All marks that count now, by position; of one kind if asked. A copy of dtype `MARK_DTYPE`."""
    found = chain.answer(lambda _: [_marks_of(chain, k, chain.end) for k in range(len(chain))])
    return of_kind(np.concatenate(found) if found else none(), kind)


def _marks_of(chain: Chain, index: int, end: int) -> Marks:
    """The marks of one chunk; of one that is not sure those that were on the device."""
    return read_marks(chain.directory, chain.chunk_id(index), chain.ids, end, torn=chain.may_be_torn(index))


def marks_back(chain: Chain, position: int) -> Iterator[tuple[int, Marks]]:
    """The marks chunk by chunk, from that of the record at a position (the newest, if there is none yet) backward.

    Each chunk is one look; who needs no more stops, and earlier files are not read. Retention may end it early.

    Yields
    ------
    base : int
        The position of the chunk's first record.
    marks : numpy.ndarray of `MARK_DTYPE`
        Those that count now, by position; a copy. A gap that stands before the first record of the next chunk may be
        in either of the two.
    """

    def chunk(chunk_id: int | None) -> tuple[int, int, Marks] | None:
        if chunk_id is None:
            index = len(chain) - 1 if position >= chain.end else chain.index_of(max(position, chain.first))
        else:
            index = chunk_id - chain.chunk_id(0)
        if index < 0:
            return None
        return chain.chunk_id(index), chain.base(index), _marks_of(chain, index, chain.end)

    def look(chunk_id: int | None) -> tuple[int, int, Marks] | None:
        return chain.answer(lambda _: chunk(chunk_id))

    found = look(None)
    while found is not None:
        chunk_id, base, rows = found
        yield base, rows
        found = look(chunk_id - 1)


class NewMarks:
    """The marks of a feed from a position on, for who follows it: they are read again only when there are more.

    A look reads eight bytes of a file. It comes after the records it is about: their marks were there before them.
    """

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._seen: tuple[int, int] | None = None
        self._kept = none()

    def since(self, position: int) -> Marks:
        """Those at `position` and later that count now, by position; not to be changed.

        Raises
        ------
        CorruptFileError
        """
        state = self._chain.answer(lambda _: self._state())
        if state != self._seen:
            self._kept, newest = self._read(position)
            # A mark that does not count yet may be taken back for another one: then their number says nothing.
            self._seen = state if newest == state[1] else None
        return self._kept[self._kept["position"] >= np.uint64(position)] if len(self._kept) else self._kept

    def _state(self) -> tuple[int, int]:
        """Which chunk is the newest, and how many marks it has."""
        tail = self._chain.tail
        return (0, 0) if tail is None else (tail.id, count_marks(self._chain.directory, tail.id))

    def _read(self, position: int) -> tuple[Marks, int]:
        """The marks from the chunk before `position` on, and how many of them are of the newest chunk."""
        found = []
        for base, rows in marks_back(self._chain, self._chain.end):
            found.append(rows)
            if base < position:  # a gap before the first record of a chunk may be with the chunk before
                break
        return (np.concatenate(found[::-1]), len(found[0])) if found else (none(), 0)


def none() -> Marks:
    """No marks."""
    return np.zeros(0, MARK_DTYPE)


def of_kind(rows: Marks, kind: str | None) -> Marks:
    """The marks of one kind; all if None.

    Raises
    ------
    ValueError
        There is no such kind.
    """
    if kind is None:
        return rows
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: marks are of the kinds {', '.join(KINDS)}")
    return rows[np.isin(rows["kind"], KINDS[kind])]


def gaps_between(chain: Chain, after: int, last: int) -> Marks:
    """The gap and dropped marks with ``after < position <= last``, two positions that were published; a copy.

    One listing of the directory, and one file for each chunk between them that has marks.

    Raises
    ------
    ChunkGoneError
        A chunk between them was removed, and its marks with it.
    CorruptFileError
    """
    if last <= after:
        return none()
    if after < chain.first:
        raise _gone(chain, after, None)
    names = set(chain.directory.names())
    found, oldest = [none()], chain.chunk_id(chain.index_of(after))
    for chunk_id in range(oldest, chain.chunk_id(chain.index_of(last)) + 1):
        if index_name(chunk_id) in names:
            found.append(of_kind(read_marks(chain.directory, chunk_id, chain.ids, last), "gap"))
        elif chunk_name(chunk_id) not in names:
            raise _gone(chain, after, chunk_id)
    if len(found) > 1 and not chain.directory.exists(chunk_name(oldest)):  # while they were read
        raise _gone(chain, after, oldest)
    rows = np.concatenate(found)
    return rows[rows["position"] > np.uint64(after)]


def _gone(chain: Chain, after: int, chunk_id: int | None) -> ChunkGoneError:
    return ChunkGoneError(
        f"feed {chain.feed!r}: the marks after position {after} were removed with their records; the oldest record "
        f"held is {chain.first}: ask for its gaps before it goes", feed=chain.feed, chunk_id=chunk_id,
    )  # fmt: skip


def latest_snapshot(chain: Chain, stop: int) -> tuple[int, int] | None:
    """``(position, count)`` of the last snapshot that lies wholly below position `stop`; None if there is none."""
    return chain.answer(lambda _: _latest_snapshot(chain, stop))


def _latest_snapshot(chain: Chain, stop: int) -> tuple[int, int] | None:
    for index in reversed(range(len(chain))):
        if chain.base(index) >= stop:
            continue
        rows = of_kind(_marks_of(chain, index, stop), "snapshot")
        if len(rows):
            return int(rows["position"][-1]), int(rows["count"][-1])
    return None
