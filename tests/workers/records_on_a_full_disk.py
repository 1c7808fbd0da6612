"""The real recorder against the local exchange, while its disk is filled and freed. Says counts as name=value.

Arguments: the mount point of a small file system, how often it is filled.
"""

import asyncio
import contextlib
import logging
import os
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "apps"))

from loopback import Session, settled
from stored import rows_of
from tape_walk import differences, walk

from deepwater import Platform
from deepwater.apps import specs
from deepwater.apps.connection import Link
from deepwater.apps.exchange import Exchange
from deepwater.apps.platform_sink import PlatformSink
from deepwater.apps.recorder import Stop, record
from deepwater.apps.streams import Synthetic

disk, fills = Path(sys.argv[1]), int(sys.argv[2])
store, filler = disk / "store", disk / "filler"
PRODUCT, CHUNK = "BTC-USD", 128 << 10
FEEDS = (f"CB-L2-{PRODUCT}", f"CB-TRADES-{PRODUCT}")
logging.disable(logging.WARNING)
warnings.simplefilter("ignore")  # that the feeds have smaller chunks than their specs


def fill() -> None:
    with filler.open("wb") as file:
        while (size := (free := os.statvfs(disk)).f_bavail * free.f_frsize) > 0:
            with contextlib.suppress(OSError):  # the next chunk, just being made, took some of it
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)


async def main() -> tuple[Session, int]:
    resumed = 0
    session, stop = Session(), Stop()
    counters = session.counters
    market = Synthetic([PRODUCT], seed=4, rate=400, depth=20)
    with PlatformSink(store) as sink:
        async with Exchange(market, on_send=session.on_send) as exchange:
            link = Link(exchange.uri, backoff_s=0.01)
            channels = ("level2", "market_trades")
            task = asyncio.create_task(record(link, [PRODUCT], sink, channels=channels, stop=stop, counters=counters))

            async def until(condition) -> None:
                await settled(lambda: condition() or task.done())
                if task.done():
                    task.result()

            for _ in range(fills):
                here = sum(counters.feeds.values())
                await until(lambda here=here: sum(counters.feeds.values()) > here + 500)
                fill()
                lost = counters.unstored
                await until(lambda lost=lost: counters.unstored > lost + 50)
                assert "storage full" in counters.last_error, counters.last_error
                filler.unlink()
                here = sum(counters.feeds.values())
                await until(lambda here=here: sum(counters.feeds.values()) > here + 50)
                resumed += 1
            stop()
            await task
    return session, resumed


def in_order(rows: list[dict], sent: list[dict], key: str) -> list[dict]:
    """The part of what was sent that these rows are, matched in order."""
    found, rest = [], iter(sent)
    for row in rows:
        for want in rest:
            same = want[key] == row[key] and want["side"] == row["side"] and float(want["price"]) == row["price"]
            if same:
                found.append(want)
                break
    return found


with Platform(store) as dw:
    for kind in (specs.L2, specs.TRADES):
        dw.create_feed({**specs.spec(kind, PRODUCT).to_json(), "chunk_size_bytes": CHUNK})
session, resumed = asyncio.run(main())
expected = walk(session.received, [PRODUCT])[PRODUCT]
stored = lost = gaps = 0
with Platform(store) as dw:
    for name, sent, key in zip(FEEDS, (expected.levels, expected.trades), ("seq", "trade_id"), strict=True):
        with dw[name] as reader:
            rows = rows_of(reader.rows(reader.first, reader.end).to_numpy())
            full = [mark for mark in reader.gaps() if mark["reason"].startswith(b"storage full")]
        assert len(rows) == session.counters.feeds[name], "what was counted as stored is not there"
        assert differences(rows, in_order(rows, sent, key)) == []
        missing = sum(int(mark["count"]) for mark in full)
        assert len(rows) + missing == len(sent), f"{name}: {len(rows)} stored, {missing} marked, {len(sent)} sent"
        stored, lost, gaps = stored + len(rows), lost + missing, gaps + len(full)
assert lost == session.counters.unstored
print(f"fills={fills} resumed={resumed} stored={stored} refused={lost} gaps={gaps}")
