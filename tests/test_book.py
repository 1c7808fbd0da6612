"""The book: incremental, vectorised over arrays, and of a feed at a time, all held against a naive walk.

The oracle keeps a dict of Decimals a side and knows nothing of the package: it begins anew at every moment, looks for
the snapshot that stands, and steps over the records after it.
"""

from __future__ import annotations

import math
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepwater import Platform
from deepwater import books as books_module
from deepwater import marks as marks_module
from deepwater.book import Book, OrderBook, book_of
from deepwater.books import book_at, books, books_dtype
from deepwater.errors import RecordError, TimeFormatError
from deepwater.index import MARK_DTYPE, UNKNOWN
from deepwater.levels import LEVEL_DTYPE, keys_of, last_writes, prices_of

START = 1_786_309_548_000_000
SPEC = {
    "feed_name": "L2", "ts_col": "proc_us", "index_playback": True, "chunk_size_bytes": 4096, "fields": [
        {"name": "type", "type": "char"}, {"name": "side", "type": "char"}, {"name": "_", "type": "_6"},
        {"name": "proc_us", "type": "uint64"}, {"name": "price", "type": "float64"},
        {"name": "qty", "type": "float64"}, {"name": "seq", "type": "uint64"}],
}  # fmt: skip
ROW_DTYPE = np.dtype([("type", "S1"), ("side", "S1"), ("proc_us", "u8"), ("price", "f8"), ("qty", "f8"), ("seq", "u8")])
Levels = list[tuple[Decimal, Decimal]]


class Naive(NamedTuple):
    """What the oracle says; `position` is of the first record not in the book."""

    bids: Levels
    asks: Levels
    position: int
    valid: bool


def naive(rows: list[tuple[Any, ...]], marks: list[tuple[str, int, int]], stop: int) -> Naive:
    """Walk over (type, side, time, price, qty, seq) below `stop`; marks are (kind, position, count)."""
    starts = sorted((at, count) for kind, at, count in marks if kind == "snapshot")
    found = coming = None
    for number, (start, count) in enumerate(starts):
        following = starts[number + 1][0] if number + 1 < len(starts) else None
        if count:
            end, complete = start + count, start + count <= stop
            is_cut = following is not None and following < end
        else:
            end = start
            while end < stop and end != following and rows[end][0] == b"S" and rows[end][5] == rows[start][5]:
                end += 1
            complete, is_cut = end < stop, False
        if complete and not is_cut:
            found, coming = start, None
        elif start < stop and coming is None:
            coming = start
    if found is None:
        return Naive([], [], stop, False)
    until = stop if coming is None else coming
    book: dict[bytes, dict[Decimal, Decimal]] = {b"B": {}, b"A": {}}
    valid = not any(kind != "snapshot" and found < at <= stop for kind, at, _ in marks)
    for _, side, _, price, qty, _ in rows[found:until]:
        if side not in book or not math.isfinite(price) or not math.isfinite(qty) or qty < 0:
            valid = False
        elif qty:
            book[side][Decimal(price)] = Decimal(qty)
        else:
            book[side].pop(Decimal(price), None)
    return Naive(sorted(book[b"B"].items(), reverse=True), sorted(book[b"A"].items()), until, valid)


def exact(levels: np.ndarray) -> Levels:
    assert levels.dtype == LEVEL_DTYPE
    return [(Decimal(price), Decimal(qty)) for price, qty in levels.tolist()]


def said(book: Book) -> Naive:
    assert book.valid == (not book.reason)
    return Naive(exact(book.bids), exact(book.asks), book.position, book.valid)


def as_marks(marks: list[tuple[str, int, int]]) -> np.ndarray:
    """In the order in which a feed has them: by position, a gap before the snapshot that heals it."""
    out = np.zeros(len(marks), MARK_DTYPE)
    for row, (kind, at, count) in zip(out, sorted(marks, key=lambda m: (m[1], m[0] == "snapshot")), strict=True):
        row["kind"], row["position"], row["count"] = kind, at, count
        row["reason"] = f"at {at}" if kind != "snapshot" else ""
    return out


def rows_of(rows: list[tuple[Any, ...]]) -> np.ndarray:
    return np.array(rows, ROW_DTYPE)


# ------------------------------------------------------------------------------------------ random feeds

