"""Feeds with holes: what is done to a feed as a list of steps, and the marks and spans found by counting.

The oracle loops over single records and imports nothing of deepwater but the writer's side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from deepwater import Platform
from deepwater.index import DROPPED, pack_mark
from deepwater.oldest import Oldest
from deepwater.reader import Reader

UNKNOWN = MAX_US = 2**64 - 1
FIELDS = [{"name": "ts_us", "type": "uint64"}, {"name": "ev_us", "type": "uint64"}, {"name": "n", "type": "uint64"}]


class Mark(NamedTuple):
    position: int
    kind: str
    from_us: int = 0
    to_us: int = 0
    lost: int | None = None


class Told(NamedTuple):
    """What was done to a feed."""

    ts: list[int]
    ev: list[int]
    marks: list[Mark]


TIMES = st.tuples(st.integers(0, 60), st.sampled_from([*range(91), MAX_US]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(TIMES, min_size=1, max_size=9)),
        st.tuples(st.just("gap"), st.integers(0, 60), st.integers(0, 60), st.one_of(st.none(), st.integers(0, 9))),
        st.tuples(st.just("dropped"), st.integers(0, 9)),
        st.tuples(st.just("rotate"), st.integers(1, 7)),
    ),
    max_size=14,
)
"""Steps on a feed: times of written records (relative to the last of `ts_us`, and whole for `ev_us`), and marks."""


def random_steps(rng: np.random.Generator) -> list[Any]:
    """Steps as they are likely: more writes than marks, most clocks nearly in order, marks of times about the gap."""
    steps: list[Any] = []
    ev = int(rng.integers(0, 60))
    for _ in range(rng.integers(3, 16)):
        kind = rng.choice(["write", "gap", "dropped", "rotate"], p=[0.55, 0.3, 0.05, 0.1])
        if kind == "write":
            rows = []
            for _ in range(rng.integers(1, 10)):
                ev = max(0, ev + int(rng.integers(-2, 6)))
                rows.append((int(rng.integers(0, 20)), ev if rng.random() < 0.9 else (0, MAX_US)[rng.integers(2)]))
            steps.append(("write", rows))
        elif kind == "gap":
            begin = int(rng.integers(0, 20))
            steps.append(
                ("gap", begin, int(rng.integers(0, 12)), None if rng.random() < 0.5 else int(rng.integers(0, 9)))
            )
        else:
            steps.append((str(kind), int(rng.integers(1, 8))))
    return steps


def tell(dw: Platform, name: str, steps: list[Any], *, in_order: bool = True) -> Told:
    """Do the steps to a new feed of small chunks; return what a reader must find."""
    dw.create_feed({"feed_name": name, "ts_col": "ts_us", "fields": FIELDS, "chunk_size_bytes": 24 * 4})
    told, now = Told([], [], []), 100
    with dw.create_writer(name) as writer:
        for what, *rest in steps:
            at = len(told.ts)
            if what == "write":
                for step, ev in rest[0]:
                    now = now + step if in_order else 100 + step
                    told.ts.append(now)
                    told.ev.append(ev)
                rows = slice(at, None)
                writer.write_batch({"ts_us": told.ts[rows], "ev_us": told.ev[rows], "n": list(range(at, len(told.ts)))})
            elif what == "gap":
                begin, length, lost = rest
                begin = now + begin if begin else 0
                stop = begin + length if length else 0
                writer.mark_gap(lost, begin or None, stop or None, "a test")
                told.marks.append(Mark(at, "gap", begin, stop, lost))
            elif what == "dropped":  # as a recovery does
                writer._marks.append(pack_mark(at, 1, rest[0], DROPPED))
                told.marks.append(Mark(at, "dropped", lost=rest[0]))
            else:
                writer.resize_chunk_size(24 * rest[0])
    return told


def inside(told: Told, after: int, last: int) -> list[Mark]:
    """The marks between two rows."""
    return [mark for mark in told.marks if after < mark.position <= last]


def as_marks(rows: np.ndarray) -> list[Mark]:
    """Marks as a reader hands them out."""
    return [
        Mark(int(r["position"]), r["kind"].decode(), int(r["from_us"]), int(r["to_us"]),
             None if int(r["count"]) == UNKNOWN else int(r["count"]))
        for r in rows
    ]  # fmt: skip


def positions(window: Any) -> list[int]:
    return window["n"].tolist() if len(window) else []


def oldest_removed(reader: Reader, chunks: int) -> None:
    """Make a reader one of a feed whose oldest chunks are gone, as retention leaves it."""
    chain: Any = reader._chain
    base = chain._bases[chunks] if chunks < len(chain._bases) else chain.tail.base
    chain._forget(Oldest(chain.chunk_id(chunks), base))
