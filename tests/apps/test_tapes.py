"""Real recorded sessions, served over the websocket, recorded, and held against another reading of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tape_walk
from loopback import Session, record_session
from stored import faults, rows_of
from tape_walk import book_differences, differences, walk

from deepwater import Platform
from deepwater.apps.platform_sink import PlatformSink
from deepwater.apps.streams import Replay
from deepwater.apps.tape import TapeFrame, read_tape

LIVE = "2026-08-09-btc-usd-live.jsonl.gz"
PAIR = "cryptofeed-2026-08-09-COINBASE.jsonl.zst"
PRODUCTS = {LIVE: ["BTC-USD"], PAIR: ["BTC-USD", "ETH-USD"]}


@contextmanager
def opened(path: Path) -> Iterator[object]:
    """Open a tape for `read_tape`, which knows gzip but not zstd."""
    if path.suffix != ".zst":
        yield path
        return
    with pa.input_stream(path, compression="zstd") as stream:
        yield stream


@pytest.fixture(scope="module", params=[LIVE, PAIR])
def tape(request: pytest.FixtureRequest, shared_data: Path) -> tuple[str, list[TapeFrame]]:
    with opened(shared_data / "coinbase" / request.param) as source:
        return request.param, list(read_tape(source))


def record_tape(frames: list[TapeFrame], products: list[str], store: Path, **options: object) -> Session:
    with PlatformSink(store) as sink:
        return record_session(lambda: Replay(frames), products, sink, **options)


def test_the_walk_knows_what_the_tapes_are_known_to_hold(tape: tuple[str, list[TapeFrame]]) -> None:
    """Figures found by other programs when the tapes were collected: the oracle itself is held to them."""
    name, frames = tape
    found = walk([[frame.data for frame in frames]], PRODUCTS[name])
    bitcoin = found["BTC-USD"]
    if name == LIVE:
        assert len(frames) == 3448
        assert bitcoin.snapshots == [(0, 45_745)]
        assert len(bitcoin.levels) == 45_745 + 22_549
        assert bitcoin.best() == (Decimal("64734.06"), Decimal("64734.08"))
        assert (len(bitcoin.book["bid"]), len(bitcoin.book["offer"])) == (18_619, 27_194)
        assert bitcoin.absent_deletes == 720
        return
    ether = found["ETH-USD"]
    assert len(frames) == 1030
    assert (bitcoin.snapshots[0][1], ether.snapshots[0][1]) == (46_000, 23_334)
    assert [len(product.levels) for product in (bitcoin, ether)] == [46_000 + 1_930, 23_334 + 2_929]
    assert len(bitcoin.trades) + len(ether.trades) == 200 + 79
    assert bitcoin.best() == (Decimal("65083.66"), Decimal("65083.67"))
    assert ether.best() == (Decimal("1919.28"), Decimal("1919.38"))
    assert bitcoin.absent_deletes + ether.absent_deletes == 52


def test_a_recorded_tape_is_the_tape(tape: tuple[str, list[TapeFrame]], tmp_store: Path) -> None:
    """Every level and every trade, in order, ``stored == float(text)``; every mark; the book at the end."""
    name, frames = tape
    session = record_tape(frames, PRODUCTS[name], tmp_store)
    expected = walk([[frame.data for frame in frames]], PRODUCTS[name])
    with Platform(tmp_store) as store:
        for product in PRODUCTS[name]:
            assert faults(store, product, expected[product])[:5] == []
        if name == LIVE:  # every receipt is after the exchange's stamp: the tape is of the past
            rows = store["CB-L2-BTC-USD"].rows(0, 10**6)
            assert np.all(rows["recv_us"] > rows["packet_us"])
    assert session.counters.frames == len(frames)
    assert session.counters.gaps == session.counters.bad_frames == session.counters.errors == 0
    assert session.counters.levels == sum(len(product.levels) for product in expected.values())
    assert session.counters.trades == sum(len(product.trades) for product in expected.values())


def test_a_tape_with_a_lost_frame_and_a_lost_connection_says_so(
    tape: tuple[str, list[TapeFrame]], tmp_store: Path
) -> None:
    """The second connection plays the tape from its beginning: the book again, each trade once."""
    name, frames = tape
    session = record_tape(frames, PRODUCTS[name], tmp_store, faults=["drop@140", "drop@260", "close@400"])
    assert [len(sent) for sent in session.sent] == [398, len(frames)]
    expected = walk(session.sent, PRODUCTS[name])
    with Platform(tmp_store) as store:
        for product in PRODUCTS[name]:
            assert faults(store, product, expected[product])[:5] == []
            assert [gap[1] for gap in expected[product].level_gaps] == ["sequence", "sequence", "reconnect:"]
            assert len(store[f"CB-L2-{product}"].snapshots()) == 2
    assert (session.counters.gaps, session.counters.reconnects) == (2, 1)


def test_the_comparison_finds_one_corrupted_level(shared_data: Path, tmp_store: Path) -> None:
    """What was compared above would have been found: each column of one row, one row less, one order."""
    with opened(shared_data / "coinbase" / PAIR) as source:
        frames = list(read_tape(source))
    record_tape(frames, ["ETH-USD"], tmp_store)
    product = walk([[frame.data for frame in frames]], ["ETH-USD"])["ETH-USD"]
    with Platform(tmp_store) as store, store["CB-L2-ETH-USD"] as reader:
        honest = reader.rows(0, reader.end).to_numpy()
    assert differences(rows_of(honest), product.levels) == []
    at = 25_000
    for column in ("type", "side", "packet_us", "ev_us", "price", "qty", "seq"):
        forged = honest.copy()
        value = forged[column][at]
        if column in ("price", "qty"):
            forged[column][at] = np.nextafter(value, np.inf)
        else:
            forged[column][at] = b"X" if isinstance(value, bytes) else value + 1
        found = differences(rows_of(forged), product.levels)
        assert len(found) == 1
        assert found[0].startswith(f"row {at}: {column} is ")
    assert differences(rows_of(np.delete(honest, at)), product.levels)
    swapped = honest.copy()
    swapped[[at, at + 1]] = swapped[[at + 1, at]]
    assert differences(rows_of(swapped), product.levels)
    forged = honest.copy()
    last = {(row["side"], row["price"]): number for number, row in enumerate(rows_of(honest)) if row["qty"]}
    forged["qty"][last[b"A", float(product.best()[1])]] += 1.0
    assert len(book_differences(rows_of(forged), product)) == 1
    forged["proc_us"][at] -= 10**9
    assert any("steps back" in line for line in differences(rows_of(forged), product.levels))


def test_a_corrupted_feed_in_a_store_is_found(shared_data: Path, tmp_path: Path) -> None:
    """The same through the whole path: a feed with one wrong level fails the comparison that passes above."""
    with opened(shared_data / "coinbase" / PAIR) as source:
        frames = list(read_tape(source))
    needle = b'"price_level":"1919.28"'
    at = next(number for number, frame in enumerate(frames) if number > 300 and needle in frame.data)
    forged = [*frames]
    forged[at] = TapeFrame(frames[at].time_s, frames[at].data.replace(needle, b'"price_level":"1919.27"', 1))
    record_tape(forged, ["ETH-USD"], tmp_path / "forged")
    product = walk([[frame.data for frame in frames]], ["ETH-USD"])["ETH-USD"]
    with Platform(tmp_path / "forged") as store:
        found = faults(store, "ETH-USD", product)
    assert any("price is 1919.27, sent was '1919.28'" in line for line in found)


def test_the_walk_shares_no_code_with_what_it_judges() -> None:
    tree = ast.parse(Path(tape_walk.__file__).read_bytes())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    standard = {"__future__", "collections.abc", "dataclasses", "datetime", "decimal", "json", "typing"}
    assert names == standard