PRICES = [0.0, 0.1, 1.3e-5, 64734.06, 64734.07, 64734.08, np.nextafter(64734.07, np.inf), 1e300, -37.63, -0.5]
LEVEL = st.tuples(
    st.sampled_from([b"B", b"A"]), st.sampled_from(PRICES), st.sampled_from([0.0, 0.0, 0.5, 1.0, 1e-8, 7.25])
)
ODD = st.sampled_from([(b"\0", 0.0, 0.0), (b"B", math.nan, 1.0), (b"A", 1.0, -1.0), (b"A", math.inf, 1.0), (b"X", 1, 1),
                       (b"B", 1.0, math.nan)])  # fmt: skip
WRITE = st.one_of(
    st.tuples(st.just("deltas"), st.lists(LEVEL, min_size=1, max_size=8)),
    st.tuples(st.just("deltas"), st.lists(LEVEL, min_size=1, max_size=8)),
    st.tuples(st.just("snapshot"), st.lists(LEVEL, min_size=1, max_size=12)),
    st.tuples(st.just("unknown"), st.lists(LEVEL, min_size=1, max_size=6)),
    st.tuples(st.just("cut short"), st.lists(LEVEL, min_size=1, max_size=6)),
    st.tuples(st.just("gap"), st.just([])),
    st.tuples(st.just("odd"), st.lists(ODD, min_size=1, max_size=1)),
)


def played(writes: list[tuple[str, list[Any]]]) -> tuple[list[tuple[Any, ...]], list[tuple[str, int, int]]]:
    """Records and marks of writes; each write has one `seq`, and its records times 0 to 2 µs apart."""
    rows: list[tuple[Any, ...]] = []
    marks: list[tuple[str, int, int]] = []
    for seq, (kind, levels) in enumerate(writes):
        is_snapshot = kind in ("snapshot", "unknown", "cut short")
        if is_snapshot:
            count = {"snapshot": len(levels), "unknown": 0, "cut short": len(levels) + 3}[kind]
            marks.append(("snapshot", len(rows), count))
        elif kind == "gap":
            marks.append(("gap", len(rows), 5))
        for side, price, qty in levels:
            time = START + 2 * len(rows) // 3
            rows.append((b"S" if is_snapshot else b"U", side, time, price, qty, seq))
    return rows, marks


def fed(rows: np.ndarray, marks: np.ndarray | None, cuts: list[int], *, seldom: bool = False) -> OrderBook:
    book = OrderBook(seldom=seldom)
    for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        book.apply(rows[a:b], marks)
    return book


@settings(max_examples=150)
@given(st.lists(WRITE, max_size=12), st.booleans(), st.data())
def test_three_books_agree_at_every_stop(writes: list[Any], seldom: bool, data: st.DataObject) -> None:
    """Incremental in any batches, vectorised at once, and the naive one: levels, position, validity, reason."""
    rows, marks = played(writes)
    array, noted = rows_of(rows), as_marks(marks)
    for stop in range(len(rows) + 1):
        cuts = sorted(data.draw(st.lists(st.integers(0, stop), max_size=3)))
        once, step = book_of(array[:stop], noted), fed(array[:stop], noted, cuts, seldom=seldom)
        want = naive(rows, [mark for mark in marks if mark[1] < stop + (mark[0] == "gap")], stop)
        assert said(once) == want
        assert said(step.book()) == want
        assert (step.valid, step.reason, step.position) == (once.valid, once.reason, stop)
        best = [levels[0] if levels else None for levels in (once.bids.tolist(), once.asks.tolist())]
        assert [step.best_bid, step.best_ask] == best
        assert step.crossed == once.crossed == (None not in best and best[0][0] >= best[1][0])
        assert step.book(2).bids.tolist() == book_of(array[:stop], noted, depth=2).bids.tolist()
        assert (step.levels, step.book_position) == ((len(once.bids), len(once.asks)), once.position)


@settings(max_examples=60)
@given(st.lists(WRITE, min_size=1, max_size=12), st.booleans(), st.data())
def test_the_one_form_goes_on_where_the_other_is(writes: list[Any], seldom: bool, data: st.DataObject) -> None:
    """An incremental book made of a vectorised one is, after the records behind it, what it would have been."""
    rows, marks = played(writes)
    array, noted = rows_of(rows), as_marks(marks)
    start = book_of(array[: data.draw(st.integers(0, len(rows)))], noted)
    if start.reason == "no complete snapshot yet":  # a snapshot may be coming in
        return
    step = OrderBook.of(start, seldom=seldom)
    assert said(step.book()) == said(start) and step.position == start.position
    step.apply(array[start.position :], noted)
    assert said(step.book()) == said(book_of(array, noted)) and step.reason == book_of(array, noted).reason


