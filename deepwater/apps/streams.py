"""What the local exchange plays to its clients: a synthetic market, or a tape.

A `Stream` is given each client as a `Client` (send a frame, iterate over its messages) and plays until
the client is gone. Faults and sockets are behind `Client`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Protocol

from deepwater.apps.exchange_session import ClientSession, ExchangeSession, Outgoing
from deepwater.apps.market import Market
from deepwater.apps.subscriptions import check_products
from deepwater.apps.tape import TapeFrame, read_tape
from deepwater.errors import DeepwaterError

__all__ = ["Client", "ClientGone", "Replay", "Stream", "Synthetic"]

_QUEUE_FRAMES = 4096


class ClientGone(Exception):  # noqa: N818 - the usual end of a client, not an error
    """The client's connection is closed."""


class Client(Protocol):
    """One connected client, after its first subscription message."""

    async def send(self, number: int, frame: bytes) -> None:
        """Send a frame (`number` -1: an error frame); raises `ClientGone`."""
        ...

    def messages(self) -> AsyncIterator[str | bytes]:
        """Iterate over its messages, the first subscription included, until it is gone."""
        ...

    async def hang_up(self, reason: str) -> None:
        """Close the connection for a fault of the client's."""
        ...


class Stream(Protocol):
    """What is played."""

    finished: asyncio.Event

    async def run(self) -> None:
        """Do what is not done for one client: the market moves. Runs until it is cancelled."""
        ...

    async def play(self, client: Client) -> None:
        """Serve one client until it is gone."""
        ...


