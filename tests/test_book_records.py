"""Records of books as places to begin from: the book is the same, whatever it begins from, or none is claimed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepwater import Platform
from deepwater.book import Book, book_of
from deepwater.book_records import Reach, base_of, books_dtype, record_of
from deepwater.books import book_at
from deepwater.errors import RecordError
from deepwater.playback import resume
from deepwater.reader import Reader
from test_book import FINITE, START, WRITE, rows_of, said, two_sided, write_feed

KINDS = [{"name": "type", "type": "char"}, {"name": "valid", "type": "bool"}, {"name": "_", "type": "_6"}]
NUMBERS = [{"name": name, "type": "uint64"} for name in ("snapshot_us", "l2_us", "l2_seq", "l2_position")]


def snapshots_spec(depth: int, **changes: Any) -> dict[str, Any]:
    sides = [{"name": name, "type": f"float64[{depth}]"} for name in ("bid_px", "bid_qty", "ask_px", "ask_qty")]
    return {"feed_name": "SNAP", "ts_col": "snapshot_us", "fields": [*KINDS, *NUMBERS, *sides], **changes}


def same(found: Book, wanted: Book) -> None:
    assert said(found) == said(wanted)
    assert (found.reason, found.time_us) == (wanted.reason, wanted.time_us)


def write_records(dw: Platform, depth: int, stops: list[int]) -> None:
    """A record of the book of the records before each of the stops, at the time of the last of them."""
    reader = dw["L2"]
    rows, marks = reader.rows(0, reader.end).to_numpy(), reader.marks()
    dw.create_feed(snapshots_spec(depth))
    with dw.create_writer("SNAP") as writer:
        for stop in sorted(stops):
            book = book_of(rows[:stop], marks[marks["position"] < stop], time_us=int(rows["proc_us"][stop - 1]))
            last = rows[book.position - 1]
            known = book.reason != "no complete snapshot yet"
            writer.write_batch(record_of(book, depth, *((last["proc_us"], last["seq"]) if known else (0, 0))))


@settings(max_examples=40)
@given(st.lists(st.one_of(FINITE, FINITE, WRITE), min_size=1, max_size=20), st.integers(1, 4), st.data())
def test_a_book_is_the_same_whatever_it_begins_from(
    tmp_path_factory: pytest.TempPathFactory, writes: list[Any], depth: int, data: st.DataObject
) -> None:
    """At every time and depth; across gaps, snapshots, records that are no level."""
    with Platform(tmp_path_factory.mktemp("records")) as dw:
        rows, _ = write_feed(dw, writes)
        if not rows:
            return
        write_records(dw, depth, data.draw(st.lists(st.integers(1, len(rows)), max_size=6)))
        reader, snapshots = dw["L2"], dw["SNAP"]
        for time in [*range(START, START + 2 * len(rows) // 3 + 2), None]:
            for levels in (1, 2, 5, None):
                same(book_at(reader, time, levels, snapshots=snapshots), book_at(reader, time, levels))


def long_feed(dw: Platform, deltas: int = 3000) -> Reader:
    """A snapshot of 40 levels and changes at the best ones; a chunk takes 102 records."""
    levels = [(b"B", 100.0 - k, 1.0) for k in range(20)] + [(b"A", 101.0 + k, 1.0) for k in range(20)]
    bids, asks = ((b"B", 100.0 - k % 7) for k in range(deltas)), ((b"A", 101.0 + k % 5) for k in range(deltas))
    changes = [(*level, float(k % 3)) for k, pair in enumerate(zip(bids, asks, strict=True)) for level in [pair[k % 2]]]
    write_feed(dw, [("snapshot", levels)] + [("deltas", [change]) for change in changes])
    return dw["L2"]


def test_only_what_comes_after_the_record_is_read(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Platform(tmp_store) as dw:
        reader = long_feed(dw)
        write_records(dw, 12, [1000, 3000])
        read: list[tuple[int, int]] = []
        plain = Reader.rows
        monkeypatch.setattr(Reader, "rows", lambda self, a, b: (read.append((a, b)), plain(self, a, b))[1])
        book = book_at(reader, None, 5, snapshots=dw["SNAP"])
        assert all(first >= 2999 for first, stop in read if stop > 2) and book.position == 3040
        read.clear()
        assert said(book_at(reader, None, 13, snapshots=dw["SNAP"])) == said(book_at(reader, None, 13))
        assert (0, 3040) in read  # deeper than the record reaches


def test_a_whole_record_reaches_everywhere(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        reader = long_feed(dw, 100)
        write_records(dw, 60, [100])
        base = base_of(dw["SNAP"], reader, None)
        assert base is not None and base.reach == Reach(None, None)
        same(book_at(reader, snapshots=dw["SNAP"]), book_at(reader))


def test_a_record_may_know_what_retention_let_go(tmp_store: Path) -> None:
    """The exchange's snapshot is no longer held: the best levels are known all the same, the others are not."""
    with Platform(tmp_store) as dw:
        reader = long_feed(dw)
        want = book_at(reader, None, 5)
        write_records(dw, 12, [2900])
        dw.prune("L2", max_bytes=200_000)
        fresh, snapshots = dw["L2"], dw["SNAP"]
        assert 40 < fresh.first < 2900
        for unknown in (book_at(fresh, None, 5), book_at(fresh, snapshots=snapshots)):
            assert unknown.reason == "no complete snapshot yet"
        same(book_at(fresh, None, 5, snapshots=snapshots), want)
        with dw.create_writer("L2") as writer:
            writer.mark_gap(reason="reconnect")
        late = book_at(fresh, None, 5, snapshots=snapshots)
        assert said(late)[:3] == said(want)[:3] and late.reason == "gap before position 3040: reconnect"
        dw.prune("L2", max_bytes=1)
        assert book_at(dw["L2"], None, 5, snapshots=snapshots).reason == "no complete snapshot yet"


