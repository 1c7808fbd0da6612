"""Deepwater as a peer of the bench harness in ``../shared/bench``: goes there as ``peers/deepwater.py``.

`run_peers.py` copies it to where the harness finds it. It calls what a user would call, with default settings,
and hands in the structured array as it is; making the store, the feed and the writer is inside the clock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common as C  # noqa: N812  # the harness and its peers call it so
import numpy as np

import deepwater

FEED = "trades"
_TYPES = {"S1": "char", "u8": "uint64", "f8": "float64"}
_BLOCK = 8192  # rows of a dot product: from about 10,000 on OpenBLAS starts threads


def spec() -> dict[str, Any]:
    """Return the spec whose layout is the harness's record: 64 bytes, `price` at offset 48."""
    fields: list[dict[str, str]] = []
    at = 0
    for name in C.TRADE.names:
        dtype, offset = C.TRADE.fields[name][:2]
        if offset > at:
            fields.append({"name": "_", "type": f"_{offset - at}"})
        fields.append({"name": name, "type": _TYPES[dtype.str.lstrip("|<")]})
        at = offset + dtype.itemsize
    return {"feed_name": FEED, "ts_col": C.T_COL, "fields": fields}


class Writer:
    """Appends the harness's records, by slice or one by one."""

    def __init__(self, path: Path, src: Any) -> None:
        self._platform = deepwater.Platform(path)
        self._platform.create_feed(spec())
        self._writer = self._platform.create_writer(FEED)
        write_batch, write_values, records = self._writer.write_batch, self._writer.write_values, src.rec
        assert records.dtype == self._writer.layout.dtype

        def append(i: int, j: int) -> None:
            write_batch(records[i:j])

        def append_one(row: tuple[Any, ...]) -> None:
            write_values(*row)

        self.append, self.append_one = append, append_one

    def close(self) -> None:
        self._writer.close()
        self._platform.close()


class Handle:
    """A store and a reader, opened cold."""

    def __init__(self, path: Path) -> None:
        self.platform = deepwater.Platform(path)
        self.reader = self.platform.create_reader(FEED)

    def close(self) -> None:
        self.reader.close()
        self.platform.close()


class Deepwater(C.Peer):
    """The peer; times are µs, ranges half open."""

    name = "deepwater"
    uses = ()
    note = "default settings; every write visible at once; clocks, values and padding checked"

    def version(self) -> str:
        return f"deepwater {deepwater.__version__}, numpy {np.__version__}"

    def writer(self, path: Path, src: Any) -> Writer:
        return Writer(path, src)

    def open(self, path: Path) -> Handle:
        return Handle(path)

    def close(self, h: Handle) -> None:
        h.close()

    def count(self, path: Path) -> int:
        h = Handle(path)
        try:
            return len(h.reader)
        finally:
            h.close()

    def _window(self, h: Handle, t0: int | None, t1: int | None) -> Any:
        return h.reader.read(t0, t1, inclusive="left")

    def range_arr(self, h: Handle, t0: int, t1: int) -> Any:
        return self._window(h, t0, t1).to_numpy()

    def range_pandas(self, h: Handle, t0: int, t1: int) -> Any:
        return self._window(h, t0, t1).to_pandas()

    def vwap(self, h: Handle, t0: int | None = None, t1: int | None = None) -> float:
        money = volume = 0.0
        for records in self._window(h, t0, t1):
            price, size = records["price"], records["size"]
            for k in range(0, len(records), _BLOCK):
                block = size[k : k + _BLOCK]
                money += float(np.dot(price[k : k + _BLOCK], block))
                volume += float(block.sum())
        return money / volume

    def latest(self, h: Handle) -> int:
        return int(h.reader.get_latest_record().trade_id)

    def asof(self, h: Handle, times: Any) -> Any:
        return h.reader.asof(times)["trade_id"]

    def bars(self, h: Handle) -> dict[str, Any]:
        window = self._window(h, None, None)
        times, price, size = (window[name] for name in (C.T_COL, "price", "size"))
        minutes = times // np.uint64(C.MINUTE)
        first = np.flatnonzero(np.r_[True, minutes[1:] != minutes[:-1]])
        last = np.append(first[1:], len(minutes)) - 1
        return {
            "open": price[first], "high": np.maximum.reduceat(price, first), "low": np.minimum.reduceat(price, first),
            "close": price[last], "volume": np.add.reduceat(size, first),
        }  # fmt: skip


PEER = Deepwater()
