"""What recording costs: ``python tests/bench/record.py [--frames 20000] [--rounds 5] [--tape FILE]``.

A child process plays the same frames through a websocket on 127.0.0.1, as fast as they are taken, round by round to

- `raw`: a client that receives them and decodes each to typed values by msgspec, and does nothing with them: what one
  would write without Deepwater, and without keeping anything;
- `recorder`: `deepwater.apps.recorder.record` into feeds of a new store on disk: decoded, checked, stamped, published.

The same without a websocket: `decode` (msgspec alone) and `ingest` (decoded and published), over frames in memory.
Each is one thread: frames and levels a second of its own CPU time, medians of rounds, and the ratio to the first of its
pair. Without a tape the frames are of a synthetic market of two products, after their snapshots.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from deepwater.apps.connection import Link
from deepwater.apps.counters import Counters
from deepwater.apps.exchange import Exchange
from deepwater.apps.exchange_session import ClientSession
from deepwater.apps.ingest import Ingest
from deepwater.apps.market import Market
from deepwater.apps.platform_sink import PlatformSink
from deepwater.apps.recorder import Stop, record
from deepwater.apps.streams import Replay
from deepwater.apps.subscriptions import message
from deepwater.apps.tape import TapeFrame, read_tape

PRODUCTS = ["BTC-USD", "ETH-USD"]
SEED, DEPTH, STEP_US = 11, 500, 1000


class Level(msgspec.Struct, gc=False):
    """As one would write it who has only this in mind."""

    side: str
    event_time: str
    price_level: float
    new_quantity: float


class Trade(msgspec.Struct, gc=False):
    """One trade."""

    product_id: str
    trade_id: int
    price: float
    size: float
    time: str
    side: str


class Event(msgspec.Struct):
    """Of either channel."""

    type: str = ""
    product_id: str = ""
    updates: list[Level] = []
    trades: list[Trade] = []


class Frame(msgspec.Struct):
    """Of any channel."""

    channel: str
    timestamp: str
    sequence_num: int
    events: list[Event] = []


DECODER = msgspec.json.Decoder(Frame, strict=False)


def frames_of(tape: str | None, count: int) -> list[bytes]:
    """The first frames of a tape, or of a market."""
    if tape is not None:
        return [frame.data for frame in read_tape(tape)][:count]
    market, now_us = Market(PRODUCTS, SEED, DEPTH), 1_786_309_548_000_000
    session = ClientSession(market, lambda: now_us * 1000)
    frames = [frame for channel in ("level2", "market_trades")
              for _, frame in session.receive(message("subscribe", channel, PRODUCTS))]  # fmt: skip
    while len(frames) < count:
        now_us += STEP_US
        frames += [data for name in PRODUCTS for _, data in session.step(name, market[name].step(now_us))]
    return frames[:count]


def levels_of(frames: list[bytes]) -> int:
    """How many levels there are in all."""
    return sum(len(event.updates) for data in frames for event in DECODER.decode(data).events)


class Server:
    """A child that plays the frames to whoever comes."""

    def __init__(self, words: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", *words], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )

    def __enter__(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def serve(frames: list[bytes]) -> None:
    """Until stdin is closed."""

    async def main() -> None:
        tape = [TapeFrame(0.0, data) for data in frames]
        async with Exchange(Replay(tape)) as exchange:
            print(exchange.uri, flush=True)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())


def raw(uri: str, frames: list[bytes]) -> None:
    """Receive and decode."""

    async def main() -> None:
        async with connect(uri, proxy=None, max_size=None, compression=None) as socket:
            await socket.send(message("subscribe", "level2", PRODUCTS))
            seen = 0
            try:
                while seen < len(frames):
                    DECODER.decode(await socket.recv(decode=False))
                    seen += 1
            except ConnectionClosed:
                pass
            assert seen == len(frames)

    asyncio.run(main())


def recorder(uri: str, frames: list[bytes]) -> None:
    """Record all of it into a new store."""

    async def main(store: str) -> Counters:
        counters, stop = Counters(), Stop()
        with PlatformSink(store) as sink:
            task = asyncio.create_task(record(Link(uri), PRODUCTS, sink, stop=stop, counters=counters))
            while counters.frames < len(frames) and not task.done():  # noqa: ASYNC110 - counters are no events
                await asyncio.sleep(0.01)
            stop()
            return await task

    with tempfile.TemporaryDirectory() as store:
        check(asyncio.run(main(store)), frames)


def decode(frames: list[bytes]) -> None:
    """By msgspec alone."""
    for data in frames:
        DECODER.decode(data)


def ingest(frames: list[bytes]) -> None:
    """Into a new store."""
    with tempfile.TemporaryDirectory() as store, PlatformSink(store) as sink:
        counters = Counters()
        taken = Ingest(sink, PRODUCTS, counters)
        taken.connected()
        for data in frames:
            taken.frame(data, time.time_ns() // 1000)
        check(counters, frames)


def check(counters: Counters, frames: list[bytes]) -> None:
    """All of it is there."""
    assert counters.frames == len(frames) and not counters.gaps and not counters.bad_frames
    assert counters.levels == levels_of(frames)


def cpu_s(work: Callable[..., None], *args: Any) -> float:
    """CPU seconds of this process."""
    began = time.process_time()
    work(*args)
    return time.process_time() - began


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tape")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    frames = frames_of(args.tape, args.frames)
    if args.serve:
        serve(frames)
        return
    levels = levels_of(frames)
    words = ["--frames", str(args.frames), *(["--tape", args.tape] if args.tape else [])]
    times: dict[str, list[float]] = {"raw": [], "recorder": [], "decode": [], "ingest": []}
    with Server(words) as uri:
        for _ in range(args.rounds):
            times["raw"].append(cpu_s(raw, uri, frames))
            times["recorder"].append(cpu_s(recorder, uri, frames))
            times["decode"].append(cpu_s(decode, frames))
            times["ingest"].append(cpu_s(ingest, frames))
    print(f"{len(frames):,} frames, {levels:,} levels, {sum(map(len, frames)):,} bytes; a second of one core:")
    for name, base in (("raw", "raw"), ("recorder", "raw"), ("decode", "decode"), ("ingest", "decode")):
        median, ratio = statistics.median(times[name]), statistics.median(times[name]) / statistics.median(times[base])
        rates = f"{len(frames) / median:12,.0f} frames/s {levels / median:12,.0f} levels/s"
        print(f"{name:9} {rates} {ratio:6.2f} x {base}")


if __name__ == "__main__":
    main()
