"""Marks of a whole feed: snapshots, gaps, and where playback starts. Functions of a chain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater.chain import Chain
from deepwater.chunk import chunk_name
from deepwater.errors import ChunkGoneError
from deepwater.index import DROPPED, GAP, MARK_DTYPE, SNAPSHOT, index_name, read_marks

Marks = npt.NDArray[Any]
KINDS = {"snapshot": (SNAPSHOT,), "gap": (GAP, DROPPED), "session": (b"session",), "dropped": (DROPPED,)}


def marks(chain: Chain, kind: str | None = None) -> Marks:
    """All marks that count now, by position; of one kind if asked. A copy of dtype `MARK_DTYPE`."""
    found = chain.answer(lambda _: [_marks_of(chain, k, chain.end) for k in range(len(chain))])
    return of_kind(np.concatenate(found) if found else none(), kind)


def _marks_of(chain: Chain, index: int, end: int) -> Marks:
    """The marks of one chunk; of one that is not sure those that were on the device."""
    return read_marks(chain.directory, chain.chunk_id(index), chain.ids, end, torn=chain.may_be_torn(index))


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
