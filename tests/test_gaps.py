"""Where a feed is contiguous: held to loops over single records, and to sets of microseconds."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepwater import Platform, RecordError, TimeFormatError, cuts
from deepwater.gaps import INTERVAL_DTYPE, SPAN_DTYPE, Contiguity, common, contiguous
from deepwater.index import MARK_DTYPE
from gap_kit import FIELDS, MAX_US, STEPS, Mark, Told, as_marks, oldest_removed, random_steps, tell

RANGES = st.one_of(
    st.just((None, None)), st.tuples(st.integers(1, 700), st.integers(1, 700)).map(lambda x: tuple(sorted(x)))
)
PAUSES = st.one_of(st.none(), st.integers(1, 70))


def brute(told: Told, first: int, values: list[int], primary: bool, bounds: tuple[int, int], pause: int | None) -> Any:
    """Spans and gaps of positions from `first` on, record by record."""
    lo, hi = bounds
    end = len(values)
    a, b = first, end
    if bounds != (0, MAX_US):
        within = [p for p in range(first, end) if lo <= values[p] <= hi]
        above = [p for p in range(first, end) if values[p] >= lo]
        a, b = (within[0], within[-1] + 1) if within else [above[0] if above else end] * 2
    gaps = []
    for mark in told.marks:
        before_all = primary and mark.position == a and 0 < mark.to_us < lo
        after_all = primary and mark.position == b and mark.from_us > hi
        if a <= mark.position <= b and not before_all and not after_all:
            gaps.append(mark)
    if first > 0 and a == first:
        gaps.append(Mark(first, "removed", lost=first))
    reached = 0
    for p in range(max(first, a - 1), min(end, b + 1)):
        if pause is not None and values[p] != MAX_US and 0 < reached < values[p] - pause:
            gaps.append(Mark(p, "silence", reached, values[p]))
        if values[p] != MAX_US:
            reached = max(reached, values[p])
    edges = [a, *sorted({gap.position for gap in gaps}), b]
    times = [[v for v in values[s:t] if 0 < v < MAX_US] for s, t in pairwise(edges)]
    spans = []
    for k, (start, stop) in enumerate(pairwise(edges)):
        since, until = (min(times[k]), max(times[k])) if times[k] else (MAX_US, 0)
        before = max((max(t) for t in times[:k] if t), default=-1)
        after = min((min(t) for t in times[k + 1 :] if t), default=MAX_US + 1)
        here = [gap for gap in gaps if gap.position == start] if k else []
        if k == 0 and a > first:
            since = min(since, lo)
        elif here and primary and all(gap.kind == "gap" and gap.to_us for gap in here):
            since = min(since, max(before + 1, *(gap.to_us for gap in here)))
        here = [gap for gap in gaps if gap.position == stop] if k < len(times) - 1 else []
        if k == len(times) - 1 and b < end:
            until = max(until, hi)
        elif here and primary and all(gap.kind == "gap" and gap.from_us for gap in here):
            until = max(until, min(after - 1, *(gap.from_us for gap in here)))
        since, until = max(since, lo), min(until, hi)
        known = since <= until and until > 0
        if start < stop or known:
            own = (min(times[k]), max(times[k])) if times[k] else (0, 0)
            spans.append((start, stop, stop - start, *own, *((since, until) if known else (0, 0))))
    return spans, sorted(gaps, key=lambda gap: gap.position)


def microseconds(spans: list[Any]) -> set[int]:
    """Those in exactly one span."""
    counts: dict[int, int] = {}
    for *_, since, until in spans:
        for t in range(since, until + 1) if until else ():
            counts[t] = counts.get(t, 0) + 1
    return {t for t, count in counts.items() if count == 1}


def as_set(intervals: np.ndarray) -> set[int]:
    """The microseconds of intervals, which must be ascending and apart."""
    found = [t for a, b in intervals.tolist() for t in range(a, b + 1)]
    assert found == sorted(set(found))
    return set(found)


def check(
    found: Contiguity, told: Told, first: int, clock: str, bounds: tuple[Any, Any], pause: int | None
) -> list[Any]:
    values = told.ts if clock == "ts_us" else told.ev
    limits = (bounds[0] or 0, MAX_US if bounds[1] is None else bounds[1])
    spans, gaps = brute(told, first, values, clock == "ts_us", limits, pause)
    assert (found.spans.dtype, found.gaps.dtype) == (SPAN_DTYPE, MARK_DTYPE)
    assert as_marks(found.gaps) == gaps
    assert found.spans.tolist() == spans
    assert as_set(found.intervals()) == microseconds(spans)
    assert found.records == sum(span[2] for span in spans)
    assert 0 <= found.share <= 1
    return spans


def compare(store: Path, steps: list[Any], in_order: bool, ranges: list[Any], pause: int | None, removed: int) -> None:
    """Hold what is found in a feed against the loop: all of it and ranges, of two clocks."""
    with Platform(store) as dw:
        told = tell(dw, "F", steps, in_order=in_order)
        reader = dw["F"]
        assert as_marks(reader.gaps()) == told.marks
        if removed < len(reader._chain):  # with the marks of their chunks
            oldest_removed(reader, removed)
            told = told._replace(marks=as_marks(reader.gaps()))
        for bounds in [(None, None), *ranges]:
            for clock in ("ts_us", "ev_us"):
                found = contiguous(reader, *bounds, clock=clock, silence=None if pause is None else f"{pause}us")
                check(found, told, reader.first, clock, bounds, pause)


@settings(max_examples=30)
@given(steps=STEPS, in_order=st.booleans(), ranges=st.lists(RANGES, min_size=2, max_size=2), pause=PAUSES)
def test_spans_and_gaps_are_those_of_a_loop_over_records(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any], in_order: bool, ranges: list[Any], pause: int | None
) -> None:
    """Writes, marks anywhere (several at one place, at 0, at the end), rotations, clocks of any order."""
    compare(tmp_path_factory.mktemp("gaps") / "store", steps, in_order, ranges, pause, 0)


@pytest.mark.parametrize("block", [1, 3, 1 << 18])
def test_they_are_in_long_feeds_too(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feeds as they are likely, beginnings that retention removed, ranges that cut them, blocks of any size."""
    monkeypatch.setattr(cuts, "BLOCK_ROWS", block)
    for seed in range(40):
        rng = np.random.default_rng([block, seed])
        steps = random_steps(rng)
        ranges = [
            tuple(sorted(rng.integers(low, high, 2).tolist()))
            for low, high in [(1, 90), (95, 400), (100, 200), (120, 900)]
        ]
        pause = int(rng.integers(1, 25)) if seed % 2 else None
        compare(tmp_path / str(seed), steps, seed % 4 < 3, ranges, pause, int(rng.integers(0, 3)))


