"""A window is the same data however it is cut, opens no more than it must, and what it hands out stays valid."""

from __future__ import annotations

import gc
import mmap
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwater import frames, window
from deepwater.errors import ChunkGoneError, RecordError
from deepwater.layout import Layout
from deepwater.values import Packer
from deepwater.window import Coverage, Part, Window
from test_arrow import EVERY, EVERY_TYPE, T0, TRADES, cut, layouts_and_records, random_records, trades

Records = np.ndarray[Any, Any]
AT = 1000  # position of the first row


class Source:
    """Parts that are opened on demand, and how often each was."""

    def __init__(self, records: Records, *bounds: int) -> None:
        self.records = records
        self.pieces = list(cut(records, *bounds))
        self.opened = [0] * len(self.pieces)
        firsts = [0, *bounds]
        self.parts = [Part(AT + firsts[i], len(p), load=self._opens(i)) for i, p in enumerate(self.pieces)]

    def _opens(self, i: int) -> Callable[[], Records]:
        def load() -> Records:
            self.opened[i] += 1
            return self.pieces[i]

        return load


def window_of(records: Records, *bounds: int, layout: Layout = TRADES, **options: Any) -> Window:
    return Window(layout, Source(records, *bounds).parts, clock=layout.ts_col, feed="T", **options)


def assert_is(win: Window, layout: Layout, records: Records, position: int | None) -> None:
    """Compare everything a window gives with the records it is made of."""
    assert len(win) == len(records) and win.nbytes == len(records) * layout.record_size
    assert win.position == position
    assert win.dtype == layout.dtype and win.is_view
    assert b"".join(array.tobytes() for array in win) == records.tobytes()
    assert win.to_numpy().tobytes() == records.tobytes()
    assert np.asarray(win).tobytes() == records.tobytes()
    for name in layout.names:
        values = win[name]
        assert values.dtype == layout.dtype[name].base
        assert values.tobytes() == np.ascontiguousarray(records[name]).tobytes()
    for i in range(len(records)):
        assert win[i].tobytes() == win[i - len(records)].tobytes() == records[i].tobytes()
    back = Packer(layout)
    for data in (win, win.to_pandas(), win.to_pandas(copy=False), win.to_arrow(), win.to_polars()):
        assert back.pack_batch(data).tobytes() == records.tobytes(), type(data)
    for step in (1, 3, 100):
        arrays = list(win.arrays(step))
        assert b"".join(array.tobytes() for array in arrays) == records.tobytes()
        assert [len(array) for array in arrays[:-1]] == [step] * (len(arrays) - 1)
        batches = list(win.batches(step))
        assert [batch.num_rows for batch in batches] == [len(array) for array in arrays]
        assert back.pack_batch(pa.Table.from_batches(batches, win.to_arrow().schema)).tobytes() == records.tobytes()
    assert back.pack_batch(pa.table(win)).tobytes() == records.tobytes()


# --- the same however it is cut ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [TRADES, EVERY], ids=["trades", "every"])
def test_a_window_cut_at_every_point_is_the_whole(layout: Layout) -> None:
    records = trades(7) if layout is TRADES else random_records(layout, 7)
    for at in range(8):
        win = window_of(records, at, layout=layout)
        assert_is(win, layout, records, AT)
        assert len(list(win)) == 1 + (0 < at < 7)


@given(layouts_and_records(), st.data())
def test_any_slice_of_any_window_is_that_slice_of_the_records(
    case: tuple[Layout, Records], data: st.DataObject
) -> None:
    layout, records = case
    rows = len(records)
    bounds = sorted(data.draw(st.lists(st.integers(0, rows), max_size=4)))
    win = window_of(records, *bounds, layout=layout)
    start = stop = None
    for _ in range(2):  # a slice of a slice
        edge = st.none() | st.integers(-rows - 2, rows + 2)
        start, stop = data.draw(edge), data.draw(edge)
        first = AT if win.position is None else win.position
        low, *_ = slice(start, stop).indices(len(win))
        win, records = win[start:stop], records[start:stop]
        assert (win.position or first) == first + low
    if len(records):
        assert_is(win, layout, records, win.position)
    else:
        assert len(win) == 0 and list(win) == [] and len(win.to_pandas()) == 0


