"""What the marks of a feed say of its book: on which snapshot it stands, and whether it is to be trusted.

The rules, for the incremental and the vectorised book alike. *Stop* is the position of the first record not yet known.

- A snapshot of `count` records begins at its mark and is complete once all of them are known. Then it replaces the
  book, all at once; until then the book is what it was before the snapshot began.
- A snapshot of unknown length (count 0) is the run of records of type b"S" with the `seq` of its first (where a feed
  has these columns), and is complete once a record that is not of the run is known. Another mark ends it too.
- A snapshot that another mark cuts short never was.
- Before the first complete snapshot there is no book.
- A gap (kinds gap and dropped) stands before the record at its position. A book is to be trusted if no gap is behind
  the beginning of its snapshot, up to stop: gaps inside a snapshot count, those before its first record do not.
- A record that is no level (`levels.split`) is left out, and is a gap behind itself.

It knows arrays of marks and records, no reader.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from deepwater.errors import RecordError
from deepwater.index import DROPPED, GAP, MARK_DTYPE, SNAPSHOT
from deepwater.timestamps import MAX_US

Array = npt.NDArray[Any]
Positions = npt.NDArray[np.int64]
NO_SNAPSHOT = "no complete snapshot yet"
_NEVER = np.int64(2**63 - 1)


def gap_text(position: int, reason: bytes) -> str:
    """Why a book behind a mark is not to be trusted."""
    text = reason.decode("utf-8", "replace")
    return f"gap before position {position}" + (f": {text}" if text else "")


def bad_text(position: int) -> str:
    """Why a book behind a record that is no level is not to be trusted."""
    return f"record {position} is no level"


def of_run(records: Array, first: Any) -> npt.NDArray[np.bool_]:
    """Which records belong to a snapshot of unknown length whose first record is `first`."""
    names = records.dtype.names or ()
    part = np.ones(len(records), np.bool_)
    if "type" in names:
        part &= records["type"] == b"S"
        if "seq" in names:
            part &= records["seq"] == first["seq"]
    return part


def inferred(records: Array, position: int = 0, before: np.void | None = None) -> Array:
    """Where snapshots begin, by `type` and `seq` alone: marks of count 0, for records that have none.

    A record of type b"S" begins one, unless the one before it is of type b"S" and has the same `seq`. Two snapshots
    that follow each other directly under one `seq` are taken for one.

    Parameters
    ----------
    records : numpy.ndarray
        Structured, with `type` (S1), and `seq` where it is known.
    position : int
        Of the first record.
    before : numpy.void, optional
        The record before the first.

    Returns
    -------
    numpy.ndarray of `deepwater.index.MARK_DTYPE`
        Only kind, position and count are set.

    Raises
    ------
    RecordError
        There is no column `type`.
    """
    if "type" not in (records.dtype.names or ()):
        raise RecordError("no column 'type' in the records to say what is a snapshot: give marks", column="type")
    is_first = records["type"] == b"S"
    same = is_first[:-1].copy()
    if "seq" in (records.dtype.names or ()):
        same &= records["seq"][1:] == records["seq"][:-1]
    is_first[1:] &= ~same
    if before is not None and len(records) and bytes(before["type"]) == b"S":
        is_first[0] &= not of_run(records[:1], before)[0]
    marks = np.zeros(int(is_first.sum()), MARK_DTYPE)
    marks["position"] = np.flatnonzero(is_first) + position
    marks["kind"] = SNAPSHOT
    return marks


def used(records: Array, marks: Array | None, position: int) -> Array:
    """Of marks the snapshots that begin among records, and the gaps up to their end, inclusive; None: `inferred`."""
    if marks is None:
        return inferred(records, position)
    at, stop = marks["position"], position + len(records)
    is_gap = (marks["kind"] == GAP) | (marks["kind"] == DROPPED)
    found: Array = marks[(at >= np.uint64(position)) & (at < np.uint64(stop) + is_gap.astype(np.uint64))]
    return found


class Base(NamedTuple):
    """A complete snapshot: it begins at `start`; its book knows no record from `limit` on."""

    start: int
    limit: int


class Bases:
    """The snapshots and gaps of a feed.

    Parameters
    ----------
    marks : numpy.ndarray of `deepwater.index.MARK_DTYPE`
        By position, as `Reader.marks` returns them.
    run_end : callable
        ``run_end(start, limit)`` is the position of the first record from `start` on that is not of the run beginning
        there, at most `limit` (None: unknown); None if there is no such record yet. Called for marks of count 0.
    """

    def __init__(self, marks: Array, run_end: Callable[[int, int | None], int | None]) -> None:
        of_snapshot = marks[marks["kind"] == SNAPSHOT]
        self.starts: Positions = of_snapshot["position"].astype(np.int64)
        self._done, self._whole = self._ends(of_snapshot["count"].astype(np.int64), run_end)
        of_gap = marks[np.isin(marks["kind"], (GAP, DROPPED))]
        self.gaps, at = np.unique(of_gap["position"].astype(np.int64), return_index=True)
        begins = np.where(of_gap["from_us"] > 0, of_gap["from_us"], of_gap["timestamp_us"])
        self._begins = np.minimum.reduceat(begins, at) if len(at) else begins
        self._reasons = of_gap["reason"][at]

    def _ends(self, counts: Positions, run_end: Callable[[int, int | None], int | None]) -> tuple[Positions, Array]:
        """From which stop on each snapshot is complete, and the numbers of those that no other cuts short."""
        following = np.append(self.starts[1:], _NEVER)
        done = self.starts + counts
        for k in np.flatnonzero(counts == 0).tolist():
            limit = int(following[k]) if following[k] < _NEVER else None
            end = run_end(int(self.starts[k]), limit)
            done[k] = _NEVER if end is None else end + 1
        whole = np.flatnonzero(np.where(counts == 0, self.starts < following, done <= following))
        return done[whole], whole

    def at(self, stops: Positions) -> Positions:
        """For each stop the number of the snapshot that its book stands on, for `base`; -1 without one."""
        found = np.searchsorted(self._done, stops, "right") - 1
        return np.where(found >= 0, self._whole[found] if len(self._whole) else -1, -1)

    def base(self, number: int) -> Base:
        """A snapshot, and where the next one begins: from there on nothing is a change of its book."""
        following = self.starts[number + 1 :]
        return Base(int(self.starts[number]), int(following[0]) if len(following) else int(_NEVER))

    def trusted(self, start: int, stop: int, moment_us: int = MAX_US, first_bad: int | None = None) -> str:
        """Why the book of the snapshot at `start` is not to be trusted; "" if it is.

        A gap at `stop` counts if it began by `moment_us`. `first_bad` is the first record in it that is no level.
        """
        number = int(np.searchsorted(self.gaps, start, "right"))
        if number < len(self.gaps):
            gap = int(self.gaps[number])
            is_known = gap < stop or (gap == stop and int(self._begins[number]) <= moment_us)
            if is_known and (first_bad is None or gap <= first_bad):
                return gap_text(gap, self._reasons[number])
        return "" if first_bad is None else bad_text(first_bad)
