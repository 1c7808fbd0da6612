"""A real tape recorded with a lost frame and a lost connection: three spans, the same for all its feeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tape_walk import walk
from test_tapes import PAIR, PRODUCTS, opened, record_tape

from deepwater import Platform
from deepwater.apps.tape import read_tape
from deepwater.gaps import common, contiguous


def test_a_tape_with_a_lost_frame_and_a_reconnect_has_the_spans_between(shared_data: Path, tmp_store: Path) -> None:
    with opened(shared_data / "coinbase" / PAIR) as source:
        frames = list(read_tape(source))
    session = record_tape(frames, PRODUCTS[PAIR], tmp_store, faults=["drop@140", "close@400"])
    expected = walk(session.sent, PRODUCTS[PAIR])
    with Platform(tmp_store) as store:
        readers = {name: store[name] for name in store.list_feeds()}
        assert len(readers) == 4
        for product in PRODUCTS[PAIR]:
            for kind, marks in (("L2", expected[product].level_gaps), ("TRADES", expected[product].trade_gaps)):
                reader = readers[f"CB-{kind}-{product}"]
                found = contiguous(reader)
                cuts = sorted({position for position, *_ in marks} - {0, int(reader.end)})
                edges = [0, *cuts, int(reader.end)]
                kept = found.spans[found.spans["records"] > 0]
                assert kept["first"].tolist() == edges[:-1] and kept["stop"].tolist() == edges[1:]
                assert len(found.gaps) == len(marks) and found.records == len(reader) and 0 < found.share < 1
                clock = reader.read()["proc_us"]
                for first, stop, low, high in kept[["first", "stop", "from_us", "to_us"]].tolist():
                    assert (int(clock[first]), int(clock[stop - 1])) == (low, high)
        shared = common(readers.values())
        assert len(shared) >= 3  # before the lost frame, between it and the lost connection, and after that
        for begin, end in shared.tolist():  # whole in each: no mark of any feed is inside
            for reader in readers.values():
                assert len(reader.read(begin, end).gaps) == 0
        for reader in readers.values():
            reasons = [mark["reason"].decode().split(" ")[0] for mark in reader.gaps()]
            assert {"sequence", "reconnect:"} <= set(reasons)
            inside = reader.read().gaps["position"]
            assert np.array_equal(inside, [p for p in reader.gaps()["position"] if 0 < p < reader.end])