@given(layouts_and_records(), st.data())
def test_a_choice_of_columns_is_that_choice_everywhere(case: tuple[Layout, Records], data: st.DataObject) -> None:
    layout, records = case
    names = data.draw(st.lists(st.sampled_from(layout.names), min_size=1, unique=True))
    bounds = sorted(data.draw(st.lists(st.integers(0, len(records)), max_size=2)))
    whole = window_of(records, *bounds, layout=layout)
    for win in (window_of(records, *bounds, layout=layout, columns=names), whole[names]):
        assert win.columns == tuple(names)
        assert win.dtype == records[names].dtype == win.to_numpy().dtype == win[1:].dtype
        assert all(array.dtype == win.dtype for array in [*win, *win.arrays(2)])
        assert win.to_arrow().schema.names == list(next(win.batches(9)).schema.names if len(win) else names)
        assert win.to_arrow().schema.names == win.to_polars().columns == names
        assert list(win.to_pandas().columns) == [name for name in names if name != "t_us"]
        assert win.to_pandas().index.name == "t_us"
        for name in names:
            for values in (win[name], win.to_numpy()[name]):
                assert values.tobytes() == np.ascontiguousarray(records[name]).tobytes()
        if len(win):
            assert win[-1].dtype == win.dtype
            assert all(win[-1][name].tobytes() == records[-1][name].tobytes() for name in names)


def test_an_empty_window_gives_empty_things_of_the_right_type() -> None:
    for win in (window_of(trades(0)), Window(TRADES, [], clock="proc_us"), window_of(trades(9), 4)[3:3]):
        assert len(win) == 0 and win.nbytes == 0 and list(win) == list(win.arrays()) == list(win.batches()) == []
        assert win.to_numpy().dtype == TRADES.dtype and len(win["price"]) == len(win["side"]) == 0
        assert win["side"].dtype == "S1" and win["price"].dtype == "f8"
        assert win.to_arrow().schema == window_of(trades(1)).to_arrow().schema
        assert pa.table(win).num_rows == len(win.to_polars()) == 0
        assert not win
        with pytest.raises(IndexError):
            win[0]
    assert window_of(trades(0)).position == AT and Window(TRADES, [], clock="proc_us").position is None
    assert window_of(trades(9), 4)[9:].position == AT + 9 and window_of(trades(9), 4)[6:2].position == AT + 6


def test_gathered_rows_keep_the_positions_they_had() -> None:
    records, positions = trades(4), np.array([5, 9, 10, 40], np.uint64)
    part = Part(5, 4, records, is_view=False, positions=positions)
    win = Window(TRADES, [part, Part(60, 2, trades(2))], clock="recv_us")
    assert not win.is_view and not win[:2].is_view and win[4:].is_view
    assert [win[i:].position for i in range(7)] == [5, 9, 10, 40, 60, 61, 62]
    assert "gathered copies" in repr(win) and "        40  " in repr(win)


# --- what it opens ----------------------------------------------------------------------------------------


def test_nothing_is_opened_by_looking_at_the_outside() -> None:
    source = Source(trades(10_000), *range(1, 10_000))
    win = Window(TRADES, source.parts, clock="proc_us", columns=["price"])
    assert len(win) == 10_000 and win.nbytes and win.position == AT and win.dtype and win.is_view
    part_of = win[5:-5][100:9000][["price"]]
    assert len(part_of) == 8900 and part_of.position == AT + 105
    assert bool(win) and sum(source.opened) == 0


