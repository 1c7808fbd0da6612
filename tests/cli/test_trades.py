"""trades: which feed is meant, which window is meant, and the same as lines of Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cli_kit import ROOT, START_US, first_line, one_line, started

from deepwater import Platform, cli
from deepwater.timestamps import format_us, now_us

SPEC = json.loads((ROOT / "schemas" / "cb-trades.json").read_text())
MINUTE = 60_000_000


def make_trades(dtype: np.dtype[Any], last_us: int, rows: int = 600, every_us: int = 500_000) -> npt.NDArray[Any]:
    """Trades at even steps up to a time: 120 in a minute."""
    trades = np.zeros(rows, dtype)
    trades["type"], trades["trade_id"] = b"T", np.arange(rows)
    trades["proc_us"] = last_us - np.arange(rows, dtype="u8")[::-1] * np.uint64(every_us)
    trades["ev_us"] = trades["proc_us"] - np.uint64(7_000)
    trades["side"] = np.where(np.arange(rows) % 3 == 0, b"B", b"S")
    trades["price"], trades["size"] = 65_000 + np.arange(rows) / 4, 0.25
    return trades


def make_store(path: Path, names: list[str], last_us: int) -> npt.NDArray[Any]:
    with Platform(path) as dw:
        for name in names:
            dw.create_feed({**SPEC, "feed_name": name})
            with dw.create_writer(name) as writer:
                writer.write_batch(trades := make_trades(writer.layout.dtype, last_us))
    return trades


LAST_US = START_US // MINUTE * MINUTE + MINUTE  # 2026-08-09T05:24:00Z exactly


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, npt.NDArray[Any]]:
    path = tmp_path_factory.mktemp("trades") / "store"
    return path, make_store(path, ["CB-TRADES-BTC-USD"], LAST_US)


def ids(capfd: pytest.CaptureFixture[str], path: Path, *words: str) -> list[int]:
    assert cli.main(["trades", *words, "--json", "--base-path", str(path)]) == 0
    out, said = capfd.readouterr()
    assert said == ""
    return [json.loads(line)["trade_id"] for line in out.splitlines()]


DAY = "2026-08-09T"
WINDOWS: list[tuple[list[str], int, int]] = [  # the words, first and last us
    ([], LAST_US - MINUTE, LAST_US),
    (["--last", "30s"], LAST_US - MINUTE // 2, LAST_US),
    (["--start", f"{DAY}05:22"], LAST_US - 2 * MINUTE, LAST_US),
    (["--start", f"{DAY}05:21:30", "--end", f"{DAY}05:22"], LAST_US - MINUTE * 5 // 2, LAST_US - MINUTE - 1),
    (["--start", f"{DAY}05:21:30", "--end", f"{DAY}05:22:10"], LAST_US - MINUTE * 5 // 2, LAST_US - 109_000_001),
    (["--end", f"{DAY}05:21:59"], LAST_US - 3 * MINUTE, LAST_US - 2 * MINUTE - 1),
    (["--start", str(LAST_US - 3_000_000)], LAST_US - 3_000_000, LAST_US),
    (["--start", f"{DAY}07:22+02:00", "--end", f"{DAY}05:22"], LAST_US - 2 * MINUTE, LAST_US - MINUTE - 1),
    (["--start", "2026-08-09", "--limit", "7"], LAST_US - 299_500_000, LAST_US - 296_500_000),
]  # fmt: skip


@pytest.mark.parametrize(("words", "first", "last"), WINDOWS)
@pytest.mark.parametrize("how", ["", "--product BTC-USD", "--product btc-usd", "--feed CB-TRADES-BTC-USD"])
def test_the_window(
    words: list[str], first: int, last: int, how: str, one: tuple[Path, npt.NDArray[Any]],
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, trades = one
    wanted = trades[(trades["proc_us"] >= first) & (trades["proc_us"] <= last)]["trade_id"].tolist()
    assert wanted and ids(capfd, path, *how.split(), *words) == wanted


@pytest.mark.parametrize(("words", "first", "last"), WINDOWS)
def test_the_code_hands_out_the_same(
    words: list[str], first: int, last: int, one: tuple[Path, npt.NDArray[Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    path, trades = one
    wanted = trades[(trades["proc_us"] >= first) & (trades["proc_us"] <= last)]
    assert cli.main(["trades", *words, "--code", "--base-path", str(path)]) == 0
    names: dict[str, Any] = {}
    exec(capfd.readouterr().out, names)
    assert names["window"].to_numpy().tolist() == wanted.tolist()
    names["dw"].close()


def test_times_without_a_date_are_of_today(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever the day is when the tests run: the trades are of this very day, at noon."""
    noon = now_us() // 86_400_000_000 * 86_400_000_000 + 43_200_000_000
    trades = make_store(tmp_store, ["CB-TRADES-BTC-USD"], noon)
    found = ids(capfd, tmp_store, "--start", "11:58", "--end", "11:58:30")
    if now_us() // 86_400_000_000 * 86_400_000_000 + 43_200_000_000 != noon:
        pytest.skip("midnight came while the test ran")
    lo, hi = noon - 2 * MINUTE, noon - 2 * MINUTE + 30_999_999
    assert found == trades[(trades["proc_us"] >= lo) & (trades["proc_us"] <= hi)]["trade_id"].tolist()


