"""The command book: a maintainer as a process, and the book at a time on paper."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_kit import deepwater, one_line, started

from deepwater import Platform, cli
from deepwater.apps import specs
from processes import run_python

START = 1_786_309_548_000_000  # 2026-08-09T21:05:48Z
LEVELS = [(b"B", 10.0 - k, 1.0 + k) for k in range(4)] + [(b"A", 11.5 + k, 0.5) for k in range(4)]


def levels(rows: list[tuple[bytes, float, float]], at_us: int, kind: bytes) -> np.ndarray:
    out = np.zeros(len(rows), specs.dtype(specs.L2))
    out["type"], out["proc_us"] = kind, at_us
    for row, (side, price, qty) in zip(out, rows, strict=True):
        row["side"], row["price"], row["qty"] = side, price, qty
    return out


@pytest.fixture
def desk(tmp_store: Path) -> Iterator[Path]:
    """A store with the books of X-USD and Y-USD: a snapshot, a change a second later, then a gap."""
    with Platform(tmp_store) as dw:
        for product in ("X-USD", "Y-USD"):
            dw.create_feed(specs.spec(specs.L2, product))
            with dw.create_writer(f"CB-L2-{product}") as writer:
                writer.write_batch(levels(LEVELS, START, b"S"), create_index=True)
                writer.write_batch(levels([(b"A", 11.0, 2.0)], START + 1_000_000, b"U"))
                writer.mark_gap(reason="reconnect: \x1b[2J", from_us=START + 5_000_000, to_us=START + 6_000_000)
        yield tmp_store
        for name in dw.list_feeds():  # a ring stays in shared memory until its feed is deleted
            dw.delete_feed(name)


def test_the_book_at_a_time_is_a_ladder(desk: Path) -> None:
    done = deepwater("book", "--product", "X-USD", "--at", "2026-08-09T21:05:49", "--levels", 2, "--base-path", desk)
    lines = done.stdout.splitlines()
    assert lines[0] == "CB-L2-X-USD  2026-08-09 21:05:49.999999 UTC  before position 9  valid"
    assert [line.split()[:4] for line in lines[1:]] == [
        ["price", "qty", "total"], ["ask", "11.5", "0.5", "2.5"], ["ask", "11.0", "2.0", "2.0"],
        ["----", "spread", "1,", "middle"], ["bid", "10.0", "1.0", "1.0"], ["bid", "9.0", "2.0", "3.0"],
    ]  # fmt: skip
    assert done.stderr == "" and max(map(len, lines)) <= 80
    before = deepwater("book", "--product", "X-USD", "--at", "2026-08-09T21:05:48", "--base-path", desk).stdout
    assert before.count("ask ") == 4 and before.count("bid ") == 4


def test_now_is_what_is_stored_and_nothing_a_terminal_acts_on(desk: Path) -> None:
    done = deepwater("book", "--product", "X-USD,Y-USD", "--at", "now", "--base-path", desk, env={"COLUMNS": "60"})
    first, second = done.stdout.split("\n\n")
    assert first.startswith("CB-L2-X-USD  2026-08-09 21:05:49.000000 UTC") and second.startswith("CB-L2-Y-USD")
    assert "\x1b" not in done.stdout
    found = json.loads(deepwater("book", "--product", "X-USD", "--at", "now", "--base-path", desk, "--json").stdout)
    assert (found["feed"], found["position"], found["valid"], found["crossed"]) == ("CB-L2-X-USD", 9, False, False)
    assert found["reason"].startswith("gap before position 9: reconnect") and found["spread"] == 1.0
    assert found["bids"] == [[10.0, 1.0], [9.0, 2.0], [8.0, 3.0], [7.0, 4.0]] and found["asks"][0] == [11.0, 2.0]
    nothing = json.loads(
        deepwater("book", "--product", "X-USD", "--at", "2020", "--base-path", desk, "--json").stdout
    )
    assert (nothing["bids"], nothing["spread"], nothing["reason"]) == ([], None, "no complete snapshot yet")


def test_a_maintainer_keeps_books_until_it_is_told_to_stop(desk: Path) -> None:
    """Two products in one process, states as JSON lines; then one that goes on, and another that is refused."""
    words = ["--base-path", desk, "--depth", 3, "--interval", "0.05"]
    with started("book", "--product", "X-USD", "--product", "Y-USD", *words, "--json") as keeper:
        assert keeper.stdout is not None
        while (line := json.loads(keeper.stdout.readline()))["product"] != "Y-USD" or not line["written"]:
            pass
        assert (line["state"], line["valid"], line["bids"], line["asks"]) == ("running", False, 4, 5)
        assert line["best_bid"] == [10.0, 1.0] and line["reason"].startswith("gap before position 9")
        done = deepwater("book", "--product", "X-USD", *words, "--duration", 5, code=1)
        said = done.stderr.splitlines()
        assert said[0] == f"keeping CB-L2SNAP-X-USD in {desk}; Ctrl-C ends it"
        assert said[-1].startswith("deepwater: error: feed 'CB-L2SNAP-X-USD'") and str(keeper.pid) in said[-1]
        keeper.send_signal(signal.SIGINT)
        out, err = keeper.communicate(timeout=60)
        last = [json.loads(line) for line in out.splitlines()][-2:]
        assert keeper.returncode == 130 and err == ""
        assert [(each["product"], each["stopped"]) for each in last] == [("X-USD", "SIGINT"), ("Y-USD", "SIGINT")]
    with Platform(desk) as dw:
        assert len(dw["CB-L2SNAP-X-USD"]) == last[0]["written"] > 0
        assert dw["CB-L2SNAP-X-USD"].dtype["bid_px"].shape == (3,)
    with started("book", "--product", "X-USD", *words) as keeper:  # the next one, for people
        assert keeper.stderr is not None
        while "X-USD 10.0 / 11.0, NOT valid: gap before" not in keeper.stderr.readline():
            assert keeper.poll() is None
        keeper.send_signal(signal.SIGTERM)
        out, err = keeper.communicate(timeout=60)
        assert keeper.returncode == 0 and out == ""
        assert err.splitlines()[-1].startswith("ended by SIGTERM: X-USD 10.0 / 11.0, NOT valid: gap before")


def test_a_signal_is_a_clean_end_also_while_it_waits(tmp_store: Path) -> None:
    with started("book", "--product", "Z-USD", "--base-path", tmp_store) as keeper:
        assert keeper.stderr is not None
        assert keeper.stderr.readline().startswith("keeping CB-L2SNAP-Z-USD in ")
        assert keeper.stderr.readline() == "Z-USD: waiting for records in feed CB-L2-Z-USD\n"
        keeper.send_signal(signal.SIGTERM)
        assert keeper.wait(60) == 0
    assert not tmp_store.exists()  # who waits makes nothing


def test_nobody_reads_the_lines_any_more(desk: Path) -> None:
    reading, writing = os.pipe()
    with started("book", "--product", "X-USD", "--base-path", desk, "--json", stdout=writing) as keeper:
        os.close(writing)
        with os.fdopen(reading) as lines:
            lines.readline()
        assert keeper.wait(60) == 0
        assert keeper.stderr is not None and keeper.stderr.read() == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--at", "now", "--interval", "2"], "--interval is about keeping a book"),
        (["--at", "now", "--persist"], "--persist is about keeping a book"),
        (["--levels", "3"], "--levels is about showing a book"),
        (["--product", "A", "--product", "A"], "a product is named twice"),
        (["--product", "A,"], "products are as BTC-USD"),
        (["--product", "../x"], "products are as BTC-USD"),
        (["--depth", "0"], "a number of levels a side is 1 to 2046"),
        (["--depth", "2047"], "a number of levels a side is 1 to 2046"),
        (["--interval", "0"], "seconds above 0"),
    ],
)
def test_a_wrong_command_line(words: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["book", *words]) == 2
    line = one_line(capfd.readouterr().err)
    assert said in line and line.endswith("(deepwater book --help)")


def test_a_failure_is_one_line(desk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    where = ["--base-path", str(desk)]
    for words, said in (
        (["--product", "X-USE", "--at", "now"], "no feed 'CB-L2-X-USE'"),
        (["--product", "X-USD", "--at", "soon"], "a time is 2026-08-09"),
    ):
        assert cli.main(["book", *words, *where]) == 1
        assert said in one_line(capfd.readouterr().err)
    assert cli.main(["book", "--product", "X-USD", "--at", "-15min", *where]) == 0


def test_it_needs_no_extra(desk: Path) -> None:
    done = run_python(
        """
        import sys
        for name in ("websockets", "msgspec", "rich", "textual"):
            sys.modules[name] = None
        from deepwater.cli import main
        words = ["book", "--product", "X-USD", "--base-path", sys.argv[1]]
        sys.exit(main([*words, "--at", "now"]) or main([*words, "--duration", "0.2", "--depth", "2"]))
        """,
        desk,
    )
    assert isinstance(done, subprocess.CompletedProcess) and done.stdout.startswith("CB-L2-X-USD")