def test_only_what_is_asked_for_is_opened_and_once() -> None:
    source = Source(trades(100), *range(10, 100, 10))
    win = Window(TRADES, source.parts, clock="proc_us")
    assert win[35]["trade_id"] == 835 and win[30:40].to_numpy()["trade_id"][0] == 830
    assert source.opened == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    next(iter(win)), next(win.arrays(5)), next(win.batches(5))
    assert source.opened == [1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    win.to_pandas(), win.to_arrow(), win.to_numpy(), list(win), repr(win)
    assert source.opened == [1] * 10


def test_a_piece_of_a_part_opens_it_for_both() -> None:
    source = Source(trades(10))
    whole = Window(TRADES, source.parts, clock="proc_us")
    piece, same = whole[2:4], whole[:]
    assert np.shares_memory(piece.to_numpy(), source.records)
    piece.to_numpy(), piece["price"]
    assert whole[5:6].to_numpy()["trade_id"] == 805
    same.to_numpy(), whole.to_numpy(), whole[3:][1:].to_numpy()
    assert source.opened == [1]


def test_a_pass_over_very_many_parts_holds_none_of_them() -> None:
    """Each open chunk costs a descriptor, and a process has about a thousand."""
    import weakref

    alive: set[int] = set()
    most = 0

    def load(i: int) -> Records:
        nonlocal most
        array = trades(2)
        alive.add(i)
        weakref.finalize(array, alive.discard, i)
        most = max(most, len(alive))
        return array

    def make() -> Window:
        parts = [Part(2 * i, 2, load=lambda i=i: load(i)) for i in range(3000)]  # type: ignore[misc]
        return Window(TRADES, parts, clock="proc_us")

    def walk(win: Window) -> None:
        for i in range(0, len(win), 100):
            win[i + 1 : i + 9].to_numpy()
            assert win[i]["trade_id"] == 800 + i % 2

    for use, limit in (
        (lambda win: sum(len(array) for array in win), 2),  # the loop holds one while the next is opened
        (lambda win: win.to_numpy(), 1),
        (lambda win: win.to_pandas(), 1),
        (lambda win: win.to_arrow(), 1),
        (lambda win: win["price"], 1),
        (lambda win: sum(len(array) for array in win.arrays(7)), 1),
        (pa.table, 1),
        (walk, 6),
    ):
        most, win = 0, make()
        use(win)
        assert most <= limit and not alive, (most, limit)


def test_a_chunk_that_is_gone_is_an_error_only_where_it_is_touched() -> None:
    def gone() -> Records:
        raise ChunkGoneError("chunk 1 was removed", feed="T", chunk_id=1)

    win = Window(TRADES, [Part(0, 5, load=gone), Part(5, 5, trades(5))], clock="proc_us")
    assert len(win) == 10 and win[5:].to_numpy()["trade_id"][0] == 800
    for use in (win.to_numpy, win.to_pandas, win.to_arrow, lambda: next(iter(win)), lambda: win["price"]):
        with pytest.raises(ChunkGoneError):
            use()
    with pytest.raises(pa.ArrowInvalid, match="chunk 1 was removed"):  # across the C interface
        pa.table(win)
    assert "its rows cannot be shown: chunk 1 was removed" in repr(win)
    assert "chunk 1 was removed" in win._repr_html_()


def test_threads_may_touch_one_part_at_once() -> None:
    barrier, records = threading.Barrier(8), trades(10)

    def load() -> Records:
        return records

    for _ in range(50):
        win = Window(TRADES, [Part(0, 10, load=load)], clock="proc_us")
        sums: list[float] = []

        def work(win: Window = win, sums: list[float] = sums) -> None:
            barrier.wait()
            sums.append(float(win["price"].sum()))

        workers = [threading.Thread(target=work) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sums == [records["price"].sum()] * 8


# --- views and copies -------------------------------------------------------------------------------------


def test_one_slice_gives_read_only_views() -> None:
    records = trades(100)
    win = Window(TRADES, [Part(0, 100, records)], clock="proc_us")
    views = [win.to_numpy(), win["price"], win["side"], np.asarray(win), next(iter(win)), *win.arrays(30)]
    views += [win[["price"]].to_numpy(), win[10:20].to_numpy(), win[10:20]["price"], np.array(win, copy=False)]
    for view in views:
        assert np.shares_memory(view, records) and not view.flags.writeable
    assert records.flags.writeable  # what was given is not touched
    assert np.shares_memory(win.to_pandas(copy=False)["price"].to_numpy(), records)
    assert not np.shares_memory(win.to_pandas()["price"].to_numpy(), records)


def test_several_slices_give_copies_that_can_be_written() -> None:
    records = trades(100)
    win = window_of(records, 40)
    for copy in (
        win.to_numpy(),
        win["price"],
        np.asarray(win),
        np.array(window_of(records)),
        win[["price"]].to_numpy(),
    ):
        assert not np.shares_memory(copy, records) and copy.flags.writeable
    arrays = list(win.arrays(30))
    assert [np.shares_memory(array, records) for array in arrays] == [True, False, True, True]
    assert not np.shares_memory(win.to_pandas(copy=False)["price"].to_numpy(), records)


def test_copies_have_zero_padding() -> None:
    """NumPy copies a dtype with padding field by field and leaves the rest as malloc gave it."""
    records = trades(5000)
    win = window_of(records, 1234)
    for _ in range(20):
        np.full(5000 * 64, 0xAB, np.uint8)
        for copy in (win.to_numpy(), np.array(window_of(records)), win[3]):
            assert np.frombuffer(copy.tobytes(), np.uint8).reshape(-1, TRADES.record_size)[:, 2:8].sum() == 0


def test_a_row_is_a_copy_of_its_own() -> None:
    records = trades(5)
    row = window_of(records)[2]
    assert isinstance(row, np.void) and row.item() == records[2].item()
    row["price"] = 0
    assert records["price"][2] == 100.5


def test_what_was_handed_out_outlives_window_parts_and_mapping(tmp_path: Path) -> None:
    path = tmp_path / "chunk"
    records = trades(10_000)
    path.write_bytes(records.tobytes())

    def load() -> Records:
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapping, TRADES.dtype)

    win = Window(TRADES, [Part(0, 10_000, load=load)], clock="proc_us")
    kept = {
        "array": win.to_numpy(), "column": win["price"], "piece": win[10:20].to_numpy(),
        "frame": win.to_pandas(), "views": win.to_pandas(copy=False), "arrow": win.to_arrow(),
    }  # fmt: skip
    arrays, stream = win.arrays(3000), pa.table(win)
    del win
    path.unlink()
    gc.collect()
    assert kept["array"].tobytes() == records.tobytes() == b"".join(array.tobytes() for array in arrays)
    assert (kept["column"] == records["price"]).all() and (kept["piece"] == records[10:20]).all()
    for name in ("frame", "views"):
        assert (kept[name]["price"].to_numpy() == records["price"]).all()
    assert (kept["arrow"]["price"].to_numpy() == records["price"]).all() and stream.num_rows == 10_000


def test_numpy_asks_for_a_copy_or_none() -> None:
    records = trades(10)
    one, two = window_of(records), window_of(records, 4)
    assert np.shares_memory(np.array(one, copy=None), records)
    assert not np.shares_memory(np.array(one, copy=True), records)
    for win, dtype, why in ((two, None, "2 slices"), (one, [("price", "f4")], "dtype")):
        with pytest.raises(ValueError, match=f"without a copy: .*{why}"):
            np.array(win, dtype=dtype, copy=False)
    same = np.asarray(one, dtype=TRADES.dtype)
    assert np.shares_memory(same, records)
    wider = [(name, "S4" if name in ("type", "side") else "f8") for name in TRADES.names]
    other = np.asarray(two, dtype=wider)
    assert other.dtype == wider and (other["price"] == records["price"]).all()


# --- asking wrongly ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [10, -11, 2**70])
def test_a_row_beyond_the_end_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError, match=f"row {index} of a window of 10 rows"):
        window_of(trades(10))[index]


