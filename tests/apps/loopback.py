"""The real recorder on the real loopback websocket, in one event loop, until something holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from deepwater.apps.coinbase_venue import COINBASE
from deepwater.apps.connection import Link
from deepwater.apps.counters import Counters
from deepwater.apps.exchange import Exchange
from deepwater.apps.ingest import KeepBad
from deepwater.apps.recorder import Stop, record
from deepwater.apps.sink import Sink
from deepwater.apps.streams import Stream
from deepwater.apps.venue import Venue

DEADLINE_S = 120


@dataclass
class Session:
    """What a recording left behind besides its feeds."""

    counters: Counters = field(default_factory=Counters)
    sent: list[list[bytes]] = field(default_factory=list)  # frames really sent, by connection
    before: int = 0  # frames taken before the last connection, if there is one at a time

    @property
    def frames_sent(self) -> int:
        return sum(map(len, self.sent))

    @property
    def received(self) -> list[list[bytes]]:
        """What arrived, by connection: a prefix of what was sent, when the recorder was stopped."""
        left = self.counters.frames
        out = []
        for frames in self.sent:
            out.append(frames[:left])
            left -= len(out[-1])
        assert left == 0
        return [frames for frames in out if frames]

    def on_send(self, connection: int, frame: bytes) -> None:
        while len(self.sent) <= connection:
            self.sent.append([])
            self.before = self.counters.frames
        self.sent[connection].append(frame)


Until = Callable[[Exchange, Session], bool]


def all_taken(exchange: Exchange, session: Session) -> bool:
    """Whether the stream is at its end and every frame sent was received."""
    return exchange.stream.finished.is_set() and session.counters.frames == session.frames_sent


def hurt_and_going_on(exchange: Exchange, session: Session) -> bool:
    """Whether all faults have happened and the last connection has delivered for a while since."""
    return not exchange.faults.pending and session.counters.frames - session.before > 600


async def settled(condition: Callable[[], bool]) -> None:
    """Wait until it holds; the deadline is for a deadlock, not for slowness."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - counters are no events
            await asyncio.sleep(0.005)


def record_session(
    make_stream: Callable[[], Stream],
    products: Sequence[str],
    sink: Sink,
    *,
    until: Until = all_taken,
    faults: Iterable[str] = (),
    channels: Sequence[str] | None = None,
    venue: Venue = COINBASE,
    keep_bad: KeepBad | None = None,
    on_send: Callable[[int, bytes], None] | None = None,
    **link: float,
) -> Session:
    """Record what an exchange plays until `until` holds; then stop the recorder in its usual way."""

    async def main() -> Session:
        session = Session()
        stop = Stop()

        def sent(connection: int, frame: bytes) -> None:
            session.on_send(connection, frame)
            if on_send is not None:
                on_send(connection, frame)

        async with Exchange(make_stream(), faults=faults, on_send=sent) as exchange:
            task = asyncio.create_task(
                record(
                    Link(exchange.uri, backoff_s=0.01, **link),
                    products,
                    sink,
                    channels=channels,
                    stop=stop,
                    counters=session.counters,
                    venue=venue,
                    keep_bad=keep_bad,
                )
            )
            await settled(lambda: until(exchange, session) or task.done())
            stop()
            await task
        return session

    return asyncio.run(main())
