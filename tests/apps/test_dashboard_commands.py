"""The commands of the dashboard: how they are understood, completed and called back, and what they do."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard_kit import DEADLINE_S, ForeignRecorder, Market, until

from deepwater import DeepwaterError, Platform
from deepwater.apps.dashboard import feeds, recorders, recording
from deepwater.apps.dashboard.commands import COMMANDS, CommandError, History, complete, help_lines, parse
from deepwater.apps.dashboard.session import Session
from processes import Worker

_NONSENSE = """
    import asyncio
    from websockets.asyncio.server import serve
    async def talk(socket):
        await socket.recv()
        await socket.send("nonsense")
        await socket.wait_closed()
    async def main():
        async with serve(talk, "127.0.0.1", 0) as server:
            print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
            await asyncio.Event().wait()
    asyncio.run(main())
"""


class Nonsense(Worker):
    """An exchange of which no message can be used."""

    def __init__(self) -> None:
        super().__init__(_NONSENSE, timeout=240)
        self.uri = self.readline()


PRODUCTS = ["BTC-EUR", "BTC-USD", "ETH-USD"]


@pytest.mark.parametrize(
    ("line", "name", "products"),
    [
        ("start", "start", ()), ("  STOP  ", "stop", ()), ("q", "quit", ()), ("quit", "quit", ()), ("?", "help", ()),
        ("sub BTC-USD ETH-USD", "sub", ("BTC-USD", "ETH-USD")), ("sub btc-usd,eth-usd", "sub", ("BTC-USD", "ETH-USD")),
        ("unsub ETH-USD ETH-USD", "unsub", ("ETH-USD",)), ("logs", "logs", ()), ("show eth-usd", "show", ("ETH-USD",)),
    ],
)  # fmt: skip
def test_what_is_typed_is_understood(line: str, name: str, products: tuple[str, ...]) -> None:
    command = parse(line)
    assert command is not None and (command.name, command.products) == (name, products)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("strat", "no command 'strat'; did you mean start?"), ("xyzzy", "no command 'xyzzy'; help lists them"),
        ("sub", "sub needs a product, as: sub BTC-USD ETH-USD"), ("stop BTC-USD", "stop takes no words"),
        ("show A B", "show takes one product"),
    ],
)  # fmt: skip
def test_what_is_not_is_one_line(line: str, said: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse(line)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_help_names_every_command() -> None:
    assert [line.split()[0].rstrip(",") for line in help_lines()] == list(COMMANDS)
    assert max(map(len, help_lines())) <= 80 - len("12:34:56 ") - 2  # in the log, beside its scroll bar


@pytest.mark.parametrize(
    ("line", "found", "choices"),
    [
        ("sto", "stop ", []), ("su", "sub", ["sub", "subs"]), ("x", "x", []), ("sub b", "sub BTC-", PRODUCTS[:2]),
        ("sub E", "sub ETH-USD ", []), ("sub ETH-USD ", "sub ETH-USD BTC-", PRODUCTS[:2]), ("start ", "start ", []),
        ("", "", list(COMMANDS)), ("nonsense B", "nonsense B", []),
    ],
)  # fmt: skip
def test_completion(line: str, found: str, choices: list[str]) -> None:
    assert complete(line, PRODUCTS) == (found, choices)


def test_history_keeps_what_is_being_written_and_no_line_twice_in_a_row() -> None:
    history = History(limit=3)
    assert history.up("x") == "x" and history.down() == "x"
    for line in ("a", "b", "b", " ", "c", "d"):
        history.add(line)
    assert [history.up("draft") for _ in range(5)] == ["d", "c", "b", "b", "b"]
    assert [history.down() for _ in range(4)] == ["c", "d", "draft", "draft"]


# --- what they do ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def always_look_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "_SLOW_S", 0.0)
    monkeypatch.setattr(recorders, "_SLOW_S", 0.0)


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    with Market() as exchange:
        yield exchange


def ticked(session: Session, words: str) -> None:
    """Look until the log has a line with these words."""
    until(lambda: session.tick() and any(words in line for line in session.log), f"no {words!r} in {list(session.log)}")


@pytest.mark.faults
def test_a_recording_from_the_prompt(tmp_store: Path, market: Market) -> None:
    session = Session(tmp_store, market.uri)
    assert session.execute("start") == ["start: no product to record; subscribe first, as: sub BTC-USD"]
    assert session.execute("stop") == ["not recording"]
    assert session.execute("sub btc_usd")[0].startswith("product 'BTC_USD' is not allowed")
    assert session.execute("sub btc/usd") == ["subscribed: BTC-USD; start records"]
    assert session.execute("subs") == ["subscribed: BTC-USD (not recorded)"]
    assert session.execute("start") == [f"recording BTC-USD from {market.uri}"]
    until(lambda: session.tick().products[0].records > 500 and session.view.recorders)
    assert session.mode == "recording 1 product" and session.foreign == {}
    # A second product leaves no gap in the first, and its end does not either.
    assert session.execute("sub ETH-USD") == ["subscribed: BTC-USD, ETH-USD"]
    until(lambda: session.tick().products[1].records > 500)
    assert session.execute("unsub ETH-USD") == ["subscribed: BTC-USD"]
    ticked(session, "ETH-USD: no longer recorded")
    assert session.execute("unsub ETH-USD") == ["unsub: ETH-USD is not among the subscriptions (BTC-USD)"]
    assert session.execute("sub ETH-USD SOL-USD") == ["subscribed: BTC-USD, ETH-USD, SOL-USD"]
    until(lambda: {row.name: row.state for row in session.tick().products}["SOL-USD"] == "live")
    assert session.execute("show SOL-USD") == [] and session.tick().chosen == "SOL-USD"
    session.next_product()
    assert session.tick().chosen == "BTC-USD"
    assert session.execute("show XX")[0].startswith("show: no product XX here; there is BTC-USD")
    assert session.execute("products")[0].startswith("BTC-USD: live, ")
    until(lambda: session.tick().recorders[0].counts["frames"] > 100)
    assert session.execute("reset") == ["counting from now"]
    assert session.tick().recorders[0].counts["frames"] < 100
    assert " recording 3 products | BTC-USD " in session.execute("status")[0]
    assert session.execute("stop") == ["ending the recording"] and session.mode == "ending the recording"
    assert "still ending" in session.execute("start")[0]
    ticked(session, "recording ended; all is flushed")
    assert session.mode == "not recording" and session.foreign == {}
    # And again, in a new child.
    session.execute("start")
    before = {row.name: row.records for row in session.view.products}
    until(lambda: all(row.records > before[row.name] for row in session.tick().products))
    # It is killed, and begun anew.
    assert session.engine.pid is not None
    os.kill(session.engine.pid, signal.SIGKILL)
    ticked(session, "the recorder inside ended by itself: killed by signal 9; start begins anew")
    before = {row.name: row.records for row in session.tick().products}
    session.execute("start")
    until(lambda: all(row.records > before[row.name] for row in session.tick().products))
    assert session.execute("quit") == [] and session.is_done
    session.close()
    with Platform(tmp_store) as dw:
        reasons = {name: [mark["reason"].decode()[:9] for mark in dw[name].gaps()] for name in dw.list_feeds()}
        assert reasons["CB-L2-BTC-USD"] == ["recorder "] * 2  # the stop, the kill, and nothing else
        assert reasons["CB-L2-SOL-USD"] == ["recorder "] * 2
        assert reasons["CB-L2-ETH-USD"] == ["recorder "] * 3
        assert all(dw.describe_feed(name)["writer"] is None for name in dw.list_feeds())


def test_attached_to_another_process_it_only_looks_on(tmp_store: Path, market: Market) -> None:
    with ForeignRecorder(market.uri, tmp_store, "BTC-USD") as recorder:
        session = Session(tmp_store, market.uri, ["ETH-USD"])
        until(lambda: session.tick().writers)
        assert session.mode == f"attached to process {recorder.pid}"
        for line in ("start", "stop", "sub SOL-USD", "unsub ETH-USD"):
            (said,) = session.execute(line)
            name = line.split()[0]
            assert said == (
                f"{name}: process {recorder.pid} records BTC-USD into this store; this dashboard only looks on"
            )
        assert session.execute("subs")[0].startswith("subscribed: ETH-USD (not recorded)")
        recorder.end()
        until(lambda: not session.tick().writers)
        assert session.execute("start")[0].startswith("recording ETH-USD")  # now it may
        until(lambda: len(session.tick().writers) == 1 and session.engine.recorded)
        # A product that somebody records meanwhile fails alone, and says why.
    with ForeignRecorder(market.uri, tmp_store, "BTC-USD") as recorder:
        session.execute("sub BTC-USD")
        ticked(session, f"BTC-USD: feed 'CB-L2-BTC-USD' has a writer already: process {recorder.pid}")
        assert session.engine.recorded == {"ETH-USD"}
        recorder.end()
    before = {row.name: row.records for row in session.view.products}
    until(lambda: {row.name: row.records for row in session.tick().products}["ETH-USD"] > before["ETH-USD"])
    session.close()


def test_of_two_that_begin_at_once_one_looks_on(tmp_store: Path, market: Market) -> None:
    with ForeignRecorder(market.uri, tmp_store, "BTC-USD") as recorder:
        session = Session(tmp_store, market.uri, ["BTC-USD"])
        session.engine.start(session.subs)  # as `start` does before it knows
        ticked(session, f"BTC-USD: feed 'CB-L2-BTC-USD' has a writer already: process {recorder.pid}")
        ticked(session, f"process {recorder.pid} records BTC-USD into this store; this dashboard only looks on")
        until(lambda: session.tick() and session.mode == f"attached to process {recorder.pid}")
        session.close()
        recorder.end()


def test_the_child_keeps_what_it_could_not_use(tmp_store: Path) -> None:
    with Nonsense() as nonsense:
        session = Session(tmp_store, nonsense.uri, ["BTC-USD"])
        session.execute("start")
        kept = tmp_store / "bad_frames.jsonl"
        until(lambda: session.tick() and kept.exists() and kept.read_bytes().endswith(b"\n"))
        assert json.loads(kept.read_bytes().splitlines()[0])["text"] == "nonsense"
        session.close()


def test_a_uri_that_is_none_ends_the_child_with_one_line(tmp_store: Path) -> None:
    session = Session(tmp_store, "http://x", ["BTC-USD"])
    session.execute("start")
    ticked(session, "URI 'http://x' is not a websocket address")
    ticked(session, "the recorder inside ended by itself: exit code 1; start begins anew")
    assert session.mode == "not recording" and not tmp_store.exists()
    session.close()


def test_products_that_cannot_be_are_refused_at_once(tmp_store: Path) -> None:
    with pytest.raises(DeepwaterError, match="named twice"):
        Session(tmp_store, "ws://127.0.0.1:1", ["A", "A"])


def test_what_the_child_says_is_a_line_that_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in it, and however much; a pipe takes no more than 4,096 bytes at once."""
    said: list[bytes] = []
    monkeypatch.setattr(recording.os, "write", lambda _, data: said.append(data))
    for text in ("short", "long " * 900, "\N{MICRO SIGN}" * 1000, "\U0001f40b" * 999, "\x00\n" * 999, "\udcff" * 999):
        recording.say("failed", text, text)
        line = said.pop()
        about = json.loads(line)
        assert line.endswith(b"\n") and line.count(b"\n") == 1 and len(line) <= 4096 and not said
        if text == "short":
            assert about == {"event": "failed", "product": text, "text": text}
        else:
            assert len(line) > 3900 and about["text"].endswith("...") and text.startswith(about["text"][:-3])


