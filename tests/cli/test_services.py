"""record and exchange as processes; and what is said without the extra `apps`."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_kit import deepwater, first_line, one_line, started

from deepwater import Platform, cli
from deepwater.apps.tape import read_tape
from deepwater.book import OrderBook
from deepwater.books import book_at
from deepwater.cli.status import StatusLine
from processes import ROOT, run_python

sys.path.append(str(ROOT / "tests" / "apps"))
from kraken_walk import digits_of, stored_checksum, walk

MARKET = ["--port", "0", "--rate", "100", "--duration", "100"]


def test_what_is_recorded_is_there(tmp_store: Path) -> None:
    with started("exchange", *MARKET, "--product", "BTC-USD", "--fault", "drop@50") as exchange:
        uri = first_line(exchange)
        assert uri.startswith("ws://127.0.0.1:")
        words = ["--uri", uri, "--product", "BTC-USD", "--base-path", tmp_store, "--duration", "2"]
        done = deepwater("record", "coinbase", *words, "--json")
        totals = json.loads(done.stdout)
        assert done.stderr == "" and totals["stopped"] == "duration" and totals["gaps"] == 1
        with Platform(tmp_store) as dw:
            assert {name: len(dw[name]) for name in dw.list_feeds() if name in totals["feeds"]} == totals["feeds"]
            assert len(dw["CB-TRADES-BTC-USD"]) == totals["trades"] >= 100
        # Once more, for people: it goes on with the feeds.
        done = deepwater("record", "coinbase", *words, "--channel", "market_trades")
        assert done.stdout == ""
        said = done.stderr.splitlines()
        assert said[0].startswith(f"recording BTC-USD from {uri} into {tmp_store}; Ctrl-C")
        assert said[-1].startswith("ended by duration: 2.") and said[-1].endswith("all is flushed")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_a_recording_and_nothing_is_lost(number: signal.Signals, code: int, tmp_store: Path) -> None:
    with started("exchange", *MARKET) as exchange:
        words = ["--uri", first_line(exchange), "--product", "ETH-USD", "--base-path", tmp_store, "--json"]
        with started("record", "coinbase", *words) as recorder, Platform(tmp_store) as dw:
            while "CB-L2-ETH-USD" not in dw.list_feeds():
                assert recorder.poll() is None
            with dw["CB-L2-ETH-USD"] as reader:
                next(reader.follow("earliest", timeout=60))
                recorder.send_signal(number)
                out, said = recorder.communicate(timeout=60)
                assert recorder.returncode == code and said == ""
                totals = json.loads(out)
                assert totals["stopped"] == number.name
                assert len(reader) == totals["feeds"]["CB-L2-ETH-USD"] > 0
        exchange.send_signal(signal.SIGINT)
        assert exchange.wait(60) == 130
        assert exchange.stderr is not None
        assert "Traceback" not in exchange.stderr.read()


def test_sigterm_ends_the_exchange_with_0() -> None:
    with started("exchange", *MARKET) as exchange:
        assert first_line(exchange)
        exchange.send_signal(signal.SIGTERM)
        out, said = exchange.communicate(timeout=60)
        assert exchange.returncode == 0 and out == "" and said.count("\n") == 1


EARLY = """
    import os, signal, sys
    from importlib import import_module
    from deepwater.cli import main
    where, name = sys.argv[1].rsplit(":")
    owner = import_module(where)
    for part in name.split(".")[:-1]:
        owner = getattr(owner, part)
    name = name.split(".")[-1]
    usual = getattr(owner, name)
    def call(*words, **named):
        setattr(owner, name, usual)
        os.kill(os.getpid(), signal.SIGTERM)
        return usual(*words, **named)
    setattr(owner, name, call)
    sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("words", "where", "code"),
    [
        (["book"], "deepwater.platform:Platform.__init__", 0),
        (["book"], "deepwater.apps.maintainer:Maintainer.__init__", 0),
        (["record", "--uri", "ws://127.0.0.1:1"], "deepwater.apps.recorder:run_recorder", 143),
        (["record", "--uri", "ws://127.0.0.1:1"], "asyncio:run", 143),
        (["record", "--uri", "ws://127.0.0.1:1"], "deepwater.platform:Platform.__init__", 0),
        (["record", "--uri", "ws://127.0.0.1:1"], "deepwater.apps.platform_sink:PlatformSink.open", 0),
    ],
)
def test_a_sigterm_that_comes_early_leaves_no_traceback_and_nothing_half_made(
    words: list[str], where: str, code: int, tmp_store: Path
) -> None:
    words = [*words, "--product", "A-B", "--base-path", str(tmp_store)]
    done = run_python(EARLY, where, *words, check=False)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    if (tmp_store / "store.json").exists():
        deepwater("verify", "--base-path", tmp_store)


