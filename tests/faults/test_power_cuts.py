"""Power cuts (F5, F7): a feed comes back as a prefix of what was written, with all that `flush` said is durable."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepwater import Platform, keeper
from deepwater import format as fmt
from deepwater.index import UNKNOWN
from deepwater.keeper import Keeper
from fault_table import Trials
from faults.power import Device

Fault = Callable[[str, str], Trials]
STORIES = int(os.environ.get("POWER_STORIES", "120"))
CUTS_A_STORY = 84
FIELDS = [{"name": name, "type": "uint64"} for name in ("ts_us", "other_us", "position", "check")]
SPEC = {"feed_name": "F", "ts_col": "ts_us", "fields": FIELDS, "chunk_size_bytes": 32 * 24, "index_playback": True}
KINDS = {"few": 8, "one": 4, "many": 3, "flush": 3, "gap": 1, "resize": 1, "keep": 5, "sync": 1}
WEIGHT = np.uint64(0x9E3779B97F4A7C15)


def records(first: int, rows: int, rng: random.Random) -> np.ndarray:
    """Records that know their position; the second clock jumps about now and then."""
    out = np.zeros(rows, [(f["name"], "<u8") for f in FIELDS])
    out["position"] = np.arange(first, first + rows)
    out["ts_us"] = 10**15 + out["position"] * np.uint64(10)
    out["other_us"] = out["ts_us"] + np.uint64(rng.choice((0, 0, 500, 10_000)) * rng.random())
    out["check"] = (out["ts_us"] ^ out["other_us"]) * WEIGHT + out["position"]
    return out


@dataclass
class Story:
    """One feed's life so far: what was written, and what `flush` has said."""

    writer: Any
    rng: random.Random
    written: list[np.ndarray] = field(default_factory=list)
    end: int = 0
    durable: int = 0

    def step(self) -> None:
        """Do something that a writer, or its keeper, does."""
        kind = self.rng.choices(*zip(*KINDS.items(), strict=True))[0]
        if kind in ("few", "one", "many"):
            rows = {"few": self.rng.randint(2, 9), "one": 1, "many": self.rng.randint(20, 70)}[kind]
            batch = records(self.end, rows, self.rng)
            if kind == "one":
                self.writer.write_values(*batch[0].item())
            else:
                self.writer.write_batch(batch, create_index=self.rng.random() < 0.2)
            self.written.append(batch)
            self.end += rows
        elif kind == "flush":
            self.durable = self.writer.flush()
            assert self.durable == self.end
        elif kind == "gap":
            self.writer.mark_gap(3)
        elif kind == "resize":
            self.writer.resize_chunk_size(32 * self.rng.randint(8, 40))
        elif kind == "keep":
            self.writer._keeper.catch_up()
        else:
            self.writer._keeper._sync_oldest()

    @property
    def all(self) -> np.ndarray:
        """Everything written."""
        return np.concatenate(self.written) if self.written else records(0, 0, self.rng)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of four records, no thread but this one, and no spare that comes at its own time."""
    monkeypatch.setattr(fmt, "BLOCK_BYTES", 128)
    monkeypatch.setattr(keeper._clerk, "add", lambda _: None)
    monkeypatch.setattr("deepwater.spare.Spare.start", lambda spare: None)


def check(base: Path, story: Story, appends: bool) -> tuple[int, int]:
    """Look at a store that came back: as a reader, and as the next writer. (records, of them not flushed)."""
    full = story.all
    with Platform(base) as dw:
        with dw["F"] as reader:
            held = np.concatenate([np.asarray(part) for part in reader.rows(0, reader.end)] or [full[:0]])
            assert story.durable <= len(held) <= len(full), (story.durable, len(held), len(full))
            assert held.tobytes() == full[: len(held)].tobytes()
            for clock in ("ts_us", "other_us"):
                low, high = sorted(story.rng.choices(full[clock].tolist() or [0], k=2))
                stamps = held[clock]
                expected = held[(stamps >= low) & (stamps <= high)]
                assert reader.read(low, high, clock=clock).to_numpy().tobytes() == expected.tobytes()
            assert (reader.marks()["position"] <= len(held)).all()
        if appends:
            append(dw, story, held)
    return len(held), len(held) - story.durable


def append(dw: Platform, story: Story, held: np.ndarray) -> None:
    """The next writer begins where the reader saw the end, and says what is lost if it knows of any."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with dw.create_writer("F") as writer:
            assert writer.end == len(held)
            more = records(len(held), 30, story.rng)
            writer.write_batch(more)
    with dw["F"] as reader:
        after = reader.read().to_numpy()
        assert after.tobytes() == np.concatenate([held, more]).tobytes()
        dropped = reader.marks("dropped")
        assert len(dropped) == len(said), [str(warning.message) for warning in said]
        if len(dropped):
            assert dropped["position"].tolist() == [len(held)]
            count, unknown = int(dropped["count"][0]), "were not copied" in str(said[0].message)
            assert count == UNKNOWN if unknown else 0 < count <= story.end - len(held)


