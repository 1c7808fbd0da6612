"""One websocket connection, kept up: connect, subscribe, receive; again after anything that ends it.

Knows sockets and time, and nothing of frames: every message goes to `Ingest.frame`, every text comes from the venue.
A connection ends when the peer closes it, the network fails, nothing at all comes for `idle_s` seconds (a venue sees
to it that the exchange is never so silent, so silence means a dead path), the venue finds that the stream is another
one, or no fresh snapshot comes though it was asked for. Then the next one is tried after a delay that doubles from
`backoff_s` to `backoff_max_s` with a random half taken off, so that a thousand recorders do not come back in step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from deepwater.apps import needs_apps
from deepwater.apps.counters import Counters
from deepwater.apps.ingest import Ingest, ProtocolBreach
from deepwater.apps.outlet import now_us
from deepwater.apps.subscriptions import Pacer
from deepwater.apps.venue import Venue
from deepwater.errors import DeepwaterError

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
    from websockets.uri import parse_uri
except ImportError as _error:
    needs_apps(_error)

__all__ = ["Group", "Link", "keep_connected"]

_log = logging.getLogger("deepwater.recorder")
_SLACK = 0.05  # a dead path may be found so much later
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Link:
    """Where and how to connect. Validated once.

    Attributes
    ----------
    uri : str
        ``ws://`` or ``wss://``.
    idle_s : float, optional
        Seconds without any message after which the connection counts as dead. Default what the venue says.
    open_timeout_s, close_timeout_s : float
        For the opening and the closing handshake.
    backoff_s, backoff_max_s : float
        First and longest delay before connecting again.
    stable_s : float
        A connection that lasted this long starts the delays afresh.
    resync_pause_s : float
        At least this long between two requests for fresh snapshots; a lost frame costs 5 MB a book.
    resync_timeout_s : float
        Seconds after such a request within which the snapshots must have come, or the connection is given up.
    max_size : int
        Largest message in bytes. The BTC-USD snapshot has 5 MB; the library's default of 1 MiB would
        close the connection (code 1009).
    compress : bool or None
        Offer permessage-deflate; None: over TLS, where the public endpoint takes it, and not on
        plain sockets, which are local.
    """

    uri: str
    idle_s: float | None = None
    open_timeout_s: float = 10.0
    close_timeout_s: float = 1.0
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    stable_s: float = 10.0
    resync_pause_s: float = 5.0
    resync_timeout_s: float = 60.0
    max_size: int = 64 * 2**20
    compress: bool | None = None
    rng: random.Random = field(default_factory=random.Random, compare=False, repr=False)

    def __post_init__(self) -> None:
        try:
            parse_uri(self.uri)
            (urlsplit(self.uri).hostname or "").encode("idna")
        except (InvalidURI, ValueError) as error:  # of a port, brackets, or a name that is none, a ValueError
            raise DeepwaterError(
                f"URI {self.uri!r} is not a websocket address: expected e.g. wss://host/path or ws://127.0.0.1:8765",
                uri=self.uri,
            ) from error

    def connect(self) -> connect:
        """Return a connection to enter; nothing is sent before."""
        parts = urlsplit(self.uri)
        compress = parts.scheme == "wss" if self.compress is None else self.compress
        return connect(
            self.uri,
            compression="deflate" if compress else None,
            open_timeout=self.open_timeout_s,
            close_timeout=self.close_timeout_s,
            max_size=self.max_size,
            proxy=None if parts.hostname in _LOOPBACK else True,
        )

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row (0 = the first)."""
        longest = min(self.backoff_s * 2.0 ** min(failures, 30), self.backoff_max_s)
        return longest * (0.5 + 0.5 * self.rng.random())


