"""The metrics of a real recorder, as a feed and over HTTP, while it records, after a kill, and after its end."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from pathlib import Path

from cli_kit import deepwater, first_line, started

from deepwater import Platform

MARKET = ["--port", "0", "--rate", "100", "--duration", "100", "--depth", "50"]


def test_metrics_of_a_recorder_that_is_killed_and_of_the_next(tmp_store: Path) -> None:
    with started("exchange", *MARKET, "--product", "BTC-USD") as exchange:
        words = ["record", "coinbase", "--uri", first_line(exchange), "--product", "BTC-USD", "--base-path", tmp_store]
        with started(*words, "--metrics-port", "0") as recorder, Platform(tmp_store) as dw:
            assert recorder.stderr is not None
            assert recorder.stderr.readline().startswith("recording")
            port = re.fullmatch(r"metrics at http://127\.0\.0\.1:(\d+)/metrics\n", recorder.stderr.readline())
            assert port is not None
            while "DW-METRICS-1" not in dw.list_feeds():
                assert recorder.poll() is None
            found = 0
            for batch in dw["DW-METRICS-1"].follow("earliest", timeout=60):
                total = batch[batch["subject"] == b""][-1]
                assert total["pid"] == recorder.pid and total["connected"] <= 1
                if total["records"] and total["delay"].sum():
                    found = int(total["frames"])
                    break
            assert found
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{port[1]}/metrics", timeout=30) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                frames = re.search(r"^deepwater_recorder_frames_total (\d+)$", answer.read().decode(), re.MULTILINE)
            assert frames is not None and int(frames[1]) >= found
            recorder.kill()
            recorder.wait()
            first = dw["DW-METRICS-1"]
            killed_end = int(first.end)
            done = deepwater(*words, "--duration", "1.5", "--json")
            totals = json.loads(done.stdout)
            last = first.rows(killed_end, int(first.end)).to_numpy()
            last = last[last["subject"] == b""][-1]
            assert last["frames"] == totals["frames"] and last["trades"] == totals["trades"]
            assert last["started_us"] != total["started_us"] and totals["metrics_errors"] == 0
            assert [name for name in dw.list_feeds() if name.startswith("DW-")] == ["DW-METRICS-1"]
    words = ["--base-path", tmp_store, "--columns", "subject,records,frames", "-n", "3"]
    shown = deepwater("tail", "DW-METRICS-1", *words)
    assert str(totals["frames"]) in shown.stdout


def test_a_port_in_use_is_one_line_and_nothing_is_recorded(tmp_store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        words = ["--uri", "ws://127.0.0.1:1", "--product", "A", "--base-path", tmp_store, "--metrics-port", taken]
        done = deepwater("record", "coinbase", *words, code=1)
    said = done.stderr.splitlines()[-1].removeprefix("deepwater: error: ")
    where = f"metrics: can not listen at 127.0.0.1:{taken}"
    assert said == f"{where}: the port is in use; take another --metrics-port, or 0"
    assert not tmp_store.exists()