@settings(max_examples=20)
@given(all_steps=st.lists(STEPS, min_size=1, max_size=3), bounds=RANGES, pause=PAUSES)
def test_the_spans_common_to_feeds_are_the_microseconds_of_all(
    tmp_path_factory: pytest.TempPathFactory, all_steps: list[Any], bounds: Any, pause: int | None
) -> None:
    with Platform(tmp_path_factory.mktemp("gaps") / "store") as dw:
        silence = None if pause is None else f"{pause}us"
        names = [f"F{k}" for k in range(len(all_steps))]
        wanted: set[int] | None = None
        for name, steps in zip(names, all_steps, strict=True):
            told = tell(dw, name, steps)
            spans, _ = brute(told, 0, told.ts, True, (bounds[0] or 0, bounds[1] or MAX_US), pause)
            here = microseconds(spans)
            wanted = here if wanted is None else wanted & here
        found = common([dw[name] for name in names], *bounds, silence=silence)
        assert found.dtype == INTERVAL_DTYPE and as_set(found) == wanted
        ready = [contiguous(dw[name], *bounds, silence=silence) for name in names]
        assert common(ready).tolist() == found.tolist()
        assert (
            common([ready[0], *map(dw.create_reader, names[1:])], *bounds, silence=silence).tolist() == found.tolist()
        )


