"""gaps: spans and gaps as text and as JSON, what is common, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_kit import START_US, Kept, deepwater, one_line

from deepwater import Platform, cli

SPEC: dict[str, Any] = {"ts_col": "t_us", "fields": [{"name": "t_us", "type": "u64"}, {"name": "ev_us", "type": "u64"}]}
S = 1_000_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TRADES from second 0 to 59 without 20 to 29; BOOK from 10 on, silent from 40 to 50; EMPTY."""
    path = tmp_path_factory.mktemp("gaps") / "store"
    with Platform(path) as dw:
        for name in ("TRADES", "BOOK", "EMPTY"):
            dw.create_feed({**SPEC, "feed_name": name})
        with dw.create_writer("TRADES") as writer:
            for k in [*range(20), *range(30, 60)]:
                if k == 30:
                    writer.mark_gap(10, START_US + 20 * S, START_US + 29 * S, "reconnect: \x1b[2J")
                writer.write_values(START_US + k * S, k)
        with dw.create_writer("BOOK") as writer:
            for k in [*range(10, 41), *range(50, 60)]:
                writer.write_values(START_US + k * S, k)
    return path


def run(capfd: pytest.CaptureFixture[str], store: Path, *words: str, code: int = 0) -> str:
    assert cli.main(["gaps", *words, "--base-path", str(store)]) == code
    out, said = capfd.readouterr()
    assert said == ""
    return out


def spans(found: dict[str, Any]) -> list[tuple[float, float]]:
    return [((s["whole_from_us"] - START_US) / S, (s["whole_to_us"] - START_US) / S) for s in found["spans"]]


def test_spans_gaps_and_what_is_common(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capfd, store, "TRADES", "BOOK", "--common", "--json", code=1))
    trades, book = found["feeds"]
    assert spans(trades) == [(0, 20), (29, 59)] and spans(book) == [(10, 59)]
    assert (trades["feed"], trades["clock"], trades["records"], book["gaps"]) == ("TRADES", "t_us", 50, [])
    assert trades["share"] == pytest.approx(50 / 59) and book["share"] == 1
    (gap,) = trades["gaps"]
    assert (gap["position"], gap["lost"], gap["kind"], gap["reason"]) == (20, 10, "gap", "reconnect: \x1b[2J")
    assert (gap["from_us"], gap["to_us"]) == (START_US + 20 * S, START_US + 29 * S)
    assert [((c["from_us"] - START_US) / S, (c["to_us"] - START_US) / S) for c in found["common"]] == [
        (10, 20),
        (29, 59),
    ]
    text = run(capfd, store, "TRADES", "BOOK", "--common", code=1)
    assert "TRADES: 2 spans, 1 gap, 50 records\n  84.75% of t_us 2026-08-09T05:23:42.196708Z to" in text
    assert r"reconnect: \x1b[2J" in text and "\x1b" not in text
    assert "common to 2 feeds: 2 intervals, 40.0 s\n" in text


def test_at_80_columns_it_says_what_is_missing_and_why(
    store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    cli.main(["gaps", "TRADES", "--base-path", str(store)])
    out, said = capfd.readouterr()
    lines = out.splitlines()
    spans, gaps = lines[2], lines[lines.index("  gaps") + 1 :]
    assert "whole from (UTC)" in spans and "to" in spans.split() and spans.endswith("lasts")
    assert gaps[0].split() == ["before", "lost", "from", "(UTC)", "lasts", "kind", "reason"]
    assert "9.0 s" in gaps[1] and gaps[1].endswith(r"reconnect: \x1b[2J")
    assert said == "no room for: first, to (see --json)\n"


def test_the_exit_code_says_whether_there_is_a_gap(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "BOOK: 1 span, 0 gaps" in run(capfd, store, "BOOK")
    assert run(capfd, store, "EMPTY") == "EMPTY: 0 spans, 0 gaps, 0 records\n"
    assert "TRADES" in run(capfd, store, code=1)  # all feeds
    pause = run(capfd, store, "BOOK", "--silence", "5s", code=1)
    assert "BOOK: 2 spans, 1 gap" in pause and "silence" in pause
    assert spans(json.loads(run(capfd, store, "BOOK", "--silence", "10s", "--json"))["feeds"][0]) == [(10, 59)]
    bounds = ["--start", str(START_US + 31 * S), "--end", str(START_US + 38 * S)]
    (found,) = json.loads(run(capfd, store, "TRADES", *bounds, "--json"))["feeds"]
    assert spans(found) == [(31, 38)] and found["share"] == 1
    (found,) = json.loads(run(capfd, store, "TRADES", "--clock", "ev_us", "--json", code=1))["feeds"]
    assert [(s["from_us"], s["to_us"]) for s in found["spans"]] == [(1, 19), (30, 59)]  # 0 is no time


def test_a_beginning_that_is_gone_counts_where_it_was_asked_for(
    tmp_store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Platform(tmp_store) as dw:
        dw.create_feed({**SPEC, "feed_name": "RING", "persist": False, "chunk_size_bytes": 16 * 8})
        with dw.create_writer("RING") as writer:
            for k in range(20):
                writer.write_values(START_US + k * S, k)
        (found,) = json.loads(run(capfd, tmp_store, "RING", "--json"))["feeds"]
        assert [(gap["kind"], gap["position"], gap["lost"]) for gap in found["gaps"]] == [("removed", 12, 12)]
        assert "removed" in run(capfd, tmp_store, "RING", "--start", str(START_US), code=1)
        run(capfd, tmp_store, "RING", "--start", str(START_US + 15 * S))
        dw.delete_feed("RING")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["NOPE"], "NOPE"), (["TICKS", "--silence", "5"], "--silence is a duration as 250ms"),
        (["TICKS", "--start", "yonder"], "a time is 2026-08-09"),
        (["TICKS", "--clock", "price"], "'price' is no clock"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_line(words: list[str], said: str, kept: Kept) -> None:
    done = deepwater("gaps", *words, "--base-path", kept.path, code=2)
    assert said in one_line(done.stderr) and done.stdout == ""
    assert json.loads(deepwater("gaps", *words, "--json", "--base-path", kept.path, code=2).stderr)["error"]["message"]


def test_no_store_has_no_gaps(tmp_store: Path) -> None:
    assert "no feeds in" in one_line(deepwater("gaps", "--base-path", tmp_store).stderr)
    assert deepwater("gaps", "--base-path", tmp_store, "--json").stdout == '{"feeds": [], "common": null}\n'
    assert "needs feeds" in one_line(deepwater("gaps", "--common", "--base-path", tmp_store, code=2).stderr)
    assert not tmp_store.exists()
