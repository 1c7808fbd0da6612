"""Real recorded sessions through all of it, each part a process: exchange, recorder, maintainer, and one that asks.

What it was told is held against a walk over the tape that shares no code with the books (decimals in two dicts), at
each moment it asked for, as is every record of the maintainer, and the incremental form of the book.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from book_walk import DecimalBook, check_records, digest_of
from tape_walk import Product, walk
from test_tapes import LIVE, PAIR, PRODUCTS, opened

from deepwater import Platform
from deepwater.apps.tape import TapeFrame, read_tape
from deepwater.book import OrderBook
from deepwater.books import book_at
from deepwater.reader import Reader
from processes import Worker

ASKS = Path(__file__).resolve().parents[1] / "workers" / "asks_for_books.py"
COMMAND = "import sys\nfrom deepwater.cli import main\nsys.exit(main(sys.argv[1:]))"
FAULTS = {140: "drop", 260: "drop", 400: "close"}
TIMES, DEPTH = 200, 50


class Answer(NamedTuple):
    """A line of the worker that asks."""

    time_us: int
    end: int
    position: int
    valid: bool
    crossed: bool
    bids: int
    asks: int
    digest: int


def plain_tape(path: Path, place: Path) -> tuple[Path, list[TapeFrame]]:
    """Give a tape as the exchange reads it, and its frames."""
    with opened(path) as source:
        if isinstance(source, Path):
            return path, list(read_tape(source))
        copy = place / "tape.jsonl"
        copy.write_bytes(source.read())  # type: ignore[attr-defined]
        return copy, list(read_tape(copy))


def sent(frames: Sequence[TapeFrame], with_faults: bool) -> list[list[bytes]]:
    """What the exchange sends, connection by connection: the second begins the tape anew, and no fault comes again."""
    everything = [frame.data for frame in frames]
    if not with_faults:
        return [everything]
    cut = next(number for number, kind in FAULTS.items() if kind == "close")
    return [[data for number, data in enumerate(everything[:cut]) if number not in FAULTS], everything]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "with_faults"), [(LIVE, False), (PAIR, True)])
def test_books_of_a_tape_asked_for_by_another_process(
    shared_data: Path, tmp_path: Path, name: str, with_faults: bool
) -> None:
    store, products = tmp_path / "store", PRODUCTS[name]
    tape, frames = plain_tape(shared_data / "coinbase" / name, tmp_path)
    expected = walk(sent(frames, with_faults), products)
    faults = [word for number, kind in FAULTS.items() for word in ("--fault", f"{kind}@{number}")] * with_faults
    keep = ["--product", ",".join(products), "--interval", 0.1, "--depth", DEPTH, "--persist", "--json"]
    with (
        Worker(COMMAND, "book", "--base-path", store, *keep) as keeper,
        Worker(ASKS, store, 7, TIMES, *products) as asker,
        Worker(COMMAND, "exchange", "--tape", tape, "--port", 0, "--duration", 100, *faults) as exchange,
    ):
        words = [word for product in products for word in ("--product", product)]
        words += ["--uri", exchange.readline(), "--base-path", str(store)]
        with Worker(COMMAND, "record", "coinbase", *words) as record:
            assert asker.readline() == "asking"
            with Platform(store) as dw:
                for product in products:
                    with dw[f"CB-L2-{product}"] as reader:
                        until(lambda reader=reader, product=product: len(reader) >= len(expected[product].levels))
                        kept = dw[f"CB-L2SNAP-{product}"]
                        until(lambda kept=kept, reader=reader: len(kept) and newest(kept) == reader.end)
                        kept.close()
            assert record.kill(signal.SIGTERM) == 0, record.stderr()
        lines = asker.finish().splitlines()
        assert keeper.kill(signal.SIGTERM) == 0, keeper.stderr()
    assert len(lines) >= TIMES
    with Platform(store) as dw:
        for product in products:
            answers = [Answer(*map(int, line.split()[1:])) for line in lines if line.split()[0] == product]
            with dw[f"CB-L2-{product}"] as reader, dw[f"CB-L2SNAP-{product}"] as kept:
                check_answers(answers, reader, expected[product])
                check_kept(kept, reader, expected[product])


def until(condition: Any) -> None:
    """Wait until it holds; the deadline is for a deadlock."""
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def newest(kept: Reader) -> int:
    return int(kept.get_latest_record().l2_position)


def walk_over(product: Product) -> DecimalBook:
    rows = ((row["side"], row["price"], row["qty"]) for row in product.levels)
    return DecimalBook(rows, [at for at, _ in product.snapshots], [at for at, *_ in product.level_gaps])


def check_answers(answers: list[Answer], reader: Reader, product: Product) -> None:
    """Each answer, by position: the walk over the tape, and the incremental book of what is stored."""
    proc_us, marks = reader.read()["proc_us"], reader.marks()
    book, step = walk_over(product), OrderBook()
    for answer in sorted(answers, key=lambda answer: answer.position):
        stop = int(proc_us.searchsorted(np.uint64(answer.time_us), "right"))
        assert answer.position == stop or stop >= answer.end >= answer.position  # more of this time came later
        book.advance(answer.position)
        assert (answer.bids, answer.asks) == tuple(len(book.sides[side]) for side in (b"B", b"A"))
        assert answer.digest == book.digest
        assert book.may_be(answer.valid) and not answer.crossed
        step.apply(reader.rows(step.position, answer.position).to_numpy(), marks)
        both = step.book()
        assert digest_of(both.bids, both.asks) == answer.digest and book.may_be(step.valid) and not step.crossed
        assert [[step.best_bid], [step.best_ask]] == list(book.top(1))


def check_kept(kept: Reader, reader: Reader, product: Product) -> None:
    """Each record of the maintainer; and books that begin from them, at random times."""
    records = kept.read().to_numpy()
    assert sum(1 for _ in check_records(records, walk_over(product))) == len(records) and records["valid"].any()
    assert (records["snapshot_us"] >= records["l2_us"]).all()
    assert not (records["bid_px"][:, 0] >= records["ask_px"][:, 0]).any()
    low, high = reader.coverage()
    for time_us in np.random.default_rng(3).integers(low, high + 1, 20).tolist():
        plain, quick = (book_at(reader, time_us, 20, snapshots=base) for base in (None, kept))
        assert (plain.bids.tolist(), plain.asks.tolist()) == (quick.bids.tolist(), quick.asks.tolist())
        assert (plain.position, plain.reason) == (quick.position, quick.reason)


def test_the_number_of_a_book_is_of_all_its_levels() -> None:
    """The walk's and the arrays' are one; one level more, less, moved to the other side or changed is another."""
    rows = [(b"B", "10.5", "1.25"), (b"B", "10.1", "0.3"), (b"A", "11.0", "2"), (b"A", "12.5", "1e-8")]
    book = DecimalBook(rows, [0], [])
    book.advance(4)
    dtype = [("price", "f8"), ("qty", "f8")]
    bids, asks = (np.array(levels, dtype) for levels in book.top(9))
    assert digest_of(bids, asks) == book.digest
    others = [(asks, bids), (bids[:1], asks), (bids, np.concatenate((asks, asks[:1])))]
    for name in ("price", "qty"):
        other = bids.copy()
        other[name] = other[name][::-1]
        others.append((other, asks))
    assert all(digest_of(*other) != book.digest for other in others)
