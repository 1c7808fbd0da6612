"""The local exchange: the endpoint's rules, the tapes it plays, and its faults, over a real websocket."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from wire_frames import heartbeat, l2, level

from deepwater.apps.exchange import Exchange, Replay, Synthetic
from deepwater.apps.faults import Fault, Faults
from deepwater.apps.streams import Stream
from deepwater.apps.subscriptions import message
from deepwater.apps.tape import TapeFrame, read_tape
from deepwater.errors import DeepwaterError

Talk = Callable[[ClientConnection], Awaitable[Any]]


def talk(make_stream: Callable[[], Stream], *talks: Talk, **options: Any) -> list[Any]:
    """Let clients talk to an exchange, one after another, each on a connection of its own."""

    async def main() -> list[Any]:
        results = []
        async with asyncio.timeout(60), Exchange(make_stream(), **options) as exchange:
            for one in talks:
                async with connect(exchange.uri, proxy=None, max_size=None) as socket:
                    results.append(await one(socket))
        return results

    return asyncio.run(main())


async def take(socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    return [json.loads(await socket.recv()) for _ in range(count)]


async def rest(socket: ClientConnection) -> list[dict[str, Any]]:
    """Everything until the connection closes."""
    frames = []
    try:
        while True:
            frames.append(json.loads(await socket.recv()))
    except ConnectionClosed:
        return frames


def synthetic(**options: Any) -> Callable[[], Synthetic]:
    return lambda: Synthetic(**{"products": ["BTC-USD", "ETH-USD"], "depth": 20, "rate": None, **options})


# ------------------------------------------------------------------------------------------ protocol


def test_a_subscription_brings_snapshots_then_the_list_then_updates() -> None:
    async def client(socket: ClientConnection) -> list[dict[str, Any]]:
        await socket.send(message("subscribe", "level2", ["BTC-USD", "ETH-USD"]))
        await socket.send(message("subscribe", "market_trades", ["ETH-USD"]))
        frames = await take(socket, 3)
        while not (frames[-1]["channel"] == "market_trades" and frames[-1]["events"][0]["type"] == "update"):
            frames += await take(socket, 1)
        return frames

    (frames,) = talk(synthetic(), client)
    assert [frame["sequence_num"] for frame in frames] == list(range(len(frames)))
    assert [frame["channel"] for frame in frames[:3]] == ["l2_data", "l2_data", "subscriptions"]
    assert [frame["events"][0].get("type") for frame in frames[:2]] == ["snapshot", "snapshot"]
    assert frames[2]["events"][0]["subscriptions"] == {"level2": ["BTC-USD", "ETH-USD"]}
    shown = next(frame for frame in frames if frame["channel"] == "market_trades")["events"][0]
    assert shown["type"] == "snapshot"
    ids = [int(trade["trade_id"]) for trade in shown["trades"]]
    assert ids == list(range(ids[0], ids[0] - 100, -1))
    new = [int(trade["trade_id"]) for trade in frames[-1]["events"][0]["trades"]]
    assert new == sorted(new, reverse=True)
    assert min(new) == ids[0] + 1


def test_leaving_and_coming_back_to_level2_brings_a_fresh_snapshot_on_the_same_count() -> None:
    async def client(socket: ClientConnection) -> list[dict[str, Any]]:
        await socket.send(message("subscribe", "level2", ["BTC-USD"]))
        frames = await take(socket, 5)
        await socket.send(message("unsubscribe", "level2", ["BTC-USD"]))
        await socket.send(message("subscribe", "level2", ["BTC-USD"]))
        while sum(frame["events"][0].get("type") == "snapshot" for frame in frames) < 2:
            frames += await take(socket, 1)
        return frames

    (frames,) = talk(synthetic(), client)
    assert [frame["sequence_num"] for frame in frames] == list(range(len(frames)))
    assert {"channel": "subscriptions", "events": [{"subscriptions": {}}]}.items() <= frames[-2].items()


def test_a_second_connection_begins_with_a_fresh_snapshot_and_number_0() -> None:
    async def client(socket: ClientConnection) -> dict[str, Any]:
        await socket.send(message("subscribe", "level2", ["BTC-USD"]))
        return (await take(socket, 4))[0]

    first, second = talk(synthetic(), client, client)
    assert first["sequence_num"] == second["sequence_num"] == 0
    assert first["events"][0]["type"] == second["events"][0]["type"] == "snapshot"
    assert first["events"] != second["events"]


@pytest.mark.parametrize(
    "said",
    [
        "{",
        message("subscribe", "level3", ["BTC-USD"]),
        message("subscribe", "level2", ["NO-USD"]),
        message("please", "level2", ["BTC-USD"]),
        '{"type":"subscribe","channels":["level2"]}',
    ],
)
def test_what_is_wrong_is_answered_by_an_error_frame(said: str) -> None:
    async def client(socket: ClientConnection) -> dict[str, Any]:
        await socket.send(said)
        return (await take(socket, 1))[0]

    (frame,) = talk(synthetic(), client)
    assert frame.keys() == {"type", "message"}
    assert frame["type"] == "error"


def test_more_than_thirty_level2_products_are_refused() -> None:
    products = [f"P{number}-USD" for number in range(31)]

    async def client(socket: ClientConnection) -> dict[str, Any]:
        await socket.send(message("subscribe", "level2", products))
        return (await take(socket, 1))[0]

    (frame,) = talk(synthetic(products=products), client)
    assert "too many level2 products" in frame["message"]


def test_a_client_that_says_nothing_is_hung_up_on() -> None:
    async def client(socket: ClientConnection) -> int:
        await rest(socket)
        return socket.close_code or 0

    assert talk(synthetic(), client, subscribe_within_s=0.05) == [1008]


def test_a_client_that_says_too_much_is_hung_up_on() -> None:
    async def client(socket: ClientConnection) -> int:
        for _ in range(12):
            await socket.send(message("subscribe", "heartbeats"))
        await rest(socket)
        return socket.close_code or 0

    assert talk(synthetic(rate=1), client) == [1008]


class StuckClient:
    """A client that subscribes and then takes nothing."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def messages(self) -> AsyncIterator[str]:
        yield message("subscribe", "level2", ["BTC-USD"])
        await self.gone.wait()

    async def send(self, number: int, frame: bytes) -> None:
        await self.gone.wait()

    async def hang_up(self, reason: str) -> None:
        self.gone.set()