class Synthetic:
    """A seeded market that all clients see at the same time.

    Parameters
    ----------
    products : sequence of str
    seed : int
        The same seed gives the same changes and trades; their times are the wall clock's.
    rate : float or None
        Steps a second, each of every product. None: as fast as the clients take them, and only
        while there is one.
    depth : int
        Levels a side.
    steps : int, optional
        Stop moving after so many steps; the connections stay, with heartbeats.
    session : callable
        Makes a client's side of the market: the protocol, e.g. ``KRAKEN.exchange_session``. Default Coinbase's.

    Notes
    -----
    The market starts to move with the first client. With a rate it does not wait: who is away misses
    trades, and a client that falls 4096 frames behind is hung up on, as an exchange does.
    """

    def __init__(
        self,
        products: Sequence[str] = ("BTC-USD", "ETH-USD"),
        seed: int = 0,
        rate: float | None = 20.0,
        depth: int = 500,
        steps: int | None = None,
        session: Callable[[Market], ExchangeSession] = ClientSession,
    ) -> None:
        check_products(products)
        self._session = session
        self.market = Market(products, seed, depth)
        self.finished = asyncio.Event()
        self._rate = rate
        self._steps = steps
        self._seats: list[_Seat] = []
        self._present = asyncio.Event()
        now_us = time.time_ns() // 1000
        for product in products:
            self.market[product].warm(now_us)

    async def run(self) -> None:
        """Move the market, and beat once a second, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._move())
            group.create_task(self._beat())

    async def play(self, client: Client) -> None:
        """Serve one client: its answers and the market, in one order, until it is gone."""
        seat = _Seat(self._session(self.market))
        tasks = [
            asyncio.create_task(self._converse(client, seat)),
            asyncio.create_task(_drain(client, seat)),
            asyncio.create_task(seat.slow.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if seat.slow.is_set():
                await client.hang_up("too slow")
            for task in done:
                task.result()
        finally:
            self._leave(seat)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _converse(self, client: Client, seat: _Seat) -> None:
        """Answer what the client says; with its first message it takes its seat."""
        async for text in client.messages():
            for frame in seat.session.receive(text):
                await seat.queue.put(frame)
            if seat not in self._seats:
                self._seats.append(seat)
                self._present.set()

    def _leave(self, seat: _Seat) -> None:
        if seat in self._seats:
            self._seats.remove(seat)
        if not self._seats:
            self._present.clear()
        while not seat.queue.empty():
            seat.queue.get_nowait()  # whoever waits to put something is let go

    async def _move(self) -> None:
        loop = asyncio.get_running_loop()
        await self._present.wait()
        due = loop.time()
        step = 0
        while self._steps is None or step < self._steps:
            step += 1
            await self._step()
            if self._rate is not None:
                due += 1 / self._rate
                await asyncio.sleep(max(due - loop.time(), 0))
        self.finished.set()

    async def _step(self) -> None:
        for product in self.market.products:
            if self._rate is None:
                await self._present.wait()
            step = self.market[product].step(time.time_ns() // 1000)
            for seat in list(self._seats):
                for frame in seat.session.step(product, step):
                    await self._give(seat, frame)
        if self._rate is None:
            await asyncio.sleep(0)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for seat in list(self._seats):
                for frame in seat.session.heartbeat():
                    await self._give(seat, frame)

    async def _give(self, seat: _Seat, frame: Outgoing) -> None:
        if self._rate is None and seat in self._seats:
            await seat.queue.put(frame)
        elif not seat.queue.full():
            seat.queue.put_nowait(frame)
        else:
            seat.slow.set()
            self._leave(seat)


class _Seat:
    """One client of the synthetic market and what it is to be sent."""

    def __init__(self, session: ExchangeSession) -> None:
        self.session = session
        self.queue: asyncio.Queue[Outgoing] = asyncio.Queue(_QUEUE_FRAMES)
        self.slow = asyncio.Event()


async def _drain(client: Client, seat: _Seat) -> None:
    """Send what is queued for a client until it is gone."""
    while True:
        await client.send(*await seat.queue.get())


class Replay:
    """A recorded session, byte for byte.

    EVERY connection gets the tape from its beginning: a client that comes again meets a fresh snapshot
    and sequence 0, as at the real endpoint. (So it stores the book's history twice, behind a gap mark, and
    each trade once.) The tape starts with the client's first subscription; its own messages are read and
    not answered, since the answers are on the tape.

    Parameters
    ----------
    tape : path, binary file, or iterable of TapeFrame
        See `tape.read_tape`. Held in memory.
    speed : float or None
        1.0 = as it was, 10.0 = ten times faster, None = as fast as the client takes it.
    at_end : {"hold", "close"}
        After the last frame: stay open and silent, or close the connection.
    venue : str
        Whose frames to take from a tape of several venues.
    """

    def __init__(
        self,
        tape: str | Path | IO[bytes] | Iterable[TapeFrame],
        speed: float | None = None,
        at_end: str = "hold",
        venue: str = "coinbase",
    ) -> None:
        if at_end not in ("hold", "close") or (speed is not None and not speed > 0):
            raise DeepwaterError(f"at_end {at_end!r}, speed {speed}: expected hold or close, and a speed above 0")
        named = isinstance(tape, str | Path) or hasattr(tape, "read")
        self.frames: list[TapeFrame] = list(read_tape(tape, venue) if named else tape)  # type: ignore[arg-type]
        self.finished = asyncio.Event()
        self._speed = speed
        self._at_end = at_end

    async def run(self) -> None:
        """Nothing moves but for a client."""
        await asyncio.Event().wait()

    async def play(self, client: Client) -> None:
        """Play the whole tape to one client."""
        reader = asyncio.create_task(_read(client))
        try:
            await self._frames(client)
            self.finished.set()
            if self._at_end == "hold":
                await reader
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _frames(self, client: Client) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number, frame in enumerate(self.frames):
            if self._speed is not None:
                due = began + (frame.time_s - self.frames[0].time_s) / self._speed
                await asyncio.sleep(max(due - loop.time(), 0))
            await client.send(number, frame.data)


async def _read(client: Client) -> None:
    async for _ in client.messages():
        pass
