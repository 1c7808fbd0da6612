"""The maintainer of order books, in a thread: when it writes, what it says, how it goes on and ends."""

from __future__ import annotations

import errno
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepwater import Platform
from deepwater.apps import maintainer as module
from deepwater.apps import specs
from deepwater.apps.maintainer import Maintainer, State, maintain
from deepwater.books import book_at
from deepwater.errors import (
    DeepwaterError,
    FeedLockedError,
    FeedNameError,
    FeedNotFoundError,
    StorageFullError,
)
from deepwater.feed_writer import FeedWriter
from deepwater.ring_writer import RingWriter

PRODUCT, FEED, BOOKS = "X-USD", "CB-L2-X-USD", "CB-L2SNAP-X-USD"
NEVER_S = 100_000.0
PATIENCE_S = 60.0
START = 1_786_309_548_000_000


def levels(*rows: tuple[bytes, float, float], kind: bytes = b"U", at_us: int = START, seq: int = 1) -> np.ndarray:
    out = np.zeros(len(rows), specs.dtype(specs.L2))
    out["type"], out["proc_us"], out["seq"] = kind, at_us, seq
    for row, (side, price, qty) in zip(out, rows, strict=True):
        row["side"], row["price"], row["qty"] = side, price, qty
    return out


SNAPSHOT = levels((b"B", 10.0, 1.0), (b"A", 11.0, 2.0), kind=b"S")


@pytest.fixture
def dw(tmp_store: Path) -> Iterator[Platform]:
    with Platform(tmp_store) as platform:
        yield platform
        for name in platform.list_feeds():  # a ring stays in shared memory until its feed is deleted
            platform.delete_feed(name)


def until(condition: Callable[[], Any]) -> Any:
    """Wait until it holds; the deadline is for a deadlock."""
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.002)
    return found


@contextmanager
def running(*maintainers: Maintainer, **options: Any) -> Iterator[threading.Event]:
    """Run them beside the test; what ended one is raised at the end."""
    stop, failed = threading.Event(), []

    def run() -> None:
        try:
            maintain(maintainers, stop, **options)
        except BaseException as error:  # noqa: BLE001 (it is raised below)
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def recorder(dw: Platform) -> FeedWriter:
    dw.create_feed(specs.spec(specs.L2, PRODUCT))
    return dw.create_writer(FEED)


def written(dw: Platform, count: int) -> np.ndarray:
    """Wait for so many records of books; all of them."""
    until(lambda: BOOKS in dw)
    with dw[BOOKS] as reader:
        until(lambda: len(reader) >= count)
        return reader.read().to_numpy()


def test_it_waits_for_the_feed_and_writes_at_once_what_happens(dw: Platform) -> None:
    """With an interval that is never over: when it begins, at a snapshot, at a gap, at the next snapshot."""
    keeper = Maintainer(dw, PRODUCT, 3, NEVER_S)
    with running(keeper):
        until(lambda: threading.active_count() >= 3)
        assert dw.list_feeds() == [] and keeper.state == State(PRODUCT)
        with recorder(dw) as writer:
            writer.write_batch(levels((b"B", 9.0, 1.0)))  # a change of no book
            assert not written(dw, 1)["valid"][0]
            writer.write_batch(SNAPSHOT, create_index=True)
            first = written(dw, 2)[1]
            writer.write_batch(levels((b"B", 10.5, 3.0), at_us=START + 5, seq=7))
            until(lambda: keeper.state.changes == 4 or book_at(dw[FEED]).position == 4)
            writer.mark_gap(reason="sequence 8 to 9")
            second = written(dw, 3)[2]
            writer.write_batch(SNAPSHOT, create_index=True)
            third = written(dw, 4)[3]
    rows = np.stack([first, second, third])
    assert rows["valid"].tolist() == [True, False, True] and rows["l2_position"].tolist() == [3, 4, 6]
    assert rows["l2_us"].tolist() == [START, START + 5, START] and rows["l2_seq"].tolist() == [1, 7, 1]
    np.testing.assert_array_equal(rows["bid_px"], [[10.0, np.nan, np.nan], [10.5, 10.0, np.nan], [10.0] + [np.nan] * 2])
    np.testing.assert_array_equal(rows["ask_qty"], [[2.0, np.nan, np.nan]] * 3)
    assert keeper.state.state == "ended" and keeper.state.written == len(written(dw, 4)) == 4
    with dw[BOOKS] as reader:
        assert not reader.settings.persist and reader.settings.config == {"depth": 3}