def test_a_number_of_any_kind_is_a_row_number_but_a_bool_is_not() -> None:
    win = window_of(trades(10), 5)
    assert win[np.uint8(7)] == win[np.int64(-3)] == win[7]
    for key in (True, np.True_, 1.0, None, (1, 2), np.ones(10, bool), [1, 2], ["price", 3]):
        with pytest.raises(TypeError, match=r"a window takes a column name.* not \w+"):
            win[key]  # type: ignore[call-overload]


@pytest.mark.parametrize("step", [2, -1, 3])
def test_a_step_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=f"step {step}: a window is cut in steps of 1"):
        window_of(trades(10))[::step]


@pytest.mark.parametrize("rows", [0, -1])
def test_a_batch_of_no_rows_is_refused_at_once(rows: int) -> None:
    win = window_of(trades(10))
    for call in (win.arrays, win.batches):
        with pytest.raises(ValueError, match=f"rows={rows}: a batch has at least one row"):
            call(rows)


def test_an_unknown_column_is_named_with_the_nearest() -> None:
    win = window_of(trades(10), columns=["price", "proc_us"])
    for key in ("prize", ["price", "prize"]):
        with pytest.raises(RecordError, match="did you mean 'price'"):
            win[key]  # type: ignore[call-overload]
    with pytest.raises(RecordError, match=r"'size' is in the feed but not in this window.*columns=\['price'") as caught:
        win["size"]
    assert caught.value.column == "size"
    for columns in (["prize"], ["size", "size"], []):
        with pytest.raises(RecordError):
            window_of(trades(10), columns=columns)


