"""Maintainers killed at random moments while the feed goes on: every record that stands is the book of its position."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from book_walk import check_records, walk_of

from deepwater import Platform
from deepwater.book_records import record_of
from deepwater.books import book_at
from deepwater.errors import FeedNotFoundError
from processes import Worker

WRITER = Path(__file__).resolve().parents[1] / "workers" / "writes_a_book.py"
KEEPER = """
import sys
from deepwater.cli import main
sys.exit(main(sys.argv[1:]))
"""
KILLS = 8


def count(dw: Platform, name: str) -> int:
    try:
        with dw[name] as reader:
            return int(reader.end)
    except FeedNotFoundError:
        return 0


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("persist", [True, False])
def test_no_kill_leaves_a_wrong_book(tmp_path: Path, persist: bool, fault: Any, scale: int) -> None:
    """Killed while it begins, and after it has written some more; of a depth that reaches far and one that does not."""
    store, chance = tmp_path / "store", random.Random(persist)
    words = ["book", "--base-path", store, "--product", "X-USD", "--interval", "0.01", "--depth", 400 if persist else 6]
    words += ["--persist"] * persist
    with Platform(store) as dw, Worker(WRITER, store, "X-USD", 5 + persist) as writer:
        assert writer.readline() == "ready"
        with fault("F41", "SIGKILL of an order-book maintainer") as trials:
            for number in range(KILLS * scale // (1 + (not persist))):
                before = count(dw, "CB-L2SNAP-X-USD")
                with Worker(KEEPER, *words) as keeper:
                    if number % 3 == 0:
                        time.sleep(chance.random())  # while it begins, perhaps
                    else:
                        more = before + chance.randrange(1, 12)
                        while count(dw, "CB-L2SNAP-X-USD") < more:
                            assert keeper.process.poll() is None, keeper.stderr()
                            time.sleep(chance.random() / 50)
                    assert keeper.kill(signal.SIGKILL) == -signal.SIGKILL, keeper.stderr()
                trials.done()
        with Worker(KEEPER, *words) as keeper:
            before = count(dw, "CB-L2SNAP-X-USD")
            while count(dw, "CB-L2SNAP-X-USD") < before + 3:
                assert keeper.process.poll() is None, keeper.stderr()
                time.sleep(0.01)
            assert keeper.kill(signal.SIGTERM) == 0, keeper.stderr()
        writer.finish()
        check_store(dw)
        if not persist:
            dw.delete_feed("CB-L2SNAP-X-USD")


def check_store(dw: Platform) -> None:
    with dw["CB-L2-X-USD"] as reader, dw["CB-L2SNAP-X-USD"] as snapshots:
        records = snapshots.read().to_numpy()
        assert len(records) > KILLS and records["valid"].any()
        for name in ("snapshot_us", "l2_us", "l2_position"):
            assert (np.diff(records[name].astype(np.int64)) >= 0).all(), name
        assert (records["l2_us"] <= records["snapshot_us"]).all()
        assert sum(1 for _ in check_records(records, walk_of(reader))) == len(records)
        last = reader.rows(0, reader.end).to_numpy()[records["l2_position"].astype(np.int64) - 1]
        assert (last["proc_us"] == records["l2_us"]).all() and (last["seq"] == records["l2_seq"]).all()
        low, high = reader.coverage()
        times = np.random.default_rng(1).integers(low, high, 40)
        for time_us in times.tolist():
            plain, quick = book_at(reader, time_us, 3), book_at(reader, time_us, 3, snapshots=snapshots)
            assert (plain.bids.tolist(), plain.asks.tolist()) == (quick.bids.tolist(), quick.asks.tolist())
            assert (plain.position, plain.reason) == (quick.position, quick.reason)


def test_the_walk_finds_a_wrong_record(tmp_path: Path) -> None:
    """What is compared above would have been found: a price, a quantity, a position, a level too few, validity."""
    with Platform(tmp_path / "store") as dw:
        with Worker(WRITER, tmp_path / "store", "X-USD", 3) as writer:
            assert writer.readline() == "ready"
            while count(dw, "CB-L2-X-USD") < 300:
                time.sleep(0.01)
            writer.finish()
        reader = dw["CB-L2-X-USD"]
        last = reader.latest(2).to_numpy().copy()  # a change of either best level: no gap at the end, each counts
        last["type"], last["side"] = b"U", [b"B", b"A"]
        last["price"], last["qty"] = (last["price"].min() / 2, last["price"].max() * 2), 7777.0
        for side, levels in enumerate((book_at(reader).bids, book_at(reader).asks)):
            last["price"][side] = levels["price"][0] if len(levels) else last["price"][side]
        with dw.create_writer("CB-L2-X-USD") as more:
            more.write_batch(last)
        book = book_at(reader)
        honest = record_of(book, 6)
        assert list(check_records(honest, walk_of(reader))) == [book.position]
        for name, value in (("bid_px", 1.0), ("ask_qty", 1.0), ("valid", not book.valid), ("ask_px", np.nan),
                            ("l2_position", book.position - 1)):  # fmt: skip
            forged = honest.copy()
            forged[name].reshape(-1)[0] = value
            with pytest.raises(AssertionError):
                list(check_records(forged, walk_of(reader)))
