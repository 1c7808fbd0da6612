"""One feed's way out: the clock that never steps back, and a disk that is full for a while."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_sink import MemoryFeed

from deepwater.apps import specs
from deepwater.apps.counters import Counters, Latency
from deepwater.apps.outlet import Outlet
from deepwater.errors import CorruptFileError

SECOND = 1_000_000


def outlet(times: list[int], last_us: int = 0) -> tuple[Outlet, MemoryFeed, Counters]:
    feed = MemoryFeed(specs.spec(specs.TRADES, "A-USD"))
    counters = Counters()
    clock = iter(times)
    return Outlet(feed.spec.feed_name, feed, counters, last_us, lambda: next(clock)), feed, counters


def records(count: int) -> np.ndarray:
    return np.zeros(count, specs.dtype(specs.TRADES))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(0, 100))
def test_proc_us_never_steps_back(times: list[int], last_us: int) -> None:
    out, feed, _ = outlet(times, last_us)
    for _ in times:
        out.write(records(2))
    stamps = feed.records["proc_us"].tolist()
    assert stamps == sorted(stamps)
    assert min(stamps) >= last_us
    assert max(stamps) == max(*times, last_us)


def test_an_empty_write_is_none() -> None:
    out, feed, _ = outlet([])
    assert out.write(records(0), snapshot=True)
    assert feed.batches == []


def test_a_full_disk_is_outlived_and_marked() -> None:
    out, feed, counters = outlet([10, 20, 30, 40, 50])
    assert out.write(records(1))
    feed.full = True
    assert not out.write(records(2))
    assert not out.write(records(3))
    assert out.full
    feed.full = False
    assert out.write(records(4))
    assert not out.full
    assert [len(batch) for batch, _ in feed.batches] == [1, 4]
    (gap,) = feed.gaps
    assert gap["reason"].startswith("storage full")
    del gap["reason"]
    assert gap == {"position": 1, "lost": 5, "from_us": 10, "to_us": 40}
    assert counters.unstored == 5
    assert counters.feeds == {"CB-TRADES-A-USD": 5}


def test_a_gap_that_can_not_be_marked_is_marked_later() -> None:
    out, feed, _ = outlet([10, 20, 30])
    out.write(records(1))
    feed.full = True
    out.gap(lost=None, from_us=11, to_us=12, reason="reconnect: x")
    feed.full = False
    out.write(records(1))
    (gap,) = feed.gaps
    assert (gap["position"], gap["lost"], gap["reason"]) == (1, None, "reconnect: x")


def test_the_end_of_a_recording_marks_what_is_left() -> None:
    out, feed, counters = outlet([10, 20, 30])
    feed.full = True
    out.write(records(2))
    out.settle()
    assert "no space" in counters.last_error
    assert not feed.gaps
    feed.full = False
    out.settle()
    assert [gap["lost"] for gap in feed.gaps] == [2]


def test_reasons_are_cut_to_a_mark_at_a_character() -> None:
    out, feed, _ = outlet([])
    out.gap(lost=1, from_us=5, to_us=3, reason="µ" * 50)
    assert feed.gaps == [{"position": 0, "lost": 1, "from_us": 5, "to_us": 5, "reason": "µ" * 36}]


def test_any_other_failure_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    out, feed, _ = outlet([10])

    def broken(*_: object, **__: object) -> int:
        raise CorruptFileError("chunk is damaged")

    monkeypatch.setattr(feed, "write_batch", broken)
    with pytest.raises(CorruptFileError):
        out.write(records(1))


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60), st.floats(0, 1))
def test_quantiles_are_upper_bounds_within_a_factor_of_two(values: list[int], q: float) -> None:
    latency = Latency()
    for us in values:
        latency.add(us)
    exact = sorted(values)[max(int(np.ceil(q * len(values))) - 1, 0)]
    assert exact <= latency.quantile_us(q) <= max(2 * exact, exact)
    assert latency.max_us == max(values)
    assert latency.to_json()["count"] == len(values)


def test_a_disk_with_room_for_marks_only_is_not_marked_with_every_frame() -> None:
    frames = 100_000
    out, feed, counters = outlet([at * 10_000 for at in range(1, frames + 3)])  # 1000 s, 100 frames a second
    out.write(records(1))
    feed.full, feed.marks_full = True, False
    for _ in range(frames):
        assert not out.write(records(1))
    assert 5 <= len(feed.gaps) <= 30
    feed.full = False
    out.settle()
    assert sum(gap["lost"] for gap in feed.gaps) == frames == counters.unstored


def test_space_is_found_within_the_minute_and_tried_for_at_once_the_next_time() -> None:
    out, feed, _ = outlet([SECOND * at for at in (1, 2, 3, 4, 5, 6, 7, 8, 9)])
    out.write(records(1))
    feed.full, feed.marks_full = True, False
    assert [out.write(records(1)) for _ in range(2)] == [False, False]
    feed.full = False
    assert [out.write(records(1)) for _ in range(2)] == [True, True]
    feed.full = True
    assert not out.write(records(1))
    feed.full = False
    assert out.write(records(1))


def test_a_clock_set_back_does_not_keep_a_feed_waiting() -> None:
    out, feed, _ = outlet([SECOND, 10**6 * SECOND, 10**6 * SECOND, 2 * SECOND])
    out.write(records(1))
    feed.full, feed.marks_full = True, False
    assert [out.write(records(1)) for _ in range(2)] == [False, False]
    feed.full = False
    assert out.write(records(1))
