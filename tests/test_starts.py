"""History, then live: a reader that starts anywhere in the past sees every position once; and very many chunks."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model
from deepwater import Platform
from processes import Worker

WORKERS = Path(__file__).parent / "workers"
SIZE = model.CHECKED.itemsize
SPEC: dict[str, Any] = {"feed_name": "F", "ts_col": "ts_us", "fields": model.CHECKED_FIELDS}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["durable", "ring"])
def test_a_thousand_starts_in_the_past_arrive_in_the_present(tmp_store: Path, kind: str) -> None:
    """Two processes of 500 starts each beside a writer: of a durable feed that rotates every 400 records, of a ring."""
    chunks: dict[str, Any] = {"chunk_size_bytes": 400 * SIZE, "index_playback": True}
    ring = {"chunk_size_bytes": 60_000 * SIZE, "persist": False}
    with Platform(tmp_store) as dw:
        dw.create_feed({**SPEC, **(chunks if kind == "durable" else ring)})
        with Worker(WORKERS / "write_on.py", tmp_store, "F", 3, timeout=200) as writer:
            assert writer.readline() == "ready"
            path, args = WORKERS / "start_often.py", (tmp_store, "F", 500)
            with Worker(path, *args, 1, timeout=200) as a, Worker(path, *args, 2, timeout=200) as b:
                counts = [json.loads(worker.finish()) for worker in (a, b)]
            end = int(writer.finish())
        rotations = len(dw["F"]._chain) - 1 if kind == "durable" else 0
        print(f"{kind}: {end} records, {rotations} rotations, {counts}")
        assert sum(count["starts"] for count in counts) == 1000
        assert all(count["live"] > 500 and count["history"] > 50_000 for count in counts)
        assert rotations > 40 or kind == "ring"
        dw.delete_feed("F")


@pytest.mark.slow
def test_thousands_of_chunks_pass_every_doubling_of_the_registry_under_readers() -> None:
    """2,100 chunks of ten records: a reader and a follower that were there from the start, and new ones, see all."""
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None  # each chunk is synced: a disk would take minutes
    with tempfile.TemporaryDirectory(dir=shared) as base, Platform(base) as dw:
        dw.create_feed({**SPEC, "chunk_size_bytes": 10 * SIZE})
        old, follower, seen, end = dw["F"], dw["F"].follow("earliest", timeout=0), 0, 0
        with dw.create_writer("F") as writer:
            sizes = set()
            while len(old._chain) < 2_100:
                writer.write_batch(model.checked_records(end, 97, end))
                end += 97
                batch = model.joined(follower, model.CHECKED)
                assert (batch["position"] == np.arange(seen, end, dtype=np.uint64)).all()
                seen = end
                size = (Path(base) / "data" / "F" / "F.reg").stat().st_size
                if size not in sizes:
                    sizes.add(size)
                    for reader in (old, dw["F"]):
                        assert (reader.first, reader.end) == (0, end)
                        model.whole_writes(reader.read().to_numpy())
                        middle = reader.rows(end // 2, end // 2 + 30)["position"]
                        assert middle.tolist() == list(range(end // 2, end // 2 + 30))
                        stamp = model.EPOCH_2026 + end // 6
                        assert reader.position_of(np.datetime64(stamp, "us")) == end // 6 * 3
        print(f"{len(old._chain)} chunks, registry sizes {sorted(sizes)}")
        assert len(sizes) >= 6
