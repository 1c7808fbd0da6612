"""The recorder's counters in Prometheus' text form (0.0.4), served on loopback to whoever asks for ``/metrics``.

The text is a pure function of the counters. The server is a few lines of asyncio on the recorder's own event loop, so
no lock is needed and a row is one moment; what a client can cost it is bounded: a request of 8 KiB and 5 seconds, one
answer a connection, 16 connections. Rejected: `http.server` in a thread (a thread for each client, and counters that
change while they are printed).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable, Iterator

from deepwater.apps.counters import Counters, Latency
from deepwater.apps.metrics import BUCKETS, buckets, upper_us
from deepwater.errors import DeepwaterError

__all__ = ["HOST", "exposition", "serving"]

HOST = "127.0.0.1"
_REQUEST_BYTES = 8192
_REQUEST_S = 5.0
_CLIENTS_MAX = 16
_P = "deepwater_recorder"

_COUNTERS = {
    "frames": "Messages received.",
    "bytes": "Bytes received, decompressed.",
    "trades": "Trades written.",
    "levels": "Book levels written.",
    "snapshots": "Book snapshots written.",
    "duplicates": "Trades that came again and were not stored again.",
    "gaps": "Breaks in the numbering of a connection.",
    "lost_frames": "Frames known to be missing.",
    "lost_trades": "Trades known to be missing.",
    "connections": "Sessions begun.",
    "reconnects": "Sessions that followed a lost one.",
    "resyncs": "Fresh snapshots asked for after a gap.",
    "heartbeats": "Heartbeat frames.",
    "ignored": "Frames and events that are not recorded.",
    "errors": "Error frames from the exchange.",
    "bad_frames": "Frames that could not be decoded.",
    "unstored": "Records that found no space.",
    "pruned": "Chunks that retention let go.",
    "retain_errors": "Times that retention failed for a feed.",
    "metrics_errors": "Times that the feed of metrics could not be written.",
}
_GAUGES = {"connected": "Connections that are up now.", "queued": "Messages received and not handled yet."}
_LATENCIES = {
    "lag": ("exchange_to_receive_seconds", "From the exchange's stamp to receipt, as far as the clocks agree."),
    "handling": ("receive_to_publish_seconds", "From receipt to published."),
}


def exposition(counters: Counters) -> str:
    """Return the counters as Prometheus reads them: HELP, TYPE and samples of each metric.

    Examples
    --------
    >>> for line in exposition(Counters(frames=3)).splitlines()[:3]: print(line)
    # HELP deepwater_recorder_frames_total Messages received.
    # TYPE deepwater_recorder_frames_total counter
    deepwater_recorder_frames_total 3
    """
    return "".join(f"{line}\n" for line in _lines(counters))


def _lines(counters: Counters) -> Iterator[str]:
    for name, text in _COUNTERS.items():
        yield from _head(f"{_P}_{name}_total", text, "counter")
        yield f"{_P}_{name}_total {getattr(counters, name)}"
    for name, text in _GAUGES.items():
        yield from _head(f"{_P}_{name}", text, "gauge")
        yield f"{_P}_{name} {getattr(counters, name)}"
    yield from _head(f"{_P}_last_frame_timestamp_seconds", "When the latest message came; 0 before.", "gauge")
    yield f"{_P}_last_frame_timestamp_seconds {counters.last_frame_us / 1e6:.6f}"
    for name, (metric, text) in _LATENCIES.items():
        yield from _head(f"{_P}_{metric}", text, "histogram")
        yield from _histogram(f"{_P}_{metric}", getattr(counters, name))
    yield from _by_feed(counters)


def _by_feed(counters: Counters) -> Iterator[str]:
    labels = {name: f'feed="{_escaped(name)}"' for name in counters.by_feed}
    yield from _head(f"{_P}_feed_records_total", "Records written, by feed.", "counter")
    yield from (f"{_P}_feed_records_total{{{labels[name]}}} {counters.feeds[name]}" for name in labels)
    for field, text in (("gaps", "Gap marks written, by feed."), ("unstored", "Records without space, by feed.")):
        yield from _head(f"{_P}_feed_{field}_total", text, "counter")
        for name, counts in counters.by_feed.items():
            yield f"{_P}_feed_{field}_total{{{labels[name]}}} {getattr(counts, field)}"
    for field, (metric, text) in _LATENCIES.items():
        yield from _head(f"{_P}_feed_{metric}", f"{text[:-1]}, by feed.", "histogram")
        for name, counts in counters.by_feed.items():
            yield from _histogram(f"{_P}_feed_{metric}", getattr(counts, field), labels[name])


def _head(name: str, text: str, kind: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _histogram(name: str, latency: Latency, label: str = "") -> Iterator[str]:
    """The samples of a histogram; `le` is the longest duration of a bucket, in seconds."""
    comma, braces = (f"{label},", f"{{{label}}}") if label else ("", "")
    seen = 0
    for bucket, number in enumerate(buckets(latency)):
        seen += number
        le = "+Inf" if bucket == BUCKETS - 1 else f"{upper_us(bucket) / 1e6:.6f}"
        yield f'{name}_bucket{{{comma}le="{le}"}} {seen}'
    yield f"{name}_sum{braces} {latency.total_us / 1e6:.6f}"
    yield f"{name}_count{braces} {latency.count}"


def _escaped(text: str) -> str:
    r"""Escape a label's value.

    >>> print(_escaped('a"b\\c\n'))
    a\"b\\c\n
    """
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


# --- the server ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serving(port: int, counters: Callable[[], Counters]) -> AsyncIterator[int]:
    """Serve ``http://127.0.0.1:<port>/metrics`` while inside.

    Parameters
    ----------
    port : int
        0: any free one.
    counters : callable
        Returns the live counters; called for each request, on this event loop.

    Yields
    ------
    int
        The port it listens at.

    Raises
    ------
    DeepwaterError
        The port is taken, or not ours to take.
    """
    clients: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        clients.add(task)
        try:
            if len(clients) <= _CLIENTS_MAX:
                await _answer(reader, writer, counters)
        finally:
            clients.discard(task)
            writer.close()

    try:
        server = await asyncio.start_server(handle, HOST, port, limit=_REQUEST_BYTES)
    except OSError as error:
        hint = "; take another --metrics-port, or 0" if error.errno in (errno.EADDRINUSE, errno.EACCES) else ""
        why = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise DeepwaterError(f"metrics: can not listen at {HOST}:{port}: {why}{hint}", port=port) from error
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(clients):
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counters: Callable[[], Counters]
) -> None:
    """Read one request and answer it; a client that is slow, wrong or gone is its own affair."""
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_REQUEST_S):
            try:
                request = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                request = b""
            writer.write(_response(request, counters))
            await writer.drain()


def _response(request: bytes, counters: Callable[[], Counters]) -> bytes:
    words = request.partition(b"\r\n")[0].split()
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _http("400 Bad Request", "not a request\n")
    if words[0] not in (b"GET", b"HEAD"):
        return _http("405 Method Not Allowed", "GET or HEAD\n", "Allow: GET, HEAD\r\n")
    if words[1].partition(b"?")[0] != b"/metrics":
        return _http("404 Not Found", "try /metrics\n")
    kind = "text/plain; version=0.0.4; charset=utf-8"
    return _http("200 OK", exposition(counters()), kind=kind, bare=words[0] == b"HEAD")


def _http(status: str, text: str, headers: str = "", *, kind: str = "text/plain; charset=utf-8",
          bare: bool = False) -> bytes:  # fmt: skip
    body = text.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}"
    return head.encode() + b"\r\n" + (b"" if bare else body)