def test_they_are_common_in_long_feeds_too(tmp_store: Path) -> None:
    rng = np.random.default_rng(1)
    with Platform(tmp_store) as dw:
        told = {f"F{k}": tell(dw, f"F{k}", random_steps(rng)) for k in range(8)}
        sets = {name: microseconds(brute(t, 0, t.ts, True, (0, MAX_US), None)[0]) for name, t in told.items()}
        shared = 0
        for names in (rng.permutation(list(told))[: rng.integers(2, 4)].tolist() for _ in range(30)):
            wanted = set.intersection(*(sets[name] for name in names))
            assert as_set(common([dw[name] for name in names])) == wanted
            shared += len(wanted)
        assert shared > 1000


# --- by hand -----------------------------------------------------------------------------------------


@pytest.fixture
def dw(tmp_store: Path) -> Any:
    with Platform(tmp_store) as platform:
        yield platform


def whole(found: Contiguity) -> list[tuple[int, ...]]:
    return found.spans[["first", "stop", "whole_from_us", "whole_to_us"]].tolist()


def test_a_quiet_feed_is_whole_up_to_what_its_marks_say(dw: Platform) -> None:
    """Records at 110 and 400; something was missed from 200 to 210: not from 110 to 400."""
    dw.create_feed({"feed_name": "Q", "ts_col": "ts_us", "fields": FIELDS})
    with dw.create_writer("Q") as writer:
        writer.write_values(110, 9, 0)
        writer.mark_gap(2, 200, 210, "sequence 7 to 9")
        writer.write_values(400, 9, 1)
    found = contiguous(dw["Q"])
    assert whole(found) == [(0, 1, 110, 200), (1, 2, 210, 400)]
    assert (found.extent, found.covered_us, found.records) == ((110, 400), 280, 2)
    assert found.share == pytest.approx(280 / 290)
    assert (int(found.gaps["count"][0]), found.gaps["reason"][0], found.gaps["from_us"].tolist()) == (
        2,
        b"sequence 7 to 9",
        [200],
    )
    # Nothing happened, and nothing was missed: a span without records.
    assert whole(contiguous(dw["Q"], 300, 350)) == [(1, 1, 300, 350)]
    assert contiguous(dw["Q"], 300, 350).share == 1 and len(contiguous(dw["Q"], 300, 350).gaps) == 0
    assert whole(contiguous(dw["Q"], 190, 220)) == [(1, 1, 190, 200), (1, 1, 210, 220)]
    assert contiguous(dw["Q"], 190, 220).share == pytest.approx(20 / 30)
    # Before the first and after the last record nothing is known.
    assert whole(contiguous(dw["Q"], 1, 105)) == [] == whole(contiguous(dw["Q"], 401, 500))
    assert contiguous(dw["Q"], 1, 105).share == 0 and contiguous(dw["Q"], 5, 1).extent is None
    # The marks' times are of the primary clock.
    assert contiguous(dw["Q"], clock="ev_us").spans["whole_to_us"].tolist() == [9, 9]
    text = repr(found)
    assert text.startswith("<Contiguity of 'Q' on ts_us: 2 spans, 1 gap, 96.55% covered")
    assert "positions 1 to 2: 1970-01-01T00:00:00.000210Z to 1970-01-01T00:00:00.000400Z, 1 record>" in text


def test_what_two_spans_share_is_in_no_interval(dw: Platform) -> None:
    """The clock steps back behind the gap: the missing records may be of any time that both sides have."""
    tell(dw, "F", [("write", [(0, 1), (100, 1)]), ("gap", 0, 0, None), ("write", [(60, 1), (200, 1)])], in_order=False)
    found = contiguous(dw["F"])
    assert found.spans[["from_us", "to_us"]].tolist() == [(100, 200), (160, 300)]
    assert found.intervals().tolist() == [(100, 159), (201, 300)]
    # One microsecond on both sides of a gap is enough: records of it may be missing.
    tell(dw, "TIE", [("write", [(10, 0)]), ("gap", 0, 0, None), ("write", [(0, 0), (5, 0)])])
    assert contiguous(dw["TIE"]).intervals().tolist() == [(111, 115)]
    # Neighbours stay apart: the gap is between them.
    tell(dw, "NEXT", [("write", [(10, 0)]), ("gap", 0, 0, None), ("write", [(1, 0), (5, 0)])])
    assert contiguous(dw["NEXT"]).intervals().tolist() == [(110, 110), (111, 116)]
    assert common([dw["NEXT"], dw["NEXT"]]).tolist() == [(110, 110), (111, 116)]


