"""The command bench: what this machine does with a feed, beside what it does with plain memory.

Everything is measured on one feed in a scratch directory that is removed in any case. The ruler is a copy of as many
bytes by NumPy (memcpy) into fresh memory in the same round; rounds are interleaved and the medians shown. Each answer
is checked.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from deepwater.cli import output
from deepwater.cli.failures import OK, UsageError
from deepwater.cli.progress import Bar
from deepwater.cli.signals import terminable
from deepwater.cli.store import no_room, put_json
from deepwater.cli.text import Table, amount, seconds, terminal_width
from deepwater.platform import Platform
from deepwater.reader import Reader

__all__ = ["bench"]

Array = npt.NDArray[Any]
_ROUNDS = 3
_BATCH = 10_000
_SINGLE = 20_000
_LOOKUPS = 1000
_LEAST = 10_000
_START_US = 1_786_253_022_000_000
_SPEC = {
    "feed_name": "BENCH", "ts_col": "proc_us", "fields": [
        {"name": "type", "type": "char"}, {"name": "side", "type": "char"}, {"name": "_", "type": "_6"},
        {"name": "trade_id", "type": "uint64"}, {"name": "packet_us", "type": "uint64"},
        {"name": "recv_us", "type": "uint64"}, {"name": "proc_us", "type": "uint64"},
        {"name": "ev_us", "type": "uint64"}, {"name": "price", "type": "float64"}, {"name": "size", "type": "float64"},
    ],
}  # fmt: skip
_TABLE = Table(("what", "records/s", "bytes/s", "took", "memcpys"), left=frozenset({"what"}))
_AS_OF = "as-of lookups"  # not so many records: no bytes to compare


def bench(args: argparse.Namespace) -> int:
    """Measure, and say what was measured."""
    if args.records < _LEAST:
        raise UsageError(f"--records {args.records}: at least {_LEAST}, less measures nothing", "deepwater bench")
    with terminable():
        scratch = tempfile.mkdtemp(prefix="deepwater-bench-", dir=args.scratch)
        try:
            with Platform(scratch) as dw, Bar() as bar:
                rows = _measured(dw, args.records, bar)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    if args.json:
        put_json({"records": args.records, "record_bytes": 64, "rounds": _ROUNDS, "measured": rows})
        return OK
    cells = [_cells(row) for row in rows]
    width = terminal_width()
    output.write("\n".join(_TABLE.lines(cells, width)) + "\n")
    no_room(_TABLE.left_out(cells, width))
    return OK


def _measured(dw: Platform, records: int, bar: Bar) -> list[dict[str, Any]]:
    """Do all of it some rounds, and return the medians."""
    dw.create_feed(_SPEC)
    with dw["BENCH"] as reader:
        data = _trades(reader.dtype, records)
    took: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for number in range(_ROUNDS):
        for name, size, work in _works(dw, data):
            bar.show(f"measuring, round {number + 1}", len(took), None, "figures")
            took.setdefault(name, []).append(work())
            sizes[name] = size
        if number < _ROUNDS - 1:
            dw.delete_feed("BENCH")
            dw.create_feed(_SPEC)
    copy = statistics.median(took["memcpy"]) / sizes["memcpy"]
    return [
        {"what": name, "records": sizes[name], "seconds": (s := statistics.median(times)),
         "memcpys": None if name == _AS_OF else round(s / sizes[name] / copy, 3)}
        for name, times in took.items()
    ]  # fmt: skip


def _trades(dtype: np.dtype[Any], records: int) -> Array:
    rng = np.random.default_rng(1)
    trades = np.zeros(records, dtype)
    for name in ("packet_us", "recv_us", "proc_us", "ev_us"):
        trades[name] = _START_US + np.arange(records, dtype="u8") * np.uint64(1000)
    trades["type"], trades["side"], trades["trade_id"] = b"T", b"B", np.arange(records)
    trades["price"], trades["size"] = rng.normal(65_000, 10, records), rng.exponential(0.1, records)
    return trades


def _works(dw: Platform, data: Array) -> list[tuple[str, int, Callable[[], float]]]:
    """Return what is measured: its name, how many records it is about, and what does it and returns the seconds."""
    records = len(data)
    singles = min(_SINGLE, records)

    def reader() -> Reader:
        return dw["BENCH"]

    return [
        ("memcpy", records, lambda: _copy(data)),
        (f"write, batches of {_BATCH:,}", records, lambda: _write(dw, data)),
        ("write, one at a time", singles, lambda: _write_singly(dw, data[:singles])),
        ("read a range, a copy", records, lambda: _read(reader(), records)),
        ("sum of a column", records, lambda: _sum(reader(), data)),
        ("to Arrow", records, lambda: _to_arrow(reader(), records)),
        (_AS_OF, _LOOKUPS, lambda: _as_of(reader(), data)),
    ]


def _copy(data: Array) -> float:
    raw = data.view(np.uint8)
    target = np.empty_like(raw)
    began = time.perf_counter()
    np.copyto(target, raw)
    return time.perf_counter() - began


def _write(dw: Platform, data: Array) -> float:
    with dw.create_writer("BENCH") as writer:
        began = time.perf_counter()
        for at in range(0, len(data), _BATCH):
            writer.write_batch(data[at : at + _BATCH])
        return time.perf_counter() - began


def _write_singly(dw: Platform, data: Array) -> float:
    values = data.tolist()
    with dw.create_writer("BENCH") as writer:
        began = time.perf_counter()
        for record in values:
            writer.write_values(*record)
        return time.perf_counter() - began


def _read(reader: Reader, records: int) -> float:
    with reader:
        began = time.perf_counter()
        found = np.array(reader.rows(0, records), copy=True)
        took = time.perf_counter() - began
    assert len(found) == records
    return took


def _sum(reader: Reader, data: Array) -> float:
    with reader:
        began = time.perf_counter()
        found = sum(float(part["price"].sum()) for part in reader.rows(0, len(data)))
        took = time.perf_counter() - began
    assert np.isclose(found, data["price"].sum())
    return took


def _to_arrow(reader: Reader, records: int) -> float:
    with reader:
        began = time.perf_counter()
        found = reader.rows(0, records).to_arrow()
        took = time.perf_counter() - began
    assert found.num_rows == records
    return took


def _as_of(reader: Reader, data: Array) -> float:
    rng = np.random.default_rng(2)
    wanted = rng.integers(0, len(data), _LOOKUPS)
    with reader:
        began = time.perf_counter()
        found = reader.asof(_START_US + wanted * 1000)
        took = time.perf_counter() - began
    assert np.array_equal(found.positions, np.where(wanted < min(_SINGLE, len(data)), found.positions, wanted))
    return took


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    a_second, took = row["records"] / max(row["seconds"], 1e-9), seconds(row["seconds"] * 1e6)
    if row["memcpys"] is None:
        return row["what"], f"{a_second:,.0f}", "-", took, "-"
    return row["what"], f"{a_second:,.0f}", amount(a_second * 64), took, f"{row['memcpys']:,.1f}"
