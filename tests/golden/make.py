"""Make the golden files: a small store with everything in it. Run only when the format changes.

    python tests/golden/make.py

One feed of four chunks: an early rotation, a batch across chunks, a snapshot, a gap, a clock out of order.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from deepwater import Platform

HERE = Path(__file__).parent
SPEC = {
    "feed_name": "GOLDEN", "ts_col": "proc_us", "chunk_size_bytes": 16 * 64, "index_playback": True,
    "desc": "the format, in a few records",
    "fields": [
        {"name": "type", "type": "char"}, {"name": "side", "type": "char"}, {"name": "_", "type": "_6"},
        {"name": "trade_id", "type": "uint64"}, {"name": "recv_us", "type": "uint64"},
        {"name": "proc_us", "type": "uint64"},
        {"name": "price", "type": "float64"}, {"name": "size", "type": "float32"}, {"name": "ok", "type": "bool"},
        {"name": "level", "type": "int8"}, {"name": "venue", "type": "char[2]"}, {"name": "depth", "type": "int32[4]"},
    ],
}  # fmt: skip
T0 = 1_786_309_548_000_000


def records(dtype: np.dtype, first: int, count: int) -> np.ndarray:
    """Records whose every field is a function of the position."""
    k = np.arange(first, first + count, dtype=np.uint64)
    out = np.zeros(count, dtype)
    out["type"], out["side"] = b"T", np.where(k % 2 == 0, b"B", b"S")
    out["trade_id"], out["proc_us"] = 1000 + k, T0 + 10 * k
    out["recv_us"] = T0 + 10 * k - 3 * (k % 4)
    out["recv_us"][k % 7 == 6] -= 100
    out["price"], out["size"], out["ok"] = 65000 + k / 4, k / 8, k % 3 == 0
    out["level"], out["venue"] = -(k.astype(np.int64) % 100), b"CB"
    out["depth"] = k.astype(np.int64)[:, None] * np.array([1, -1, 2, -2])
    return out


def main() -> None:
    store = HERE / "store"
    shutil.rmtree(store, ignore_errors=True)
    with Platform(store) as dw:
        dw.create_feed(SPEC)
        with dw.create_writer("GOLDEN") as w:
            make = lambda first, count: records(w.layout.dtype, first, count)  # noqa: E731  # shorter here
            w.write_batch(make(0, 5))
            w.write_values(*make(5, 1)[0].item())
            w.resize_chunk_size(20 * w.layout.record_size)
            w.write_batch(make(6, 50), create_index=True)
            w.mark_gap(lost=7, from_us=T0 + 550, to_us=T0 + 560, reason="sequence 41 to 47")
            w.write_batch(make(56, 2))
            w.flush()
    for leftover in store.rglob("*.lock"):
        leftover.unlink()


if __name__ == "__main__":
    main()
