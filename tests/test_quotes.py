"""A day of real quotes, a million, three quarters of which share their millisecond: ranges against the oracle."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import model
from deepwater import Platform

MIDNIGHT_US = 1_381_118_400_000_000  # 2013-10-07 00:00 in New York, in UTC
FIELDS = [
    {"name": "ts_us", "type": "uint64", "desc": "of the venue; never goes back, most are shared"},
    {"name": "recv_us", "type": "uint64", "desc": "with jitter: nearly sorted"},
    {"name": "mixed_us", "type": "uint64", "desc": "the same stamps, shuffled"},
    {"name": "bid", "type": "uint32"}, {"name": "bid_size", "type": "uint32"},
    {"name": "ask", "type": "uint32"}, {"name": "ask_size", "type": "uint32"},
    {"name": "exchange", "type": "char[8]"}, {"name": "condition", "type": "char[7]"}, {"name": "suspicious",
    "type": "bool"},
]  # fmt: skip
DTYPE = model.dtype_of(FIELDS)
ROWS = 1_079_935


def quotes(path: Path) -> np.ndarray:
    """The quotes as one array: `ms, bid, bid size, ask, ask size, exchange, condition, suspicious`."""
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        lines = list(csv.reader(io.TextIOWrapper(file, "ascii")))
    columns = list(zip(*lines, strict=True))
    out = np.zeros(len(lines), DTYPE)
    stamps = np.array(columns[0], np.float64)
    out["ts_us"] = MIDNIGHT_US + 4 * 3_600_000_000 + (stamps * 1000).astype(np.uint64)
    for name, column in zip(("bid", "bid_size", "ask", "ask_size"), columns[1:5], strict=True):
        out[name] = np.array([value or "0" for value in column], np.float64)
    out["exchange"], out["condition"] = np.array(columns[5], "S8"), np.array(columns[6], "S7")
    out["suspicious"] = np.array(columns[7]) == "1"
    rng = np.random.default_rng(7)
    out["recv_us"] = out["ts_us"] + rng.integers(0, 200_000, len(out)).astype(np.uint64)
    out["mixed_us"] = rng.permutation(out["ts_us"])
    return out


@pytest.fixture(scope="module")
def day(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, np.ndarray]]:
    full = quotes(shared_data / "lean" / "equity_usa_tick_aig_20131007_quote.zip")
    with Platform(tmp_path_factory.mktemp("quotes") / "store") as dw:
        dw.create_feed({"feed_name": "AIG", "ts_col": "ts_us", "fields": FIELDS, "chunk_size_bytes": 3 << 20})
        with dw.create_writer("AIG") as writer:
            rng, at = np.random.default_rng(3), 0
            while at < len(full):
                rows = int(rng.choice([1, 100, 5_000, 60_000, 150_000]))
                assert writer.write_batch(full[at : at + rows]) == at
                at += rows
        yield dw, full


def test_the_day_is_what_the_data_says(day: tuple[Platform, np.ndarray]) -> None:
    dw, full = day
    stamps = full["ts_us"]
    assert len(full) == len(dw["AIG"]) == ROWS
    assert (stamps[1:] >= stamps[:-1]).all() and (stamps[1:] == stamps[:-1]).mean() > 0.7
    assert not (full["recv_us"][1:] >= full["recv_us"][:-1]).all()
    assert dw.describe_feed("AIG")["chunks"] >= 15
    assert model.stored(Path(dw.base_path) / "data" / "AIG") == full.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["ts_us", "recv_us", "mixed_us"])
def test_hundreds_of_random_ranges_are_the_oracles(day: tuple[Platform, np.ndarray], clock: str) -> None:
    """Bounds on records, between them and beyond; narrow, wide and empty ranges."""
    dw, full = day
    stamps = full[clock]
    rng = np.random.default_rng(11)
    low, high = int(stamps.min()), int(stamps.max())
    asked = empty = on_record = rows = 0
    reader = dw["AIG"]
    for number in range(400):
        start = int(stamps[rng.integers(len(stamps))]) if number % 2 else int(rng.integers(low - 10**6, high + 10**6))
        width = int(rng.choice([0, 1, 999, 1_000, 50_000, 10**6, 10**7, 10**9, 10**11]))
        lo, hi = (start, start + width) if number % 3 else (start - width, start)
        wanted = model.mask(stamps, lo, hi)
        window = reader.read(lo, hi, clock=clock)
        assert len(window) == int(wanted.sum())
        if len(window) < 200_000 or number % 20 == 0:
            assert model.content(window) == model.picked(full, wanted), (lo, hi)
        asked += 1
        rows += len(window)
        empty += not wanted.any()
        on_record += bool(number % 2)
    print(f"quotes: {asked} ranges on {clock}, {rows:,} rows, {empty} empty, {on_record} with a bound on a record")
    assert empty >= 10 and on_record >= 100


def test_texts_on_the_sorted_clock_are_what_pandas_gives(day: tuple[Platform, np.ndarray]) -> None:
    dw, full = day
    index = pd.DatetimeIndex(full["ts_us"].astype("M8[us]")).tz_localize("UTC")
    positions = pd.Series(np.arange(len(full)), index)
    reader, rng = dw["AIG"], np.random.default_rng(2)
    for number in range(200):
        form = model.TEXT_FORMS[2 + number % 6]
        ends = sorted(int(full["ts_us"][k]) for k in rng.integers(0, len(full), 2))
        start, end = (model.bound(form, us) for us in ends)
        rows = positions.loc[start.value : end.value].to_numpy()
        window = reader.read(start.value, end.value)
        assert len(window) == len(rows)
        if len(rows):
            assert (window.position, window[-1].tobytes()) == (int(rows[0]), full[int(rows[-1])].tobytes())


@pytest.mark.parametrize("clock", ["ts_us", "recv_us", "mixed_us"])
def test_asof_is_the_last_quote_in_force(day: tuple[Platform, np.ndarray], clock: str) -> None:
    dw, full = day
    stamps = full[clock]
    times = np.concatenate([stamps[::997], stamps[::997] + np.uint64(1), stamps[::997] - np.uint64(1)])
    assert (dw["AIG"].asof(times, clock=clock).positions == model.asof(stamps, times)).all()