def live_through(base: Path, seed: int, monkeypatch: pytest.MonkeyPatch, see: Callable[[Story, Device], None]) -> None:
    """One story, with a look at the device after each step."""
    with Platform(base) as dw:
        dw.create_feed(SPEC)
        device = Device(monkeypatch, base / "data" / "F")
        with dw.create_writer("F") as writer:
            story = Story(writer, random.Random(seed))
            for _ in range(28):
                story.step()
                device.look()
                see(story, device)


@pytest.mark.faults
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("part", range(4))
def test_a_feed_comes_back_as_a_prefix_with_all_that_was_flushed(
    monkeypatch: pytest.MonkeyPatch, fault: Fault, scale: int, part: int
) -> None:
    """F5. Each page of a feed's files comes back as it was at any moment since its last sync.

    What must be seen: a prefix of what was written, with all that a flush or a close promised; the next writer goes on.
    """
    with fault("F5", f"simulated power cuts, part {part + 1} of 4") as row:
        trials, beyond = cut_power(monkeypatch, range(part, STORIES * scale, 4))
        row.done(trials)
        row.note(with_more_than_was_flushed=beyond)
        assert trials >= STORIES * scale // 4 * CUTS_A_STORY
        assert beyond > trials // 50, "checksums proved next to nothing: the model is too weak"


def cut_power(monkeypatch: pytest.MonkeyPatch, seeds: range) -> tuple[int, int]:
    """Cut the power of stories; how often, and how often more came back than was flushed."""
    trials = beyond = 0
    for seed in seeds:
        base = Path(tempfile.mkdtemp(dir="/dev/shm"))
        try:
            count = 0

            def see(story: Story, device: Device, base: Path = base, seed: int = seed) -> None:
                nonlocal count, trials, beyond
                for _ in range(CUTS_A_STORY // 28):
                    count += 1
                    to = base / f"after-{count}"
                    try:
                        device.after_power_cut(story.rng, base / "store", to)
                        _, more = check(to, story, appends=count % 5 == 0)
                    except Exception as error:
                        raise AssertionError(f"story {seed}, state {count}, in {to}: {error!r}") from error
                    shutil.rmtree(to)
                    trials += 1
                    beyond += more > 0

            live_through(base / "store", seed, monkeypatch, see)
        finally:
            shutil.rmtree(base, ignore_errors=True)
    return trials, beyond


@pytest.mark.faults
@pytest.mark.usefixtures("small_blocks")
def test_who_trusts_the_count_reads_what_was_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same states have power: a reader that believes every commit word finds wrong records among them."""
    monkeypatch.setattr("deepwater.chunk.Chunk.is_sure", True)
    monkeypatch.setattr(Keeper, "catch_up", lambda self: None)
    wrong = 0
    for seed in range(3):
        base = Path(tempfile.mkdtemp(dir="/dev/shm"))

        def see(story: Story, device: Device, base: Path = base) -> None:
            nonlocal wrong
            to = base / "after"
            device.after_power_cut(story.rng, base / "store", to)
            try:
                check(to, story, appends=False)
            except Exception:  # noqa: BLE001  # damage that is noticed counts too
                wrong += 1
            shutil.rmtree(to)

        try:
            live_through(base / "store", seed, monkeypatch, see)
        finally:
            shutil.rmtree(base, ignore_errors=True)
    assert wrong > 10