def test_a_client_that_does_not_read_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepwater.apps.streams._QUEUE_FRAMES", 3)

    async def main() -> None:
        stream = synthetic(rate=2000)()
        running = asyncio.create_task(stream.run())
        client = StuckClient()
        async with asyncio.timeout(60):
            await stream.play(client)
        assert client.gone.is_set()
        running.cancel()

    asyncio.run(main())


def test_a_host_that_is_no_name_is_said_in_one_line() -> None:
    async def main() -> None:
        async with Exchange(synthetic()(), host="a..b"):
            pass

    with pytest.raises(DeepwaterError, match=r"can not listen at a\.\.b:0"):
        asyncio.run(main())


def test_a_port_that_is_taken_is_said_in_one_line() -> None:
    async def main() -> None:
        async with Exchange(synthetic()()) as one:
            port = int(one.uri.rpartition(":")[2])
            async with Exchange(synthetic()(), port=port):
                pass

    with pytest.raises(DeepwaterError, match="take another port"):
        asyncio.run(main())


# ------------------------------------------------------------------------------------------ tapes

FRAMES = [l2(0, "snapshot", "A", level("bid", "1", "2")), *(heartbeat(number) for number in range(1, 6))]


def tape(seconds: float = 0.0) -> list[TapeFrame]:
    return [TapeFrame(100 + number * seconds, data) for number, data in enumerate(FRAMES)]


async def play(socket: ClientConnection) -> list[bytes]:
    await socket.send(message("subscribe", "level2", ["A"]))
    frames = []
    try:
        while len(frames) < len(FRAMES):
            frames.append(await socket.recv(decode=False))
    except ConnectionClosed:
        pass
    return frames