@given(st.lists(WRITE.filter(lambda write: write[0] in ("deltas", "unknown", "odd")), max_size=12), st.data())
def test_without_marks_type_and_seq_say_where_snapshots_are(writes: list[Any], data: st.DataObject) -> None:
    rows, marks = played(writes)
    array = rows_of(rows)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    assert said(book_of(array)) == said(fed(array, None, cuts).book()) == naive(rows, marks, len(rows))


def write_feed(dw: Platform, writes: list[tuple[str, list[Any]]]) -> tuple[list[Any], list[tuple[str, int, int]]]:
    """Write it; a snapshot is one indexed write. Returns what `played` does."""
    writes = [(("snapshot" if kind in ("unknown", "cut short") else kind), levels) for kind, levels in writes]
    rows, marks = played(writes)
    dw.create_feed(SPEC)
    at = 0
    with dw.create_writer("L2") as writer:
        for kind, levels in writes:
            if kind == "gap":
                last = rows[at - 1][2] if at else START
                writer.mark_gap(lost=5, from_us=last, to_us=last, reason=f"at {at}")
            else:
                writer.write_batch(rows_of(rows[at : at + len(levels)]), create_index=kind == "snapshot")
            at += len(levels)
    return rows, marks


FINITE = WRITE.filter(lambda write: write[0] != "odd")


@settings(max_examples=40)
@given(st.lists(st.one_of(FINITE, FINITE, FINITE, WRITE), max_size=25))
def test_a_feed_at_every_time_is_what_the_naive_walk_finds(
    tmp_path_factory: pytest.TempPathFactory, writes: list[Any]
) -> None:
    """Across chunks of 102 records; `books` and `book_at` agree with it, and with each other, at every µs."""
    with Platform(tmp_path_factory.mktemp("book")) as dw:
        rows, marks = write_feed(dw, writes)
        reader = dw["L2"]
        last = START + 2 * len(rows) // 3 + 2
        many = books(reader, START - 1, last, "1us", depth=3)
        assert many["snapshot_us"].tolist() == list(range(START - 1, last + 1))
        for row in many:
            time = int(row["snapshot_us"])
            stop = sum(one[2] <= time for one in rows)
            began = [(kind, at, n) for kind, at, n in marks if at < stop or (rows[at - 1][2] if at else START) <= time]
            want = naive(rows, began, stop)
            book = book_at(reader, time)
            assert said(book) == want
            assert (book.time_us, bool(row["valid"])) == (time, want.valid)
            check_row(row, book, rows)
        assert said(book_at(reader)) == naive(rows, marks, len(rows))
        assert said(book_of(rows_of(rows), reader.marks())) == naive(rows, marks, len(rows))


def check_row(row: np.void, book: Book, rows: list[Any]) -> None:
    assert row["l2_position"] == book.position
    for side, levels in (("bid", book.bids), ("ask", book.asks)):
        for name, column in (("px", "price"), ("qty", "qty")):
            padded = [*levels[column][:3].tolist(), *[math.nan] * 3][:3]
            np.testing.assert_array_equal(row[f"{side}_{name}"], padded)
    if book.reason == "no complete snapshot yet":
        assert row["l2_us"] == row["l2_seq"] == 0
    else:
        assert (row["l2_us"], row["l2_seq"]) == (rows[book.position - 1][2], rows[book.position - 1][5])


# ------------------------------------------------------------------------------------------ keys and writes


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=50))
def test_keys_are_exact_and_in_the_order_of_prices(prices: list[float]) -> None:
    price = np.array(prices, np.float64)
    keys = keys_of(price)
    assert keys.dtype == np.int64
    np.testing.assert_array_equal(prices_of(keys), price)
    np.testing.assert_array_equal(np.sort(price), price[np.argsort(keys)])
    assert len(set(keys.tolist())) == len(set(prices))  # 0.0 and -0.0 are one


