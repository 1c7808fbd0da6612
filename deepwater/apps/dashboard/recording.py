"""The child that records for a dashboard: ``-m deepwater.apps.dashboard.recording --venue V --uri U --base-path DIR``.

It is told on stdin and answers on stdout, a JSON object a line::

    {"do": "sub", "products": [...]}   {"do": "unsub", "products": [...]}
    {"event": "recording" | "ended" | "failed", "product": ..., "text": ...}   {"event": "log", "text": ...}

The end of stdin, SIGTERM, SIGINT and SIGHUP end it: each recording stops between two frames, its feeds are flushed and
closed. So it never outlives its dashboard for long, whatever became of that. Each product is a recording of its own,
with its own connection and its own handle on the store; one that fails takes no other with it. What the endpoint takes
from one address a second is kept by all of them together: they share a `Pacer`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Iterable

from deepwater.apps.bad_frames import BadFrames
from deepwater.apps.connection import Link
from deepwater.apps.counters import Counters
from deepwater.apps.metrics_feed import MetricsFeed
from deepwater.apps.platform_sink import PlatformSink
from deepwater.apps.recorder import Stop, record
from deepwater.apps.roster import pacer_of
from deepwater.apps.venue import Venue
from deepwater.apps.venues import find_venue
from deepwater.errors import DeepwaterError

__all__ = ["main"]

_STDOUT = 1
_TICK_S = 0.25
_TEXT_MAX, _PRODUCT_MAX = 3000, 1000  # a line is less than PIPE_BUF (4,096), so it is written whole or not at all


def say(event: str, text: str = "", product: str = "") -> None:
    """Write one line. Never waits: where nobody reads (a dashboard that is stopped, or gone) it is let go."""
    line = json.dumps({"event": event, "product": _cut(product, _PRODUCT_MAX), "text": _cut(text, _TEXT_MAX)})
    with contextlib.suppress(OSError):
        os.write(_STDOUT, line.encode() + b"\n")


def _cut(text: str, room: int) -> str:
    """Text of which JSON has `room` bytes at most; what is left out is said by three dots.

    >>> _cut("short", 20), len(json.dumps(_cut("\N{GREEK SMALL LETTER MU}" * 1000, 100)))
    ('short', 95)
    """
    if len(json.dumps(text)) <= room:
        return text
    while (size := len(json.dumps(text)) + 3) > room:
        text = text[: len(text) * room // size]
    return f"{text}..."


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say("log", record.getMessage())


class Recordings:
    """The recordings of one process: a task a product. For one event loop."""

    def __init__(self, uri: str, base_path: str, venue: Venue) -> None:
        self.counters = Counters()
        self._link = Link(uri)
        self._base_path = base_path
        self._venue = venue
        self._pacer = pacer_of(venue)
        self._keep_bad = BadFrames(base_path, venue.name)
        self._running: dict[str, tuple[Stop, asyncio.Task[None]]] = {}
        self._again: set[str] = set()  # to be begun when their last recording has ended

    def sub(self, products: Iterable[str]) -> None:
        """Begin to record products; those that are recorded already go on."""
        for product in products:
            if product in self._running and self._running[product][0].reason:
                self._again.add(product)
            elif product not in self._running:
                stop = Stop()
                self._running[product] = stop, asyncio.create_task(self._record(product, stop))

    def unsub(self, products: Iterable[str]) -> None:
        """End the recording of products."""
        for product in products:
            self._again.discard(product)
            if product in self._running:
                self._running[product][0]()

    async def _record(self, product: str, stop: Stop) -> None:
        try:
            if not stop.reason:
                with PlatformSink(self._base_path) as sink:
                    say("recording", product=product)
                    await record(
                        self._link, [product], sink, stop=stop, counters=self.counters, venue=self._venue,
                        pacer=self._pacer, keep_bad=self._keep_bad,
                    )  # fmt: skip
            say("ended", product=product)
        except (DeepwaterError, OSError) as error:
            say("failed", " ".join(str(error).split()), product)
        except Exception as error:  # noqa: BLE001 - the other products go on
            say("failed", f"unexpected {type(error).__name__}: {error}", product)
        finally:
            del self._running[product]
            if product in self._again:
                self._again.discard(product)
                self.sub([product])

    async def close(self) -> None:
        """End all recordings."""
        self.unsub(list(self._running))
        while self._running:
            await asyncio.gather(*(task for _, task in self._running.values()), return_exceptions=True)


async def _main(venue: Venue, uri: str, base_path: str) -> None:
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    pipe, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stdin.feed_eof)
    recordings = Recordings(uri, base_path, venue)
    with MetricsFeed(base_path) as metrics:
        told = loop.create_task(_obey(stdin, recordings))
        while not told.done():
            await asyncio.wait([told], timeout=_TICK_S)
            _write(metrics, recordings.counters)
        await recordings.close()
        recordings.counters.stopped = "stop"
        metrics(recordings.counters)
    pipe.close()
    told.result()


def _write(metrics: MetricsFeed, counters: Counters) -> None:
    """Write a row once there is something to tell: a store that is not recorded into is left alone."""
    counters.stopped = ""  # one product's end is not the recording's
    if counters.feeds:
        metrics(counters)


async def _obey(stdin: asyncio.StreamReader, recordings: Recordings) -> None:
    while line := await stdin.readline():
        told = json.loads(line)
        (recordings.sub if told["do"] == "sub" else recordings.unsub)(told["products"])


def main() -> int:
    """Record as told until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--venue", required=True)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--base-path", required=True)
    args = parser.parse_args()
    os.set_blocking(_STDOUT, False)
    log = logging.getLogger("deepwater")
    log.addHandler(_Log())
    log.setLevel(logging.INFO)
    try:
        asyncio.run(_main(find_venue(args.venue), args.uri, args.base_path))
    except DeepwaterError as error:
        say("failed", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
