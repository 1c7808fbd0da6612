"""The dashboard's terminal, headless: what is drawn, keys, commands, sizes. And the panels by themselves."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dashboard_kit import DEADLINE_S, ForeignRecorder, Market, levels, make_trades, open_feeds
from textual.pilot import Pilot

from deepwater import Platform
from deepwater.apps.dashboard import feeds, model, panels, recorders
from deepwater.apps.dashboard.app import Dashboard, Prompt
from deepwater.apps.dashboard.livebook import BookState
from deepwater.apps.dashboard.model import ProductRow, TradeRow, View
from deepwater.apps.dashboard.plain import json_line, line
from deepwater.apps.dashboard.recorders import Recorder
from deepwater.apps.dashboard.session import Session

NOW = 1_786_309_548_000_000


@pytest.fixture(autouse=True)
def always_look_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "_SLOW_S", 0.0)
    monkeypatch.setattr(recorders, "_SLOW_S", 0.0)
    monkeypatch.setattr(model, "_LIST_EVERY_S", 0.0)


# --- panels ----------------------------------------------------------------------------------------------


def random_view(rng: random.Random) -> View:
    """Any view there may be, with numbers of any length."""
    names = [f"P{number}-{'X' * rng.randrange(20)}" for number in range(rng.randrange(30))]
    states = ["live", "waiting", "hangs", "gone", "ended", "no feed"]
    products = tuple(
        ProductRow(
            name, rng.choice(states), rng.choice([None, 77]), rng.choice([None, 0.0, 10 ** rng.uniform(-9, 9)]),
            10 ** rng.uniform(-3, 6), 10 ** rng.uniform(-3, 6), rng.randrange(10**12), rng.randrange(10**7),
            rng.randrange(10**13), rng.choice([None, -5, rng.randrange(10**12)]),
            tuple(rng.random() for _ in range(rng.randrange(121))), rng.choice(["", "", "a problem " * 9]),
        )
        for name in names
    )  # fmt: skip
    side = [(10 ** rng.uniform(-9, 9), 10 ** rng.uniform(-9, 9)) for _ in range(rng.randrange(60))]
    buckets = np.array([rng.randrange(3) for _ in range(32)], np.uint64)
    said = tuple(
        Recorder(f"DW-METRICS-{number}", rng.randrange(10**7), rng.choice(["recording", "gone", "ended", "hangs"]), 5,
                 rng.randrange(3), 7, 1e5, 1e9, dict.fromkeys(recorders._COUNTS, rng.choice([0, 10**9])), buckets,
                 buckets, "trouble")
        for number in range(1, rng.randrange(1, 4))
    )  # fmt: skip
    full = BookState(tuple(side), tuple(side), rng.choice(["", "gap " * 40]), time_us=NOW)
    trades = tuple(TradeRow(NOW, rng.choice("BSU"), 10 ** rng.uniform(-9, 9), 10 ** rng.uniform(-9, 12)) for _ in side)
    return View(
        NOW, "/a/long/path" * rng.randrange(1, 12), rng.random() < 0.9, products, said, names[-1] if names else "",
        rng.choice([full, BookState(behind=9)]), trades, size=10**12, disk_free=rng.choice([None, 10**12]),
        days_left=rng.choice([None, 0.5]),
    )  # fmt: skip


def test_no_line_is_wider_and_no_panel_higher_than_its_place() -> None:
    rng = random.Random(4)
    for _ in range(150):
        view, width, height = random_view(rng), rng.choice([20, 40, 80, 160, 300]), rng.choice([1, 3, 8, 40])
        drawn = [panels.header(view, "recording 2 products", width), panels.status(view, width),
                 panels.products(view, width, height), panels.book(view, width, height),
                 panels.trades(view, width, height), panels.messages(["x" * 500] * 9, width, height)]  # fmt: skip
        for lines in drawn:
            assert max((text.cell_len for text in lines), default=0) <= width
            assert not any("\n" in text.plain for text in lines)
        assert all(len(lines) <= height for lines in drawn[2:]) and [len(lines) for lines in drawn[:2]] == [1, 4]
        assert "\n" not in line(view, "x") and json_line(view, "x").count("\n") == 0


def test_nothing_that_others_say_acts_on_the_terminal() -> None:
    evil = "\x1b]0;x\x07\x1b[2J\n"
    row = ProductRow("A", "live", problem=evil)
    view = View(NOW, f"/tmp/{evil}", True, (row,), chosen="A", book=BookState(reason=evil), news=(evil,))
    drawn = [panels.header(view, evil, 80), panels.products(view, 80, 9), panels.book(view, 40, 9),
             panels.messages([evil], 80, 1)]  # fmt: skip
    plain = [text.plain for lines in drawn for text in lines] + [line(view, "x"), json_line(view, "x")]
    assert all(text.isprintable() for text in plain) and any("x1b[2J" in text for text in plain)


def test_the_chosen_product_is_always_among_those_shown() -> None:
    names = [f"P{number}" for number in range(30)]
    for chosen in names:
        view = View(NOW, "/x", True, tuple(ProductRow(name, "live") for name in names), chosen=chosen)
        shown = [text.plain for text in panels.products(view, 80, 6)]
        assert sum(text.startswith(f"> {chosen} ") for text in shown) == 1 and "26 more" in shown[0]


def test_words_are_shown_whole_or_not_at_all() -> None:
    rng = random.Random(5)
    labels = {label for label, _, _ in panels._TROUBLES}
    for width in range(30, 161):
        counts = {name: rng.choice([0, 0, 1, 10**6]) for name in recorders._COUNTS}
        none = np.zeros(32, np.uint64)
        recorder = Recorder("DW-METRICS-1", 7, "recording", 5, 1, 0, 1.0, 1.0, counts, none, none, "")
        rows = (ProductRow("BTC-USD@kraken", "live", 7, 65_000.0, 1.0, 2.0, 3, 4, 5, 6), ProductRow("A-USD", "no feed"))
        view = View(NOW, "/x", True, rows, (recorder,), "A-USD")
        text = panels.status(view, width)[1].plain
        found = re.fullmatch(r"((?: [a-z]+(?: [a-z]+)? [\d,]+ ?)*)(?: \+(\d+) more ?)?", text)
        assert found, text
        said = dict(re.findall(r"([a-z]+(?: [a-z]+)?) ([\d,]+)", found[1]))
        wrong = {label: f"{counts[name]:,}" for label, name, _ in panels._TROUBLES if counts[name]}
        assert set(said) <= labels and all(said[label] == wrong.get(label, "0") for label in said)
        assert len(set(wrong) - set(said)) == int(found[2] or 0), text
        table = [each.plain.rstrip() for each in panels.products(view, width, 9)][1:]
        titles = table[0].split()
        assert set(titles) <= {name for name, _ in panels._COLUMNS} and titles[0] == "product"
        assert not table[1].endswith("…") and len(table[1].split()) == len(titles) + ("size" in titles) + (
            "age" in titles
        ), table
    text = panels.status(View(NOW, "/x", True, rows, (recorder,), "A-USD"), 300)[1].plain
    assert all(label in text for label in labels)


def test_a_header_says_most_what_is_going_on() -> None:
    mode, view = "attached to process 12188", View(NOW, "/a/store", True)
    for width in range(10, 100):
        (text,) = (each.plain for each in panels.header(view, mode, width))
        assert len(text) == width and (mode in text or width < 2 + len(mode))
        assert text.endswith((" 21:05:48 UTC ", " 21:05:48 ")) or width < 12 + len(mode)
    assert panels.header(view, mode, 38)[0].plain == f" {mode}   21:05:48 "
    buckets = np.zeros(32, np.uint64)
    buckets[8] = 5
    said = Recorder("DW-METRICS-1", 7, "recording", 5, 1, 0, 1.0, 1.0, dict.fromkeys(recorders._COUNTS, 0), buckets,
                    buckets, "")  # fmt: skip
    view = View(NOW, "/x", True, recorders=(said,))
    assert panels.status(view, 40)[2].plain == " receive to publish <256us/<256us"


def test_a_crossed_book_is_said_in_every_form() -> None:
    book = BookState(((11.0, 1.0),), ((10.0, 1.0),), time_us=NOW, crossed=True)
    view = View(NOW, "/x", True, (ProductRow("A", "live"),), chosen="A", book=book)
    assert "| book 11.00 / 10.00 CROSSED |" in line(view, "x")
    assert json.loads(json_line(view, "x"))["book"]["crossed"] is True
    assert "crossed" in panels.book(view, 60, 9)[1].plain


def test_a_book_that_is_not_to_be_trusted_has_no_ladder() -> None:
    side = ((10.0, 1.0),)
    for state, words in (
        (BookState(side, side, "gap before position 4: reconnect"), "not to be trusted: gap before position 4"),
        (BookState(reason="no complete snapshot yet"), "no complete snapshot yet"),
        (BookState(behind=120_000), "catching up: 120,000 records behind"),
    ):
        text = "\n".join(t.plain for t in panels.book(View(NOW, "/x", True, chosen="A", book=state), 60, 20))
        assert words in text and "10.00" not in text
    book = BookState(side, ((11.0, 2.0),), time_us=NOW)
    view = View(NOW, "/x", True, (ProductRow("A", "gone"),), chosen="A", book=book)
    text = "\n".join(t.plain for t in panels.book(view, 60, 20))
    assert "not live: as of 21:05:48 UTC" in text and "10.00 │ 11.00" in text


# --- the terminal ----------------------------------------------------------------------------------------

Steps = Callable[[Dashboard, Pilot[None]], Awaitable[None]]


def drive(session: Session, steps: Steps, size: tuple[int, int] = (80, 24)) -> None:
    """Run the program without a terminal, and do these steps in it."""

    async def main() -> None:
        app = Dashboard(session)
        async with app.run_test(size=size) as pilot:
            await steps(app, pilot)

    try:
        asyncio.run(main())
    finally:
        session.close()


def screen(app: Dashboard) -> list[str]:
    """What is on the screen, line by line."""
    return [strip.text for strip in app.screen._compositor.render_strips()]


async def shows(app: Dashboard, pilot: Pilot[None], words: str) -> str:
    """Wait until the screen has these words; return the line."""
    end = time.monotonic() + DEADLINE_S
    while True:
        found = next((text for text in screen(app) if words in text), None)
        if found is not None:
            return found
        assert time.monotonic() < end, f"no {words!r} in\n" + "\n".join(screen(app))
        await pilot.pause(0.02)
        app.tick()


async def typed(pilot: Pilot[None], text: str, *keys: str) -> None:
    """Type into the prompt."""
    await pilot.press(*[{" ": "space", "-": "minus"}.get(letter, letter) for letter in text], *keys)


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    with Market() as exchange:
        yield exchange


def test_a_market_from_the_first_command_to_quit(tmp_store: Path, market: Market) -> None:
    session = Session(tmp_store, market.uri)

    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        await shows(app, pilot, "no store here yet")
        await typed(pilot, "sub BTC-USD eth-usd", "enter")
        await shows(app, pilot, "subscribed: BTC-USD, ETH-USD; start records")
        await typed(pilot, "start", "enter")
        await shows(app, pilot, "2 connections up")
        await shows(app, pilot, "recording 2 products")
        await shows(app, pilot, "> BTC-USD      live")
        await shows(app, pilot, "receive to publish <")
        await shows(app, pilot, "spread")
        lines = screen(app)
        assert len(lines) == 24 and all(len(text) == 80 for text in lines)
        assert lines[-1].startswith("> ") and lines[0].startswith(" Deepwater")
        ladder = [text for text in lines if " │ " in text]
        assert len(ladder) >= 9
        best = session.view.book
        assert best.bids[0][0] < best.asks[0][0]
        await pilot.press("f3")
        await shows(app, pilot, "> ETH-USD      live")
        await shows(app, pilot, "book ETH-USD")
        await typed(pilot, "unsub ETH-USD", "enter")
        await shows(app, pilot, "ETH-USD: no longer recorded")
        await typed(pilot, "status", "enter")
        await shows(app, pilot, "recording 1 product |")
        await typed(pilot, "stop", "enter")
        await shows(app, pilot, "recording ended; all is flushed")
        await shows(app, pilot, "not recording")
        await typed(pilot, "q", "enter")
        assert session.is_done and not app.is_running

    drive(session, steps)
    with Platform(tmp_store) as dw:
        assert len(dw["CB-TRADES-BTC-USD"]) and dw.describe_feed("CB-L2-ETH-USD")["writer"] is None


def test_keys_of_the_prompt_and_the_log(tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        for product in ("BTC-USD", "BTC-EUR"):
            book, trades = open_feeds(dw, product)
            book.write_batch(levels((b"B", 9.0, 1.0), (b"A", 10.0, 2.0), kind=b"S"), create_index=True)
            trades.write_batch(make_trades(3))
            book.close()
            trades.close()
    session = Session(tmp_store, "ws://127.0.0.1:1")

    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        prompt = app.query_one(Prompt)
        await shows(app, pilot, "9.00 │ 10.00")
        await typed(pilot, "nonsense", "enter")
        await shows(app, pilot, "no command 'nonsense'; help lists them")
        await typed(pilot, "products", "enter")
        await shows(app, pilot, "BTC-EUR: ended, 5 records")
        # History: up and down, the line being written is kept.
        await typed(pilot, "sho", "up")
        assert prompt.value == "products"
        await pilot.press("up", "up")
        assert prompt.value == "nonsense"
        await pilot.press("down", "down")
        assert prompt.value == "sho"
        # Completion: of a command, of a product, several choices.
        await pilot.press("tab")
        assert prompt.value == "show " and prompt.has_focus
        await typed(pilot, "b", "tab")
        assert prompt.value == "show BTC-"
        await pilot.press("tab")
        await shows(app, pilot, "? BTC-EUR BTC-USD")
        await typed(pilot, "U", "tab")
        assert prompt.value == "show BTC-USD "
        await pilot.press("enter")
        await shows(app, pilot, "> BTC-USD      ended")
        await pilot.press("x", "escape")
        assert prompt.value == ""
        # The log: F2, the command, help.
        assert not app.query_one("#log").display
        await pilot.press("f2")
        await shows(app, pilot, "F2: back")
        assert app.query_one("#log").display and not app.query_one("#main").display
        assert any("no command 'nonsense'" in text for text in screen(app))
        await typed(pilot, "logs", "enter")
        assert not app.query_one("#log").display and app.query_one("#main").display
        await typed(pilot, "help", "enter")
        await shows(app, pilot, "unsub ETH-USD        record them no longer; the others go on")
        await pilot.press("f2")
        await shows(app, pilot, "9.00 │ 10.00")
        await pilot.press("ctrl+c")
        assert session.is_done

    drive(session, steps)


@pytest.mark.parametrize("size", [(160, 48), (40, 12), (30, 8), (20, 4), (10, 3), (300, 90)])
def test_any_size_is_filled_and_no_more(size: tuple[int, int], tmp_store: Path) -> None:
    with Platform(tmp_store) as dw:
        book, trades = open_feeds(dw, "BTC-USD")
        rows = [(side, 100.0 + sign * at, 1.0 + at) for side, sign in ((b"B", -1), (b"A", 1)) for at in range(1, 60)]
        book.write_batch(levels(*rows, kind=b"S"), create_index=True)
        trades.write_batch(make_trades(100))
        book.close()
        trades.close()
    session = Session(tmp_store, "ws://127.0.0.1:1")

    async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
        for width, height in (size, (80, 24), size):
            await pilot.resize_terminal(width, height)
            app.tick()
            await pilot.pause()
            lines = screen(app)
            assert len(lines) == height and {len(text) for text in lines} == {width}
            assert lines[-1].startswith("> ") and "▇" not in lines[-1]
            if height >= 12:
                assert "99.00 │ 101.00" in "\n".join(lines)
            if height >= 24:
                assert sum(" │ " in text for text in lines) >= min(height - 16, 60)
                assert not lines[0].startswith("  ") and "99.00 │ 101.00" in "\n".join(lines)

    drive(session, steps)


@pytest.mark.faults
def test_an_attached_recorder_is_killed_and_comes_back(tmp_store: Path, market: Market) -> None:
    with ForeignRecorder(market.uri, tmp_store, "BTC-USD") as recorder:
        session = Session(tmp_store, market.uri)

        async def steps(app: Dashboard, pilot: Pilot[None]) -> None:
            await shows(app, pilot, f"attached to process {recorder.pid}")
            await typed(pilot, "start", "enter")
            await shows(app, pilot, f"start: process {recorder.pid} records BTC-USD into this store")
            recorder.kill()
            await shows(app, pilot, f"recorder {recorder.pid} is gone")
            await shows(app, pilot, f"recorder {recorder.pid} died; its last word")
            await shows(app, pilot, "not live: as of")
            with ForeignRecorder(market.uri, tmp_store, "BTC-USD") as again:
                await shows(app, pilot, f"attached to process {again.pid}")
                await shows(app, pilot, "1 connection up")
                await shows(app, pilot, "spread")
                again.end()
                await shows(app, pilot, f"recorder {again.pid} has ended")

        drive(session, steps)