@pytest.mark.parametrize("distinct", [1, 7, 3000, 200_000])
def test_the_last_write_of_each_key_is_found_however_many_collide(distinct: int) -> None:
    random = np.random.default_rng(distinct)
    for spread in (1, 2**40, 2**52):
        keys = random.integers(0, distinct, 100_000) * np.int64(spread // max(1, distinct >> 11) or 1)
        want = {key: row for row, key in enumerate(keys.tolist())}
        assert sorted(last_writes(keys).tolist()) == sorted(want.values())


# ------------------------------------------------------------------------------------------ what a book says


def two_sided() -> np.ndarray:
    return rows_of([(b"S", b"B", START, 10.0, 1.0, 1), (b"S", b"A", START, 11.0, 2.0, 1),
                    (b"U", b"B", START + 1, 11.0, 3.0, 2), (b"U", b"B", START + 2, 11.0, 0.0, 3)])  # fmt: skip


def test_before_a_snapshot_a_book_is_empty_and_says_so() -> None:
    changes = two_sided()[2:]
    for book in (OrderBook().book(), book_of(changes[:0]), book_of(changes), fed(changes, None, []).book()):
        assert not book.valid and book.reason == "no complete snapshot yet" and not len(book.bids) + len(book.asks)
        assert math.isnan(book.best_bid) and math.isnan(book.best_ask) and not book.crossed
    assert "NOT valid (no complete snapshot yet)" in repr(OrderBook()) and "NOT valid" in repr(book_of(changes))


def test_a_crossed_book_is_flagged_and_no_less_valid() -> None:
    rows = two_sided()
    assert not book_of(rows[:2]).crossed
    crossed, healed = book_of(rows[:3], as_marks([("snapshot", 0, 2)])), book_of(rows, as_marks([("snapshot", 0, 2)]))
    assert crossed.crossed and crossed.valid and crossed.best_bid == crossed.best_ask == 11.0
    assert not healed.crossed and healed.best_bid == 10.0


def test_an_empty_side_is_no_level_and_nothing_is_crossed() -> None:
    rows = rows_of([(b"S", b"A", START, 11.0, 2.0, 1), (b"U", b"B", START, 9.0, 0.0, 2)])
    marks = as_marks([("snapshot", 0, 1)])
    for book in (book_of(rows, marks), fed(rows, marks, [1]).book()):
        assert book.valid and len(book.bids) == 0 and math.isnan(book.best_bid) and not book.crossed
    assert fed(rows, marks, []).best_bid is None


def test_a_gap_holds_until_the_next_complete_snapshot() -> None:
    book = OrderBook()
    rows = two_sided()
    book.begin_snapshot(2)
    book.apply(rows[:2], as_marks([]))
    assert book.valid
    book.mark_gap("sequence 4 to 6")
    book.apply(rows[2:3], as_marks([]))
    assert book.reason == "gap before position 2: sequence 4 to 6"
    book.begin_snapshot(2)
    book.apply(rows[:1], as_marks([]))
    assert not book.valid and book.book().position == 3 and book.best_bid == (11.0, 3.0)  # what it was
    book.apply(rows[1:2], as_marks([]))
    assert book.valid and book.best_bid == (10.0, 1.0)
    with pytest.raises(ValueError, match="count=-1"):
        book.begin_snapshot(-1)


def test_records_that_were_not_seen_are_a_gap_and_none_is_taken_twice() -> None:
    rows, book = two_sided(), OrderBook()
    book.apply(rows[:3], position=0)
    assert book.valid
    with pytest.raises(ValueError, match="knows all records before 3"):
        book.apply(rows, position=2)
    book.apply(rows[3:], position=5)
    assert book.reason == "records 3 to 4 were not seen" and book.position == 6
    book.apply(rows[:2], position=7)  # perhaps its beginning is among those not seen
    book.apply(rows[2:3])
    assert not book.valid
    book.apply(rows[:3])
    assert book.valid


def test_what_is_no_book_is_refused() -> None:
    for name, kind in (("side", "u8"), ("side", "S4"), ("price", "S1"), ("qty", ("f8", (2,)))):
        columns = {"side": "S1", "price": "f8", "qty": "f8", name: kind}
        with pytest.raises(RecordError, match=f"column '{name}' is .*: no book is made of it"):
            OrderBook().apply(np.zeros(3, list(columns.items())))
    with pytest.raises(RecordError, match="no column 'qty'"):
        book_of(np.zeros(1, [("side", "S1"), ("price", "f8")]))
    with pytest.raises(RecordError, match="give marks"):
        OrderBook().apply(np.zeros(1, [("side", "S1"), ("price", "f8"), ("qty", "f8")]))
    for depth in (-1, True, 1.5):
        with pytest.raises(ValueError, match="depth="):
            book_of(two_sided(), depth=depth)


# ------------------------------------------------------------------------------------------ of a feed


def test_a_gap_at_the_end_counts_from_when_it_began(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        write_feed(dw, [("snapshot", [(b"B", 10.0, 1.0), (b"A", 11.0, 1.0)])])
        with dw.create_writer("L2") as writer:
            writer.mark_gap(from_us=START + 100, to_us=START + 200, reason="reconnect")
        reader = dw["L2"]
        assert book_at(reader, START + 99).valid
        assert book_at(reader, START + 100).reason == "gap before position 2: reconnect"
        assert not book_at(reader).valid
        assert books(reader, START + 98, START + 101, "1us", 1)["valid"].tolist() == [True, True, False, False]


def test_an_empty_feed_and_a_ring_have_no_book(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        ring = {**SPEC, "feed_name": "R", "persist": False, "index_playback": False}
        dw.create_feed(ring)
        assert book_at(dw["L2"]).position == book_at(dw["L2"]).time_us == 0 and not len(books(dw["L2"]))
        with dw.create_writer("R") as writer:
            writer.write_batch(two_sided())
            assert not book_at(dw["R"]).valid and not books(dw["R"], every="1us")["valid"].any()
        dw.delete_feed("R")


def test_books_go_into_a_feed_of_snapshots(tmp_store: Path) -> None:
    """`books` has the columns of cb-l2snap: what it returns is one write, and comes back."""
    floats = [{"name": name, "type": "float64[2]"} for name in ("bid_px", "bid_qty", "ask_px", "ask_qty")]
    numbers = [{"name": name, "type": "uint64"} for name in ("snapshot_us", "l2_us", "l2_seq", "l2_position")]
    kinds = [{"name": "type", "type": "char"}, {"name": "valid", "type": "bool"}, {"name": "_", "type": "_6"}]
    with Platform(tmp_store) as dw:
        write_feed(dw, [("snapshot", [(b"B", 10.0, 1.0), (b"A", 11.0, 1.0)]), ("deltas", [(b"B", 10.5, 2.0)])])
        dw.create_feed({"feed_name": "SNAP", "ts_col": "snapshot_us", "fields": [*kinds, *numbers, *floats]})
        found = books(dw["L2"], every="1us", depth=2)
        assert found.dtype == books_dtype(2) and found["bid_px"].shape == (len(found), 2)
        with dw.create_writer("SNAP") as writer:
            writer.write_batch(found)
        back = dw["SNAP"].read().to_numpy()
        for name in found.dtype.names:
            np.testing.assert_array_equal(back[name], found[name])
        with pytest.raises(TimeFormatError, match="more than 0"):
            books(dw["L2"], every=np.timedelta64(0, "s"))
        with pytest.raises(ValueError, match="depth="):
            books(dw["L2"], depth=-1)
        assert len(books(dw["L2"], START + 5, START)) == 0


def test_a_snapshot_that_was_let_go_is_no_snapshot(tmp_store: Path) -> None:
    """The oldest chunks go, and with them the first snapshot: its changes alone are no book."""
    levels = [(b"B", float(price), 1.0) for price in range(1, 201)]
    with Platform(tmp_store) as dw:
        write_feed(dw, [("snapshot", levels), ("deltas", levels * 2), ("snapshot", levels), ("deltas", levels)])
        reader = dw["L2"]
        before = int(reader.rows(599, 600)["proc_us"][0])
        assert book_at(reader, before).valid
        dw.prune("L2", max_bytes=1)
        fresh = dw["L2"]
        assert fresh.first > 0
        assert book_at(fresh, before).reason == "no complete snapshot yet"


def test_marks_are_read_back_to_the_snapshot_and_no_further(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a feed of 60 chunks: those between the snapshot that a book stands on and the moment."""
    levels = [(b"B", float(price), 1.0) for price in range(1, 51)]
    with Platform(tmp_store) as dw:
        write_feed(dw, ([("snapshot", levels)] + [("deltas", levels)] * 29) * 4 + [("gap", [])])
        reader = dw["L2"]
        read: list[int] = []
        plain = marks_module._marks_of
        monkeypatch.setattr(marks_module, "_marks_of", lambda chain, k, end: (read.append(k), plain(chain, k, end))[1])
        newest = len(reader._chain) - 1
        assert newest >= 58
        for stop in (100, 2000, 4000, 5999):
            read.clear()
            time = int(reader.rows(stop - 1, stop)["proc_us"][0])
            assert book_at(reader, time).valid
            snapshot = (stop - 1) // 1500 * 1500
            assert set(read) <= set(range(snapshot // 102, stop // 102 + 1))
        read.clear()
        assert book_at(reader).reason == "gap before position 6000: at 6000"
        assert min(read) == 4500 // 102
        read.clear()
        books(reader, int(reader.rows(3100, 3101)["proc_us"][0]), int(reader.rows(3500, 3501)["proc_us"][0]), "100us")
        assert set(read) <= set(range(3000 // 102, 3501 // 102 + 1))


def test_a_gap_in_a_chunk_without_records_is_found(tmp_store: Path) -> None:
    """Two chunks begin at one position then, and its mark is in the first of them."""
    levels = [(b"B", 10.0, 1.0), (b"A", 11.0, 1.0)]
    with Platform(tmp_store) as dw:
        write_feed(dw, [("snapshot", levels)])
        with dw.create_writer("L2") as writer:
            writer.resize_chunk_size(8192)
            writer.mark_gap(reason="lost")
            writer.resize_chunk_size(4096)
            writer.write_batch(rows_of([(b"U", b"B", START + 9, 10.0, 2.0, 5)]))
        assert [dw["L2"]._chain.base(k) for k in range(3)] == [0, 2, 2]
        assert book_at(dw["L2"]).reason == "gap before position 2: lost"
        assert not books(dw["L2"], START + 9, START + 9, "1us", 1)["valid"][0]


def test_retention_between_the_look_and_the_reading(tmp_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The snapshot that was chosen is let go before its records are read: the answer is that of who asks anew."""
    levels = [(b"B", float(price), 1.0) for price in range(1, 201)]
    with Platform(tmp_store) as dw:
        write_feed(dw, [("snapshot", levels), ("deltas", levels * 2), ("snapshot", levels), ("deltas", levels)])
        reader = dw["L2"]
        times = [int(reader.rows(at, at + 1)["proc_us"][0]) for at in (599, 999)]
        plain, asked = books_module._held, []

        def held(*args: Any) -> Any:
            if not asked:
                asked.append(dw.prune("L2", max_bytes=1).records)
            return plain(*args)

        monkeypatch.setattr(books_module, "_held", held)
        assert book_at(reader, times[0]).reason == "no complete snapshot yet" and asked[0] > 200
        assert not books(reader, times[0], times[0], "1us")["valid"][0]


def test_books_asked_for_while_chunks_are_let_go(tmp_store: Path) -> None:
    """A writer, a thread that prunes all the time, and one that asks: a book is right or says that it is none."""
    rows, one = 8_000, as_marks([("snapshot", 0, 100)])
    seq = np.arange(rows) // 100
    array = np.zeros(rows, ROW_DTYPE)
    array["type"] = np.where(seq % 10 == 0, b"S", b"U")  # each tenth write of 100 is a snapshot
    array["side"], array["proc_us"], array["seq"] = b"B", START + np.arange(rows), seq
    array["price"], array["qty"] = np.arange(rows) % 100 + 1, np.arange(rows) + 1
    done, random, found = threading.Event(), np.random.default_rng(3), {"valid": 0, "none": 0}

    def prune() -> None:
        while not done.is_set():
            dw.prune("L2", max_bytes=700_000)

    def write() -> None:
        with dw.create_writer("L2") as writer:
            for at in range(0, rows, 100):
                writer.write_batch(array[at : at + 100], create_index=at % 1000 == 0)
        done.set()

    with Platform(tmp_store) as dw:
        dw.create_feed(SPEC)
        with dw["L2"] as reader:
            threads = [threading.Thread(target=target) for target in (prune, write)]
            for thread in threads:
                thread.start()
            try:
                while not done.is_set():
                    end = int(reader.end)
                    stop = int(random.integers(max(0, end - 3000), end)) + 1 if end else 0
                    book = book_at(reader, START + stop - 1)
                    found["valid" if book.valid else "none"] += 1
                    if book.valid:  # within a snapshot the book is still what it was before
                        known = stop - stop % 1000 if stop % 1000 < 100 else stop
                        first = (known - 1) // 1000 * 1000
                        assert book.position == known
                        assert book.bids.tolist() == book_of(array[first:known], one).bids.tolist()
                    else:
                        assert book.reason == "no complete snapshot yet"
            finally:
                done.set()
                for thread in threads:
                    thread.join()
            assert dw["L2"].first > 0 and found["valid"]


def test_dropped_records_are_a_gap() -> None:
    rows = two_sided()
    marks = as_marks([("snapshot", 0, 2), ("dropped", 3, UNKNOWN)])
    assert book_of(rows[:2], marks).valid
    assert not book_of(rows[:3], marks).valid and not fed(rows, marks, [1]).valid
