"""Feeds together: a replay is held to one sort over all records, a resumed snapshot to the positions it was made at."""

from __future__ import annotations

import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepwater import (
    ChunkGoneError,
    ClosedError,
    FeedNotFoundError,
    LappedError,
    NoSnapshotError,
    Platform,
    RecordError,
    TimeFormatError,
)
from deepwater import playback as playback_module
from deepwater.pace import LONGEST_WAIT_S, Timer
from deepwater.playback import Batch, Replay, merge, resume
from deepwater.reader import Reader
from processes import Worker

NO_TIME = 2**64 - 1
FIELDS = [
    {"name": "ts_us", "type": "uint64"},
    {"name": "other_us", "type": "uint64"},
    {"name": "n", "type": "uint64"},  # its own position
    {"name": "side", "type": "char"},
    {"name": "_", "type": "_7"},
]
SIZE = 32
LONG = 120  # seconds: for a deadlock, not for slowness


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        yield platform


def records(times: Any, others: Any = None, first: int = 0) -> np.ndarray:
    out = np.zeros(len(times), np.dtype([("ts_us", "u8"), ("other_us", "u8"), ("n", "u8"), ("side", "S1")]))
    out["ts_us"] = times
    out["other_us"] = times if others is None else others
    out["n"] = np.arange(first, first + len(times))
    out["side"] = b"B"
    return out


def feed(dw: Platform, name: str, times: Any = (), others: Any = None, *, rows: int = 1000) -> Reader:
    """Make a feed of these times in chunks of `rows`, and return a reader."""
    dw.create_feed({"feed_name": name, "fields": FIELDS, "ts_col": "ts_us", "chunk_size_bytes": rows * SIZE})
    with dw.create_writer(name) as writer:
        if len(times):
            writer.write_batch(records(times, others))
    return dw[name]


Plain = list[tuple[str, int]]


def flat(batches: Any) -> Plain:
    return [(batch.feed, int(n)) for batch in batches for n in batch.records["n"]]


def of_events(events: Any) -> Plain:
    return [(event.feed, event.record.n) for event in events]


def key_of(clock: np.ndarray) -> np.ndarray:
    """The running maximum, in plain Python; "no time" has the key of the one before."""
    out, last = [], 0
    for value in clock.tolist():
        last = last if value == NO_TIME else max(last, value)
        out.append(last)
    return np.array(out, np.uint64)


def oracle(clocks: dict[str, np.ndarray], lo: int = 0, hi: int = NO_TIME) -> Plain:
    """All records of all feeds, cut by their keys and sorted at once by (key, feed, position)."""
    keys = {name: key_of(clock) for name, clock in clocks.items()}
    rows = [
        (int(key), number, n)
        for number, name in enumerate(keys)
        for n, key in enumerate(keys[name].tolist())
        if lo <= key <= hi
    ]
    table = np.array(rows, np.uint64).reshape(-1, 3)
    order = np.lexsort((table[:, 2], table[:, 1], table[:, 0]))
    names = list(clocks)
    return [(names[int(number)], int(n)) for _, number, n in table[order]]


def random_clocks(rng: np.random.Generator, feeds: int, most: int = 300) -> dict[str, np.ndarray]:
    """Clocks of each kind: sorted with many ties, jittering, sparse, with records that have no time."""
    out = {}
    for number in range(feeds):
        rows = int(rng.integers(0, most))
        clock = np.sort(rng.integers(1000, 1000 + int(rng.choice([3, 50, 3000])), rows)).astype(np.uint64)
        if rows and rng.random() < 0.6:
            clock = clock + rng.integers(0, 40, rows).astype(np.uint64)
        if rng.random() < 0.3:
            clock[rng.random(rows) < 0.1] = rng.choice(np.array([0, NO_TIME], np.uint64))
        out[f"F{number}"] = clock
    return out


# -------------------------------------------------------------------------------- order


@pytest.mark.parametrize("seed", range(12))
def test_a_merge_is_one_sort_over_all_records(dw: Platform, seed: int) -> None:
    """Several feeds of any clocks in many small chunks, on either clock, at any size of block."""
    rng = np.random.default_rng(seed)
    clocks = random_clocks(rng, int(rng.integers(1, 6)), most=150)
    readers = [
        feed(dw, name, np.arange(len(c)), c, rows=int(rng.choice([2, 5, 64, 1000]))) for name, c in clocks.items()
    ]
    wanted = oracle(clocks)
    for batch in (1, 2, 3, 7, 50, 8192):
        with merge(readers, clock="other_us", batch=batch) as replay:
            assert flat(replay) == wanted, batch
            assert replay.ended
            assert replay.positions == {name: len(clock) for name, clock in clocks.items()}
        assert of_events(merge(readers, clock="other_us", batch=batch).events()) == wanted, batch
    by_primary = oracle({name: np.arange(len(clock)) for name, clock in clocks.items()})
    assert flat(merge(readers)) == by_primary
    mixed = {"F0": "other_us"}
    clocks = {name: clock if name in mixed else np.arange(len(clock)) for name, clock in clocks.items()}
    assert flat(merge(readers, clock=mixed)) == oracle(clocks)


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 12), max_size=12), min_size=1, max_size=4), st.integers(1, 5), st.data())
def test_bounds_and_order_hold_for_any_small_feeds(
    tmp_path_factory: pytest.TempPathFactory, feeds: list[list[int]], batch: int, data: st.DataObject
) -> None:
    clocks = {f"F{k}": np.array(times, np.uint64) for k, times in enumerate(feeds)}
    lo, hi = data.draw(st.none() | st.integers(0, 13)), data.draw(st.none() | st.integers(0, 13))
    with Platform(tmp_path_factory.mktemp("any")) as dw:
        readers = {name: feed(dw, name, clock, rows=3) for name, clock in clocks.items()}
        wanted = oracle(clocks, lo or 0, NO_TIME if hi is None else hi)
        assert flat(merge(readers, lo, hi, batch=batch)) == wanted
        assert of_events(merge(readers, lo, hi, batch=batch).events()) == wanted