def test_nothing_found_by_a_time_of_today_says_that_it_was_today(
    one: tuple[Path, npt.NDArray[Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["trades", "--start", "05:23", "--base-path", str(one[0])]) == 0
    said = one_line(capfd.readouterr().err)
    assert "covers 2026-08-09T05:19" in said and said.endswith("write the date too, as 2026-08-09T05:23")


def test_another_clock(one: tuple[Path, npt.NDArray[Any]], capfd: pytest.CaptureFixture[str]) -> None:
    path, trades = one
    words = ["--clock", "ev_us", "--start", f"{DAY}05:23:59.993", "--end", f"{DAY}05:23:59.993"]
    assert ids(capfd, path, *words) == [int(trades["trade_id"][-1])]


def test_the_table_is_for_people(one: tuple[Path, npt.NDArray[Any]], capfd: pytest.CaptureFixture[str]) -> None:
    path, trades = one
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        assert cli.main(["trades", "--start", f"{DAY}05:23:59", "--base-path", str(path)]) == 0
    out, said = capfd.readouterr()
    titles, day, *rows = out.splitlines()
    assert titles.split()[:4] == ["proc_us", "side", "price", "size"] and day == "2026-08-09 UTC"
    assert [row.split()[:4] for row in rows] == [
        [format_us(int(t["proc_us"]))[11:26], "buy" if t["side"] == b"B" else "sell", str(t["price"]), "0.25"]
        for t in trades[-3:]
    ]
    assert max(map(len, out.splitlines())) <= 80
    no_room, about = said.splitlines()
    assert no_room.startswith("no room for ") and "recv_us" in no_room
    assert about == "CB-TRADES-BTC-USD: 3 trades, 2026-08-09 05:23:59 to 05:24:00 UTC"


def test_it_says_that_the_window_is_the_last_minute(
    one: tuple[Path, npt.NDArray[Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["trades", "--limit", "5", "--base-path", str(one[0])]) == 0
    said = one_line(capfd.readouterr().err)
    assert "5 trades of 121" in said and said.endswith("2026-08-09 05:23:00 to 05:24:00 UTC, the last minute")


# --- which feed ------------------------------------------------------------------------------------------


def test_of_several_feeds_the_list_is_shown(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names = ["CB-TRADES-BTC-USD", "CB-TRADES-ETH-USD", "KR-TRADES-ETH-USD"]
    make_store(tmp_store, [*names, "OTHER"], LAST_US)
    base = ["--base-path", str(tmp_store)]
    assert cli.main(["trades", *base]) == 2
    out, said = capfd.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["feed", *names]
    assert all(name in one_line(said) for name in names)
    assert cli.main(["trades", "--json", *base]) == 2
    out, said = capfd.readouterr()
    assert out == "" and json.loads(said)["error"]["type"] == "UsageError"
    assert cli.main(["trades", "--product", "ETH-USD", *base]) == 2
    assert "--feed CB-TRADES-ETH-USD or --feed KR-TRADES-ETH-USD" in one_line(capfd.readouterr().err)
    with Platform(tmp_store) as dw:
        dw.create_feed({**SPEC, "feed_name": "KR-TRADES-BTC-USD"})  # of a recording to which nothing came
    assert len(ids(capfd, tmp_store, "--product", "BTC-USD")) == len(ids(capfd, tmp_store, "--feed", "OTHER")) == 121
    assert cli.main(["trades", "--product", "BTC-USB", *base]) == 1
    assert "no trades of 'BTC-USB'" in (said := one_line(capfd.readouterr().err)) and "mean 'BTC-USD'" in said


def test_without_any_there_is_nothing_to_show(tmp_store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trades", "--base-path", str(tmp_store)]) == 1
    assert "no feed of trades in" in one_line(capfd.readouterr().err) and not tmp_store.exists()


@pytest.mark.parametrize(
    "line",
    ["--product A --feed B", "-f --end now", "-f --clock ev_us", "--timeout 3", "--last 5m --start now",
     "--code --format csv", "--limit x", "--start"],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(
    line: str, one: tuple[Path, npt.NDArray[Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["trades", "--base-path", str(one[0]), *line.split()]) == 2
    assert one_line(capfd.readouterr().err).startswith("deepwater trades: error: ")


@pytest.mark.parametrize("word", ["soon", "1969", "2026-02-30", "25:00", "1786253022"])
def test_a_time_that_is_none_is_named(word: str, one: tuple[Path, npt.NDArray[Any]]) -> None:
    path = str(one[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPWATER_HOME", path)
        code = cli.main(["trades", "--start", word, "--limit", "0"])
    assert code == (0 if word == "1969" else 1)


# --- on and on -------------------------------------------------------------------------------------------


def test_it_goes_on_with_what_is_published(tmp_store: Path) -> None:
    trades = make_store(tmp_store, ["CB-TRADES-BTC-USD"], LAST_US)
    with Platform(tmp_store) as dw, dw.create_writer("CB-TRADES-BTC-USD") as writer:
        words = ["trades", "-f", "--last", "1s", "--columns", "trade_id", "--json", "--base-path", tmp_store]
        with started(*words) as process:
            assert [json.loads(first_line(process))["trade_id"] for _ in range(3)] == [597, 598, 599]
            for number in range(600, 610):
                trade = trades[-1:].copy()
                trade["trade_id"] = number
                writer.write_batch(trade)
                assert json.loads(first_line(process))["trade_id"] == number


def test_the_code_goes_on_too(one: tuple[Path, npt.NDArray[Any]], capfd: pytest.CaptureFixture[str]) -> None:
    words = ["trades", "-f", "--timeout", "0.01", "--base-path", str(one[0]), "--columns", "trade_id", "--code"]
    assert cli.main(words) == 0
    batches: list[npt.NDArray[Any]] = []
    names: dict[str, Any] = {"print": batches.append}
    exec(capfd.readouterr().out, names)
    assert np.concatenate(batches)["trade_id"].tolist() == list(range(479, 600))
    names["dw"].close()