def test_a_kraken_tape_through_exchange_and_recorder_is_the_book_of_the_tape(
    shared_data: Path, tmp_store: Path
) -> None:
    """Processes only: exchange -> websocket -> recorder -> feed -> book; the checksums sent are the book's."""
    tape = shared_data / "coinbase" / "2026-08-09-btc-usd-live.jsonl.gz"
    (pair,) = walk(frame.data for frame in read_tape(tape, "kraken")).values()
    with started("exchange", "--venue", "kraken", "--tape", tape, "--port", "0", "--duration", "100") as exchange:
        words = ["--uri", first_line(exchange), "--product", "BTC-USD", "--base-path", tmp_store, "--json"]
        with started("record", "--venue", "kraken", *words) as recorder, Platform(tmp_store) as dw:
            while "KR-L2-BTC-USD" not in dw.list_feeds():
                assert recorder.poll() is None
            with dw["KR-L2-BTC-USD"] as reader:
                seen = next(iter(reader.follow("earliest", timeout=60)))["seq"]
                while int(seen[-1]) < len(pair.moments) - 1:
                    seen = next(iter(reader.follow(position=int(reader.end) - 1, timeout=60)))["seq"]
                recorder.send_signal(signal.SIGTERM)
                totals = json.loads(recorder.communicate(timeout=60)[0])
                assert (totals["gaps"], totals["bad_frames"], totals["errors"], recorder.returncode) == (0, 0, 0, 0)
                rows, marks = reader.read().to_numpy(), reader.marks()
                stops = np.append(np.flatnonzero(np.diff(rows["seq"])) + 1, len(rows))
                assert len(stops) == len(pair.moments) == 1676
                book, digits, at = OrderBook(), {}, 0
                for stop in stops[9::20].tolist():  # of all of them: apps/test_kraken
                    book.apply(rows[at:stop], marks)
                    digits |= digits_of(rows[at:stop])
                    assert book.valid and stored_checksum(book.book(), digits) == int(rows["checksum"][stop - 1])
                    at = stop
                last = book_at(reader)
                assert last.bids.tolist() == [(float(price), float(qty)) for price, qty in pair.moments[-1].bids]


def test_an_endpoint_that_never_answers_is_a_failure_in_the_end(tmp_store: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        uri = f"ws://127.0.0.1:{taken.getsockname()[1]}"
        words = ["--uri", uri, "--product", "BTC-USD", "--base-path", tmp_store, "--duration", "1"]
        done = deepwater("record", "coinbase", *words, code=1)
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"deepwater: error: nothing came from {uri} in 1 s: connection lost: ")
        done = deepwater("record", "coinbase", *words, "--json", code=1)
        assert f"nothing came from {uri}" in json.loads(done.stderr.splitlines()[-1])["error"]["message"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--uri", "http://x", "--product", "BTC-USD"], "is not a websocket address"),
        (["--uri", "ws://127.0.0.1:99999", "--product", "BTC-USD"], "is not a websocket address"),
        (["--uri", "ws://[::1", "--product", "BTC-USD"], "is not a websocket address"),
        (["--uri", "ws://a..b/", "--product", "BTC-USD"], "is not a websocket address"),
        (["--uri", "ws://127.0.0.1:1", "--product", "a/b"], "product 'a/b' is not allowed"),
        (["--uri", "ws://127.0.0.1:1", "--product", "X", "--product", "X"], "named twice"),
        (["--uri", "ws://127.0.0.1:1", "--product", "btc-usd"], "did you mean BTC-USD"),
        (["--uri", "ws://127.0.0.1:1", "--product", ""], "product '' is not allowed"),
        (["--uri", "ws://127.0.0.1:1", "--product", "A-B,,C-D"], "product '' is not allowed"),
        (["--uri", "ws://127.0.0.1:1", "--product", "A-B,A-B"], "named twice"),
        (["--uri", "ws://127.0.0.1:1", "--products-file", "/nowhere"], "products file /nowhere: No such file"),
        (["--uri", "ws://127.0.0.1:1", "--product", "A-B", "--channel", "book"], "expected one or more of level2"),
    ],
)
def test_a_recording_that_cannot_be(words: list[str], said: str, tmp_store: Path) -> None:
    done = deepwater("record", "coinbase", *words, "--base-path", tmp_store, "--duration", "5", code=1)
    assert said in one_line(done.stderr)  # nor is it said that anything is recorded