class Group:
    """The products of one connection, and what is yet to be told of them. One event loop.

    Parameters
    ----------
    venue : Venue
    ingest : Ingest
        Of these products.
    products : list of str
    """

    def __init__(self, venue: Venue, ingest: Ingest, products: Sequence[str]) -> None:
        self.venue = venue
        self.ingest = ingest
        self.products = list(products)
        self._wake = asyncio.Event()

    def add(self, product: str) -> None:
        """Open the feeds of a product; `tell` follows.

        Raises
        ------
        DeepwaterError
            They can not be opened; nothing has changed then.
        """
        self.ingest.add(product)
        self.products.append(product)

    def remove(self, product: str) -> None:
        """Close the feeds of a product; `tell` follows."""
        self.products.remove(product)
        self.ingest.remove(product)

    def tell(self) -> None:
        """Let the exchange know what has changed."""
        self._wake.set()

    async def next_text(self, pacer: Pacer) -> str:
        """Wait until there is something to say, and a turn to say it."""
        roll = self.ingest.roll
        while True:
            wait_s = roll.wait_s()
            if wait_s == 0:
                await pacer.take()
                text = roll.next()
                if text is not None:
                    return text
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            self._wake.clear()


async def keep_connected(link: Link, group: Group, pacer: Pacer, counters: Counters) -> None:
    """Feed the group from one connection after another; runs until it is cancelled.

    Raises
    ------
    DeepwaterError
        What a write raised, except a full disk, which is outlived; a proxy that can not be used.
    """
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        before = counters.connections
        try:
            await _session(link, group, pacer, counters)
        except (WebSocketException, OSError, TimeoutError, ProtocolBreach, EOFError) as error:
            if isinstance(error, DeepwaterError):
                raise  # a device error of a feed is an OSError too
            reason = _describe(error)
        except ImportError as error:  # websockets loads what a SOCKS proxy needs when it meets one
            raise DeepwaterError(f"can not connect to {link.uri}: {error}", uri=link.uri) from error
        group.ingest.disconnected(reason)
        counters.last_error = f"connection lost: {reason}"
        stable = counters.connections > before and loop.time() - began >= link.stable_s
        delay_s = link.delay_s(0 if stable else failures)
        failures = 1 if stable else failures + 1
        _log.warning("connection to %s lost: %s; again in %.1f s", link.uri, reason, delay_s)
        await asyncio.sleep(delay_s)


async def _session(link: Link, group: Group, pacer: Pacer, counters: Counters) -> None:
    """One connection, from the handshake to its end, which is always an exception."""
    await pacer.take()
    async with await _connected(link) as socket:
        counters.reconnects += group.ingest.interrupted
        group.ingest.connected()
        await pacer.take(soon=True)
        text = group.ingest.roll.next()
        if text is not None:
            await socket.send(text)
        wanted = asyncio.Event()
        queue = Queue(counters, socket)
        works = (
            _receive(link, socket, group, wanted, queue),  # ends it, when all that had come is taken
            _resync(link, socket, group, wanted, pacer, counters),
            _tell(socket, group, pacer),
        )
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            queue.gone()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await socket.close()  # with 1000 "normal"; left to the context manager it would be 1011


async def _connected(link: Link) -> ClientConnection:
    """Connect. What an endpoint redirects to may be no address at all, which is no worse than that nobody is there."""
    try:
        return await link.connect()
    except ValueError as error:
        raise ConnectionError(f"the endpoint redirects to what is no address: {error}") from error


class Queue:
    """Keeps `Counters.connected` and `Counters.queued` while one connection is up."""

    def __init__(self, counters: Counters, socket: ClientConnection) -> None:
        self._counters = counters
        self._frames = socket.recv_messages.frames  # what websockets has received and nobody has asked for yet
        self._queued = 0
        counters.connected += 1

    def look(self) -> int:
        """Count what waits now, and return it."""
        queued = len(self._frames)
        self._counters.queued += queued - self._queued
        self._queued = queued
        return queued

    def gone(self) -> None:
        """Forget the connection."""
        self._counters.connected -= 1
        self._counters.queued -= self._queued


