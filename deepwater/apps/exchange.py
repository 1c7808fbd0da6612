"""A local exchange: a websocket server on this machine that speaks a venue's protocol, Coinbase's by default.

For demonstrations and tests without a network. It plays a `Stream` (`Synthetic` or `Replay`), enforces the
endpoint's rules (subscribe within 5 seconds, 8 messages a second) and does the `faults` it is told to.

Examples
--------
>>> import asyncio
>>> from websockets.asyncio.client import connect
>>> async def first_frame():
...     async with Exchange(Synthetic(["BTC-USD"], seed=1)) as exchange:
...         async with connect(exchange.uri, proxy=None) as socket:
...             await socket.send('{"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}')
...             return await socket.recv()
>>> asyncio.run(first_frame())[:21]
'{"channel":"l2_data",'
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket as sockets
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Self

from deepwater.apps import needs_apps
from deepwater.apps.faults import Fault, Faults
from deepwater.apps.stopping import Stop, signals
from deepwater.apps.streams import ClientGone, Replay, Stream, Synthetic
from deepwater.apps.subscriptions import MESSAGES_PER_SECOND, SUBSCRIBE_WITHIN_S
from deepwater.errors import DeepwaterError

try:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.asyncio.server import serve as listen
    from websockets.exceptions import ConnectionClosed
except ImportError as _error:
    needs_apps(_error)

__all__ = ["Exchange", "Replay", "Synthetic", "serve"]

_CLOSE_S = 1.0
# Both venues of this package take it for an error frame.
_ERROR_FRAME = b'{"type":"error","method":"subscribe","success":false,"message":"%b","error":"%b"}'
_ERROR_TEXT = b"something is wrong, on purpose"

OnSend = Callable[[int, bytes], None]


class Exchange:
    """An async context manager: listening inside, gone outside.

    Parameters
    ----------
    stream : Stream
        What is played.
    faults : iterable of Fault or str
        See `faults`.
    host : str
        The address to listen at.
    port : int
        0: any free one; see `uri`.
    subscribe_within_s : float
        A client that says nothing for so long is hung up on.
    on_send : callable, optional
        Called with the connection's ordinal (from 0) and each frame really sent; for tests.

    Attributes
    ----------
    sessions : int
        Connections that subscribed so far.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        faults: Iterable[Fault | str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        subscribe_within_s: float = SUBSCRIBE_WITHIN_S,
        on_send: OnSend | None = None,
    ) -> None:
        self.stream = stream
        self.sessions = 0
        self.faults = Faults(faults)
        self.subscribe_within_s = subscribe_within_s
        self.on_send = on_send
        self._host = host
        self._port = port
        self._server: Server | None = None
        self._running: asyncio.Task[None] | None = None
        self._began_s: float | None = None

    @property
    def uri(self) -> str:
        """Where it listens, e.g. ``ws://127.0.0.1:43210``."""
        if self._server is None:
            raise DeepwaterError("the exchange does not listen: use it inside 'async with'")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"ws://{host}:{self._server.sockets[0].getsockname()[1]}"

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first subscription of the first client; 0.0 before."""
        return 0.0 if self._began_s is None else asyncio.get_running_loop().time() - self._began_s

    async def __aenter__(self) -> Self:
        try:
            self._server = await listen(self._handle, self._host, self._port, compression=None, close_timeout=_CLOSE_S)
        except (OSError, UnicodeError) as error:  # a UnicodeError of a host that is no name
            number = error.errno if isinstance(error, OSError) else None
            hint = "; take another port" if number in (errno.EADDRINUSE, errno.EACCES) else ""
            raise DeepwaterError(
                f"can not listen at {self._host}:{self._port}: {getattr(error, 'strerror', None) or error}{hint}",
                port=self._port,
            ) from error
        self._running = asyncio.create_task(self.stream.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        server, running = self._server, self._running
        self._server = self._running = None
        if running is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        if server is not None:
            server.close()
            await server.wait_closed()

    async def wait(self) -> None:
        """Wait for ever, or until the stream fails (and raise what it raised)."""
        if self._running is None:
            raise DeepwaterError("the exchange does not listen: use it inside 'async with'")
        await self._running

    async def _handle(self, socket: ServerConnection) -> None:
        try:
            async with asyncio.timeout(self.subscribe_within_s):
                first = await socket.recv()
        except TimeoutError:
            await socket.close(1008, "no subscription")
            return
        except ConnectionClosed:
            return
        if self._began_s is None:
            self._began_s = asyncio.get_running_loop().time()
        client = _SocketClient(self, socket, self.sessions, first)
        self.sessions += 1
        with contextlib.suppress(ClientGone):
            await self.stream.play(client)


class _SocketClient:
    """A connected client: sends with faults, receives with the rate limit."""

    def __init__(self, exchange: Exchange, socket: ServerConnection, ordinal: int, first: str | bytes) -> None:
        self._exchange = exchange
        self._socket = socket
        self._ordinal = ordinal
        self._first = first
        self._silent = False
        self._held: bytes | None = None  # a frame that is to come behind the next one

    async def send(self, number: int, frame: bytes) -> None:
        """Send a frame, unless a fault is due. An error frame (-1) is not part of the count."""
        due = self._exchange.faults.take(number, self._exchange.elapsed_s) if number >= 0 else []
        self._silent = self._silent or "silent" in due
        if "close" in due:
            await self._socket.close(1001, "going away")
            raise ClientGone
        if "reset" in due:
            self._reset()
            raise ClientGone
        if self._silent:
            return
        if "error" in due:
            await self._put(_ERROR_FRAME % (_ERROR_TEXT, _ERROR_TEXT))
        if "drop" in due:
            return
        if "swap" in due and self._held is None:
            self._held = frame
            return
        await self._put(frame)
        if self._held is not None:
            held, self._held = self._held, None
            await self._put(held)

    async def _put(self, frame: bytes) -> None:
        try:
            await self._socket.send(frame, text=True)
        except ConnectionClosed as error:
            raise ClientGone from error
        if self._exchange.on_send is not None:
            self._exchange.on_send(self._ordinal, frame)

    def _reset(self) -> None:
        """Cut the connection off: what the kernel has not sent is thrown away, and the client gets a TCP reset."""
        raw = self._socket.transport.get_extra_info("socket")
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.transport.abort()

    async def messages(self) -> AsyncIterator[str | bytes]:
        """Iterate over what the client says until it is gone."""
        loop = asyncio.get_running_loop()
        said: deque[float] = deque([float("-inf")] * MESSAGES_PER_SECOND, maxlen=MESSAGES_PER_SECOND)
        said.append(loop.time())
        yield self._first
        with contextlib.suppress(ConnectionClosed):
            while True:
                text = await self._socket.recv()
                if loop.time() - said[0] < 1.0:
                    await self.hang_up("too many messages: 8 a second are allowed")
                    return
                said.append(loop.time())
                yield text

    async def hang_up(self, reason: str) -> None:
        """Close the connection for a client's fault; one that does not even read is cut off."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._socket.close(1008, reason)
        self._socket.transport.abort()


