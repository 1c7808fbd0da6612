"""The reader of a feed: ranges by position and by time, tails, marks, playback.

A reader takes no lock, needs read permission only, and creates nothing. Each call looks once at what
is published and answers from that. The work is done by functions of a chain (`search`, `marks`,
`follow`); a feature that needs only a reader belongs into a module of its own, not here.

More than 400 lines because it is the whole reading side of the API, and most of it is documentation.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any, Literal, Self, TypeVar

import numpy as np
import numpy.typing as npt

from deepwater import arrow, asof, marks, search
from deepwater.asof import Gather
from deepwater.chain import Chain
from deepwater.errors import ClosedError, EmptyFeedError, NoSnapshotError, RecordError, TimeFormatError
from deepwater.feed_files import Feed
from deepwater.follow import LAPS, WAITS, Follower, OnLap, Position, Wait, as_bytes, as_records, as_tuples
from deepwater.held import Held
from deepwater.ring_chain import RingChain
from deepwater.timestamps import (
    Bounds,
    duration_us,
    format_us,
    instant,
    instants,
    is_time,
    last_instant,
    resolve,
)
from deepwater.unshared import Unshared
from deepwater.window import Coverage, Part, Window
from deepwater.wording import count

Inclusive = Literal["both", "left", "right", "neither"]
T = TypeVar("T")


@lru_cache(maxsize=64)
def _record_type(names: tuple[str, ...]) -> Any:
    """The named tuple of a record; a name that begins with an underscore becomes its number (``_3``)."""
    return namedtuple("Record", names, rename=True)


def _is_number(value: Any, types: Any) -> bool:
    return isinstance(value, types) and not isinstance(value, bool | np.timedelta64)


def _wrapped(position: int, end: int) -> int:
    return max(0, end + position) if position < 0 else position


def _newest_record(held: Held) -> tuple[Any, ...] | None:
    if held.end == held.first:
        return None
    index = held.index_of(held.end - 1)
    record: tuple[Any, ...] = held.records(index)[held.end - 1 - held.base(index)].item()
    return record


class Reader(Unshared, instead="pickle Platform and open a reader there, Platform(base_path)[name]"):
    """Reads a feed. Made by `Platform.create_reader`; any number may, in any process.

    Attributes
    ----------
    feed : str
    layout : Layout
    settings : Settings
        As they were when the reader was made.

    Notes
    -----
    A context manager. One thread at a time; make one reader a thread (followers may run elsewhere).
    Arrays handed out are read-only views of the files and stay valid for ever.
    """

    def __init__(self, chain: Chain | RingChain, feed: Feed) -> None:
        self._open_chain: Chain | RingChain | None = chain
        self.feed, self.layout = feed.name, feed.layout
        self.settings = feed.settings
        self._clocks = {name: k for k, name in enumerate(feed.layout.clocks)}

    # --- what it is ----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go. Windows and arrays handed out stay valid. Idempotent."""
        self._open_chain = None

    @property
    def _chain(self) -> Chain | RingChain:
        if self._open_chain is None:
            raise ClosedError(f"this reader of feed {self.feed!r} is closed: open another with create_reader")
        return self._open_chain

    @property
    def incarnation(self) -> str:
        """Which life of the feed this is (a feed deleted and made again is another); "" for a ring not begun yet."""
        return self._chain.incarnation

    def _ask(self, question: Callable[[Held], T]) -> T:
        """Answer from what is published now: one look, which `question` is given."""
        return self._chain.answer(question)

    def _parts(self, question: Callable[[Held], list[Part]]) -> list[Part]:
        """As `_ask`, for rows to be handed out."""
        return self._ask(question)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a record; padding is left out but counted in `itemsize`."""
        return self.layout.dtype

    @property
    def schema(self) -> Any:
        """The `pyarrow.Schema` of the feed."""
        return arrow.schema(self.layout)

    @property
    def first(self) -> int:
        """The oldest position held: so many records were let go by retention, or overwritten in a ring."""
        self._chain.refresh()
        return self._chain.first

    @property
    def end(self) -> Position:
        """One past the newest position published now."""
        return self._position(self._chain.refresh())

    def _position(self, value: int) -> Position:
        return Position(value, self.incarnation)

    def __len__(self) -> int:
        return self._chain.refresh() - self._chain.first

    def __repr__(self) -> str:
        if self._open_chain is None:
            return f"<{type(self).__name__} {self.feed!r} closed>"
        return f"<{type(self).__name__} {self.feed!r} {self.summary()}>"

    def _repr_html_(self) -> str:
        import html

        return f"<b>{html.escape(self.feed)}</b> {html.escape(self.summary())}{self.layout._repr_html_()}"

    def summary(self) -> str:
        """Records, coverage, rate, size and gaps in a line; reads no record but the first and the last."""
        records = len(self)
        if not records:
            return "empty"
        clock = self.layout.ts_col
        low, high = self.coverage(clock)
        seconds = (high - low) / 1e6
        rate = f", {records / seconds:,.1f} records/s" if seconds > 0 else ""
        gaps = len(self.gaps())
        return (
            f"{count(records, 'record')}, {clock} {format_us(low)} to {format_us(high)}{rate}, "
            f"{records * self.layout.record_size / 1e6:,.1f} MB in {self._where()}, {count(gaps, 'gap')}"
        )

    def _where(self) -> str:
        return count(len(self._chain), "chunk")

    def coverage(self, clock: str | None = None) -> tuple[int, int]:
        """The least and the greatest value of a clock, µs, both inclusive (exact).

        Raises
        ------
        EmptyFeedError
        """
        number = self._clock(clock)
        found = self._ask(lambda held: held.span(number) if held.end > held.first else None)
        if found is None:
            raise self._empty()
        return found

    def _empty(self) -> EmptyFeedError:
        return EmptyFeedError(f"feed {self.feed!r} holds no record yet", feed=self.feed)

    def _clock(self, name: str | None) -> int:
        if name is None:
            return 0
        if name not in self._clocks:
            raise RecordError(
                f"feed {self.feed!r}: {name!r} is no clock; its clocks are {', '.join(self._clocks)}",
                column=name,
            )
        return self._clocks[name]

    # --- ranges ----------------------------------------------------------------------------------

    def read(self, start: Any = None, end: Any = None, *, last: Any = None, clock: str | None = None,
             columns: Iterable[str] | None = None, inclusive: Inclusive = "both") -> Window:  # fmt: skip
        """The records with ``start <= clock <= end``, in position order.

        Parameters
        ----------
        start, end
            Any time form of `deepwater.timestamps`; None is unbounded. A str or a date names a period
            (as start its first µs, as end its last), anything else an instant. Naive is UTC.
        last
            Instead of bounds: a duration back from the newest record of the clock (``"5min"``, a
            timedelta), or a number of records.
        clock
            Which timestamp column; the feed's primary clock by default. It need not be sorted.
        columns
            Only these columns (views; the clock stays the index of frames).
        inclusive
            Which bounds belong to the answer. ``"left"`` drops the whole named end period.

        Returns
        -------
        Window
            Views of the files, opened as they are touched; rows picked out of an unsorted chunk are
            a copy (`Window.is_view`).

        Raises
        ------
        TimeFormatError, RecordError, CorruptFileError
        """
        number = self._clock(clock)
        if last is not None:
            return self._last(last, start, end, number, columns)
        bounds = resolve(start, end, inclusive=inclusive)
        if bounds.lo > bounds.hi:
            return self._window([], number, columns, bounds)
        parts = self._parts(lambda held: search.times_between(held, number, bounds.lo, bounds.hi))
        return self._window(parts, number, columns, bounds)

    def _last(self, last: Any, start: Any, end: Any, number: int, columns: Iterable[str] | None) -> Window:
        if start is not None or end is not None:
            raise TimeFormatError("last= counts back from the newest record: leave start and end out", value=last)
        if isinstance(last, int | np.integer) and not isinstance(last, bool | np.timedelta64):
            return self._window(self._newest(int(last)), number, columns)
        back = duration_us(last)
        bounds: Bounds | None = None

        def newest(held: Held) -> list[Part]:
            nonlocal bounds
            if held.end == held.first:
                return []
            time = held.span(number)[1]
            bounds = Bounds(max(0, time - back), time)
            return search.times_between(held, number, bounds.lo, bounds.hi)

        parts = self._parts(newest)
        return self._window(parts, number, columns, bounds)

    def _newest(self, rows: int) -> list[Part]:
        return self._parts(lambda held: search.rows_between(held, max(0, held.end - rows), held.end))

    def rows(self, first: int, stop: int) -> Window:
        """The records at positions ``first <= position < stop``, clamped to what the feed holds."""
        first, stop = self._checked(first), self._checked(stop)
        return self._window(self._parts(lambda held: search.rows_between(held, first, stop)), 0)

    def _checked(self, position: int, life: str | None = None) -> int:
        """A position as an int; one of another life of the feed (`life`; this reader's) is refused."""
        if isinstance(position, bool | np.timedelta64) or not isinstance(position, int | np.integer):
            raise TypeError(f"a position is an integer, not {position!r}")
        if isinstance(position, Position) and position.incarnation:
            life = self.incarnation if life is None else life
            if position.incarnation != life:
                raise RecordError(
                    f"position {int(position)} belongs to another life of feed {self.feed!r} (incarnation "
                    f"{position.incarnation}, this is {life or 'not begun'}): the feed was deleted and made again, or "
                    f"the machine lost its memory; start anew", value=int(position),
                )  # fmt: skip
        return int(position)

    def latest(self, n: int) -> Window:
        """The newest `n` records."""
        return self._window(self._newest(self._checked(n)), 0)

    def __getitem__(self, key: Any) -> Any:
        """``r["2026-01-01":"2026-01-02"]`` and ``r["2026-01-01"]`` read by time; integers are positions.

        ``r[100:200]`` and ``r[-10:]`` are windows, ``r[5]`` is one record (a copy).
        """
        if not isinstance(key, slice):
            return self.read(key, key) if is_time(key) else self._record(key)
        if key.step is not None:
            raise TypeError("a step is not possible: slice the array of the window instead")
        if is_time(key.start) or is_time(key.stop):
            if any(isinstance(bound, (int, np.integer)) for bound in (key.start, key.stop)):
                raise TypeError("one bound is a time and the other a position: integers in brackets are positions")
            return self.read(key.start, key.stop)
        start = 0 if key.start is None else self._checked(key.start)
        stop = None if key.stop is None else self._checked(key.stop)

        def rows(held: Held) -> list[Part]:  # negative ones count from the end of this one look
            last = held.end if stop is None else _wrapped(stop, held.end)
            return search.rows_between(held, _wrapped(start, held.end), last)

        return self._window(self._parts(rows), 0)

    def _record(self, key: Any) -> Any:
        position = self._checked(key)

        def row(held: Held) -> list[Part]:
            at = position + held.end if position < 0 else position
            return search.rows_between(held, at, at + 1) if at >= 0 else []

        found = self._window(self._parts(row), 0)
        if not len(found):
            held = f"positions are {self.first} to {self.end - 1}"
            raise IndexError(f"feed {self.feed!r}: position {int(key)} is not held; {held}")
        return found[0]

    def _window(
        self,
        parts: list[Any],
        number: int,
        columns: Iterable[str] | None = None,
        bounds: Bounds | None = None,
    ) -> Window:
        clock = self.layout.clocks[number]
        coverage = None if parts else self._coverage(clock, bounds)
        chain = self._open_chain
        found = partial(marks.gaps_between, chain) if isinstance(chain, Chain) else None
        return Window(self.layout, parts, clock=clock, columns=columns, feed=self.feed, coverage=coverage, marks=found)

    def _coverage(self, clock: str, bounds: Bounds | None) -> Coverage | None:
        lo, hi = (bounds.lo, bounds.hi) if bounds is not None else (0, 2**64 - 1)
        if not len(self):
            return Coverage(0, 0, 0, lo, hi)
        return Coverage(*self.coverage(clock), len(self), lo, hi)

    # --- lookups -----------------------------------------------------------------------------------

    def get_latest_record(self) -> Any:
        """The newest record as a named tuple of Python values (char fields are bytes).

        Raises
        ------
        EmptyFeedError
        """
        record = self._ask(_newest_record)
        if record is None:
            raise self._empty()
        return _record_type(self.layout.names)._make(record)

    def position_of(self, time: Any, clock: str | None = None) -> Position:
        """The first position whose clock (the primary one) is at or after a time; `end` if there is none yet."""
        number = self._clock(clock)
        wanted = instant(time)
        return self._position(self._ask(lambda held: search.position_at_least(held, number, wanted)))

    def asof(self, times: Any, clock: str | None = None, tolerance: Any = None) -> asof.AsOf:
        """For each time the record in force: the one with the greatest clock at or before it, of equal ones the last.

        Parameters
        ----------
        times
            A time or an array of times, in any order.
        tolerance : optional
            A duration: a record older than that is not in force.

        Returns
        -------
        AsOf
            Positions (-1 before the first record); columns and frames on demand.
        """
        number = self._clock(clock)
        wanted = instants(times)
        positions, gathered = self._as_of(number, wanted)
        answer = asof.AsOf(self.layout, self.layout.clocks[number], wanted, positions, gathered)
        if tolerance is not None:
            stamps = answer.records()[answer.clock]
            late = wanted[answer.found] - stamps > np.uint64(duration_us(tolerance))
            positions = positions.copy()
            positions[np.flatnonzero(positions >= 0)[late]] = asof.MISSING
            answer = asof.AsOf(self.layout, answer.clock, wanted, positions, gathered)
        return answer

    def _as_of(self, number: int, wanted: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], Gather]:
        """The positions in force, and how to get the records at some of them."""
        positions = self._ask(lambda held: search.positions_asof(held, number, wanted))
        return positions, lambda some: self._ask(lambda held: search.gather(held, some, self.layout.dtype))

    # --- streams -----------------------------------------------------------------------------------

    def follow(
        self,
        start: Any = "latest",
        *,
        position: int | None = None,
        as_: Literal["numpy", "arrow"] = "numpy",
        batch: int | None = None,
        timeout: float | None = None,
        wait: Wait = "auto",
        on_lap: OnLap = "raise",
    ) -> Follower:
        """An iterator of batches, from history to live: no gap, no repeat. The cursor is fixed by this call.

        Also an async iterator: ``async for batch in reader.follow(…)``. Its `poll` never waits.

        Parameters
        ----------
        start
            ``"latest"``: what is published after this call. ``"earliest"``. ``"snapshot"``: from the
            latest complete snapshot (none yet: latest). A time: from `position_of` it.
        position
            Instead of `start`: from this position, such as an earlier follower's `position`.
        as_
            Read-only structured arrays (views), or Arrow record batches (copies).
        batch
            At most so many records a batch.
        timeout : seconds
            End after so long without a record; 0 never waits, None waits for ever.
        wait
            How to wait for a record: ``"auto"`` looks, then sleeps longer and longer between looks, and is woken
            once it has waited for some 10 ms; ``"wake"`` is woken by the writer from the start (least work for the
            reader, a system call a write for the writer); ``"spin"`` looks all the time (a whole core, least delay).
        on_lap
            What to do when a ring's writer, or retention, has overtaken: ``"raise"`` a `LappedError` that says how
            many records are lost (the next batch then goes on behind them), or ``"skip"`` them. `Follower.lost`
            counts them.
        """
        for name, value, allowed in (("as_", as_, ("numpy", "arrow")), ("wait", wait, WAITS), ("on_lap", on_lap, LAPS)):
            if value not in allowed:
                raise ValueError(f"{name}={value!r}: {', '.join(map(repr, allowed))}")
        if batch is not None and not (_is_number(batch, int | np.integer) and batch >= 1):
            raise ValueError(f"batch={batch!r}: a whole number of records, at least 1")
        if timeout is not None and not (_is_number(timeout, int | float | np.integer | np.floating) and timeout >= 0):
            raise ValueError(f"timeout={timeout!r}: seconds, 0 or more, or None")
        if position is not None and not (isinstance(start, str) and start == "latest"):
            raise ValueError(f"start={start!r} and position={position!r}: a follower starts at one of them")
        chain = self._chain.again()
        at = self._start(chain, start) if position is None else self._resume(chain, position)
        return Follower(chain, at, as_=as_, batch=batch, timeout=timeout, wait=wait, on_lap=on_lap)

    def _resume(self, chain: Chain | RingChain, position: int) -> int:
        at = self._checked(position, chain.incarnation)
        if not 0 <= at <= chain.end:
            raise RecordError(
                f"position {at} is not in feed {self.feed!r}: it holds {chain.first} to {chain.end}; "
                f"is it from another feed or another life of this one?", value=at,
            )  # fmt: skip
        return at

    def _start(self, chain: Chain | RingChain, start: Any) -> int:
        if start == "latest" and isinstance(start, str):
            return chain.end
        if start == "earliest" and isinstance(start, str):
            return chain.first
        if start == "snapshot" and isinstance(start, str):
            found = self._snapshot(chain, chain.end)
            return chain.end if found is None else found[0]
        wanted = instant(start)
        return chain.answer(lambda held: search.position_at_least(held, 0, wanted))

    def _snapshot(self, chain: Chain | RingChain, stop: int) -> tuple[int, int] | None:
        """Position and count of the last snapshot that lies wholly below `stop`."""
        return marks.latest_snapshot(chain, stop) if isinstance(chain, Chain) else None

    def stream_time_range(self, start: Any, end: Any = None) -> Iterator[tuple[Any, ...]]:
        """The records of a time range as tuples, both ends inclusive.

        ``end=None``: to the last record published at the call. Never waits.
        """
        return as_tuples(iter(self.read(start, end)))

    def stream_latest_records(self, playback: bool = False, timeout: float | None = None, *, wait: Wait = "auto",
                              on_lap: OnLap = "raise") -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Records as they come, as tuples; with `playback` from the latest complete snapshot on.

        The cursor is fixed by this call. `timeout`, `wait` and `on_lap` as in `follow`; after a `LappedError` this
        stream has ended (those of `read_batch` and `follow` go on, and say what was `lost`).
        """
        return as_tuples(self._tail(playback, timeout, None, wait, on_lap))

    def stream_latest_records_raw(self, playback: bool = False, timeout: float | None = None, *, wait: Wait = "auto",
                                  on_lap: OnLap = "raise") -> Iterator[memoryview]:  # fmt: skip
        """As `stream_latest_records`, each record as a read-only view of its packed bytes."""
        return as_records(self._tail(playback, timeout, None, wait, on_lap), self.layout.record_size)

    def read_batch(self, count: int, playback: bool = False, timeout: float | None = None, *, wait: Wait = "auto",
                   on_lap: OnLap = "raise") -> Follower:  # fmt: skip
        """Records as they come, as arrays (views; of a ring copies) of at most `count`; does not wait to fill one."""
        return self._tail(playback, timeout, count, wait, on_lap)

    def read_batch_raw(self, count: int, playback: bool = False, timeout: float | None = None, *, wait: Wait = "auto",
                       on_lap: OnLap = "raise") -> Iterator[memoryview]:  # fmt: skip
        """As `read_batch`, each batch as a read-only view of its packed bytes."""
        return map(as_bytes, self._tail(playback, timeout, count, wait, on_lap))

    def _tail(self, playback: bool, timeout: float | None, batch: int | None, wait: Wait, on_lap: OnLap) -> Follower:
        start = "snapshot" if playback else "latest"
        return self.follow(start, batch=batch, timeout=timeout, wait=wait, on_lap=on_lap)

    # --- marks ---------------------------------------------------------------------------------------

    def marks(self, kind: str | None = None) -> npt.NDArray[Any]:
        """The marks of the feed by position (`deepwater.index.MARK_DTYPE`), of one kind if asked; a copy.

        A ring has none.
        """
        chain = self._chain
        return marks.marks(chain, kind) if isinstance(chain, Chain) else marks.of_kind(marks.none(), kind)

    def snapshots(self) -> npt.NDArray[Any]:
        """The snapshots that are complete, as marks."""
        return self.marks("snapshot")

    def gaps(self) -> npt.NDArray[Any]:
        """What was missed, as marks: `count` records (2**64-1: unknown) before `position`."""
        return self.marks("gap")

    def playback(self, at: Any = None) -> Window:
        """The latest complete snapshot at or before a time, and every record after it up to that time.

        Where something was missed after the snapshot, `Window.gaps` of the answer (and its repr) says so.

        Parameters
        ----------
        at : optional
            A time (a str or a date: the end of its period); now if left out. By the primary clock.

        Raises
        ------
        NoSnapshotError
            The feed has no complete snapshot by then.
        """
        chain = self._chain
        stop = chain.refresh()
        if at is not None:
            moment = np.array([last_instant(at)], np.uint64)
            stop = int(self._ask(lambda held: search.positions_asof(held, 0, moment))[0]) + 1
        found = self._snapshot(chain, stop)
        if found is None:
            when = "" if at is None else f" at or before {format_us(last_instant(at))}"
            why = "" if self.settings.index_playback else " (it was made without index_playback)"
            raise NoSnapshotError(f"feed {self.feed!r} has no complete snapshot{when}{why}", feed=self.feed, at_us=at)
        window = self.rows(found[0], stop)
        # Retention may have come in between: what begins inside a snapshot is no book.
        return window if chain.first <= found[0] else self.playback(at)