def test_polars_missing_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match=r"pip install deepwater\[polars\]") as caught:
        window_of(trades(3)).to_polars()
    assert caught.value.name == "polars"


def test_a_polars_without_float16_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(pl, "Float16", raising=False)
    name = f"f{EVERY_TYPE.index('float16')}"
    win = window_of(random_records(EVERY, 5), layout=EVERY)
    assert win.to_polars().schema[name] == pl.Float32()


# --- Arrow and Polars -------------------------------------------------------------------------------------


def test_arrow_streams_batch_by_batch() -> None:
    source = Source(trades(1000), *range(100, 1000, 100))
    win = Window(TRADES, source.parts, clock="proc_us")
    reader = pa.RecordBatchReader.from_stream(win)
    assert reader.schema == win.to_arrow().schema
    assert sum(batch.num_rows for batch in reader) == 1000
    wide = Window(TRADES, [Part(0, 70_000, trades(70_000))], clock="proc_us")
    assert [batch.num_rows for batch in pa.RecordBatchReader.from_stream(wide)] == [65_536, 70_000 - 65_536]


def test_a_schema_asked_for_is_given() -> None:
    win = window_of(trades(10), 4, columns=["trade_id", "price"])
    wanted = pa.schema([("trade_id", pa.int64()), ("price", pa.float32())])
    found = pa.RecordBatchReader.from_stream(win, schema=wanted).read_all()
    assert found.schema == wanted and found["trade_id"].to_pylist() == list(range(800, 810))


def test_others_read_a_window_by_the_arrow_protocol() -> None:
    win = window_of(trades(10), 4)
    assert pl.DataFrame(win)["price"].to_list() == win["price"].tolist()
    assert win.to_polars().schema["side"] == pl.Categorical()
    assert win.to_polars().schema["proc_us"] == pl.Datetime("us", "UTC")


def test_a_table_has_one_dictionary_over_all_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "_TABLE_ROWS", 4)
    records = trades(10)
    records["side"] = list("BBBBSSSSUU")
    column = window_of(records, 3).to_arrow()["side"]
    assert column.num_chunks == 3
    assert [chunk.dictionary.to_pylist() for chunk in column.chunks] == [["B", "S", "U"]] * 3
    assert column.to_pylist() == list("BBBBSSSSUU")


def test_the_frame_is_indexed_by_the_clock_asked() -> None:
    records = trades(10)
    win = Window(TRADES, [Part(0, 10, records)], clock="recv_us", columns=["price", "proc_us"])
    df = win.to_pandas()
    assert df.index.name == "recv_us" and list(df.columns) == ["price", "proc_us"]
    assert df.equals(frames.frame(TRADES, [records], index="recv_us", columns=["price", "proc_us"]))
    assert win.to_arrow().schema.names == ["price", "proc_us"]


# --- to look at -------------------------------------------------------------------------------------------


def test_the_repr_shows_first_and_last_rows_and_opens_no_others() -> None:
    source = Source(trades(1000), *range(100, 1000, 100))
    text = repr(Window(TRADES, source.parts, clock="proc_us", feed="T"))
    assert source.opened == [1, *[0] * 8, 1]
    assert text.splitlines()[:4] == [
        "<Window of 'T': 1,000 rows in 10 slices, 48,000 bytes",
        "  proc_us 2026-08-09T05:13:40.000000Z to 2026-08-09T05:13:40.999000Z",
        "  position                      proc_us  type  side  trade_id   price     size                      recv_us",
        "      1000  2026-08-09T05:13:40.000000Z     T     S       800   100.0      0.0  2026-08-09T05:13:39.999995Z",
    ]
    assert text.splitlines()[6].split() == ["..."] * 8 and len(text.splitlines()) == 10
    assert "      1999  2026-08-09T05:13:40.999000Z" in text and text.endswith(">")


