"""The recorder's counters as a feed and as Prometheus text: what was counted is there, and nothing fails by it."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import record_session

from deepwater import DeepwaterError, Platform
from deepwater.apps import metrics, specs
from deepwater.apps.counters import Counters, Latency
from deepwater.apps.metrics import between, buckets, quantile_us, rows
from deepwater.apps.metrics_feed import MetricsFeed
from deepwater.apps.metrics_http import exposition, serving
from deepwater.apps.platform_sink import PlatformSink
from deepwater.apps.streams import Synthetic
from deepwater.check import verify

PRODUCTS = ["BTC-USD", "ETH-USD"]


def recorded(tmp_store: Path) -> Counters:
    with PlatformSink(tmp_store) as sink:
        session = record_session(
            lambda: Synthetic(PRODUCTS, seed=3, rate=None, depth=20, steps=300), PRODUCTS, sink, faults=["drop@60"]
        )
    return session.counters


def test_a_row_for_the_recording_and_one_for_each_feed_add_up_to_what_is_stored(tmp_store: Path) -> None:
    counters = recorded(tmp_store)
    total, *feeds = rows(counters, 5, 9)
    assert (total["ts_us"], total["started_us"], total["subject"]) == (9, 5, b"")
    with Platform(tmp_store) as dw:
        stored = {name: (len(dw[name]), len(dw[name].gaps())) for name in dw.list_feeds()}
    assert {row["subject"].decode(): (row["records"], row["gaps"]) for row in feeds} == stored
    assert total["records"] == counters.trades + counters.levels == sum(row["records"] for row in feeds)
    assert total["frames"] == counters.frames > 600 and total["gaps"] == 1
    assert total["delay"].sum() == counters.handling.count and total["delay_sum_us"] == counters.handling.total_us
    assert total["lag"].sum() == counters.lag.count == sum(int(row["lag"].sum()) for row in feeds)
    assert all(row["delay"].sum() == row["lag"].sum() > 0 for row in feeds)
    assert (counters.connected, counters.queued) == (0, 0) and counters.last_frame_us > 0


def test_quantiles_of_a_window_are_those_of_the_durations_in_it() -> None:
    random = np.random.default_rng(5)
    whole, counters, taken = Latency(), Counters(), []
    before = rows(counters, 1, 1)[0]
    for second in range(1, 9):
        durations = random.lognormal(5, 2, 200).astype(int)
        part = Latency()
        for us in durations.tolist():
            counters.lag.add(us)
            whole.add(us)
            part.add(us)
        now = rows(counters, 1, second * 1_000_000)[0]
        taken.append(now)
        window = between(before, now)["lag"]
        for q in (0.01, 0.5, 0.99):
            exact = int(np.sort(durations)[max(0, int(np.ceil(q * 200)) - 1)])
            found = quantile_us(window, q)
            assert exact <= found <= max(2 * exact, 1)
        assert window.tolist() == buckets(part)
        before = now
    assert between(None, taken[-1])["lag"].tolist() == buckets(whole)
    assert (between(taken[0], taken[-1])["lag"] + taken[0]["lag"]).tolist() == buckets(whole)
    assert quantile_us(np.zeros(metrics.BUCKETS, np.uint64), 0.5) is None


def test_rows_of_two_recordings_are_not_compared() -> None:
    counters = Counters(frames=10)
    older, newer = rows(counters, 1, 100)[0], rows(Counters(frames=3), 2_000_000, 3_000_000)[0]
    assert between(older, newer)["frames"] == 3
    assert between(older, newer)["seconds"] == 1.0


def test_durations_beyond_the_last_bucket_are_in_it() -> None:
    latency = Latency()
    for us in (0, 1, 2**30 - 1, 2**30, 2**62):
        latency.add(us)
    found = buckets(latency)
    assert len(found) == metrics.BUCKETS and sum(found) == 5
    assert (found[0], found[1], found[30], found[31]) == (1, 1, 1, 2)


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, 2**70])
def test_what_is_too_large_for_a_field_is_the_most_it_holds(number: int) -> None:
    latency = Latency(count=number, total_us=number, buckets=[number] * 65)
    counters = Counters(lost_trades=number, frames=number, lag=latency, handling=latency)
    counters.feed("F").gaps = counters.feeds["F"] = number
    counters.feed("F").lag = latency
    most = min(number, 2**64 - 1)
    for row in rows(counters, 1, 2):
        assert row["lag_sum_us"] == row["lag"][0] == row["records"] == most
    assert rows(counters, 1, 2)[0]["lost_trades"] == most and rows(counters, 1, 2)[1]["gaps"] == most


def test_the_spec_has_no_hidden_padding_and_all_the_counters() -> None:
    kind = specs.dtype(specs.METRICS)
    assert kind.itemsize == sum(kind[name].itemsize for name in kind.names) and kind.itemsize % 8 == 0
    assert kind["lag"].shape == kind["delay"].shape == (metrics.BUCKETS,)


# --- the feed --------------------------------------------------------------------------------------------


def take(metrics_feed: MetricsFeed, counters: Counters) -> None:
    """Write now, whatever the clock says."""
    metrics_feed._due_s = 0.0
    metrics_feed(counters)


def test_two_recorders_of_a_store_have_a_feed_each_and_the_next_goes_on_in_it(tmp_store: Path) -> None:
    with MetricsFeed(tmp_store) as one, MetricsFeed(tmp_store) as two:
        take(one, Counters(frames=1))
        take(two, Counters(frames=2))
        assert (one.name, two.name) == ("DW-METRICS-1", "DW-METRICS-2")
    with MetricsFeed(tmp_store) as three, Platform(tmp_store) as dw:
        take(three, Counters(frames=3))
        assert three.name == "DW-METRICS-1"
        found = dw["DW-METRICS-1"].latest(9)
        assert found["frames"].tolist() == [1, 3]
        assert len(set(found["started_us"].tolist())) == 2


def test_a_feed_whose_maker_was_killed_before_it_was_registered_is_registered(tmp_store: Path) -> None:
    with MetricsFeed(tmp_store) as feed:
        feed(Counters())
    (tmp_store / "registry.bin").unlink()
    with Platform(tmp_store) as dw:
        dw.create_feed({"feed_name": "A", "ts_col": "t_us", "fields": [{"name": "t_us", "type": "uint64"}]})
    with MetricsFeed(tmp_store) as feed:
        feed(Counters())
        assert [finding.code for finding in verify(tmp_store).findings] == []


def test_a_feed_of_another_version_is_made_anew(tmp_store: Path) -> None:
    old = {"feed_name": "DW-METRICS-1", "ts_col": "ts_us", "persist": False, "fields": [
        {"name": "ts_us", "type": "uint64"}, {"name": "x", "type": "uint64"}], "chunk_size_bytes": 65536}  # fmt: skip
    with Platform(tmp_store) as dw:
        dw.create_feed(old)
        dw.create_writer("DW-METRICS-1").close()
    with MetricsFeed(tmp_store) as feed, Platform(tmp_store) as dw:
        take(feed, Counters(frames=7))
        assert dw["DW-METRICS-1"].latest(1)["frames"].tolist() == [7]


def test_nothing_is_touched_before_the_first_row_and_rows_are_a_second_apart(tmp_store: Path) -> None:
    with MetricsFeed(tmp_store) as feed:
        assert not tmp_store.exists()
        counters = Counters()
        feed(counters)
        for _ in range(50):
            feed(counters)
        with Platform(tmp_store) as dw:
            assert len(dw["DW-METRICS-1"]) == 1
            counters.stopped = "stop"
            feed(counters)  # the last one is written at once
            assert len(dw["DW-METRICS-1"]) == 2


@pytest.mark.parametrize("where", ["create_writer", "write_batch"])
def test_a_failure_is_counted_and_said_once_and_ends_nothing(
    where: str, tmp_store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device", "/dev/shm")

    target = "deepwater.platform.Platform" if where == "create_writer" else "deepwater.ring_writer.RingWriter"
    counters = Counters()
    with caplog.at_level(logging.WARNING), MetricsFeed(tmp_store) as feed:
        with monkeypatch.context() as patch:
            patch.setattr(f"{target}.{where}", broken)
            for _ in range(3):
                take(feed, counters)
        assert counters.metrics_errors == (1 if where == "create_writer" else 3)
        assert [record.message[:27] for record in caplog.records] == ["metrics are not written: [E"]
        feed._open_s = 0.0  # a minute later
        take(feed, counters)
        with Platform(tmp_store) as dw:
            assert dw["DW-METRICS-1"].latest(1)["metrics_errors"].tolist() == [counters.metrics_errors]


# --- Prometheus ------------------------------------------------------------------------------------------

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)*)\})? (\S+)')


def parsed(text: str) -> dict[str, dict[str, float]]:
    """Samples by metric and labels; every line is HELP, TYPE or a sample of the metric that was announced."""
    found: dict[str, dict[str, float]] = {}
    kinds: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            helped = line.split()[2]
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name == helped and name not in kinds
            kinds[name] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match is not None, line
            base = re.sub("_(bucket|sum|count)$", "", match[1]) if kinds[helped] == "histogram" else match[1]
            assert base == helped
            samples = found.setdefault(match[1], {})
            assert (match[2] or "") not in samples
            samples[match[2] or ""] = float(match[3])
    return found


def test_the_text_says_what_was_counted_and_histograms_add_up(tmp_store: Path) -> None:
    counters = recorded(tmp_store)
    found = parsed(exposition(counters))
    for name in ("frames", "trades", "levels", "gaps", "reconnects"):
        assert found[f"deepwater_recorder_{name}_total"][""] == getattr(counters, name)
    for name, records in counters.feeds.items():
        assert found["deepwater_recorder_feed_records_total"][f'feed="{name}"'] == records
    seen = list(found["deepwater_recorder_receive_to_publish_seconds_bucket"].values())
    assert seen == sorted(seen) and len(seen) == metrics.BUCKETS
    assert seen[-1] == found["deepwater_recorder_receive_to_publish_seconds_count"][""] == counters.handling.count
    steps = [float(label[4:-1]) for label in found["deepwater_recorder_receive_to_publish_seconds_bucket"]]
    assert steps == sorted(set(steps)) and steps[-1] == float("inf")


def test_labels_are_escaped() -> None:
    counters = Counters()
    counters.feed('a"b\\c\nd')
    found = parsed(exposition(counters))
    assert list(found["deepwater_recorder_feed_records_total"]) == [r'feed="a\"b\\c\nd"']


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK"),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200 OK"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
        (b"nonsense\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"400 Bad Request"),
    ],
)
def test_what_is_asked_is_answered(request_: bytes, status: bytes) -> None:
    async def main() -> bytes:
        async with serving(0, lambda: Counters(frames=41)) as port:
            return await ask(port, request_)

    try:
        answer = asyncio.run(main())
    except ConnectionResetError:  # not all of a request that is too long was read
        assert len(request_) > 8192
        return
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert (b"deepwater_recorder_frames_total 41\n" in body) == (status == b"200 OK" and request_.startswith(b"GET"))


def test_it_listens_on_loopback_only_and_a_taken_port_is_one_line() -> None:
    async def main() -> None:
        async with serving(0, Counters) as port:
            with pytest.raises(DeepwaterError, match=rf"127.0.0.1:{port}: the port is in use; take another") as caught:
                async with serving(port, Counters):
                    pass
            assert "\n" not in str(caught.value)
            with socket.create_server(("127.0.0.2", port)):  # free there
                pass

    asyncio.run(main())


def test_clients_that_say_nothing_neither_block_others_nor_the_end() -> None:
    async def main() -> bytes:
        async with serving(0, lambda: Counters(frames=5)) as port:
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
            answer = await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")
        for _, writer in silent:
            writer.close()
        return answer

    assert b"frames_total 5\n" in asyncio.run(main())