def test_bounds_follow_the_rule_of_time(dw: Platform) -> None:
    """A text names a period, of an end its last µs; what was published after the call is not played."""
    day = 86_400_000_000
    start = 20_000 * day  # 2024-10-04
    reader = feed(dw, "A", start + np.arange(40) * day // 10)
    other = feed(dw, "B", start + np.arange(40) * day // 10 + 1)
    for lo, hi in (("2024-10-05", "2024-10-06"), ("2024-10-05", None), (None, "2024-10-04"), ("2025", None)):
        wanted = {len(reader.read(lo, hi)), len(other.read(lo, hi))}
        replay = merge([reader, other], lo, hi)
        with dw.create_writer("A") as writer:
            writer.write_batch(records([start + 5 * day], first=reader.end))
        got = flat(replay)
        assert {sum(name == which for name, _ in got) for which in "AB"} == wanted, (lo, hi)
        assert all(n in range(40 + 5) for _, n in got)
    assert flat(merge([reader, other], "2024-10-06", "2024-10-05")) == []


def test_a_record_without_a_time_goes_with_the_one_before_and_bounds_pass_over_it(dw: Platform) -> None:
    clock = np.array([NO_TIME, 10, NO_TIME, 20, 0, 30, NO_TIME], np.uint64)
    readers = [feed(dw, "A", np.arange(7), clock, rows=2), feed(dw, "B", np.arange(3), [15, 25, 35], rows=2)]
    both = {"A": clock, "B": np.array([15, 25, 35], np.uint64)}
    for lo, hi in ((0, NO_TIME), (10, 25), (11, 20), (12, 19), (31, 40), (0, 5)):
        assert flat(merge(readers, lo, hi, clock="other_us")) == oracle(both, lo, hi), (lo, hi)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_ties_are_in_the_order_of_the_readers_across_blocks(dw: Platform, batch: int) -> None:
    names = ("B", "A", "C")
    readers = [feed(dw, name, [5] * 20 + [6] * 5, rows=4) for name in names]
    wanted = [(name, n) for name in names for n in range(20)] + [(name, n) for name in names for n in range(20, 25)]
    assert flat(merge(readers, batch=batch)) == wanted


# -------------------------------------------------------------------------------- what is handed out


def test_batches_are_whole_runs_read_only_views_and_say_where_they_are(dw: Platform) -> None:
    readers = [feed(dw, "A", [1, 2, 3, 7, 8, 12]), feed(dw, "B", [4, 5, 6, 9, 10, 11])]
    got = list(merge(readers))
    assert [(b.feed, b.position, b.time_us, len(b.records)) for b in got] == [
        ("A", 0, 1, 3), ("B", 0, 4, 3), ("A", 3, 7, 2), ("B", 3, 9, 3), ("A", 5, 12, 1),
    ]  # fmt: skip
    for batch in got:
        assert batch.records.dtype == readers[0].dtype
        with pytest.raises(ValueError, match="WRITEABLE"):
            batch.records.flags.writeable = True
    assert flat(got)[0] == ("A", 0)  # still there after the replay and its followers are gone


def test_events_are_the_records_of_the_batches_as_python_values(dw: Platform) -> None:
    rng = np.random.default_rng(3)
    clocks = random_clocks(rng, 3, most=2000)
    readers = [feed(dw, name, clock, rows=100) for name, clock in clocks.items()]
    events = list(merge(readers, batch=64).events())
    rows = [
        (b.feed, b.position + k, row) for b in merge(readers, batch=100) for k, row in enumerate(b.records.tolist())
    ]
    assert [(event.feed, event.position, tuple(event.record)) for event in events] == rows
    keys = {name: key_of(clock) for name, clock in clocks.items()}
    assert all(event.time_us == keys[event.feed][event.position] for event in events)
    assert type(events[0].record.n) is int and events[0].record.side == b"B"


def test_arrow_batches_hold_the_same_records(dw: Platform) -> None:
    readers = {"x": feed(dw, "A", [1, 3, 5]), "y": feed(dw, "B", [2, 3, 4])}
    got = [(b.feed, n) for b in merge(readers, as_="arrow") for n in b.records.column("n").to_pylist()]
    assert got == flat(merge(readers)) and got[1] == ("y", 0)
    assert next(merge(readers, as_="arrow")).records.schema == readers["x"].schema


def test_each_buffered_block_is_at_most_a_batch(dw: Platform) -> None:
    readers = [feed(dw, f"F{k}", np.arange(5000) * (k + 1), rows=5000) for k in range(3)]
    replay = merge(readers, batch=100)
    rows = 0
    for batch in replay:
        rows += len(batch.records)
        assert len(batch.records) <= 100
        assert all(len(lane.keys) <= 100 >= len(lane.records) for lane in replay._lanes)
        assert replay._merger.left <= 300
    assert rows == 15_000


def test_positions_and_time_say_what_was_handed_out_and_go_on_there(dw: Platform) -> None:
    """After each batch and each event: the rest of the replay is a replay from `positions`."""
    clocks = {"A": np.array([1, 1, 2, 5, 5, 9]), "B": np.array([1, 2, 2, 5, 8])}
    readers = [feed(dw, name, clock, rows=2) for name, clock in clocks.items()]
    wanted = oracle(clocks)
    for take in (iter, Replay.events):
        replay = merge(readers, batch=3)
        assert replay.time_us is None
        done = 0
        for item in take(replay):
            done += len(item.records) if isinstance(item, Batch) else 1
            name, n = wanted[done - 1]
            assert replay.time_us == clocks[name][n]
            assert flat(merge(readers, positions=replay.positions)) == wanted[done:]
        assert done == len(wanted)


def test_batches_events_and_polls_may_be_mixed(dw: Platform) -> None:
    rng = np.random.default_rng(5)
    clocks = random_clocks(rng, 3, most=900)
    readers = [feed(dw, name, clock, rows=50) for name, clock in clocks.items()]
    replay, got = merge(readers, batch=40), []
    while not replay.ended:
        for _, event in zip(range(int(rng.integers(0, 9))), replay.events(), strict=False):
            got.append((event.feed, event.record.n))
        if (batch := replay.poll()) is not None:
            got += flat([batch])
    assert got == oracle(clocks)
    assert replay.poll() is None and list(replay) == []


# -------------------------------------------------------------------------------- pace


class Clock(Timer):
    """A clock of its own, moved on only by waiting. `at` says what to do at which wait."""

    def __init__(self) -> None:
        self.time, self.waits, self.at = 100.0, 0, {}  # type: float, int, dict[int, Callable[[], object]]

    def now(self) -> float:
        return self.time

    def wait(self, changed: threading.Condition, seconds: float) -> None:
        self.waits += 1
        if self.waits in self.at:
            self.at[self.waits]()
        else:
            assert seconds < LONGEST_WAIT_S, "it would wait for ever"
            self.time += seconds

    @property
    def passed(self) -> float:
        return round(self.time - 100, 5)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(playback_module, "TIMER", clock)
    yield clock
    clock.at = {}  # it holds replays, and they hold the clock


S = 1_000_000


def test_a_paced_replay_hands_out_what_is_due_when_it_is_due(dw: Platform, clock: Clock) -> None:
    readers = [feed(dw, "A", [50 * S, 51 * S, 51 * S, 55 * S]), feed(dw, "B", [50 * S, 51 * S + 1, 60 * S])]
    for take in ("batches", "events"):
        clock.time = 100.0
        replay = merge(readers, speed=2)
        if take == "batches":
            got = [(clock.passed, batch.feed, len(batch.records)) for batch in replay]
            assert got == [(0, "A", 1), (0, "B", 1), (0.5, "A", 2), (0.5, "B", 1), (2.5, "A", 1), (5, "B", 1)]
        else:
            events = [(clock.passed, event.feed, event.record.n) for event in replay.events()]
            assert events == [(0, "A", 0), (0, "B", 0), (0.5, "A", 1), (0.5, "A", 2), (0.5, "B", 1), (2.5, "A", 3),
                              (5, "B", 2)]  # fmt: skip


def test_a_late_consumer_gets_all_that_is_due_and_poll_never_waits(dw: Platform, clock: Clock) -> None:
    replay = merge([feed(dw, "A", np.arange(10) * S)], speed=1)
    assert flat([replay.poll()]) == [("A", 0)]
    assert replay.poll() is None
    clock.time += 3.5
    assert flat([replay.poll()]) == [("A", 1), ("A", 2), ("A", 3)]
    assert replay.poll() is None and clock.waits == 0 and not replay.ended
    clock.time += 100
    assert len(replay.poll().records) == 6
    assert replay.poll() is None and replay.ended


def test_another_speed_does_not_jump(dw: Platform, clock: Clock) -> None:
    replay = merge([feed(dw, "A", np.array([0, 10, 20, 30, 31, 32, 42]) * S)], speed=1)
    next(replay)
    clock.time += 5
    replay.speed = 5  # 5 s of media time are left to the next: 1 s
    next(replay)
    assert clock.passed == 6
    replay.speed = 0.5
    next(replay)
    assert clock.passed == 26
    replay.speed = None
    assert [len(batch.records) for batch in replay] == [4] and clock.passed == 26
    replay.seek(30 * S)
    assert next(replay.events()).record.n == 3
    clock.time += 50
    replay.speed = 2  # from the time of the last record on
    next(replay)
    assert clock.passed == 26 + 50 + 0.5 and replay.speed == 2


def test_a_pause_stops_the_time_and_steps_let_records_through_before_they_are_due(dw: Platform, clock: Clock) -> None:
    replay = merge([feed(dw, "A", np.array([0, 10, 20, 30, 40]) * S)], speed=10)
    events = replay.events()
    assert next(events).record.n == 0
    clock.time += 0.4
    replay.pause()
    assert replay.paused and replay.poll() is None
    clock.time += 1000
    replay.resume()
    assert next(events).record.n == 1
    assert clock.passed == 1000 + 1
    replay.step(2)  # pauses
    assert replay.paused
    assert [next(events).record.n, next(events).record.n] == [2, 3]
    assert clock.passed == 1001 and replay.poll() is None
    clock.time += 7
    replay.resume()  # on from the last record
    assert next(events).record.n == 4
    assert clock.passed == 1008 + 1


def test_a_pause_acts_on_events_and_batches_made_but_not_taken(dw: Platform) -> None:
    """Of what is due at once, one by one: nothing more after the pause, and the steps are those not taken."""
    readers = [feed(dw, "A", range(0, 100, 2)), feed(dw, "B", range(1, 100, 2))]
    wanted = oracle({"A": np.arange(0, 100, 2), "B": np.arange(1, 100, 2)})
    replay = merge(readers)
    events = replay.events()
    got = of_events([next(events), next(events)])
    replay.pause()
    assert replay.poll() is None
    replay.step(5)
    got += of_events([next(events)])
    got += flat([replay.poll()])
    replay.step()  # three of the five are still there, and this one
    while (batch := replay.poll()) is not None:
        got += flat([batch])
    assert got == wanted[:8]
    replay.step(1000)
    assert flat(replay) == wanted[8:]
    assert replay.ended


def test_seek_goes_back_and_forth_within_the_bounds(dw: Platform, clock: Clock) -> None:
    clocks = {"A": np.arange(0, 100, 2) * S, "B": np.arange(1, 100, 2) * S}
    readers = [feed(dw, name, times, rows=7) for name, times in clocks.items()]
    replay = merge(readers, 10 * S, 59 * S, batch=8)
    for time, lo in ((30 * S, 30 * S), (0, 10 * S), (58 * S, 58 * S), (10 * S, 10 * S), ("2030", 70 * S)):
        next(replay)
        replay.seek(time)
        assert replay.time_us is None
        assert flat(replay) == oracle(clocks, lo, 59 * S), time
        assert replay.ended
        replay.seek(0)
    replay.speed = 1
    next(replay)
    clock.time += 1000
    replay.seek(40 * S)  # pacing starts there
    before = clock.passed
    events = replay.events()
    assert [(next(events).time_us // S, clock.passed - before) for _ in range(3)] == [(40, 0), (41, 1), (42, 2)]
    replay.step(7)
    replay.seek(20 * S)
    assert replay.paused and replay.poll() is None  # the steps are forgotten
    with pytest.raises(TimeFormatError):
        replay.seek(1.5)
    replay.close()
    with pytest.raises(ClosedError):
        replay.seek(0)
    replay.close()
    assert replay.poll() is None and replay.ended and list(replay) == []


def test_a_wait_ends_at_once_when_another_thread_changes_something(dw: Platform, clock: Clock) -> None:
    """Every control comes while the consumer waits for a record that is due in a year (or never: paused)."""
    year = 365 * 86_400 * S
    replay = merge([feed(dw, "A", np.arange(6) * year)], speed=1)
    next(replay)
    clock.at = {1: lambda: replay.seek(3 * year), 2: replay.pause, 3: replay.step, 4: replay.resume, 5: replay.close}
    assert [event.record.n for event in replay.events()] == [3, 4]
    assert clock.waits == 5 and clock.passed == 0


# -------------------------------------------------------------------------------- threads


class Consumer(threading.Thread):
    """Takes what a replay hands out, in a thread of its own."""

    def __init__(self, replay: Replay, take: Callable[[Replay], Any] = Replay.events) -> None:
        super().__init__()
        self.replay, self.take = replay, take
        self.got: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        for item in self.take(self.replay):
            self.got.put(item)
        self.got.put(None)

    def next(self) -> Any:
        return self.got.get(timeout=LONG)

    def rest(self) -> list[Any]:
        return list(iter(self.next, None))


def test_controls_of_another_thread_reach_a_consumer_that_waits(dw: Platform) -> None:
    hour = 3600 * S
    replay = merge([feed(dw, "A", np.arange(50) * hour)], speed=1)
    consumer = Consumer(replay)
    assert consumer.next().record.n == 0
    replay.step(3)
    assert [consumer.next().record.n for _ in range(3)] == [1, 2, 3]
    replay.seek(40 * hour)
    replay.step()
    assert consumer.next().record.n == 40
    replay.seek(20 * hour)
    replay.resume()
    assert consumer.next().record.n == 20
    assert consumer.got.empty()
    replay.speed = 1e9
    assert consumer.next().record.n == 21
    replay.speed = None
    assert [event.record.n for event in consumer.rest()] == list(range(22, 50))
    consumer.join()


def test_close_from_another_thread_ends_a_consumer_that_waits(dw: Platform) -> None:
    reader = feed(dw, "A", [0, 3600 * S])
    for options in ({"speed": 1.0}, {"live": True}):
        for take in (Replay.events, iter):
            replay = merge([reader], **options)
            consumer = Consumer(replay, take)
            consumer.next()
            replay.close()
            assert len(consumer.rest()) <= 1
            consumer.join()


@pytest.mark.parametrize("take", [Replay.events, iter])
def test_no_record_is_lost_or_repeated_by_controls_at_any_moment(
    dw: Platform, take: Any, request: pytest.FixtureRequest
) -> None:
    """Pauses, steps and changes of speed by a thread that never rests, while another takes what comes."""
    rng = np.random.default_rng(1)
    clocks = {name: np.sort(rng.integers(0, 9000, 4000)) for name in "ABC"}
    readers = [feed(dw, name, times, rows=500) for name, times in clocks.items()]
    replay = merge(readers, batch=300)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    request.addfinalizer(lambda: sys.setswitchinterval(interval))
    consumer = Consumer(replay, take)
    changes = 0
    while consumer.is_alive():
        kind = changes % 4
        if kind == 0:
            replay.pause()
        elif kind == 1:
            replay.step(1 + changes % 7)
        elif kind == 2:
            replay.speed = [None, 1e6][changes % 2]
        else:
            assert set(replay.positions) == set("ABC")
            replay.resume()
        changes += 1
    consumer.join()
    items = consumer.rest()
    got = flat(items) if isinstance(items[0], Batch) else of_events(items)
    assert got == oracle(clocks)
    assert changes > 4


class Raced(deque[Any]):
    """An outbox whose consumer takes one more while the replay takes back: just before its second pop."""

    def __init__(self) -> None:
        super().__init__()
        self.pops, self.taken = 9, []  # type: int, list[Any]

    def _race(self) -> None:
        self.pops += 1
        if self.pops == 2:
            self.taken.append(super().popleft())

    def pop(self) -> Any:
        self._race()
        return super().pop()

    def popleft(self) -> Any:
        self._race()
        return super().popleft()


@pytest.mark.parametrize("box", ["_events", "_batches"])
def test_what_is_taken_while_it_is_taken_back_is_handed_out_once(dw: Platform, box: str) -> None:
    clocks = {"A": np.arange(0, 40, 2), "B": np.arange(1, 40, 2)}
    replay = merge([feed(dw, name, clock) for name, clock in clocks.items()])
    raced = Raced()
    setattr(replay, box, raced)
    items, got = (replay.events() if box == "_events" else replay), []
    for change in (replay.pause, replay.resume, lambda: setattr(replay, "speed", 1e9)):
        replay.resume()
        got.append(next(items))
        raced.pops = 0
        change()
        got += raced.taken
        raced.taken.clear()
    replay.speed = None
    got += items
    assert (of_events(got) if box == "_events" else flat(got)) == oracle(clocks)


# -------------------------------------------------------------------------------- live


def test_live_goes_on_with_what_is_published_and_a_silent_feed_holds_nobody_up(dw: Platform) -> None:
    readers = [feed(dw, "A", [1, 4]), feed(dw, "B", [2]), feed(dw, "SILENT")]
    with merge(readers, live=True, timeout=0) as replay, dw.create_writer("A") as a, dw.create_writer("B") as b:
        assert flat(replay) == [("A", 0), ("B", 0), ("A", 1)]
        assert flat(replay) == [] and not replay.ended
        a.write_batch(records([5, 9], first=2))
        b.write_batch(records([6, 7], first=1))
        assert flat(replay) == [("A", 2), ("B", 1), ("B", 2), ("A", 3)]  # in order of time of what is there
        b.write_batch(records([3], first=3))
        assert flat(replay) == [("B", 3)]  # late, but not lost
        replay.seek(6)
        assert flat(replay) == [("B", 1), ("B", 2), ("B", 3), ("A", 3)]  # B's key stays at 7
        replay.seek("2100")
        assert flat(replay) == []
        a.write_batch(records([10], first=4))
        assert replay.poll().position == 4
        assert replay.positions == {"A": 5, "B": 4, "SILENT": 0}


def test_a_timeout_counts_from_the_last_record_and_not_while_it_is_paused(dw: Platform, clock: Clock) -> None:
    reader = feed(dw, "A", [1])
    replay = merge([reader], live=True, timeout=2.5)
    with dw.create_writer("A") as writer:
        clock.at = {30: lambda: writer.write_batch(records([2], first=1))}
        assert flat(replay) == [("A", 0), ("A", 1)]
        assert clock.passed >= 2.5
        before, waits = clock.time, clock.waits
        replay.pause()

        def go_on() -> None:
            clock.time += 1000
            replay.resume()
            writer.write_batch(records([3], first=2))

        clock.at = {waits + 1: go_on}
        assert flat(replay) == [("A", 2)]
        assert round(clock.time - before, 3) == 1002.5


def test_a_feed_that_is_deleted_under_a_live_replay_is_told(dw: Platform) -> None:
    readers = [feed(dw, "A", [1, 2]), feed(dw, "B", [3])]
    with merge(readers, live=True, timeout=60) as replay:
        assert flat([replay.poll(), replay.poll()]) == [("A", 0), ("A", 1), ("B", 0)]
        dw.delete_feed("B")
        with pytest.raises(FeedNotFoundError, match="deleted"):
            next(replay)


def test_live_steps_wait_for_records(dw: Platform, clock: Clock) -> None:
    reader = feed(dw, "A", [1, 2])
    replay = merge([reader], live=True)
    with dw.create_writer("A") as writer:
        replay.step(3)
        clock.at = {25: lambda: writer.write_batch(records([3, 4], first=2))}
        assert flat([next(replay), next(replay)]) == [("A", 0), ("A", 1), ("A", 2)]
        assert replay.poll() is None


WRITES = """
import sys, numpy as np
from deepwater import Platform
base, feeds, rows, seed = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3]), int(sys.argv[4])
rng = np.random.default_rng(seed)
with Platform(base) as dw:
    writers = [dw.create_writer(name) for name in feeds]
    at, now = [0] * len(feeds), 10**6
    print("ready", flush=True)
    sys.stdin.readline()
    while min(at) < rows:
        k = int(rng.integers(len(feeds)))
        n = min(int(rng.integers(1, 40)), rows - at[k])
        if n == 0:
            continue
        out = np.zeros(n, writers[k].layout.dtype)
        out["ts_us"] = now
        out["n"] = np.arange(at[k], at[k] + n)
        writers[k].write_batch(out)
        at[k] += n
        now += 1
    for writer in writers:
        writer.close()
"""


@pytest.mark.parametrize(("seed", "speed"), [(1, None), (2, None), (3, 1000.0)])
def test_from_history_to_live_each_record_of_each_feed_once_and_in_order(
    dw: Platform, seed: int, speed: float | None
) -> None:
    """Another process writes to three feeds, over many chunks, while the replay catches up and goes live."""
    rows, names = 6000, ["A", "B", "C"]
    readers = [feed(dw, name, rows=100) for name in names]
    with Worker(WRITES, dw.base_path, ",".join(names), rows, seed) as worker:
        assert worker.readline() == "ready"
        worker.send("go")
        seen = dict.fromkeys(names, 0)
        for batch in merge(readers, live=True, speed=speed, batch=64):
            assert batch.position == seen[batch.feed]
            assert np.array_equal(batch.records["n"], np.arange(len(batch.records)) + batch.position)
            seen[batch.feed] += len(batch.records)
            if min(seen.values()) == rows:
                break
        worker.finish()
    assert seen == dict.fromkeys(names, rows)
    assert [name for name, _ in flat(merge(readers))] != sorted(3 * rows * "A")


# -------------------------------------------------------------------------------- rings


class RingLike:
    """A reader whose followers behave as those of a ring: writable copies, and `gap` records lost on the way."""

    def __init__(self, reader: Reader, gap: tuple[int, int]) -> None:
        self._reader, self._gap = reader, gap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def follow(self, *, position: int, batch: int, timeout: float, on_lap: str = "raise") -> Any:
        return LappedFollower(self._reader, position, batch, on_lap, self._gap)


class LappedFollower:
    def __init__(self, reader: Reader, position: int, batch: int, on_lap: str, gap: tuple[int, int]) -> None:
        self.reader, self.position, self.batch, self.on_lap, self.gap = reader, int(position), batch, on_lap, gap
        self.lost = 0

    def poll(self) -> Any:
        first, stop = self.gap
        if first <= self.position < stop:
            lost, self.position = stop - self.position, stop
            self.lost += lost
            if self.on_lap == "raise":
                raise LappedError(f"{lost} lost", lost=lost)
        limit = first if self.position < first else self.reader.end
        found = self.reader.rows(self.position, min(limit, self.position + self.batch)).to_numpy().copy()
        self.position += len(found)
        return found if len(found) else None

    def close(self) -> None:
        pass


def test_a_lap_is_raised_or_counted_and_the_replay_goes_on_after_it(dw: Platform) -> None:
    a, b = feed(dw, "A", range(0, 40, 2)), feed(dw, "B", range(1, 40, 2))
    left = [(name, n) for name, n in oracle({"A": np.arange(0, 40, 2), "B": np.arange(1, 40, 2)})
            if name == "B" or not 4 <= n < 9]  # fmt: skip
    ring: Any = RingLike(a, (4, 9))
    replay = merge([ring, b], on_lap="skip", batch=4)
    got = list(replay)
    assert flat(got) == left and replay.lost == 5
    assert not any(batch.records.flags.writeable for batch in got)
    assert all(batch.position == batch.records["n"][0] for batch in got)
    replay = merge([ring, b], batch=4)
    got, laps = [], 0
    while not replay.ended:
        try:
            for batch in replay:
                got.append(batch)
        except LappedError as error:
            laps += error.lost
    assert laps == replay.lost == 5
    assert flat(got) == left
    beyond: Any = RingLike(a, (4, 20))
    assert flat(merge([beyond, b], 0, 20, on_lap="skip")) == [(n, p) for n, p in left if (n, p) <= ("B", 9)
                                                              and (n == "B" or p < 4)]  # fmt: skip


def test_rings_are_played_beside_durable_feeds(dw: Platform) -> None:
    """A small ring, written around many times: what is handed out is right, and what is not is counted."""
    durable = feed(dw, "A", np.arange(3000), rows=1000)
    dw.create_feed(
        {"feed_name": "R", "fields": FIELDS, "ts_col": "ts_us", "chunk_size_bytes": 512 * SIZE, "persist": False}
    )
    with dw.create_writer("R") as writer, dw["R"] as ring:
        writer.write_batch(records(np.arange(200)))
        assert flat(merge([durable, ring], 0, 199)) == oracle({"A": np.arange(200), "R": np.arange(200)})
        with merge([durable, ring], live=True, on_lap="skip", batch=50, timeout=0) as replay:
            got = []
            for first in range(200, 3000, 200):
                writer.write_batch(records(np.arange(first, first + 200), first=first))
                got.append(next(replay))
                if first % 600 == 0:  # in between it falls behind
                    got += replay
            got += replay
            assert all(b.records["n"].tolist() == list(range(b.position, b.position + len(b.records))) for b in got)
            seen = np.concatenate([b.records["n"] for b in got if b.feed == "R"])
            assert np.all(np.diff(seen.astype(np.int64)) > 0) and len(seen) + replay.lost == 3000 and replay.lost > 0
            assert [n for name, n in flat(got) if name == "A"] == list(range(3000))
        late = merge([ring], positions={"R": 0})
        with pytest.raises(LappedError):
            next(late)
        assert late.lost > 0 and flat(late)[-1] == ("R", 2999)
    dw.delete_feed("R")  # a ring outlives its writer and its readers


# -------------------------------------------------------------------------------- misuse


def test_what_cannot_be_played_is_refused_with_a_reason(dw: Platform) -> None:
    a, b = feed(dw, "A", [1]), feed(dw, "B", [2])
    for wrong, match in [
        ({"speed": 0}, "speed"), ({"speed": -1.0}, "speed"), ({"speed": float("nan")}, "speed"),
        ({"speed": float("inf")}, "speed"), ({"speed": True}, "speed"), ({"batch": 0}, "batch"),
        ({"as_": "list"}, "as_"), ({"on_lap": "wait"}, "on_lap"), ({"clock": {"C": "ts_us"}}, "'C' is not played"),
        ({"positions": {"C": 0}}, "'C' is not played"), ({"live": True, "end": 5}, "live"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=match):
            merge([a, b], **wrong)
    with pytest.raises(RecordError, match=r"feed 'A'.*'n' is no clock.*ts_us, other_us"):
        merge([a, b], clock="n")
    with pytest.raises(RecordError, match="feed 'B'"):
        merge([a, b], clock={"B": "never_us"})
    with pytest.raises(RecordError, match="not in feed"):
        merge([a, b], positions={"A": 99})
    with pytest.raises(ValueError, match="no reader"):
        merge([])
    with pytest.raises(ValueError, match="two readers are of a feed 'A'"):
        merge([a, b, dw["A"]])
    with pytest.raises(TypeError, match=r"merge\(\[reader"):
        merge(a)
    with pytest.raises(TimeFormatError):
        merge([a], 1.5)
    with merge({"x": a, "y": dw["A"]}) as replay:
        assert flat(replay) == [("x", 0), ("y", 0)]
        with pytest.raises(ValueError, match="speed"):
            replay.speed = 0
        with pytest.raises(ValueError, match="at least 1"):
            replay.step(0)
    assert "closed" in repr(replay)


def test_a_position_of_another_life_is_refused(dw: Platform) -> None:
    reader = feed(dw, "A", [1, 2, 3])
    replay = merge([reader])
    next(replay)
    kept = replay.positions
    dw.delete_feed("A")
    reader = feed(dw, "A", [1, 2, 3])
    with pytest.raises(RecordError, match="another life"):
        merge([reader], positions=kept)


# -------------------------------------------------------------------------------- resume


SNAPS = [
    {"name": "valid", "type": "bool"},
    {"name": "_", "type": "_7"},
    {"name": "at_us", "type": "uint64"},
    {"name": "l2_us", "type": "uint64"},
    {"name": "l2_seq", "type": "uint64"},
    {"name": "l2_position", "type": "uint64"},
]
DELTAS = [{"name": "ts_us", "type": "uint64"}, {"name": "seq", "type": "uint64"}, {"name": "n", "type": "uint64"}]


def snapshots_of(dw: Platform, rows: list[tuple[Any, ...]], *drop: str) -> Reader:
    """Make a feed of snapshots without the columns named."""
    fields = [field for field in SNAPS if field["name"] not in drop]
    dw.create_feed({"feed_name": "SNAP", "fields": fields, "ts_col": "at_us", "chunk_size_bytes": 400})
    names = [field["name"] for field in SNAPS if field["name"] != "_"]
    with dw.create_writer("SNAP") as writer:
        for row in rows:
            writer.write_values(*(value for name, value in zip(names, row, strict=True) if name not in drop))
    return dw["SNAP"]


def deltas_of(dw: Platform, times: Any, numbers: Any) -> Reader:
    dw.create_feed({"feed_name": "L2", "fields": DELTAS, "ts_col": "ts_us", "chunk_size_bytes": 24 * 50})
    with dw.create_writer("L2") as writer:
        if len(times):
            writer.write_batch({"ts_us": times, "seq": numbers, "n": np.arange(len(times))})
    return dw["L2"]


def went_on(resumed: Any) -> list[int]:
    return resumed.deltas["n"].tolist() if len(resumed.deltas) else []


def test_a_snapshot_goes_on_by_position_sequence_or_time(dw: Platform) -> None:
    """Ten changes, two of a number and of a time; a snapshot of the first six of them."""
    times = np.repeat(np.arange(5), 2) * 10
    deltas = deltas_of(dw, times, np.repeat(np.arange(100, 105), 2))
    snapshots = snapshots_of(dw, [(True, 25, 20, 102, 6), (True, 45, 40, 104, 10)])
    snapshot, window = resume(snapshots, deltas, at=30)
    assert (int(snapshot["at_us"]), int(snapshot["l2_seq"])) == (25, 102)
    assert isinstance(snapshot, np.void) and window.position == 6
    assert window["n"].tolist() == [6, 7]
    for by in ("position", "sequence", "time"):
        assert went_on(resume(snapshots, deltas, at=30, by=by)) == [6, 7]
        assert went_on(resume(snapshots, deltas, at=44, by=by)) == [6, 7, 8, 9]
        assert went_on(resume(snapshots, deltas, at=25, by=by)) == []
        assert went_on(resume(snapshots, deltas, by=by)) == []
    assert went_on(resume(snapshots, deltas, 44, by="position", column="l2_position")) == [6, 7, 8, 9]
    assert went_on(resume(snapshots, deltas, 44, column="l2_us")) == [6, 7, 8, 9]
    assert went_on(resume(snapshots, deltas, 44, column="l2_seq")) == [6, 7, 8, 9]
    assert went_on(resume(snapshots, deltas, 44, by="time", column="at_us")) == [6, 7, 8, 9]


@pytest.mark.parametrize(
    ("drop", "wanted"),
    [
        ((), 6),
        (("l2_position",), 4),
        (("l2_position", "l2_seq"), 2),
    ],
)
def test_what_the_snapshots_carry_decides_position_first(dw: Platform, drop: tuple[str, ...], wanted: int) -> None:
    """A snapshot whose columns contradict each other on purpose."""
    deltas = deltas_of(dw, np.arange(10) * 10, np.arange(10) + 100)
    snapshots = snapshots_of(dw, [(True, 75, 15, 103, 6)], *drop)
    assert went_on(resume(snapshots, deltas)) == list(range(wanted, 10))


def test_the_primary_clock_of_snapshots_counts_if_that_is_said(dw: Platform) -> None:
    deltas = deltas_of(dw, np.arange(10) * 10, np.arange(10) + 100)
    snapshots = snapshots_of(dw, [(True, 75, 15, 103, 6)], "l2_position", "l2_seq", "l2_us")
    assert went_on(resume(snapshots, deltas, by="time")) == [8, 9] == went_on(resume(snapshots, deltas, column="at_us"))
    with pytest.raises(RecordError, match=r"feed 'SNAP' carries nothing meant for feed 'L2'.* found valid, at_us:"):
        resume(snapshots, deltas)


def test_feeds_that_say_nothing_of_each_other_are_refused(dw: Platform) -> None:
    """Every feed has a clock, and many a number: what both have is each record's own."""
    deltas = deltas_of(dw, np.arange(10) * 10, np.arange(10) + 100)
    dw.create_feed({"feed_name": "TRADES", "fields": [DELTAS[0], DELTAS[2]], "ts_col": "ts_us"})
    with dw.create_writer("TRADES") as writer:
        writer.write_values(20, 5)
    trades = dw["TRADES"]
    for snapshots, changes in ((deltas, deltas), (trades, deltas), (trades, trades)):
        with pytest.raises(RecordError, match=f"'{snapshots.feed}' carries nothing meant for feed '{changes.feed}'"):
            resume(snapshots, changes)
    with pytest.raises(RecordError, match="no column 'seq' nor 'seq'"):
        resume(deltas, trades)
    dw.create_feed({"feed_name": "BARS", "fields": [*DELTAS, {"name": "end_us", "type": "u64"}], "ts_col": "end_us"})
    with dw.create_writer("BARS") as writer:
        writer.write_values(35, 103, 1, 40)
    with pytest.raises(RecordError, match=r"that 'L2' has not as well, found ts_us, seq, n, end_us: is it a feed of"):
        resume(dw["BARS"], deltas)
    assert went_on(resume(dw["BARS"], deltas, by="sequence")) == [4, 5, 6, 7, 8, 9]


def test_what_was_missed_since_the_snapshot_is_said(dw: Platform) -> None:
    """Marks before the changes a snapshot holds are none of its business; those before its first change are."""
    dw.create_feed({"feed_name": "L2", "fields": DELTAS, "ts_col": "ts_us", "chunk_size_bytes": 24 * 3})
    with dw.create_writer("L2") as writer:
        for k in range(12):
            if k in (2, 4, 9):
                writer.mark_gap(k, 10 * k - 5, 10 * k - 2)
            writer.write_values(10 * k, k, k)
        writer.mark_gap(99, 118, 119)
    snapshots = snapshots_of(dw, [(True, 35, 30, 3, 4), (True, 75, 70, 7, 8)])
    deltas = dw["L2"]
    for by in ("position", "sequence", "time"):
        # Position 4 is missed from 35 on: a moment of 34 would be before it, 35 is not.
        for at, wanted, inside in ((35, [4], []), (60, [4], []), (84, [], []), (85, [9], []), (95, [9], [9])):
            found = resume(snapshots, deltas, at, by=by)
            assert found.gaps["count"].tolist() == wanted, (by, at)
            assert found.deltas.gaps["count"].tolist() == inside
        assert resume(snapshots, deltas, by=by).gaps["count"].tolist() == [9, 99]
        assert resume(snapshots, deltas, 117, by=by).gaps["count"].tolist() == [9]
    snapshot, window = found
    assert found.snapshot is snapshot and found.deltas is window
    assert repr(found).startswith("<Resumed: 1 gap after the snapshot; snapshot (")
    assert "1 gap inside: before position 9, 9 lost" in repr(window)


def test_the_time_asked_for_names_a_period_and_at_is_inclusive(dw: Platform) -> None:
    day = 86_400 * S
    deltas = deltas_of(dw, np.arange(5) * day + day - 1, np.arange(5))
    snapshots = snapshots_of(dw, [(True, day - 1, 0, 0, 0), (True, 3 * day - 1, 0, 0, 2)])
    assert int(resume(snapshots, deltas, "1970-01-02").snapshot["l2_position"]) == 0
    assert went_on(resume(snapshots, deltas, "1970-01-02")) == [0, 1]
    assert went_on(resume(snapshots, deltas, "1970-01-03")) == [2]
    assert went_on(resume(snapshots, deltas, 3 * day - 2)) == [0, 1]
    with pytest.raises(TimeFormatError):
        resume(snapshots, deltas, 1.5)


def test_snapshots_that_are_not_valid_are_passed_over(dw: Platform) -> None:
    deltas = deltas_of(dw, np.arange(100), np.arange(100))
    rows = [(k in (3, 20), k, k, k, k) for k in range(60)]
    snapshots = snapshots_of(dw, rows)
    assert int(resume(snapshots, deltas).snapshot["at_us"]) == 20
    assert int(resume(snapshots, deltas, 19).snapshot["at_us"]) == 3
    assert went_on(resume(snapshots, deltas, 19)) == list(range(3, 20))
    with pytest.raises(NoSnapshotError, match="valid snapshot at or before") as caught:
        resume(snapshots, deltas, 2)
    assert (caught.value.feed, caught.value.at_us) == ("SNAP", 2)


def test_among_snapshots_whose_clock_steps_back_the_greatest_time_counts(dw: Platform) -> None:
    deltas = deltas_of(dw, np.arange(100), np.arange(100))
    snapshots = snapshots_of(dw, [(True, 10, 0, 0, 1), (True, 30, 0, 0, 2), (True, 20, 0, 0, 3), (False, 30, 0, 0, 4)])
    assert int(resume(snapshots, deltas, 25).snapshot["l2_position"]) == 3
    assert int(resume(snapshots, deltas, 29).snapshot["l2_position"]) == 3
    assert int(resume(snapshots, deltas, 15).snapshot["l2_position"]) == 1
    dw.delete_feed("SNAP")
    snapshots = snapshots_of(dw, [(True, 10, 0, 0, 1), (True, 30, 0, 0, 2), (False, 20, 0, 0, 3)])
    assert int(resume(snapshots, deltas, 25).snapshot["l2_position"]) == 1


def frames(rng: np.random.Generator, sessions: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of some connections that each begin again, several records a number; and times, with ties."""
    numbers: list[np.ndarray] = []
    for _ in range(sessions):
        distinct = np.cumsum(rng.integers(1, 4, int(rng.integers(2, 60)))) + int(rng.integers(0, 3))
        numbers.append(np.repeat(distinct, rng.integers(1, 4, len(distinct))))
    seq = np.concatenate(numbers)
    return np.cumsum(rng.integers(0, 3, len(seq))) + 1000, seq


@pytest.mark.parametrize("seed", range(8))
def test_numbers_that_begin_again_are_resumed_in_their_own_session(
    dw: Platform, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any moment of any session, written late or at once: what follows is what follows the last record held.

    The oracle is the position itself: after all records of the number that the snapshot holds. A late snapshot
    is told apart as long as no later session has come to that number when it is written.
    """
    monkeypatch.setattr("deepwater.resume._BLOCK_ROWS", 7)
    rng = np.random.default_rng(seed)
    times, seq = frames(rng, int(rng.integers(1, 5)))
    rows, wanted = [], []
    for _ in range(40):
        last = int(rng.integers(0, len(seq)))  # the last record in the book
        while last + 1 < len(seq) and seq[last + 1] == seq[last]:
            last += 1
        late = min(len(seq) - 1, last + int(rng.integers(0, 12)))
        known = int(np.searchsorted(times, times[late], "right"))
        if np.any(seq[last + 1 : known + 1] == seq[last]) or np.any(
            (seq[last + 1 : known - 1] < seq[last]) & (seq[last + 2 : known] > seq[last])
        ):
            continue
        rows.append((True, int(times[late]), int(times[last]), int(seq[last]), last + 1))
        wanted.append(last + 1)
    order = sorted(range(len(rows)), key=lambda k: rows[k][1])
    deltas = deltas_of(dw, times, seq)
    snapshots = snapshots_of(dw, [rows[k] for k in order])
    for place, k in enumerate(order):
        if place + 1 < len(order) and rows[order[place + 1]][1] == rows[k][1]:
            continue  # of equal times the last is meant
        moment = rows[k][1]
        stop = int(np.searchsorted(times, moment, "right"))
        for by in ("position", "sequence"):
            assert went_on(resume(snapshots, deltas, moment, by=by)) == list(range(wanted[k], stop)), (by, rows[k])
    if rows:
        k = order[-1]
        assert went_on(resume(snapshots, deltas, by="sequence")) == list(range(wanted[k], len(seq)))


@pytest.mark.parametrize(
    ("numbers", "at_us", "value", "wanted"),
    [
        ([1, 2, 3, 7, 8], 4, 5, 3),  # a number that no change has: between two
        ([1, 2, 3, 7, 8], 2, 7, 4),  # ahead of what was known by then
        ([1, 2, 3, 7, 8], 4, 99, 5),  # ahead of everything
        ([5, 6, 7], 2, 2, 0),  # before the first
        ([5, 6, 7, 1, 2, 3], 4, 6, 2),  # of the session before, written late
        ([5, 6, 7, 4, 5, 6], 5, 2, 3),  # before the first of this session
        ([5, 6, 7, 1, 2, 3], 5, 3, 6),  # the end of this one
        ([5, 6, 7, 1, 2, 9], 5, 5, 5),  # between two of this session comes before the other one
        ([5, 5, 5, 6], 1, 5, 3),  # all of a number count, also those not known by then
        ([], 3, 4, 0),
    ],
)
def test_a_number_is_found_where_it_is_not_there_as_such(
    dw: Platform, numbers: list[int], at_us: int, value: int, wanted: int
) -> None:
    deltas = deltas_of(dw, np.arange(len(numbers)), np.array(numbers, np.uint64))
    snapshots = snapshots_of(dw, [(True, at_us, 0, value, 0)])
    assert went_on(resume(snapshots, deltas, by="sequence")) == list(range(wanted, len(numbers)))


class Trimmed:
    """A reader of a feed whose oldest records are gone."""

    def __init__(self, reader: Reader, first: int) -> None:
        self._reader, self.first = reader, first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def rows(self, first: int, stop: int) -> Any:
        return self._reader.rows(max(first, self.first), max(stop, self.first))

    def read(self, *bounds: int) -> Any:
        window = self._reader.read(*bounds)
        return window[max(0, self.first - (window.position or 0)) :]


def test_changes_that_are_gone_are_said_to_be_gone(dw: Platform) -> None:
    full = deltas_of(dw, np.arange(100) * 10, np.arange(100) % 50)
    deltas: Any = Trimmed(full, 60)
    rows = [(True, 590, 590, 9, 60), (True, 605, 600, 10, 61)]
    snapshots = snapshots_of(dw, [(True, 400, 400, 40, 41), *rows])
    for by in ("position", "sequence", "time"):
        with pytest.raises(ChunkGoneError, match=r"feed 'L2'.*no longer held; the oldest record is 60") as caught:
            resume(snapshots, deltas, 500, by=by)
        assert caught.value.feed == "L2"
        assert went_on(resume(snapshots, deltas, 700, by=by)) == list(range(61, 71)), by
    assert went_on(resume(snapshots, deltas, 600)) == [60]
    for by in ("sequence", "time"):  # 60 may not be the next one: only a position knows
        with pytest.raises(ChunkGoneError):
            resume(snapshots, deltas, 600, by=by)


def test_what_cannot_be_resumed_is_refused_with_a_reason(dw: Platform) -> None:
    deltas = deltas_of(dw, np.arange(10), np.arange(10))
    snapshots = snapshots_of(dw, [(True, 5, 5, 5, 11)])
    with pytest.raises(RecordError, match="goes on at position 11 and the feed ends at 10"):
        resume(snapshots, deltas)
    with pytest.raises(NoSnapshotError, match="at or before"):
        resume(snapshots, deltas, 4)
    with pytest.raises(ValueError, match="'position', 'sequence' or 'time'"):
        resume(snapshots, deltas, by="offset")
    with pytest.raises(RecordError, match="'valid' is bool"):
        resume(snapshots, deltas, column="valid", by="time")
    with pytest.raises(RecordError, match="no_such"):
        resume(snapshots, deltas, column="no_such")
    with pytest.raises(ValueError, match="does not say what it holds"):
        resume(deltas, deltas, column="n")
    with pytest.raises(RecordError, match="no column of uint64 whose name ends in _position"):
        resume(deltas, deltas, by="position")
    trades = feed(dw, "TRADES", [1])
    with pytest.raises(RecordError, match=r"no column 'seq' nor 'seq' for the 'l2_seq'"):
        resume(snapshots, trades, by="sequence")
    empty = snapshots_empty(dw)
    with pytest.raises(NoSnapshotError, match="holds no valid snapshot: "):
        resume(empty, deltas)


def snapshots_empty(dw: Platform) -> Reader:
    dw.create_feed({"feed_name": "NONE", "fields": SNAPS, "ts_col": "at_us"})
    return dw["NONE"]