_DASHBOARD = """
    import sys, time
    from deepwater.apps.dashboard.session import Session
    session = Session(sys.argv[2], sys.argv[1], ["BTC-USD", "ETH-USD"])
    session.execute("start")
    while True:
        view = session.tick()
        print(session.engine.pid, sum(row.records for row in view.products), flush=True)
        time.sleep(0.05)
"""


@pytest.mark.faults
def test_a_dashboard_that_is_killed_loses_no_published_record_and_leaves_no_recorder(
    tmp_store: Path, market: Market
) -> None:
    with Worker(_DASHBOARD, market.uri, tmp_store) as dashboard, Platform(tmp_store) as dw:
        child = records = 0
        while records < 1000:
            child, records = map(int, dashboard.readline().split())
        dashboard.kill()
        end = time.monotonic() + DEADLINE_S
        while _is_there(child):
            assert time.monotonic() < end
            time.sleep(0.02)
        names = [name for name in dw.list_feeds() if name.startswith("CB-")]
        assert sum(len(dw[name]) for name in names) >= records
        for name in names:  # each was closed in order, and is whole
            about = dw.describe_feed(name)
            assert about["writer"] is None and about["gaps"] == 0 and about["durable"] == about["records"] > 0
        assert dw["DW-METRICS-1"].latest(1)["records"][0] > 0