def test_every_connection_gets_the_tape_byte_for_byte_from_its_beginning() -> None:
    assert talk(lambda: Replay(tape()), play, play) == [FRAMES, FRAMES]


def test_a_paced_tape_keeps_its_distances() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with Exchange(Replay(tape(0.2), speed=10)) as exchange, connect(exchange.uri, proxy=None) as socket:
            await play(socket)
        return loop.time() - began

    assert asyncio.run(main()) >= 0.1


def test_a_tape_can_close_at_its_end() -> None:
    async def client(socket: ClientConnection) -> int:
        await play(socket)
        await rest(socket)
        return socket.close_code or 0

    assert talk(lambda: Replay(tape(), at_end="close"), client) == [1000]


def lines(*entries: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


def test_both_kinds_of_tape_are_read_and_other_lines_passed_over(tmp_path: Path) -> None:
    one = lines(
        {"venue": "kraken", "payload": "{}"},
        {"venue": "coinbase", "elapsed_nanos": 1_500_000_000, "payload": '{"é":1}'},
        {"venue": "coinbase", "source": "rest_audit", "payload": "{}"},
    )
    two = lines({"t": "header"}, {"t": "send", "data": "x"}, {"t": "recv", "ts": 2.5, "data": "{}"})
    assert list(read_tape(io.BytesIO(one))) == [TapeFrame(1.5, '{"é":1}'.encode())]
    (tmp_path / "two.jsonl").write_bytes(two)
    (tmp_path / "two.jsonl.gz").write_bytes(gzip.compress(two + b"\n\n"))
    for name in ("two.jsonl", "two.jsonl.gz"):
        assert list(read_tape(tmp_path / name)) == [TapeFrame(2.5, b"{}")]


@pytest.mark.parametrize("content", [b"", b"\x28\xb5\x2f\xfd\n", lines({"t": "header"})])
def test_a_file_that_is_no_tape_is_refused(content: bytes) -> None:
    with pytest.raises(DeepwaterError):
        list(read_tape(io.BytesIO(content)))


# ------------------------------------------------------------------------------------------ faults


def numbers(frames: list[bytes]) -> list[int]:
    return [json.loads(data)["sequence_num"] for data in frames]


def test_a_dropped_frame_keeps_its_number_and_is_dropped_once() -> None:
    async def five(socket: ClientConnection) -> list[bytes]:
        await socket.send(message("subscribe", "level2", ["A"]))
        return [await socket.recv(decode=False) for _ in range(5)]

    first, second = talk(lambda: Replay(tape()), five, five, faults=["drop@2"])
    assert numbers(first) == [0, 1, 3, 4, 5]
    assert numbers(second) == [0, 1, 2, 3, 4]


def test_a_close_ends_the_connection_before_its_frame() -> None:
    first, second = talk(lambda: Replay(tape()), play, play, faults=["close@3"])
    assert numbers(first) == [0, 1, 2]
    assert numbers(second) == [0, 1, 2, 3, 4, 5]


def test_silence_keeps_the_connection_open() -> None:
    async def client(socket: ClientConnection) -> list[bytes]:
        await socket.send(message("subscribe", "level2", ["A"]))
        frames = [await socket.recv(decode=False) for _ in range(2)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await socket.recv()
        await (await socket.ping())
        return frames

    assert [numbers(frames) for frames in talk(lambda: Replay(tape()), client, faults=["silent@2"])] == [[0, 1]]


def test_a_fault_by_time_happens_at_the_first_frame_after_it() -> None:
    faults = Faults([Fault("drop", after_s=1.0), Fault("close", after_s=1.0)])
    assert faults.take(10, 0.99) == []
    assert faults.take(11, 1.5) == ["drop", "close"]
    assert faults.take(12, 2.0) == []


@pytest.mark.parametrize(
    "text", ["", "drop", "drop@", "drop@x", "drop@-1", "burn@3", "close@s", "close@1m", f"drop@{'9' * 5000}"]
)
def test_a_fault_that_can_not_be_read_is_refused(text: str) -> None:
    with pytest.raises(DeepwaterError, match="drop@120"):
        Fault.parse(text)
