"""A book that follows its feed: at every step the vectorised book of what is published, also where nothing came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepwater import Platform
from deepwater.book import book_of
from deepwater.books import book_at
from deepwater.errors import ClosedError, FeedNotFoundError, RecordError
from deepwater.live_book import LiveBook
from deepwater.writer import Writer
from test_book import FINITE, SPEC, START, WRITE, played, rows_of, said

LEVELS = [(b"B", 10.0, 1.0), (b"A", 11.0, 1.0)]


class Feeder:
    """Writes one write after another, as `test_book.write_feed` does, but each when it is asked to."""

    def __init__(self, writer: Writer, writes: list[tuple[str, list[Any]]]) -> None:
        kinds = {"unknown": "snapshot", "cut short": "snapshot"}
        self.writer, self.writes = writer, [(kinds.get(kind, kind), levels) for kind, levels in writes]
        self.rows, self.at = rows_of(played(self.writes)[0]), 0

    def __iter__(self) -> Any:
        for kind, levels in self.writes:
            if kind == "gap":
                self.writer.mark_gap(lost=5, reason=f"at {self.at}")
            else:
                stop = self.at + len(levels)
                self.writer.write_batch(self.rows[self.at : stop], create_index=kind == "snapshot")
                self.at = stop
            yield self.at


@settings(max_examples=40)
@given(st.lists(st.one_of(FINITE, FINITE, WRITE), min_size=1, max_size=20), st.integers(0, 20), st.booleans())
def test_a_book_that_follows_is_the_vectorised_one(
    tmp_path_factory: pytest.TempPathFactory, writes: list[Any], late: int, seldom: bool
) -> None:
    """It comes after `late` writes, and looks after each of the others."""
    with Platform(tmp_path_factory.mktemp("live")) as dw:
        dw.create_feed(SPEC)
        with dw.create_writer("L2") as writer, dw["L2"] as reader:
            live = None
            for number, stop in enumerate(Feeder(writer, writes)):
                if live is None and number >= late:
                    live = LiveBook(reader, seldom=seldom)
                if live is None:
                    continue
                while live.take():
                    pass
                want = book_of(reader.rows(0, stop).to_numpy(), reader.marks())
                assert said(live.book.book()) == said(want) == said(book_at(reader))
                assert live.book.reason == want.reason
                check_record(live, reader.rows(0, stop).to_numpy())
            if live is not None:
                live.close()


def check_record(live: LiveBook, rows: np.ndarray) -> None:
    record, book = live.record(3, START + 10**6)[0], live.book.book(3)
    assert record["bid_px"][: len(book.bids)].tolist() == book.bids["price"].tolist()
    assert (record["l2_position"], bool(record["valid"])) == (book.position, book.valid)
    last = (0, 0) if book.reason == "no complete snapshot yet" else rows[["proc_us", "seq"]][book.position - 1].tolist()
    assert (record["l2_us"], record["l2_seq"]) == last


def test_a_snapshot_of_unknown_length_that_is_coming_in_is_not_missed(tmp_store: Path) -> None:
    """Its first rows were there when the book began."""
    rows = rows_of([(b"S", side, START, price, qty, 1) for side, price, qty in LEVELS * 2])
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        with dw.create_writer("L2") as writer:
            names = SPEC["fields"]
            assert [field["name"] for field in names if field["name"] != "_"] == list(rows.dtype.names)
            writer.write_values(*rows[0].tolist(), create_index=True)
            with LiveBook(dw["L2"]) as live:
                assert not live.book.valid
                writer.write_batch(rows[1:2])
                assert live.take() + live.take() == 2 and not live.book.valid  # perhaps there is more of it
                writer.write_values(b"U", b"B", START + 1, 9.0, 1.0, 2)
                assert live.take() == 1 and live.book.valid and live.snapshots == 1
                assert live.book.levels == (2, 1)


def test_what_happens_is_counted_and_a_gap_needs_no_record(tmp_store: Path) -> None:
    rows = rows_of([(b"S", side, START, price, qty, 1) for side, price, qty in LEVELS])
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        with dw.create_writer("L2") as writer, LiveBook(dw["L2"]) as live:
            assert live.take() == 0 and live.record(2, 5)["snapshot_us"] == 5
            writer.write_batch(rows, create_index=True)
            assert live.take() == 2 and (live.records, live.snapshots, live.gaps) == (2, 1, 0)
            assert live.record(2, START - 5)["snapshot_us"] == START  # never before what is in it
            assert live.take() == 0 and live.book.valid
            writer.mark_gap(reason="silent")
            assert live.take() == 0 and live.gaps == 1 and live.book.reason == "gap before position 2: silent"
            writer.mark_gap(reason="again")
            writer.write_batch(rows, create_index=True)
            assert live.take() == 2 and live.book.valid and (live.snapshots, live.gaps) == (2, 1)
            writer.resize_chunk_size(8192)  # the marks of the chunk before are still wanted
            writer.mark_gap(reason="in an empty chunk")
            writer.resize_chunk_size(4096)
            writer.write_batch(rows)
            live.take()
            assert live.book.reason == "gap before position 4: in an empty chunk" and live.gaps == 2


def test_a_mark_that_was_taken_back_is_not_applied(tmp_store: Path) -> None:
    """A snapshot mark was seen before its records; the write failed, and a gap came in its place."""
    rows = rows_of([(b"S", side, START, price, qty, 1) for side, price, qty in LEVELS])
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        with dw.create_writer("L2") as writer, LiveBook(dw["L2"]) as live:
            writer.write_batch(rows, create_index=True)
            live.take()
            assert isinstance(writer, Writer)
            writer._mark_snapshot(writer._marks, rows, 2, 2)  # what a write does before it publishes
            assert live.take() == 0 and live.book.valid
            writer._marks.truncate(1)
            writer.mark_gap(reason="instead")
            assert live.take() == 0 and live.book.reason == "gap before position 2: instead"


def test_retention_that_overtakes_is_a_gap(tmp_store: Path) -> None:
    rows = rows_of([(b"S", side, START, price, qty, 1) for side, price, qty in LEVELS])
    changes = np.repeat(rows, 200)
    changes["type"] = b"U"
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        with dw.create_writer("L2") as writer, LiveBook(dw["L2"]) as live:
            writer.write_batch(rows, create_index=True)
            live.take()
            writer.write_batch(changes)
            dw.prune("L2", max_bytes=1)
            while live.take():
                pass
            assert live.lost > 0 and live.book.reason.endswith("were not seen") and live.book.position == 402
            writer.write_batch(rows, create_index=True)
            assert live.take() == 2 and live.book.valid


def test_a_ring_is_refused_and_the_end_is_said(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed({**SPEC, "feed_name": "R", "persist": False, "index_playback": False})
        with pytest.raises(RecordError, match="ring and keeps no marks"):
            LiveBook(dw["R"])
        dw.create_feed(SPEC)
        live = LiveBook(dw["L2"])
        live._follower._check_at = 0
        dw.delete_feed("L2")
        with pytest.raises(FeedNotFoundError, match="was deleted while it was followed"):
            live.take()
        live.close()
        with pytest.raises(ClosedError):
            live.take()