def test_bad_frames_are_said_with_where_they_are(tmp_path: Path, tmp_store: Path) -> None:
    frames = ['{"channel":"l2_data","timestamp":"x","sequence_num":0,"events":[{"type":"update","product_id":"A-B"}]}',
              '{"channel":"l2_data"']  # fmt: skip
    tape = tmp_path / "tape"
    tape.write_text("".join(json.dumps({"t": "recv", "ts": 0, "data": data}) + "\n" for data in frames))
    with started("exchange", "--tape", tape, "--port", "0", "--duration", "100") as exchange:
        words = ["--uri", first_line(exchange), "--product", "A-B", "--base-path", tmp_store, "--duration", "1"]
        done = deepwater("record", *words)
    assert done.stderr.splitlines()[-1].startswith(f"the bad frames are in {tmp_store}/bad_frames.jsonl: a JSON object")
    kept = [json.loads(line) for line in (tmp_store / "bad_frames.jsonl").read_text().splitlines()]
    assert [entry["text"] for entry in kept] == frames
    deepwater("feeds", "--base-path", tmp_store)
    deepwater("verify", "--base-path", tmp_store)


def test_a_product_the_exchange_has_not_is_a_failure_in_the_end(tmp_store: Path) -> None:
    with started("exchange", *MARKET, "--product", "BTC-USD") as exchange:
        words = ["--uri", first_line(exchange), "--product", "XX-YY", "--base-path", tmp_store, "--duration", "1"]
        done = deepwater("record", "coinbase", *words, code=1)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("deepwater: error: nothing was recorded from ws://")
    assert last.endswith("product XX-YY is refused by the exchange: product 'XX-YY' does not exist")


def test_a_terminal_that_goes_away_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[bool] = []
    ours, theirs = os.openpty()
    with contextlib.suppress(OSError), os.fdopen(theirs, "w") as stderr:  # OSError: what is left in its buffer
        monkeypatch.setattr(sys, "stderr", stderr)
        line = StatusLine(every_s=1)
        line.show("1 trade")
        assert os.read(ours, 100) == b"\r1 trade"
        os.close(ours)
        line.show("2 trades")
        line.show("3 trades", last=True)
        shown.append(True)
    assert shown


def test_what_the_library_logs_is_one_line_and_nothing_a_terminal_acts_on(capfd: pytest.CaptureFixture[str]) -> None:
    with StatusLine(every_s=1).with_log():
        logging.getLogger("deepwater.recorder").warning("the exchange says: %s", "\x1b[2J\x1b]0;title\x07 two\nlines")
    said = one_line(capfd.readouterr().err)
    assert said.endswith(r"the exchange says: \x1b[2J\x1b]0;title\x07 two lines")


def test_an_exchange_that_cannot_be(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words, said in (
            (["--port", port], f"can not listen at 127.0.0.1:{port}"),
            (["--port", "0", "--fault", "explode@3"], "fault 'explode@3'"),
            (["--port", "0", "--depth", "1"], "depth 1"),
            (["--port", "0", "--tape", str(tmp_path / "none")], "none"),
        ):
            assert deepwater("exchange", *words, code=1).stdout == ""
            assert cli.main(["exchange", *words]) == 1
            assert said in one_line(capfd.readouterr().err)


# --- without the extra -----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["websockets", "msgspec"])
@pytest.mark.parametrize(
    "words", [["demo"], ["exchange", "--port", "0"], ["record", "coinbase", "--product", "X"], ["dashboard"]]
)
def test_without_the_extra_one_line_says_how_to_get_it(words: list[str], missing: str) -> None:
    done = run_python(
        """
        import sys
        sys.modules[sys.argv[1]] = None  # as if it were not installed
        from deepwater.cli import main
        sys.exit(main(sys.argv[2:]))
        """,
        missing, *words, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    wanted = f"""needs the package '{missing}', which is not installed: pip install "deepwater[apps]"\n"""
    assert done.stderr == f"deepwater: error: {words[0]} {wanted}"


def test_the_commands_of_the_store_need_no_extra(tmp_store: Path) -> None:
    done = run_python(
        """
        import sys
        for name in ("websockets", "msgspec", "rich", "textual"):
            sys.modules[name] = None
        from deepwater.cli import main
        sys.exit(main(["feeds", "--base-path", sys.argv[1]]) or main(["--help"]))
        """,
        tmp_store,
    )
    assert "no feeds in" in done.stderr


def test_a_hangup_that_comes_before_it_records_is_kept_and_ends_nothing(tmp_path: Path) -> None:
    """`systemctl reload` just after the start: a unit that SIGHUP ended is not started again."""
    script = """
        import os, signal, sys
        from deepwater.apps import products_file
        from deepwater.cli import main
        found, read = [], products_file.read_products

        def read_and_hang_up(path):
            found.append(read(path))
            if len(found) == 1:
                os.kill(os.getpid(), signal.SIGHUP)
            else:
                os.kill(os.getpid(), signal.SIGTERM)
            return found[-1]

        products_file.read_products = read_and_hang_up
        code = main(["record", "--uri", "ws://127.0.0.1:9", "--products-file", sys.argv[1], "--base-path", sys.argv[2]])
        assert len(found) == 2 and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
        sys.exit(code)
    """
    (tmp_path / "products").write_text("BTC-USD\n")
    done = run_python(script, tmp_path / "products", tmp_path / "store", check=False)
    assert done.returncode == 0, done.stderr
