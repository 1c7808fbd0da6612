"""A feed of snapshots and a feed of changes, together: where the changes go on after a snapshot.

A snapshot says what it holds: the position to go on from, the sequence number or the time of the last
change in it. Position is exact and costs nothing; a sequence number may come again after a reconnect; a time
may be shared by several records. So they are tried in this order.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from deepwater.errors import ChunkGoneError, NoSnapshotError, RecordError
from deepwater.layout import Layout
from deepwater.reader import Reader
from deepwater.timestamps import MAX_US, format_us, last_instant
from deepwater.window import Window

By = Literal["position", "sequence", "time"]

_ENDINGS: dict[By, str] = {"position": "_position", "sequence": "_seq", "time": "_us"}
_BLOCK_ROWS = 65_536
_BLOCK_BYTES = 4 << 20


class Resumed(NamedTuple):
    """A snapshot and what came after it.

    Attributes
    ----------
    snapshot : numpy.void
        One record, a copy; fields by name.
    deltas : Window
        The changes that it does not hold, in position order, up to the moment asked for.
    """

    snapshot: np.void
    deltas: Window


def resume(
    snapshots: Reader, deltas: Reader, at: Any = None, *, by: By | None = None, column: str | None = None
) -> Resumed:
    """Give the snapshot in force at a moment, and the changes from it up to that moment.

    Parameters
    ----------
    snapshots : Reader
        A feed with one record a snapshot. Where it has a bool `valid`, records that say False are passed over.
    deltas : Reader
        The feed of the changes.
    at : optional
        A time (a str or a date: the end of its period, inclusive); everything published if left out. By the
        primary clock of either feed.
    by : {"position", "sequence", "time"}, optional
        What the snapshot says of the changes in it. Default: the first of these that its feed carries.

        - position: a uint64 column ``…_position``, the first change NOT in the snapshot;
        - sequence: a uint64 column ``…_seq``, the number of the last change in it. The changes have theirs in
          `seq`, or in a column named like the part after the first underscore. Numbers may start again after a
          reconnect: they are searched backward from the changes known at the snapshot's own time;
        - time: a clock ``…_us`` other than its primary one, or that: the last moment in it. The changes are
          those with a greater primary clock.
    column : str, optional
        The column of the snapshots that says it, by name.

    Returns
    -------
    Resumed
        A copy of the snapshot; a `Window` (views of a durable feed), empty if nothing changed since.

    Raises
    ------
    NoSnapshotError
        There is no valid snapshot at or before `at`.
    ChunkGoneError
        The changes after it are no longer all held.
    RecordError
        A column is missing or not uint64, or the snapshot names a position that the changes have not reached.
    ValueError
        `by` is none of the three, or a `column` of another name needs it.
    TimeFormatError

    Notes
    -----
    Looks once at what is published: the snapshots first, then the changes. In the thread of the readers. A
    search for a sequence number reads blocks of at most 65,536 records.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from deepwater import Platform
    >>> clock = {"name": "t_us", "type": "u64"}
    >>> with TemporaryDirectory() as place, Platform(place) as dw:
    ...     for name, field in ("BOOK", "l2_position"), ("L2", "qty"):
    ...         _ = dw.create_feed({"feed_name": name, "fields": [clock, {"name": field, "type": "u64"}],
    ...                             "ts_col": "t_us"})
    ...     with dw.create_writer("L2") as changes, dw.create_writer("BOOK") as book:
    ...         for t in range(10):
    ...             _ = changes.write_values(t, 100 + t)
    ...         _ = book.write_values(6, 7)
    ...     snapshot, after = resume(dw["BOOK"], dw["L2"], at=8)
    ...     int(snapshot["l2_position"]), after["qty"].tolist()
    (7, [107, 108])
    """
    kind, name = _carried(snapshots.layout, by, column)
    moment = MAX_US if at is None else last_instant(at)
    snapshot = _snapshot(snapshots, moment)
    value = int(snapshot[name])
    if kind == "time":
        return Resumed(snapshot, _after_time(deltas, value, moment))
    first = value
    if kind == "sequence":
        known = _stop(deltas, int(snapshot[snapshots.layout.ts_col]))
        first = _after_sequence(deltas, _sequence_column(deltas, name), value, known)
    stop = deltas.end if at is None else _stop(deltas, moment)
    return Resumed(snapshot, _rows(deltas, first, stop))


# --- what the snapshot says ------------------------------------------------------------------------


def _carried(layout: Layout, by: By | None, column: str | None) -> tuple[By, str]:
    """What a feed of snapshots says of the changes, and in which column."""
    if by is not None and by not in _ENDINGS:
        raise ValueError(f"by={by!r}: 'position', 'sequence' or 'time'")
    if column is not None:
        _unsigned(layout, layout.column(column).name)
        kinds = [kind for kind, ending in _ENDINGS.items() if f"_{column}".endswith(ending)]
        if by is None and not kinds:
            raise ValueError(f"column={column!r}: its name does not say what it holds; give by='position' (or …)")
        return by or kinds[0], column
    for kind in _ENDINGS if by is None else (by,):
        names = _candidates(layout, kind)
        if names:
            return kind, names[0]
    raise RecordError(
        f"the snapshots have no column of uint64 whose name ends in {_ENDINGS[by or 'position']}, to resume "
        f"by {by}; their columns are {', '.join(layout.names)}: name one with column="
    )


def _candidates(layout: Layout, kind: By) -> list[str]:
    if kind == "time":
        return [*(clock for clock in layout.clocks if clock != layout.ts_col), layout.ts_col]
    return [name for name in layout.names if f"_{name}".endswith(_ENDINGS[kind]) and layout.dtype[name] == np.uint64]


def _unsigned(layout: Layout, name: str) -> str:
    if layout.dtype[name] != np.uint64:
        raise RecordError(f"column {name!r} is {layout.dtype[name]}: positions, sequences and times are uint64",
                          column=name)  # fmt: skip
    return name


def _sequence_column(deltas: Reader, name: str) -> str:
    layout, other = deltas.layout, name.partition("_")[2] or name
    found = next((column for column in ("seq", other) if column in layout.names), None)
    if found is None:
        raise RecordError(
            f"feed {deltas.feed!r}: it has no column 'seq' nor {other!r} for the {name!r} of the snapshots; "
            f"its columns are {', '.join(layout.names)}", column=name,
        )  # fmt: skip
    return _unsigned(layout, found)


def _snapshot(reader: Reader, moment: int) -> np.void:
    """The record with the greatest clock at or before a moment; if it is not valid, the latest valid one before it."""
    layout = reader.layout
    stop = _stop(reader, moment)
    checks = "valid" in layout.names and layout.dtype["valid"] == np.bool_
    step = max(1, _BLOCK_BYTES // layout.record_size) if checks else 1
    while stop > (first := reader.first):
        start = max(first, stop - step)
        block = reader.rows(start, stop)
        good = np.arange(len(block))
        if checks:  # before the record in force others may be later than the moment, if the clock is not sorted
            good = np.flatnonzero(block["valid"] & (block[layout.ts_col] <= np.uint64(moment)))
        if len(good):
            return block[int(good[-1])]
        stop = start
    when = "" if moment == MAX_US else f" at or before {format_us(moment)}"
    raise NoSnapshotError(
        f"feed {reader.feed!r} holds no {'valid ' * checks}snapshot{when}: ask for a later moment",
        feed=reader.feed, at_us=moment,
    )  # fmt: skip


# --- where the changes go on -------------------------------------------------------------------------


def _stop(reader: Reader, moment: int) -> int:
    """One past the record in force at a moment; 0 before the first."""
    return int(reader.asof(moment).positions[0]) + 1


def _gone(deltas: Reader, what: str) -> ChunkGoneError:
    return ChunkGoneError(
        f"feed {deltas.feed!r}: {what} is no longer held; the oldest record is {deltas.first}: "
        f"resume from a later snapshot (at=…), or keep the feed longer", feed=deltas.feed, chunk_id=None,
    )  # fmt: skip


def _rows(deltas: Reader, first: int, stop: int) -> Window:
    end = deltas.end
    if first > end:
        raise RecordError(
            f"feed {deltas.feed!r}: the snapshot goes on at position {first} and the feed ends at {end}: "
            f"is it of another feed, or of another life of this one?", value=first,
        )  # fmt: skip
    window = deltas.rows(first, max(first, stop))
    if first < deltas.first or len(window) < stop - first:
        raise _gone(deltas, f"position {first}, where the snapshot goes on,")
    return window


def _after_time(deltas: Reader, value: int, moment: int) -> Window:
    """The records with ``value < clock <= moment``."""
    window = deltas.read(min(value + 1, MAX_US), moment) if value < moment else deltas.rows(0, 0)
    first = deltas.first
    oldest = deltas.rows(first, first + 1)
    if first > 0 and (not len(oldest) or int(oldest[0][deltas.layout.ts_col]) > value):
        raise _gone(deltas, f"what follows {format_us(value)}, the time of the snapshot,")
    return window


def _after_sequence(deltas: Reader, column: str, value: int, known: int) -> int:
    """The first position not in a snapshot that holds sequence `value` and was made when `known` were there.

    Backward from there the last place where the numbers reach `value`, or pass it, is it. A restart is where
    they fall. Where none is, the snapshot is ahead of what was known, or was made before a session began.
    """
    first, wanted = deltas.first, np.uint64(value)
    session, has_restart, newest = None, False, None
    stop = known
    while stop > first:
        start = max(first, stop - _BLOCK_ROWS)
        numbers = _numbers(deltas, column, start, min(stop + 1, known))
        here, after = numbers[: stop - start], numbers[1:]
        if stop == known:  # nothing is known after the last: it can be reached, not passed
            newest, after = int(numbers[-1]), np.append(after, wanted)
        found = np.flatnonzero((here == wanted) | ((here < wanted) & (after > wanted)))
        if len(found):
            return _not_contained(deltas, column, value, start + int(found[-1]) + 1)
        falls = np.flatnonzero(after[: len(here)] < here)
        has_restart = has_restart or len(falls) > 0
        begins = falls[after[falls] > wanted]
        if session is None and len(begins):
            session = start + int(begins[-1]) + 1
        stop = start
    is_ahead = newest is not None and newest < value
    if first > 0 and (has_restart or not is_ahead):
        raise _gone(deltas, f"sequence {value}, the last of the snapshot,")
    return _not_contained(deltas, column, value, known if is_ahead else session or first)


def _not_contained(deltas: Reader, column: str, value: int, position: int) -> int:
    """The first position from `position` on with a number above `value`, or of another session."""
    last = _numbers(deltas, column, position - 1, position) if position > deltas.first else np.zeros(1, np.uint64)
    while len(numbers := _numbers(deltas, column, position, position + _BLOCK_ROWS)):
        before = np.concatenate((last, numbers[:-1]))
        found = np.flatnonzero((numbers > np.uint64(value)) | (numbers < before))
        if len(found):
            return position + int(found[0])
        position, last = position + len(numbers), numbers[-1:]
    return position


def _numbers(deltas: Reader, column: str, first: int, stop: int) -> npt.NDArray[np.uint64]:
    numbers: npt.NDArray[np.uint64] = deltas.rows(first, stop)[column]
    return numbers
