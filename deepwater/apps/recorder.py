"""The recorder: a venue's market data into feeds, until told to stop.

Which feeds a product has the venue says (Coinbase: ``CB-L2-<product>`` and ``CB-TRADES-<product>``); what is
guaranteed of them is said in `ingest`. Products are shared out over connections by `roster`, and may change while it
runs; each connection is kept up by `connection`. What could not be used is kept aside by `bad_frames`.
The feeds' settings `retain` are applied once a minute, and to a feed that has begun a chunk; an error of that is
counted and reported, and ends nothing.
A stop (duration, SIGINT, SIGTERM) falls between two frames; the feeds are flushed and closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from deepwater.apps.bad_frames import BadFrames
from deepwater.apps.coinbase_venue import COINBASE
from deepwater.apps.connection import Link
from deepwater.apps.counters import Counters
from deepwater.apps.disk_watch import DiskWatch
from deepwater.apps.ingest import KeepBad
from deepwater.apps.metrics_feed import MetricsFeed
from deepwater.apps.metrics_http import serving
from deepwater.apps.platform_sink import PlatformSink
from deepwater.apps.roster import Roster
from deepwater.apps.sink import Sink
from deepwater.apps.stopping import Stop, signals
from deepwater.apps.subscriptions import Pacer
from deepwater.apps.venue import Venue
from deepwater.errors import DeepwaterError

__all__ = ["DEFAULT_URI", "Stop", "record", "run_recorder"]

DEFAULT_URI = COINBASE.uri
_STATUS_EVERY_S = 0.5
_WATCH_EVERY_S = 1.0
_RETAIN_EVERY_S = 60.0
_log = logging.getLogger("deepwater.recorder")

OnStatus = Callable[[Counters], None]
OnHangup = Callable[[], Sequence[str]]
OnBegin = Callable[[], None]


def run_recorder(
    uri: str,
    products: Sequence[str],
    base_path: str | Path,
    duration: float | None = None,
    channels: Sequence[str] | None = None,
    on_status: OnStatus | None = None,
    *,
    venue: Venue = COINBASE,
    reload: Callable[[], Sequence[str]] | None = None,
    metrics_port: int | None = None,
    on_metrics: Callable[[int], None] | None = None,
    on_begin: OnBegin | None = None,
) -> Counters:
    """Record until `duration` is over or SIGINT or SIGTERM comes; blocks.

    Parameters
    ----------
    uri : str
        The endpoint; ``venue.uri`` is the public one.
    products : sequence of str
        E.g. ``["BTC-USD", "ETH-USD"]``.
    base_path : path
        The store; created if absent. Feeds that exist are gone on with: a gap mark tells of the
        time between, and trades that are there already are not stored again.
    duration : float, optional
        Seconds. None: until a signal.
    channels : sequence of str, optional
        What to record, of ``venue.channels``. Default all.
    on_status : callable, optional
        Called with the live `Counters` about twice a second and once at the end, on the event loop's
        thread: be quick; keep a `copy`. What it raises ends the recording and is raised here.
    venue : Venue
        Whose protocol is spoken at `uri`.
    reload : callable, optional
        Called when SIGHUP comes: the products to record from then on. A `DeepwaterError` that it raises
        is said and changes nothing. Without it SIGHUP has its usual effect.
    metrics_port : int, optional
        Serve the counters to Prometheus at this port of 127.0.0.1 (0: any free one). They are in the store's feed
        ``DW-METRICS-<n>`` in any case.
    on_metrics : callable, optional
        Called with the port once it listens.
    on_begin : callable, optional
        Called once the URI, the products and the channels are checked and the feeds are open.

    Returns
    -------
    Counters
        The totals; `stopped` says why it ended.

    Raises
    ------
    DeepwaterError
        Of a bad URI, product or channel, at once; of a feed another process records; of a store that
        was removed; of a write that failed for another reason than want of space; of a `metrics_port` that is in
        use. An unreachable endpoint is not an error: it is tried until the end (`last_error` tells).

    Notes
    -----
    Signals are taken only in the main thread, and given back at the first: a second Ctrl-C interrupts.
    """

    async def main() -> Counters:
        stop, counters = Stop(), Counters()
        changes: asyncio.Queue[OnHangup] = asyncio.Queue()
        hangup = None if reload is None else (lambda: changes.put_nowait(reload))
        with signals(stop, hangup), PlatformSink(base_path) as sink, MetricsFeed(base_path) as metrics:
            async with _served(metrics_port, counters, on_metrics):
                return await record(
                    Link(uri),
                    products,
                    sink,
                    duration=duration,
                    channels=channels,
                    on_status=_both(metrics, on_status),
                    stop=stop,
                    counters=counters,
                    venue=venue,
                    changes=changes,
                    keep_bad=BadFrames(base_path, venue.name),
                    disk=DiskWatch(base_path),
                    on_begin=on_begin,
                )

    recording = main()
    try:
        return asyncio.run(recording)
    finally:
        recording.close()  # a signal may have come before it began


async def record(
    link: Link,
    products: Sequence[str],
    sink: Sink,
    *,
    duration: float | None = None,
    channels: Sequence[str] | None = None,
    on_status: OnStatus | None = None,
    stop: Stop | None = None,
    counters: Counters | None = None,
    venue: Venue = COINBASE,
    changes: asyncio.Queue[OnHangup] | None = None,
    keep_bad: KeepBad | None = None,
    disk: DiskWatch | None = None,
    pacer: Pacer | None = None,
    on_begin: OnBegin | None = None,
) -> Counters:
    """Record into `sink` until `duration` is over, `stop` is called or the task is cancelled.

    Parameters and errors are those of `run_recorder`; `counters` are filled live if given. Each of `changes` is called
    for the products to record from then on; `keep_bad` is given what could not be used; `disk` warns; `pacer` is one
    that other recordings of this process share (`roster.pacer_of`). The feeds opened in `sink` are left open: they
    belong to whoever made it.
    """
    channels = _checked_channels(venue, channels)
    stop = stop or Stop()
    counters = counters if counters is not None else Counters()
    roster = Roster(venue, link, products, sink, counters, channels, keep_bad, pacer)
    if on_begin is not None:
        on_begin()
    tasks = [asyncio.create_task(work) for work in (roster.run(), _watch(sink), _retain(sink, counters))]
    if changes is not None:
        tasks.append(asyncio.create_task(_change(roster, changes, counters)))
    if disk is not None:
        tasks.append(asyncio.create_task(disk.run(counters)))
    if on_status is not None:
        tasks.append(asyncio.create_task(_report(on_status, counters)))
    try:
        await _until(stop, tasks, duration)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        roster.close()
    counters.stopped = stop.reason
    if on_status is not None:
        on_status(counters)
    return counters


def _both(first: OnStatus, second: OnStatus | None) -> OnStatus:
    def call(counters: Counters) -> None:
        first(counters)
        if second is not None:
            second(counters)

    return call


@contextlib.asynccontextmanager
async def _served(
    port: int | None, counters: Counters, on_metrics: Callable[[int], None] | None
) -> AsyncIterator[None]:
    """Serve the counters while inside, if a port is named."""
    if port is None:
        yield
        return
    async with serving(port, lambda: counters) as found:
        if on_metrics is not None:
            on_metrics(found)
        yield


async def _until(stop: Stop, tasks: list[asyncio.Task[None]], duration: float | None) -> None:
    """Wait for the stop, the end of the duration, or a task that failed (and raise what it raised)."""
    waiting = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([waiting, *tasks], timeout=duration, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    for task in done - {waiting}:
        task.result()
    if not done:
        stop("duration")


async def _report(on_status: OnStatus, counters: Counters) -> None:
    while True:
        await asyncio.sleep(_STATUS_EVERY_S)
        on_status(counters)


async def _watch(sink: Sink) -> None:
    """End the recording when the store is taken away under it: mapped files can be written without a name."""
    while True:
        await asyncio.sleep(_WATCH_EVERY_S)
        sink.check()


async def _retain(sink: Sink, counters: Counters) -> None:
    """Let go what the feeds need not keep: of those that have begun a chunk, and of all once a minute."""
    due_s = 0.0
    while True:
        feeds = sink.rotated()
        everything = time.monotonic() >= due_s
        if everything:
            due_s = time.monotonic() + _RETAIN_EVERY_S
        if everything or feeds:
            work = asyncio.create_task(_retain_once(sink, None if everything else feeds, counters))
            try:
                await asyncio.shield(work)
            finally:
                if not work.done():  # the end: it uses the store, which is closed next
                    await asyncio.wait([work])
        await asyncio.sleep(_WATCH_EVERY_S)


async def _retain_once(sink: Sink, feeds: Sequence[str] | None, counters: Counters) -> None:
    """Let go, in a thread, and count it."""
    chunks, errors = await asyncio.to_thread(sink.retain, feeds)
    counters.pruned += chunks
    counters.retain_errors += len(errors)
    for error in errors:
        counters.last_error = error
        _log.warning("%s", error)


async def _change(roster: Roster, changes: asyncio.Queue[OnHangup], counters: Counters) -> None:
    """Record other products when it is asked for. What is wrong with them is said, and changes nothing."""
    while True:
        products = await changes.get()
        try:
            roster.set(products())
        except DeepwaterError as error:
            counters.last_error = f"the products stay as they are: {error}"
            _log.warning("%s", counters.last_error)


def _checked_channels(venue: Venue, channels: Sequence[str] | None) -> list[str]:
    wanted = list(venue.channels if channels is None else channels)
    if not wanted or set(wanted) - set(venue.channels):
        raise DeepwaterError(
            f"channels {wanted!r}: expected one or more of {', '.join(venue.channels)} of {venue.name}",
            channels=wanted,
        )
    return wanted