def test_an_interval_goes_on_while_nothing_comes(dw: Platform) -> None:
    """Records at multiples of it by the wall clock, a durable feed if that is wanted."""
    with recorder(dw) as writer:
        writer.write_batch(SNAPSHOT, create_index=True)
        with running(Maintainer(dw, PRODUCT, 2, 0.005, persist=True)):
            rows = written(dw, 20)
        assert dw[BOOKS].settings.persist and dw[BOOKS].settings.config == {"depth": 2}
    assert rows["valid"].all() and (rows["l2_position"] == 2).all()
    periods = rows["snapshot_us"].astype(np.int64) // 5000
    assert (np.diff(periods) >= 1).all()  # the first was written at once, the others each in a period of its own


def test_the_next_one_goes_on_and_never_steps_back(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock was set back by an hour: what it writes has the time of the last record, each interval."""
    with recorder(dw) as writer:
        writer.write_batch(SNAPSHOT, create_index=True)
        with running(Maintainer(dw, PRODUCT, 2, 0.01)):
            before = written(dw, 3)
        count = len(written(dw, 3))
        with monkeypatch.context() as patch:
            real = module.now_us
            patch.setattr(module, "now_us", lambda: real() - 3_600_000_000)
            writer.write_batch(levels((b"B", 10.5, 1.0)))
            with running(Maintainer(dw, PRODUCT, 2, 0.01)):
                rows = written(dw, count + 3)
        assert rows["snapshot_us"].tolist() == sorted(rows["snapshot_us"].tolist())
        assert set(rows["snapshot_us"][count:].tolist()) == {int(rows["snapshot_us"][count - 1])}
        assert rows["l2_position"][count:].tolist() == [3] * (len(rows) - count)
        assert before[0]["snapshot_us"] > START


def test_the_clock_set_back_while_it_runs_does_not_silence_it(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    real, back = module.now_us, [0]
    monkeypatch.setattr(module, "now_us", lambda: real() - back[0])
    with recorder(dw) as writer, running(Maintainer(dw, PRODUCT, 2, 0.01)):
        writer.write_batch(SNAPSHOT, create_index=True)
        count = len(written(dw, 3))
        back[0] = 86_400_000_000
        written(dw, count + 5)


def test_a_clock_that_steps_to_and_fro_never_takes_a_record_back(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, off = module.now_us, itertools.cycle([0, 1, 0, -3, 400, -20_000])
    monkeypatch.setattr(module, "now_us", lambda: real() + next(off) * 86_400_000_000)
    with recorder(dw) as writer, running(Maintainer(dw, PRODUCT, 2, 0.001)):
        writer.write_batch(SNAPSHOT, create_index=True)
        stamps = written(dw, 30)["snapshot_us"]
    assert (stamps[1:] >= stamps[:-1]).all()


def test_its_feeds_are_not_resized_under_it(dw: Platform) -> None:
    with recorder(dw) as writer, running(Maintainer(dw, PRODUCT, 2, 0.001)):
        writer.write_batch(SNAPSHOT, create_index=True)
        count = len(written(dw, 3))
        for name in (BOOKS, FEED):
            with pytest.raises(FeedLockedError, match=f"{name}.*has a writer already: process {os.getpid()}"):
                dw.resize_feed(name, 1 << 21)
        assert written(dw, count + 5)["valid"].all()


def test_a_record_is_never_of_a_time_before_what_is_in_it(dw: Platform) -> None:
    """The recorder's clock was ahead."""
    ahead = module.now_us() + 3_600_000_000
    with recorder(dw) as writer, running(Maintainer(dw, PRODUCT, 2, NEVER_S)):
        until(lambda: BOOKS in dw)
        late = SNAPSHOT.copy()
        late["proc_us"] = ahead
        writer.write_batch(late, create_index=True)
        assert written(dw, 1)[-1]["snapshot_us"] == ahead


def test_a_second_one_of_the_same_product_is_told_who_the_first_is(dw: Platform) -> None:
    with recorder(dw) as writer, running(Maintainer(dw, PRODUCT, 2)):
        writer.write_batch(SNAPSHOT, create_index=True)
        written(dw, 1)
        with pytest.raises(FeedLockedError, match=str(os.getpid())):
            Maintainer(dw, PRODUCT, 2).run(threading.Event())


def test_a_feed_of_books_that_will_not_do(dw: Platform) -> None:
    with recorder(dw):
        dw.create_feed(specs.snapshots_spec(PRODUCT, 3, persist=False))
        with pytest.raises(DeepwaterError, match="is there with a depth of 3, not 2: take that depth, or delete"):
            Maintainer(dw, PRODUCT, 2).run(threading.Event())
        with pytest.raises(DeepwaterError, match="is a ring and cannot become durable"):
            Maintainer(dw, PRODUCT, 3, persist=True).run(threading.Event())
        dw.delete_feed(BOOKS)
        dw.create_feed({**specs.spec(specs.L2, PRODUCT).to_json(), "feed_name": BOOKS})
        with pytest.raises(DeepwaterError, match="is there with other records, not 2"):
            Maintainer(dw, PRODUCT, 2).run(threading.Event())
    for depth in (0, 2047):
        with pytest.raises(DeepwaterError, match=f"depth {depth}: 1 to 2046 levels"):
            Maintainer(dw, PRODUCT, depth)
    with pytest.raises(DeepwaterError, match="interval 0: seconds above 0"):
        Maintainer(dw, PRODUCT, 1, 0)
    with pytest.raises(FeedNameError):
        Maintainer(dw, "../X", 1)


def test_without_space_books_are_let_go_and_counted(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    full, plain = [True], RingWriter.write_batch

    def write(self: RingWriter, data: Any, create_index: bool = False) -> int:
        if full[0]:
            raise StorageFullError("no space", errno=errno.ENOSPC)
        return plain(self, data, create_index)

    monkeypatch.setattr(RingWriter, "write_batch", write)
    keeper = Maintainer(dw, PRODUCT, 2, 0.005)
    with recorder(dw) as writer, running(keeper):
        writer.write_batch(SNAPSHOT, create_index=True)
        until(lambda: keeper.state.unwritten >= 3)
        assert keeper.state.written == 0
        full[0] = False
        assert written(dw, 2)["valid"].all()
    assert keeper.state.unwritten >= 3 and keeper.state.written >= 2


def test_a_feed_that_is_deleted_ends_it_and_the_others(dw: Platform) -> None:
    other = Maintainer(dw, "Y-USD", 2)

    def run() -> None:
        with running(Maintainer(dw, PRODUCT, 2), other) as stop:
            with recorder(dw) as writer:
                writer.write_batch(SNAPSHOT, create_index=True)
                written(dw, 1)
            dw.delete_feed(FEED)
            until(stop.is_set)

    with pytest.raises(FeedNotFoundError, match="CB-L2-X-USD' was deleted"):
        run()
    assert other.state.state == "ended"


def test_it_lets_go_what_its_feed_need_not_keep(dw: Platform) -> None:
    spec = specs.snapshots_spec(PRODUCT, 2, persist=True)
    small = {"chunk_size_bytes": 5 * spec.record_size, "retain": {"bytes": 100_000}}
    dw.create_feed({**spec.to_json(), **small})
    with recorder(dw) as writer, running(Maintainer(dw, PRODUCT, 2, 0.001)):
        writer.write_batch(SNAPSHOT, create_index=True)
        until(lambda: dw[BOOKS].first > 0)


def test_states_are_shown_until_the_end(dw: Platform) -> None:
    shown: list[State] = []
    with recorder(dw) as writer:
        writer.write_batch(SNAPSHOT, create_index=True)
        keepers = [Maintainer(dw, PRODUCT, 2, 0.01), Maintainer(dw, "Y-USD", 2)]
        with running(*keepers, on_status=shown.extend, every_s=0.01):
            until(lambda: any(state.written > 1 for state in [*shown]))
    assert {state.state for state in shown if state.product == "Y-USD"} == {"waiting"}
    last = next(state for state in reversed(shown) if state.product == PRODUCT)
    assert (last.valid, last.best_bid, last.best_ask, last.bids, last.asks) == (True, (10.0, 1.0), (11.0, 2.0), 1, 1)
    assert last.l2_position == 2 and last.cpu_s > 0 and last.changes == 0
    assert {keeper.state.state for keeper in keepers} == {"ended"}


def test_the_duration_ends_it(dw: Platform) -> None:
    stop = threading.Event()
    maintain([Maintainer(dw, "Y-USD", 2)], stop, 0.02)
    assert stop.is_set()


def test_a_thread_that_can_not_be_begun_leaves_none_of_the_others(
    dw: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, stop = threading.Thread.start, threading.Event()

    def start(self: threading.Thread) -> None:
        if self.name == "book-Y-USD":
            raise RuntimeError("can't start new thread")
        plain(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="new thread"):
        maintain([Maintainer(dw, PRODUCT, 2), Maintainer(dw, "Y-USD", 2)], stop)
    assert stop.is_set() and not [each for each in threading.enumerate() if each.name.startswith("book-")]
