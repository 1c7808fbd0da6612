"""A feed of snapshots and a feed of changes, together: where the changes go on after a snapshot.

A snapshot says what it holds: the position to go on from, the sequence number or the time of the last
change in it. Position is exact and costs nothing; a sequence number may come again after a reconnect; a time
may be shared by several records. So they are tried in this order.

What both feeds have under one name (a number of their own, a time of receipt) is a record's own and says nothing of
the other feed; nor does the primary clock of a feed, unless the caller says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from deepwater.errors import ChunkGoneError, CorruptFileError, NoSnapshotError, RecordError
from deepwater.layout import Layout
from deepwater.reader import Reader
from deepwater.timestamps import MAX_US, format_us, last_instant
from deepwater.window import Window

By = Literal["position", "sequence", "time"]

_ENDINGS: dict[By, str] = {"position": "_position", "sequence": "_seq", "time": "_us"}
_BLOCK_ROWS = 65_536
_BLOCK_BYTES = 4 << 20


class _Pair(NamedTuple):
    snapshot: np.void
    deltas: Window


class Resumed(_Pair):
    """A snapshot and what came after it: a pair that knows what was missed between.

    Attributes
    ----------
    snapshot : numpy.void
        One record, a copy; fields by name.
    deltas : Window
        The changes that it does not hold, in position order, up to the moment asked for.
    """

    _missed: Callable[[], npt.NDArray[Any]]

    @property
    def gaps(self) -> npt.NDArray[Any]:
        """What was missed on the way from the snapshot to the moment asked for, as `Reader.gaps` has it.

        The marks from the first change on, and those after the last one that are of no later moment: with any, the
        state rebuilt from the two is not to be trusted from there on. Of `deltas.gaps` those before its first row
        and after its last are not. Read when asked for; raises as `Window.gaps`.
        """
        return self._missed()

    def __repr__(self) -> str:
        try:
            gaps = f"{len(self.gaps):,} gap{'s' * (len(self.gaps) != 1)} after the snapshot"
        except (ChunkGoneError, CorruptFileError) as error:
            gaps = f"gaps not known: {error}"
        return f"<Resumed: {gaps}; snapshot {self.snapshot}; {self.deltas!r}>"


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
        What the snapshot says of the changes in it. Default: the first of these that its feed carries, in a column
        that the feed of the changes has not under the same name.

        - position: a uint64 column ``…_position``, the first change NOT in the snapshot;
        - sequence: a uint64 column ``…_seq``, the number of the last change in it. The changes have theirs in
          `seq`, or in a column named like the part after the first underscore. Numbers may start again after a
          reconnect: they are searched backward from the changes known at the snapshot's own time;
        - time: a clock ``…_us`` other than its primary one (or that, if you say ``by="time"``): the last moment in
          it. The changes are those with a greater primary clock.
    column : str, optional
        The column of the snapshots that says it, by name.

    Returns
    -------
    Resumed
        A copy of the snapshot; a `Window` (views of a durable feed), empty if nothing changed since. Its `gaps` say
        whether something was missed since the snapshot.

    Raises
    ------
    NoSnapshotError
        There is no valid snapshot at or before `at`.
    ChunkGoneError
        The changes after it are no longer all held.
    RecordError
        The snapshots carry nothing that is meant for the changes; a column is missing or not uint64; or the
        snapshot names a position that the changes have not reached.
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
    kind, name = _carried(snapshots, deltas, by, column)
    moment = MAX_US if at is None else last_instant(at)
    snapshot = _snapshot(snapshots, moment)
    value = int(snapshot[name])
    if kind == "time":
        window = _after_time(deltas, value, moment)
        return _resumed(snapshot, window, deltas, deltas.position_of(min(value + 1, MAX_US)), moment)
    first = value
    if kind == "sequence":
        known = _stop(deltas, int(snapshot[snapshots.layout.ts_col]))
        first = _after_sequence(deltas, _sequence_column(deltas, name), value, known)
    stop = deltas.end if at is None else _stop(deltas, moment)
    return _resumed(snapshot, _rows(deltas, first, stop), deltas, first, moment)


def _resumed(snapshot: np.void, window: Window, deltas: Reader, first: int, moment: int) -> Resumed:
    found = Resumed(snapshot, window)
    last = window.last_position
    found._missed = partial(_missed, deltas, first, first if last is None else last + 1, moment)
    return found


def _missed(deltas: Reader, first: int, stop: int, moment: int) -> npt.NDArray[Any]:
    """The gaps from position `first` to `stop`, both inclusive; at `stop` those of no later moment."""
    rows = deltas.gaps()
    position, begins = rows["position"], np.where(rows["from_us"] > 0, rows["from_us"], rows["timestamp_us"])
    inside = (position >= np.uint64(first)) & (position < np.uint64(stop))
    found: npt.NDArray[Any] = rows[inside | ((position == np.uint64(stop)) & (begins <= np.uint64(moment)))]
    return found


# --- what the snapshot says ------------------------------------------------------------------------


def _carried(snapshots: Reader, deltas: Reader, by: By | None, column: str | None) -> tuple[By, str]:
    """What a feed of snapshots says of the changes, and in which column."""
    layout = snapshots.layout
    if by is not None and by not in _ENDINGS:
        raise ValueError(f"by={by!r}: 'position', 'sequence' or 'time'")
    if column is not None:
        _unsigned(layout, layout.column(column).name)
        kinds = [kind for kind, ending in _ENDINGS.items() if f"_{column}".endswith(ending)]
        if by is None and not kinds:
            raise ValueError(f"column={column!r}: its name does not say what it holds; give by='position' (or …)")
        return by or kinds[0], column
    if by is None:
        return _meant(snapshots, deltas)
    names = _candidates(layout, by) + [layout.ts_col] * (by == "time")
    if not names:
        raise RecordError(
            f"the snapshots have no column of uint64 whose name ends in {_ENDINGS[by]}, to resume by {by}; their "
            f"columns are {', '.join(layout.names)}: name one with column="
        )
    return by, names[0]


def _meant(snapshots: Reader, deltas: Reader) -> tuple[By, str]:
    """The first column that says something of another feed: one that this has not under the same name."""
    for kind in _ENDINGS:
        for name in _candidates(snapshots.layout, kind):
            if name not in deltas.layout.names:
                return kind, name
    raise RecordError(
        f"feed {snapshots.feed!r} carries nothing meant for feed {deltas.feed!r}: expected a column …_position, …_seq "
        f"or …_us (not its primary clock) that {deltas.feed!r} has not as well, found "
        f"{', '.join(snapshots.layout.names)}: is it a feed of snapshots? If so say what to go by: by=, column="
    )


def _candidates(layout: Layout, kind: By) -> list[str]:
    """The columns whose names say that they may hold it; the primary clock says when the snapshot was made."""
    if kind == "time":
        return [clock for clock in layout.clocks if clock != layout.ts_col]
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