def serve(
    stream: Callable[[], Stream],
    *,
    faults: Iterable[Fault | str] = (),
    host: str = "127.0.0.1",
    port: int = 8765,
    duration: float | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Run an exchange until `duration` (seconds) is over or it is interrupted; blocks.

    Parameters
    ----------
    stream : callable
        Makes the stream, e.g. ``lambda: Synthetic(["BTC-USD"])``.
    faults, host, port
        As for `Exchange`.
    on_ready : callable, optional
        Called with the URI once it listens.

    Raises
    ------
    DeepwaterError
        If the port is taken, or the tape can not be read.
    KeyboardInterrupt
        On SIGINT, after a clean close. SIGTERM ends it as the end of `duration` does.
    """

    async def main() -> None:
        stop = Stop()
        with signals(stop, numbers=(signal.SIGTERM,)):
            async with Exchange(stream(), faults=faults, host=host, port=port) as exchange:
                if on_ready is not None:
                    on_ready(exchange.uri)
                ends = [asyncio.ensure_future(each) for each in (stop.wait(), exchange.wait())]
                try:
                    done, _ = await asyncio.wait(ends, timeout=duration, return_when=asyncio.FIRST_COMPLETED)
                    for end in done:
                        end.result()
                finally:
                    for end in ends:
                        end.cancel()
                    await asyncio.gather(*ends, return_exceptions=True)

    asyncio.run(main())
