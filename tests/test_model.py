"""A feed is a list: random operations on the real thing and on a Python list, agreeing at every step.

Readers, followers and arrays are kept while the writer is closed and opened again, chunks are resized, the
registry is lost and the feed is deleted and made anew.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import model
from deepwater import Platform, RecordError, SchemaError
from deepwater.index import UNKNOWN

SPEC: dict[str, Any] = {
    "feed_name": "F", "ts_col": "ts_us", "index_playback": True,
    "fields": [{"name": "side", "type": "char"}, {"name": "_", "type": "_7"}, {"name": "ts_us", "type": "uint64"},
               {"name": "ev_us", "type": "uint64"}, {"name": "price", "type": "float64"}, {"name": "ok",
               "type": "bool"},
               {"name": "_", "type": "_7"}],
}  # fmt: skip
DTYPE = model.dtype_of(SPEC["fields"])
SIZE = DTYPE.itemsize
STEPS: list[str] = []


class FeedMachine(RuleBasedStateMachine):
    """`records` is the feed's content as one list of packed records, `marks` its marks."""

    def __init__(self) -> None:
        super().__init__()
        self.base = tempfile.mkdtemp()
        self.dw = Platform(self.base)
        self.records: list[bytes] = []
        self.marks: list[tuple[int, bytes, int]] = []
        self.readers: list[Any] = []
        self.followers: list[tuple[Any, int, list[np.ndarray]]] = []
        self.kept: list[tuple[np.ndarray, bytes]] = []
        self.writer: Any = None
        self.seed = 0

    @initialize(chunk_rows=st.integers(1, 12))
    def create(self, chunk_rows: int) -> None:
        self.dw.create_feed({**SPEC, "chunk_size_bytes": chunk_rows * SIZE})
        self.writer = self.dw.create_writer("F")
        self.readers = [self.dw["F"]]

    # --- writing -----------------------------------------------------------------------------------

    def some(self, rows: int) -> np.ndarray:
        self.seed += 1
        rng = np.random.default_rng(self.seed)
        batch = model.random_records(DTYPE, rows, rng)
        at = len(self.records) + model.EPOCH_2026
        batch["ts_us"] = np.arange(at, at + rows) // 3  # stamps are shared
        batch["ev_us"] = at + rng.integers(0, 5, rows)
        return batch

    def took(self, position: int, batch: np.ndarray) -> None:
        assert position == len(self.records)
        raw = batch.tobytes()
        self.records += [raw[at : at + SIZE] for at in range(0, len(raw), SIZE)]

    @precondition(lambda self: self.writer)
    @rule(times=st.integers(1, 4), snapshot=st.booleans())
    def write_values(self, times: int, snapshot: bool) -> None:
        for record in self.some(times):
            if snapshot:
                self.marks.append((len(self.records), b"snapshot", 0))
            position = self.writer.write_values(*record.item(), create_index=snapshot)
            self.took(position, record.reshape(1))

    @precondition(lambda self: self.writer)
    @rule(rows=st.integers(0, 14), how=st.sampled_from(("exact", "columns", "bytes")), snapshot=st.booleans())
    def write_batch(self, rows: int, how: str, snapshot: bool) -> None:
        self.write_rows(rows, how, snapshot and rows > 0)

    @precondition(lambda self: self.writer)
    @rule(rows=st.integers(15, 60), snapshot=st.booleans())
    def write_more_than_a_chunk(self, rows: int, snapshot: bool) -> None:
        self.write_rows(rows, "exact", snapshot)

    def write_rows(self, rows: int, how: str, snapshot: bool) -> None:
        batch = self.some(rows)
        if snapshot:
            self.marks.append((len(self.records), b"snapshot", rows))
        if how == "bytes":
            position = self.writer.write_batch_bytes(batch.tobytes(), create_index=snapshot)
        else:
            data = batch if how == "exact" else {name: batch[name] for name in DTYPE.names}
            position = self.writer.write_batch(data, create_index=snapshot)
        self.took(position, batch)

    @precondition(lambda self: self.writer)
    @rule(rows=st.integers(1, 30), row=st.integers(0, 29), column=st.sampled_from(("ts_us", "side", "ok", "missing")))
    def write_what_does_not_fit(self, rows: int, row: int, column: str) -> None:
        batch = self.some(rows)
        data: dict[str, Any] = {name: batch[name].tolist() for name in DTYPE.names}
        wrong = {"ts_us": -1, "side": b"xy", "ok": 2}
        if column == "missing":
            del data["price"]
        else:
            data[column][row % rows] = wrong[column]
        with pytest.raises(RecordError):
            self.writer.write_batch(data)
        with pytest.raises(RecordError):
            self.writer.write_values(*batch[0].item()[:-1])

    @precondition(lambda self: self.writer)
    @rule(lost=st.none() | st.integers(0, 9))
    def mark_gap(self, lost: int | None) -> None:
        assert self.writer.mark_gap(lost, reason="r") == len(self.records)
        self.marks.append((len(self.records), b"gap", UNKNOWN if lost is None else lost))

    @precondition(lambda self: self.writer)
    @rule(chunk_rows=st.integers(0, 20))
    def resize(self, chunk_rows: int) -> None:
        if chunk_rows == 0:
            with pytest.raises(SchemaError):
                self.writer.resize_chunk_size(SIZE - 1)
        else:
            self.writer.resize_chunk_size(chunk_rows * SIZE)

    @precondition(lambda self: self.writer)
    @rule()
    def flush(self) -> None:
        assert self.writer.flush() == len(self.records)
        with self.dw["F"] as reader:
            assert self.dw.describe_feed("F")["durable"] == len(reader)

    @rule()
    def close_or_open(self) -> None:
        if self.writer:
            self.writer.close()
            self.writer = None
        else:
            self.writer = self.dw.create_writer("F")
            assert self.writer.end == len(self.records)

    @rule(
        how=st.sampled_from(("removed", "empty", "garbage", "short")),
        which=st.sampled_from(("data/F/F.reg", "registry.bin")),
    )
    def lose_registry(self, how: str, which: str) -> None:
        """Also under an open writer. Never cut in place: whoever has it mapped would be killed."""
        path = Path(self.base) / which
        if not path.exists():
            return
        data = path.read_bytes()
        path.unlink()
        if how != "removed":
            path.write_bytes({"empty": b"", "garbage": os.urandom(20_000), "short": data[:16_500]}[how])

    @rule()
    def delete_and_make_anew(self) -> None:
        old = self.readers[-1].end
        if self.writer:
            self.writer.close()
        for _, _, got in self.followers:
            self.keep_all(got)
        self.readers.clear()
        self.followers.clear()
        self.dw.delete_feed("F")
        self.records, self.marks = [], []
        self.dw.create_feed({**SPEC, "chunk_size_bytes": 5 * SIZE})
        self.writer, self.readers = self.dw.create_writer("F"), [self.dw["F"]]
        with pytest.raises(RecordError, match="another life"):
            self.readers[0].follow(position=old)

    # --- reading -----------------------------------------------------------------------------------

    @rule()
    def open_reader(self) -> None:
        self.readers = [*self.readers[-2:], self.dw["F"]]

    @rule(back=st.integers(0, 40), batch=st.none() | st.integers(1, 9))
    def follow(self, back: int, batch: int | None) -> None:
        at = max(0, len(self.records) - back)
        follower = self.readers[0].follow(position=at, timeout=0, batch=batch)
        self.followers = [*self.followers[-3:], (follower, at, [])]

    @precondition(lambda self: self.followers)
    @rule(take=st.integers(1, 5))
    def resume_where_a_follower_stands(self, take: int) -> None:
        follower, at, got = self.followers[0]
        for _ in range(take):
            if (batch := next(follower, None)) is not None:
                got.append(batch)
        self.followers[0] = (self.dw["F"].follow(position=follower.position, timeout=0), at, got)

    @rule(first=st.integers(0, 200), rows=st.integers(0, 50))
    def keep_an_array(self, first: int, rows: int) -> None:
        window = self.readers[-1].rows(first, first + rows)
        self.keep_all(list(window))
        assert model.content(window) == b"".join(self.records[first : first + rows])

    def keep_all(self, arrays: list[np.ndarray]) -> None:
        self.kept = [*self.kept[-30:], *((array, model.content([array])) for array in arrays)]

    # --- what must hold after each step ----------------------------------------------------------------

    @invariant()
    def readers_agree(self) -> None:
        whole = b"".join(self.records)
        for reader in self.readers:
            assert (reader.first, reader.end, len(reader)) == (0, len(self.records), len(self.records))
            assert model.content(reader.rows(0, len(self.records) + 1)) == whole
            assert [(int(m["position"]), bytes(m["kind"]), int(m["count"])) for m in reader.marks()] == self.marks
        assert len(self.readers[-1].snapshots()) == sum(kind == b"snapshot" for _, kind, _ in self.marks)
        assert len(self.readers[-1].gaps()) == sum(kind == b"gap" for _, kind, _ in self.marks)
        snapshots = [position for position, kind, _ in self.marks if kind == b"snapshot"]
        if snapshots:
            assert model.content(self.readers[-1].playback()) == b"".join(self.records[snapshots[-1] :])
        STEPS.append("")

    @invariant()
    def files_agree(self) -> None:
        assert model.stored(Path(self.base) / "data" / "F") == b"".join(self.records)

    @invariant()
    def followers_agree(self) -> None:
        for follower, at, got in self.followers:
            got += follower
            assert model.content(got) == b"".join(self.records[at:])
            assert follower.position == len(self.records)

    @invariant()
    def arrays_handed_out_stay(self) -> None:
        for array, truth in self.kept:
            assert not array.flags.writeable
            assert model.content([array]) == truth

    def teardown(self) -> None:
        self.dw.close()
        self.readers.clear()
        self.followers.clear()
        self.arrays_handed_out_stay()
        shutil.rmtree(self.base)


@pytest.mark.slow
def test_a_feed_is_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    STEPS.clear()
    settings = hypothesis.settings(max_examples=80, stateful_step_count=40)
    run_state_machine_as_test(FeedMachine, settings=settings)
    print(f"model: {len(STEPS)} steps agreed")
    assert len(STEPS) >= 1_000