def test_the_repr_names_what_does_not_fit() -> None:
    text = repr(window_of(random_records(EVERY, 20), layout=EVERY))
    assert max(map(len, text.splitlines())) <= 112 and "\n  also f" in text and " more" in text
    assert all(line.isprintable() for line in text.splitlines())


def test_text_from_records_reaches_neither_terminal_nor_html_unescaped() -> None:
    records = trades(2)
    records["side"] = [b"\x1b", b"<"]
    win = Window(TRADES, [Part(0, 2, records)], clock="proc_us", feed="<script>")
    assert "\x1b" not in repr(win) and "\\x1b" in repr(win)
    html = win._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;" in html and "<td>&lt;</td>" in html and "\x1b" not in html


LATER = T0 + 60_000_000


@pytest.mark.parametrize(
    ("lo", "hi", "lines"),
    [
        (LATER, 2**64 - 1, ["asked for proc_us 2026-08-09T05:14:40.000000Z to the end"]),
        (0, 5, ["asked for proc_us the start to 1970-01-01T00:00:00.000005Z"]),
        (T0 // 10**6, LATER // 10**6, [f"{T0 // 10**6} looks like seconds", f"{LATER // 10**6} looks like seconds"]),
        (T0 * 1000, 2**64 - 1, [f"{T0 * 1000} looks like nanoseconds: integer times are microseconds"]),
        (1, 0, ["asked for no proc_us at all: start is after end"]),
    ],
)  # fmt: skip
def test_an_empty_window_says_what_the_feed_covers(lo: int, hi: int, lines: list[str]) -> None:
    win = Window(TRADES, [], clock="proc_us", feed="T", coverage=Coverage(T0, T0 + 999_000, 1000, lo, hi))
    text = repr(win)
    covers = "the feed covers 2026-08-09T05:13:40.000000Z to 2026-08-09T05:13:40.999000Z (1,000 records)"
    for line in ["Window of 'T': 0 rows", covers, *lines]:
        assert line in text and line.replace("'", "&#x27;") in win._repr_html_()
    assert ("looks like" in text) == any("looks like" in line for line in lines)


def test_an_empty_feed_says_so_and_a_window_without_coverage_says_less() -> None:
    empty = Window(TRADES, [], clock="proc_us", feed="T", coverage=Coverage(0, 0, 0, 0, 2**64 - 1))
    assert "the feed is empty" in repr(empty) and "covers" not in repr(empty)
    assert repr(Window(TRADES, [], clock="proc_us")) == "<Window: 0 rows>"


def test_a_window_of_one_row_shows_it() -> None:
    win = window_of(trades(9), 4)[4:5]
    assert "1 row in 1 slice" in repr(win) and "\n      1004  " in repr(win)
    assert win._repr_html_().count("<tr>") == 2


def test_a_part_says_whether_it_is_open() -> None:
    part = Part(7, 2, load=lambda: trades(2))
    assert repr(part) == "<Part 2 rows from position 7, not opened>"
    part.array()
    assert repr(part) == "<Part 2 rows from position 7, open>"


# --- what it loads ----------------------------------------------------------------------------------------


def test_a_window_in_numpy_loads_neither_pandas_nor_pyarrow() -> None:
    code = """
import sys
import numpy as np
from deepwater.layout import Layout
from deepwater.window import Part, Window
layout = Layout.compile({"feed_name": "t", "ts_col": "t_us", "fields": [{"name": "t_us", "type": "u64"}]})
win = Window(layout, [Part(0, 2, np.zeros(2, layout.dtype)), Part(2, 1, np.zeros(1, layout.dtype))], clock="t_us")
repr(win), win.to_numpy(), win["t_us"], list(win), win[1:], win[0], list(win.arrays(2)), win._repr_html_()
print({"pandas", "pyarrow", "polars"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