def test_no_feed_no_records_no_such_clock(dw: Platform) -> None:
    tell(dw, "EMPTY", [])
    tell(dw, "MARKED", [("gap", 3, 3, 1)])
    full = tell(dw, "F", [("write", [(1, 0)])])
    assert full.ev == [0] and contiguous(dw["F"], clock="ev_us").spans.tolist() == [(0, 1, 1, 0, 0, 0, 0)]
    for name, gaps in (("EMPTY", 0), ("MARKED", 1)):
        found = contiguous(dw[name], silence="1s")
        assert (len(found.spans), len(found.gaps), found.share, found.extent) == (0, gaps, 0.0, None)
        assert len(common([dw[name], dw["F"]])) == 0 and "0 spans" in repr(found)
    with pytest.raises(ValueError, match="at least one reader"):
        common([])
    with pytest.raises(RecordError, match="'n' is no clock"):
        contiguous(dw["F"], clock="n")
    with pytest.raises(TimeFormatError, match="duration 5"):
        contiguous(dw["F"], silence=5)
    assert common([dw["F"], dw["F"]], clock={"F": "ev_us"}).tolist() == []


def test_a_ring_knows_only_what_it_has_overwritten(dw: Platform) -> None:
    dw.create_feed(
        {"feed_name": "R", "ts_col": "ts_us", "fields": FIELDS, "persist": False, "chunk_size_bytes": 24 * 10}
    )
    with dw.create_writer("R") as writer:
        for k in range(8):
            writer.write_values(100 + k, 7, k)
        assert whole(contiguous(dw["R"])) == [(0, 8, 100, 107)]
        for k in range(8, 14):
            writer.write_values(200 + k, 50 - k, k)
        reader = dw["R"]
        for silence, cut in ((None, []), ("50us", [8]), ("102us", [])):
            found = contiguous(reader, silence=silence)
            assert [gap[0] for gap in found.gaps.tolist()] == [4, *cut]
            assert found.spans["first"].tolist() == [4, *cut] and int(found.spans["stop"][-1]) == 14
            assert as_marks(found.gaps[:1]) == [Mark(4, "removed", lost=4)]
        assert contiguous(reader, clock="ev_us").spans[["from_us", "to_us"]].tolist() == [(7, 42)]
    dw.delete_feed("R")


def test_a_pause_is_looked_for_only_where_one_can_be(dw: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of twenty chunks two can hold a pause of 500 µs; without one no chunk is opened but those that a gap cuts."""
    steps: list[Any] = [
        ("write", [(1, 1)] * 40),
        ("write", [(900, 2)] + [(1, 2)] * 18),
        ("gap", 1, 1, 1),
        ("write", [(1, 3)] * 21),
    ]
    told = tell(dw, "F", steps)
    opened: list[int] = []
    column = type(dw["F"]._chain).column
    monkeypatch.setattr(type(dw["F"]._chain), "column", lambda *a: opened.append(a[1]) or column(*a))
    assert len(contiguous(dw["F"]).spans) == 2
    assert opened == [14]  # positions 56 to 59: the gap is before 59
    opened.clear()
    found = contiguous(dw["F"], silence="500us")
    assert found.spans["first"].tolist() == [0, 40, 59]
    assert len(set(opened)) <= 4 and len(dw["F"]._chain) >= 20
    assert found.gaps["from_us"].tolist()[0] == told.ts[39]


def test_bounds_that_run_ahead_of_an_unsorted_clock_are_not_believed(dw: Platform) -> None:
    """The header of the newest chunk allows for a second more on both sides."""
    dw.create_feed({"feed_name": "J", "ts_col": "ts_us", "fields": FIELDS})
    with dw.create_writer("J") as writer:
        for k, step in enumerate((0, 3, 1, 2, 9, 5)):
            writer.write_values(10**15 + step, 10**15 - step, k)
        assert contiguous(dw["J"]).spans[["from_us", "to_us"]].tolist() == [(10**15, 10**15 + 9)]
        assert contiguous(dw["J"], clock="ev_us").spans[["from_us", "to_us"]].tolist() == [(10**15 - 9, 10**15)]
        assert contiguous(dw["J"], silence="5us").gaps[["position", "from_us"]].tolist() == [(4, 10**15 + 3)]
