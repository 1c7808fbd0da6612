"""Any schema, any batches, any clock, any way to write a time: the answer is what one mask over one array gives.

The model is a single NumPy array of everything written. A range by time must be
``full[(clock >= lo) & (clock <= hi)]``, byte for byte and in position order, for readers that were there
all the time and for readers opened after the registry was lost.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pandas as pd
import pytest
from hypothesis import strategies as st

import model
from deepwater import Platform

EXAMPLES = 2_050
AT_LEAST = 200

# ------------------------------------------------------------------------------------------ what is drawn


@dataclass(frozen=True)
class Query:
    """A question, drawn before there is data: `picks` choose stamps or positions of what is there then."""

    kind: str
    clock: int
    picks: tuple[int, int]
    shifts: tuple[int, int]
    forms: tuple[str, str]
    suffix: str
    inclusive: str


@dataclass(frozen=True)
class Plan:
    """A feed, what is written to it and how, and what is asked."""

    fields: list[dict[str, str]]
    clocks: list[str]
    kinds: list[str]
    chunk_rows: int
    batches: list[tuple[str, int]]
    seed: int
    registry: str
    queries: list[Query]


_TYPES = (*model.CODES, "char[3]", "char[8]", "int16[3]", "float64[2]", "uint8[5]")


@st.composite
def schemas(draw: st.DrawFn) -> tuple[list[dict[str, str]], list[str]]:
    """Fields in any order with one to three clocks, aligned or not; the primary clock is the first of them."""
    clocks = ["ts_us", "recv_us", "ev_us"][: draw(st.integers(1, 3))]
    kinds = draw(st.lists(st.sampled_from(_TYPES), max_size=5))
    fields = [{"name": f"f{k}", "type": kind} for k, kind in enumerate(kinds)]
    fields += [{"name": name, "type": "uint64"} for name in clocks]
    fields += [{"name": "_", "type": f"_{n}"} for n in draw(st.lists(st.integers(1, 9), max_size=2))]
    return draw(st.permutations(fields)), clocks


_PICK = st.integers(0, 1000)
_FORM = st.sampled_from((*model.FORMS, "int", "int", "aware", "us", "ms", "none"))
_QUERIES = st.builds(
    Query,
    kind=st.sampled_from(("read", "read", "read", "read", "asof", "last", "last_rows", "rows", "columns", "of")),
    clock=st.integers(0, 2),
    picks=st.tuples(_PICK, _PICK),
    shifts=st.tuples(*2 * [st.sampled_from((0, 0, 0, 0, -1, 1, -100, 100, -(10**9), 10**9, -model.DAY_US,
    30 * model.DAY_US))]),
    forms=st.tuples(_FORM, _FORM),
    suffix=st.sampled_from(("", "", "Z", "+01:00", "-05:30")),
    inclusive=st.sampled_from(("both", "both", "both", "left", "right", "neither")),
)  # fmt: skip


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    fields, clocks = draw(schemas())
    kinds = [draw(st.sampled_from(model.ORDERED + (model.UNORDERED if k else ("steps", "jitter", "shuffled",
        "backfill"))))
             for k in range(len(clocks))]  # fmt: skip
    how = st.sampled_from(("exact", "exact", "columns", "values", "bytes", "swapped"))
    return Plan(
        fields, clocks, kinds, draw(st.integers(1, 40)),
        draw(st.lists(st.tuples(how, st.sampled_from((0, 1, 2, 5, 17, 40, 90))), max_size=5)),
        draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from(("kept", "lost", "garbage"))),
        draw(st.lists(_QUERIES, min_size=3, max_size=5)),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ writing


def everything(plan: Plan) -> np.ndarray:
    rng = np.random.default_rng(plan.seed)
    full = model.random_records(model.dtype_of(plan.fields), sum(rows for _, rows in plan.batches), rng)
    for name, kind in zip(plan.clocks, plan.kinds, strict=True):
        full[name] = model.clock_values(kind, len(full), rng)
    return full


def write(writer: Any, how: str, records: np.ndarray) -> None:
    """Write records in one of the ways there are; all must store the same bytes."""
    at = writer.end
    if how == "values":
        positions = [writer.write_values(*record.item()) for record in records]
        assert positions == list(range(at, at + len(records)))
        return
    if how == "bytes":
        assert writer.write_batch_bytes(records.tobytes()) == at
        return
    data: Any = records
    if how == "columns":
        data = {name: records[name] for name in reversed(records.dtype.names)}
    elif how == "swapped":  # another order of fields, big-endian, no padding
        data = np.empty(len(records), [(n, records.dtype[n].newbyteorder(">")) for n in reversed(records.dtype.names)])
        for name in records.dtype.names:
            data[name] = records[name]
    assert writer.write_batch(data) == at


# ------------------------------------------------------------------------------------------ asking


class Judge:
    """Asks a reader the questions of a plan and compares with the array; notes what was met on the way."""

    def __init__(self, plan: Plan, full: np.ndarray, seen: set[str]) -> None:
        self.plan, self.full, self.seen = plan, full, seen

    def ask(self, reader: Any, query: Query) -> None:
        assert int(reader.end) == len(reader) == len(self.full)
        clock = self.plan.clocks[query.clock % len(self.plan.clocks)]
        getattr(self, query.kind)(reader, query, clock)

    def _bounds(self, query: Query, clock: str) -> tuple[model.Bound | None, model.Bound | None]:
        """Start and end near stamps that are there, more often than not in this order."""
        stamps = self.full[clock]
        chosen = [int(stamps[pick % len(stamps)]) if len(stamps) else model.EPOCH_2026 for pick in query.picks]
        chosen = sorted(chosen) if query.picks[0] % 8 else chosen
        out: list[model.Bound | None] = []
        for us, shift, form in zip(chosen, query.shifts, query.forms, strict=True):
            us += shift
            if form == "none":
                out.append(None)
            elif 0 <= us < 4 * 10**15:
                out.append(model.bound(form, us, query.suffix))
            else:
                out.append(model.bound("int", us))
        return out[0], out[1]

    def read(self, reader: Any, query: Query, clock: str) -> None:
        start, end = self._bounds(query, clock)
        lo, hi = model.limits(start, end, query.inclusive)
        stamps = self.full[clock]
        wanted = model.mask(stamps, lo, hi)
        window = reader.read(start and start.value, end and end.value, clock=clock, inclusive=query.inclusive)
        assert len(window) == int(wanted.sum())
        assert model.content(window) == model.picked(self.full, wanted)
        assert model.content([window.to_numpy()]) == model.picked(self.full, wanted)
        if len(window):
            assert window.position == int(np.argmax(wanted))
        ordered = bool((stamps[1:] >= stamps[:-1]).all())
        self._note(stamps, ordered, lo, hi, wanted)
        if ordered and query.inclusive == "both":
            self._as_pandas(window, clock, start, end, query.forms)

    def _as_pandas(self, window: Any, clock: str, start: Any, end: Any, forms: tuple[str, str]) -> None:
        """For a sorted clock and text or aware bounds: what `.loc` gives."""
        if any(b is not None and (f not in model.PANDAS_FORMS or (not isinstance(b.value, (str,
            pd.Timestamp)) and f != "aware"))
               for b, f in zip((start, end), forms, strict=True)):  # fmt: skip
            return
        stamps = self.full[clock]
        if len(stamps) and int(stamps[-1]) > 2**62:
            return
        index = pd.DatetimeIndex(stamps.astype("M8[us]")).tz_localize("UTC")
        rows = pd.Series(np.arange(len(stamps)), index)
        try:
            rows = rows.loc[start and start.value : end and end.value]
        except ValueError as error:  # pandas does not take two bounds of different offsets at once
            assert "same UTC offset" in str(error)  # noqa: PT017
            rows = rows.loc[start and start.value :].loc[: end and end.value]
        assert model.content(window) == model.picked(self.full, rows.to_numpy())
        self.seen.add("pandas")

    def _note(self, stamps: np.ndarray, ordered: bool, lo: int, hi: int, wanted: np.ndarray) -> None:
        if not ordered:
            self.seen.add("an unsorted clock")
        if len(np.unique(stamps)) < len(stamps):
            self.seen.add("equal stamps")
        if any(0 <= b <= model.MAX_US and (stamps == np.uint64(b)).any() for b in (lo, hi)):
            self.seen.add("a bound on a record")
        if len(stamps) and not wanted.any():
            self.seen.add("an empty answer")

    def columns(self, reader: Any, query: Query, clock: str) -> None:
        start, end = self._bounds(query, clock)
        names = list(self.full.dtype.names or ())
        chosen = [names[pick % len(names)] for pick in query.picks]
        chosen = list(dict.fromkeys(chosen))
        wanted = model.mask(self.full[clock], *model.limits(start, end))
        window = reader.read(start and start.value, end and end.value, clock=clock, columns=chosen)
        array = window.to_numpy()
        assert list(array.dtype.names) == chosen
        for name in chosen:
            truth = np.ascontiguousarray(self.full[name][wanted]).tobytes()
            assert np.ascontiguousarray(window[name]).tobytes() == truth
            assert np.ascontiguousarray(array[name]).tobytes() == truth

    def last(self, reader: Any, query: Query, clock: str) -> None:
        stamps = self.full[clock]
        us = abs(query.shifts[0]) + query.picks[0]
        newest = int(stamps.max()) if len(stamps) else 0
        back: Any = f"{us}us" if query.picks[1] % 2 else timedelta(microseconds=us)
        wanted = model.mask(stamps, max(0, newest - us), newest)
        assert model.content(reader.read(last=back, clock=clock)) == model.picked(self.full, wanted)

    def last_rows(self, reader: Any, query: Query, clock: str) -> None:
        rows = query.picks[0] % 60
        wanted = model.picked(self.full, slice(max(0, len(self.full) - rows), None))
        for window in (reader.read(last=rows), reader.latest(rows)):
            assert model.content(window) == wanted

    def rows(self, reader: Any, query: Query, clock: str) -> None:
        first, stop = query.picks
        assert model.content(reader.rows(first, stop)) == model.picked(self.full, slice(first, max(first, stop)))
        for cut in (
            slice(first, stop),
            slice(-first, None),
            slice(None, -stop),
            slice(-first, -stop),
            slice(first, None),
        ):
            window = reader[cut]
            assert model.content(window) == model.picked(self.full, cut), cut
            inner = window[3:9]
            assert model.content(inner) == model.picked(self.full, cut)[3 * self._size : 9 * self._size]
        if len(self.full):
            at = first % len(self.full)
            assert reader[at].tobytes() == reader[at - len(self.full)].tobytes() == self.full[at].tobytes()

    @property
    def _size(self) -> int:
        return self.full.dtype.itemsize

    def asof(self, reader: Any, query: Query, clock: str) -> None:
        stamps = self.full[clock]
        near = stamps[: query.picks[0] % 50].astype(np.uint64)
        with np.errstate(over="ignore"):
            times = np.concatenate(
                [near, near + np.uint64(1), near - np.uint64(1), np.array([0, 10**15, 2**63], np.uint64)]
            )
        answer = reader.asof(times, clock=clock)
        wanted = model.asof(stamps, times)
        assert answer.positions.tolist() == wanted.tolist()
        assert model.content([answer.records()]) == model.picked(self.full, wanted[wanted >= 0])
        near_enough = reader.asof(times, clock=clock, tolerance="50us")
        age = times - stamps[wanted] if len(stamps) else times
        assert near_enough.positions.tolist() == np.where((wanted >= 0) & (age <= 50), wanted, -1).tolist()

    def of(self, reader: Any, query: Query, clock: str) -> None:
        """`position_of`: the first position at or after a time on the primary clock, then every one."""
        stamps = self.full[self.plan.clocks[0]]
        start, _ = self._bounds(query, self.plan.clocks[0])
        if start is None:
            return
        late = stamps >= np.uint64(max(0, start.first))
        at = int(np.argmax(late)) if late.any() else len(stamps)
        assert reader.position_of(start.value) == at
        with reader.follow(start.value, timeout=0) as follower:
            assert model.content(follower) == model.picked(self.full, slice(at, None))


# ------------------------------------------------------------------------------------------ the test


def run(dw: Platform, name: str, plan: Plan, seen: set[str]) -> None:
    full = everything(plan)
    size = full.dtype.itemsize
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(not aligned|multiple of 8|misaligned).*")
        dw.create_feed({"feed_name": name, "fields": plan.fields, "ts_col": plan.clocks[0],
                        "chunk_size_bytes": plan.chunk_rows * size})  # fmt: skip
    directory = Path(dw.base_path) / "data" / name
    live, at = dw[name], 0
    with dw.create_writer(name) as writer:
        for number, (how, rows) in enumerate(plan.batches):
            write(writer, how, full[at : at + rows])
            at += rows
            Judge(plan, full[:at], seen).ask(live, plan.queries[number % len(plan.queries)])
    if plan.registry == "lost":
        (directory / f"{name}.reg").unlink(missing_ok=True)
    elif plan.registry == "garbage":
        (directory / f"{name}.reg").write_bytes(np.random.default_rng(plan.seed).bytes(5000))
    assert model.stored(directory) == full.tobytes()
    judge = Judge(plan, full, seen)
    for reader in (live, dw[name]):
        for query in plan.queries:
            judge.ask(reader, query)
        reader.close()
    if len(full) > 2 * plan.chunk_rows:
        seen.add("three chunks or more")
    dw.delete_feed(name)


@pytest.mark.slow
def test_every_answer_is_the_mask_over_one_array(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least 2,000 feeds; what they met is counted, so that the oracle cannot quietly stop asking."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # power cuts are not the subject here
    met: Counter[str] = Counter()
    with Platform(tmp_store) as dw:

        @hypothesis.settings(max_examples=EXAMPLES)
        @hypothesis.given(plans())
        def check(plan: Plan) -> None:
            met["examples"] += 1
            seen: set[str] = set()
            run(dw, f"feed{met['examples']}", plan, seen)
            met.update(seen)

        check()
    print("oracle:", ", ".join(f"{count} {what}" for what, count in sorted(met.items())))
    assert met["examples"] >= 2_000
    for what in (
        "three chunks or more",
        "equal stamps",
        "an unsorted clock",
        "a bound on a record",
        "an empty answer",
        "pandas",
    ):
        assert met[what] >= AT_LEAST, what