async def _receive(link: Link, socket: ClientConnection, group: Group, wanted: asyncio.Event, queue: Queue) -> None:
    idle_s = group.venue.idle_s if link.idle_s is None else link.idle_s
    while True:
        try:
            await _receive_until_idle(link, socket, group, wanted, queue, idle_s)
        except TimeoutError as error:
            if str(error):
                raise
            if not queue.look():  # else this process stood still, not the path: what came meanwhile is there
                raise TimeoutError(f"no frame for {idle_s:g} s") from error


async def _receive_until_idle(
    link: Link, socket: ClientConnection, group: Group, wanted: asyncio.Event, queue: Queue, idle_s: float
) -> None:
    """Take frames; a TimeoutError without a text if none comes for `idle_s` seconds."""
    loop, ingest = asyncio.get_running_loop(), group.ingest
    async with asyncio.timeout(idle_s * (1 + _SLACK)) as deadline:
        moved_s = loop.time()
        while True:
            data = await socket.recv(decode=False)
            queue.look()
            _take(ingest, data)
            if ingest.stale:
                wanted.set()
            if ingest.roll.changed:
                ingest.roll.changed = False
                group.tell()
            now_s = loop.time()
            if ingest.asked:
                _give_up(link, ingest, now_s)
            if now_s - moved_s > idle_s * _SLACK:  # not for each of thousands of frames: a timer costs 5 µs
                moved_s = now_s
                deadline.reschedule(now_s + idle_s * (1 + _SLACK))


def _give_up(link: Link, ingest: Ingest, now_s: float) -> None:
    """End a connection on which a fresh snapshot was asked for in vain."""
    late = [product for product, since_s in ingest.asked.items() if now_s - since_s > link.resync_timeout_s]
    if late:
        raise TimeoutError(f"no fresh book of {late[0]} in {link.resync_timeout_s:g} s")


def _take(ingest: Ingest, data: bytes) -> None:
    """Hand a frame on. What the store refuses is not to be taken for a lost connection."""
    try:
        ingest.frame(data, now_us())
    except OSError as error:
        if isinstance(error, DeepwaterError):
            raise
        raise DeepwaterError(f"what was received can not be stored: {error}") from error


async def _resync(
    link: Link,
    socket: ClientConnection,
    group: Group,
    wanted: asyncio.Event,
    pacer: Pacer,
    counters: Counters,
) -> None:
    """Ask for fresh snapshots of stale books, until the connection is closed."""
    ingest, loop = group.ingest, asyncio.get_running_loop()
    with contextlib.suppress(ConnectionClosed):
        while True:
            await wanted.wait()
            wanted.clear()
            await pacer.take()
            products = sorted(ingest.stale)
            ingest.stale.clear()
            if products:
                counters.resyncs += 1
                for product in products:
                    ingest.asked.setdefault(product, loop.time())
                await _say_resync(socket, group, pacer, products)
                await asyncio.sleep(link.resync_pause_s)


async def _say_resync(socket: ClientConnection, group: Group, pacer: Pacer, products: list[str]) -> None:
    """Say what brings fresh snapshots; the turn for the first text is taken. Products may go meanwhile."""
    for number in range(len(group.venue.resync(products))):
        if number:
            await pacer.take()
        left = [product for product in products if product in group.products]
        if not left:
            return
        await socket.send(group.venue.resync(left)[number])


async def _tell(socket: ClientConnection, group: Group, pacer: Pacer) -> None:
    """Tell the exchange what is wanted: at first, when products come or go, and again of those that it refused."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.send(await group.next_text(pacer))


def _describe(error: BaseException) -> str:
    """Why a connection ended, short enough for a mark."""
    if isinstance(error, ConnectionClosed):
        frame = error.rcvd or error.sent
        if frame is None:
            return "closed without a closing frame"
        return f"closed with {int(frame.code)} {frame.reason}".rstrip()
    if isinstance(error, TimeoutError) and not str(error):
        return "timed out"
    return str(error) or type(error).__name__