def _is_there(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


@pytest.mark.faults
def test_a_dashboard_that_is_stopped_does_not_hold_up_the_recorder(tmp_store: Path) -> None:
    """Its child says more than a pipe holds (each bad frame is a line), and nobody reads."""
    with FloodingExchange() as exchange, Worker(_DASHBOARD, exchange.uri, tmp_store) as dashboard:
        child = int(dashboard.readline().split()[0])
        dashboard.process.send_signal(signal.SIGSTOP)
        with Platform(tmp_store) as dw:
            until(lambda: "DW-METRICS-1" in dw.list_feeds() and len(dw["DW-METRICS-1"]))
            until(lambda: dw["DW-METRICS-1"].latest(5)["bad_frames"].max() >= 3000)
        dashboard.process.send_signal(signal.SIGCONT)
        dashboard.kill()
        until(lambda: not _is_there(child))


_FLOOD = """
    from deepwater.apps.exchange import Replay, serve
    from deepwater.apps.tape import TapeFrame
    frames = [TapeFrame(0, b'{"channel":"l2_data","sequence_num":%d,"timestamp":"","events":[{"type":"update",'
              b'"product_id":"BTC-USD","updates":[{"side":"none"}]}]}' % number) for number in range(3000)]
    serve(lambda: Replay(frames), port=0, on_ready=lambda uri: print(uri, flush=True))
"""


class FloodingExchange(Worker):
    """An exchange of which no frame can be used."""

    def __init__(self) -> None:
        super().__init__(_FLOOD, timeout=240)
        self.uri = self.readline()
