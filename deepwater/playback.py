"""Several feeds together: a snapshot feed with its changes (`resume`), and a merged replay (`merge`).

A replay plays the feeds in the order of a clock (`lanes` and `merge` say which), as batches or as events, as fast as
possible or at N times real time (`pace`), and can go on live.

What is handed out waits in an outbox, a deque that the consumer empties and that is filled again, under the lock,
with what is due. To pop is atomic, so `pause` and its like, from any thread, take back what the consumer
has not popped: every record is handed out once, and no lock is taken for a record.

It takes readers and uses nothing of them that is not public: a ring's reader serves as well.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal, Self

from deepwater import arrow
from deepwater.errors import ClosedError
from deepwater.follow import Position
from deepwater.lanes import Batch, Clocks, Event, Lane, OnLap, Readers, bound, lanes_of, place
from deepwater.merge import Merger, size
from deepwater.pace import LONGEST_WAIT_S, Idle, Pace, Timer, checked_speed
from deepwater.resume import Resumed, resume
from deepwater.timestamps import instant
from deepwater.unshared import Unshared

__all__ = ["Batch", "Event", "Replay", "Resumed", "merge", "resume"]

TIMER = Timer()


def merge(
    readers: Readers,
    start: Any = None,
    end: Any = None,
    *,
    clock: Clocks = None,
    speed: float | None = None,
    live: bool = False,
    batch: int = 8192,
    as_: Literal["numpy", "arrow"] = "numpy",
    timeout: float | None = None,
    on_lap: OnLap = "raise",
    positions: Mapping[str, int] | None = None,
) -> Replay:
    """Play several feeds in the order of a clock.

    Parameters
    ----------
    readers : sequence of Reader, or dict of name to Reader
        At least one. Feeds of one name (of two stores) need a dict.
    start, end : optional
        Any time form of `deepwater.timestamps`, both inclusive; a str or a date names a period. In each feed
        the records from the first at or after `start` to the last before the first beyond `end`, by the
        chosen clock.
    clock : str, or dict of name to str, optional
        A clock of all feeds, or of some; the primary clock of a feed by default. It need not be sorted: a record
        comes no earlier than those before it in its feed (the key is the running maximum), and one without a
        time (0 or 2^64-1) together with the one before it.
    speed : float, optional
        N times real time, by the clock; the first record is due at once. None: as fast as possible.
    live : bool
        False: to what is published at this call. True: on with what comes, in order of time within a look, no feed
        holding another up; there is no `end` then.
    batch : int
        At most so many records a batch, and so many of each feed in memory.
    as_ : {"numpy", "arrow"}
        Read-only structured arrays (views of durable feeds), or pyarrow RecordBatches (copies).
    timeout : seconds, optional
        With `live`: end after so long without a record; 0 never waits for one, None for ever.
    on_lap : {"raise", "skip"}
        For rings that overwrote what was not read yet: `LappedError`, or go on and count it in `lost`.
    positions : dict of name to int, optional
        Where to begin, feed by feed, instead of `start`: `Replay.positions` of an earlier replay.

    Returns
    -------
    Replay
        An iterator of `Batch`. Equal keys are in the order of `readers`, then of position.

    Raises
    ------
    ValueError
        No reader, one name twice, `end` with `live`, an option that is none, a name that is no feed's.
    RecordError, TimeFormatError, TypeError
        A feed has no such clock or position; a bound is no time; `readers` is one reader.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from deepwater import Platform
    >>> with TemporaryDirectory() as place, Platform(place) as dw:
    ...     for name, times in ("A", (1, 2, 5)), ("B", (2, 3)):
    ...         _ = dw.create_feed({"feed_name": name, "fields": [{"name": "t_us", "type": "u64"}], "ts_col": "t_us"})
    ...         with dw.create_writer(name) as writer:
    ...             for t in times:
    ...                 _ = writer.write_values(t)
    ...     with merge([dw["A"], dw["B"]]) as replay:
    ...         [(batch.feed, batch.records["t_us"].tolist()) for batch in replay]
    ...     [(event.feed, event.record.t_us) for event in merge([dw["A"], dw["B"]], 2, 3).events()]
    [('A', [1, 2]), ('B', [2, 3]), ('A', [5])]
    [('A', 2), ('B', 2), ('B', 3)]
    """
    if as_ not in ("numpy", "arrow"):
        raise ValueError(f"as_={as_!r}: 'numpy' or 'arrow'")
    if on_lap not in ("raise", "skip"):
        raise ValueError(f"on_lap={on_lap!r}: 'raise' or 'skip'")
    if isinstance(batch, bool) or batch < 1:
        raise ValueError(f"batch={batch!r}: at least 1 record")
    if live and end is not None:
        raise ValueError("live=True goes on with what is published: leave out end, or live")
    pace = Pace(TIMER, checked_speed(speed))
    lanes = lanes_of(readers, clock, batch, on_lap)
    bound(lanes, start, end, live)
    place(lanes, positions or {})
    return Replay(lanes, pace, TIMER, as_arrow=as_ == "arrow", live=live, timeout=timeout)


class Replay(Unshared, instead="make one there with merge()"):
    """Several feeds, played in the order of a clock. Made by `merge`; an iterator of `Batch`.

    Notes
    -----
    One thread takes what it hands out (by iterating, `events` or `poll`, which may be mixed); all else may be
    called from any thread and acts at once, also on a consumer that waits. Only `merge` and `seek` use the
    readers themselves: no other thread may use them meanwhile. After the end `seek` makes it go on.
    A context manager; it does not close the readers.

    Examples
    --------
    with merge([trades, book], "2026-08-09", clock="packet_us", speed=10) as replay:
        for event in replay.events():
            ...  # another thread: replay.pause(), replay.step(3), replay.seek("2026-08-09T12"), replay.speed = 1
    """

    def __init__(self, lanes: Sequence[Lane], pace: Pace, timer: Timer, *, as_arrow: bool, live: bool,
                 timeout: float | None) -> None:  # fmt: skip
        self._lanes, self._merger, self._pace, self._timer = lanes, Merger(lanes), pace, timer
        self._as_arrow, self._live = as_arrow, live
        self._changed = threading.Condition()
        self._batches: deque[Batch] = deque()  # the outbox; one of the two is empty
        self._events: deque[Event] = deque()
        self._is_closed = self._is_paused = False
        self._steps = 0
        self._idle = Idle(timer, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "ended" if self.ended else "paused" if self._is_paused else "playing"
        return f"<Replay of {', '.join(lane.name for lane in self._lanes)}: {state}, time_us={self.time_us}>"

    # --- what it hands out -------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch that is due: waits for it.

        Raises
        ------
        StopIteration
            At the end; after `timeout` seconds without a live record; after `close`.
        LappedError
            A ring overwrote records; the next call goes on after them.
        ChunkGoneError, CorruptFileError
        """
        batch = self._next(wait=True)
        if batch is None:
            raise StopIteration
        return batch

    def poll(self) -> Batch | None:
        """The next batch if one is due now, else None: never waits. None too at the end and closed (see `ended`).

        Raises
        ------
        LappedError, ChunkGoneError, CorruptFileError
        """
        return self._next(wait=False)

    def events(self) -> Iterator[Event]:
        """Iterate over single records as they are due, as `Event`; ends and raises like iterating over batches.

        Whatever ``as_=`` says the values are Python values.
        """
        popleft = self._events.popleft
        while True:
            try:
                event = popleft()
            except IndexError:
                if not self._refill(wait=True, events=True):
                    return
            else:
                yield event

    def _next(self, wait: bool) -> Batch | None:
        if self._events:
            with self._control():
                pass  # events not taken are to come as batches
        while True:
            try:
                batch = self._batches.popleft()
            except IndexError:
                if not self._refill(wait):
                    return None
            else:
                return self._to_arrow(batch) if self._as_arrow else batch

    def _to_arrow(self, batch: Batch) -> Batch:
        lane = next(lane for lane in self._lanes if lane.name == batch.feed)
        return batch._replace(records=arrow.record_batch(lane.reader.layout, batch.records))

    def _refill(self, wait: bool, *, events: bool = False) -> bool:
        """Put what is due into an outbox; False if nothing is and it may not wait, or nothing ever will be."""
        with self._changed:
            self._take_back()  # batches, where events are wanted now
            while not self._is_closed:
                most = self._due()
                if most:
                    self._post(most, events)
                    return True
                if not wait or (seconds := self._waits_s()) is None:
                    return False
                self._timer.wait(self._changed, seconds)
        return False

    def _due(self) -> int:
        """How many records of the merged block may be handed out now."""
        merger = self._merger
        if self._is_paused and not self._steps:
            return 0
        if not merger.left and not merger.load():
            return 0
        self._idle.reset()
        if self._is_paused:
            return min(self._steps, merger.left)
        if self._pace.speed is None:
            return merger.left
        return merger.due(self._pace.moment_us(merger.next_key))

    def _post(self, most: int, events: bool) -> None:
        merger, before = self._merger, self._merger.left
        if events:
            self._events.extend(merger.events(most))
        else:
            self._batches.extend(merger.batches(most))
        if self._is_paused:
            self._steps -= before - merger.left
            self._pace.reach(merger.key_before(0) or 0)

    def _waits_s(self) -> float | None:
        """How long to wait for the next look; None if it has ended."""
        if self._is_played:
            return None
        if self._is_paused and not self._steps:
            return LONGEST_WAIT_S
        if self._merger.left:
            return self._pace.wait_s(self._merger.next_key)
        return self._idle.wait_s()

    @property
    def _is_played(self) -> bool:
        """Whether everything was put into the outbox and nothing will follow."""
        return not self._live and not self._merger.left and all(lane.is_done for lane in self._lanes)

    # --- what controls it ----------------------------------------------------------------------------

    @contextmanager
    def _control(self) -> Iterator[None]:
        """Change something: what was not popped is taken back first, and who waits looks again."""
        with self._changed:
            self._take_back()
            yield
            self._idle.reset()
            self._changed.notify_all()

    def _take_back(self) -> None:
        back = 0
        with suppress(IndexError):  # perhaps the consumer is faster; it takes from the beginning
            while self._events:
                self._events.pop()
                back += 1
        with suppress(IndexError):
            while self._batches:
                back += len(self._batches.pop().records)
        if back:
            self._merger.give_back(back)
            self._steps += back if self._is_paused else 0

    def _waiting(self) -> dict[str, int]:
        """How many records of each feed are in the outbox."""
        return size([*self._events.copy(), *self._batches.copy()])

    @property
    def speed(self) -> float | None:
        """N times real time; None: as fast as possible. May be set: the time of the replay does not jump."""
        return self._pace.speed

    @speed.setter
    def speed(self, speed: float | None) -> None:
        checked = checked_speed(speed)
        with self._control():
            self._pace.change(checked, self._merger.key_before(0))

    @property
    def paused(self) -> bool:
        """Whether it hands out nothing but steps."""
        return self._is_paused

    def pause(self) -> None:
        """Hand out nothing more; its time stands still, and `timeout` does not count."""
        with self._control():
            self._is_paused = True
            self._pace.stop()

    def resume(self) -> None:
        """Go on after `pause`, at the moment it had reached; steps not taken are forgotten."""
        with self._control():
            self._is_paused, self._steps = False, 0
            self._pace.go()

    def step(self, n: int = 1) -> None:
        """Let `n` more records through, due or not; pauses first if it is playing.

        Raises
        ------
        ValueError
            `n` is less than 1.
        """
        if n < 1:
            raise ValueError(f"step({n!r}): at least 1 record")
        self.pause()
        with self._control():
            self._steps += n

    def seek(self, time: Any) -> None:
        """Go to a time, backward too: in each feed to the first record at or after it, within start and end.

        What was read ahead is dropped, and the first record there is due at once. Paused stays paused, and
        steps not taken are forgotten. A time past the end ends it, or goes live.

        Raises
        ------
        TimeFormatError, ClosedError
        """
        moment = instant(time)
        with self._control():
            if self._is_closed:
                raise ClosedError("this replay is closed: merge the readers again")
            self._steps = 0
            self._merger.clear()
            self._pace.restart()
            for lane in self._lanes:
                lane.seek(moment)

    def close(self) -> None:
        """End the iteration, also one that waits in another thread. Arrays handed out stay valid. Idempotent."""
        with self._control():
            self._is_closed = True
            for lane in self._lanes:
                lane.close()

    # --- where it is -----------------------------------------------------------------------------------

    @property
    def time_us(self) -> int | None:
        """The clock of the last record handed out, µs since the epoch; None before the first and after `seek`."""
        with self._changed:
            return self._merger.key_before(sum(self._waiting().values()))

    @property
    def positions(self) -> dict[str, Position]:
        """The next position of each feed to be handed out; ``merge(…, positions=…)`` goes on there."""
        with self._changed:
            back = self._waiting()
            return {
                lane.name: Position(lane.position - back.get(lane.name, 0), lane.reader.incarnation)
                for lane in self._lanes
            }

    @property
    def lost(self) -> int:
        """Records that rings had overwritten before they were read, those of a `LappedError` too."""
        return sum(lane.lost for lane in self._lanes)

    @property
    def ended(self) -> bool:
        """Whether nothing will be handed out any more, but for `seek`; never while it is live and open."""
        with self._changed:
            return self._is_closed or (self._is_played and not self._waiting())