def test_a_record_of_another_life_of_the_feed_is_none(tmp_store: Path) -> None:
    """The feed was deleted and made again: positions mean other records, or none yet."""
    with Platform(tmp_store) as dw:
        long_feed(dw, 100)
        write_records(dw, 12, [90])
        dw.delete_feed("L2")
        for deltas in (10, 200):
            levels = [(b"B", 50.0, 1.0), (b"A", 51.0, 1.0)]
            write_feed(dw, [("snapshot", levels), ("deltas", [(b"B", 49.0, 1.0)] * deltas)])
            reader = dw["L2"]
            assert base_of(dw["SNAP"], reader, None) is None
            same(book_at(reader, None, 5, snapshots=dw["SNAP"]), book_at(reader, None, 5))
            dw.delete_feed("L2")


def test_no_valid_record_by_then_is_no_base(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        reader = long_feed(dw, 100)
        dw.create_feed(snapshots_spec(5))
        assert base_of(dw["SNAP"], reader, None) is None
        bad = record_of(book_of(two_sided()[2:], time_us=START), 5)
        with dw.create_writer("SNAP") as writer:
            writer.write_batch(bad)
        assert not bad["valid"][0] and base_of(dw["SNAP"], reader, None) is None
        same(book_at(reader, snapshots=dw["SNAP"]), book_at(reader))
        with pytest.raises(RecordError, match="no column 'snapshot_us', so its records are no books"):
            book_at(reader, snapshots=reader)


def test_after_a_gap_the_pair_says_so_and_the_book_too(tmp_store: Path) -> None:
    """`playback.resume` across the two feeds: the snapshot, the changes, and that something is missing between."""
    with Platform(tmp_store) as dw:
        levels = [(b"B", 10.0, 1.0), (b"A", 11.0, 1.0)]
        write_feed(dw, [("snapshot", levels), ("deltas", [(b"B", 9.0, 1.0)]), ("gap", []), ("deltas", levels)])
        write_records(dw, 3, [3])
        found = resume(dw["SNAP"], dw["L2"])
        assert found.snapshot["l2_position"] == 3 and len(found.deltas) == 2 and len(found.gaps) == 1
        book = book_at(dw["L2"], None, 1, snapshots=dw["SNAP"])
        assert book.reason == "gap before position 3: at 3" and book.best_bid == 10.0


def test_a_record_holds_the_best_levels_and_no_more() -> None:
    rows = rows_of([(b"S", b"B", START, price, 1.0, 1) for price in (9.0, 10.0, 8.0)])
    book = book_of(np.concatenate([rows, two_sided()[2:3]]), time_us=7)
    record = record_of(book, 2, 3, 4)
    assert record.dtype == books_dtype(2) and record.shape == (1,)
    assert record["bid_px"].tolist() == [[11.0, 10.0]] and np.isnan(record["ask_px"]).all()
    assert record[["valid", "snapshot_us", "l2_us", "l2_seq", "l2_position"]].tolist() == [(True, 7, 3, 4, 4)]
