"""Marks of a whole feed: snapshots, gaps, and where playback starts. Functions of a chain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater.chain import Chain
from deepwater.index import DROPPED, GAP, MARK_DTYPE, SNAPSHOT, read_marks

Marks = npt.NDArray[Any]
KINDS = {"snapshot": (SNAPSHOT,), "gap": (GAP, DROPPED), "session": (b"session",), "dropped": (DROPPED,)}


def marks(chain: Chain, kind: str | None = None) -> Marks:
    """All marks that count now, by position; of one kind if asked. A copy of dtype `MARK_DTYPE`."""
    end = chain.refresh()
    found = [_marks_of(chain, k, end) for k in range(len(chain))]
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


def latest_snapshot(chain: Chain, stop: int) -> tuple[int, int] | None:
    """``(position, count)`` of the last snapshot that lies wholly below position `stop`; None if there is none."""
    for index in reversed(range(len(chain))):
        if chain.base(index) >= stop:
            continue
        rows = of_kind(_marks_of(chain, index, stop), "snapshot")
        if len(rows):
            return int(rows["position"][-1]), int(rows["count"][-1])
    return None
