"""The dashboard as plain lines: for a pipe, a file, a terminal that can do no more, and scripts. No Textual."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from deepwater.apps.dashboard import numbers
from deepwater.apps.dashboard.model import View
from deepwater.apps.dashboard.recorders import Recorder, latency
from deepwater.timestamps import format_us
from deepwater.wording import amount, count, one_line

__all__ = ["json_line", "latencies", "line", "lines", "total"]


def total(view: View, name: str) -> int:
    """A count added up over the recorders that record now; over all of them if none does."""
    return sum(said.counts[name] for said in active(view))


def active(view: View) -> list[Recorder]:
    """The recorders that record; if none does, those there were."""
    return [said for said in view.recorders if said.state == "recording"] or list(view.recorders)


def latencies(view: View) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """p50 and p99 from receipt to published, and from the exchange to receipt; upper bounds, µs."""
    said = active(view)
    return latency([each.delay for each in said]), latency([each.lag for each in said])


def line(view: View, mode: str) -> str:
    """One line that says how it goes."""
    row, parts = view.product, [numbers.clock(view.now_us), mode]
    if not view.exists:
        return f"{' '.join(parts)}; no store at {view.base_path} yet"
    if row is not None:
        price = "-" if row.price is None else numbers.price(row.price)
        parts.append(f"| {row.name} {price}, {numbers.rate(row.trade_rate)} trades/s, ")
        parts[-1] += f"{numbers.rate(row.level_rate)} levels/s"
        parts.append(f"| book {_book(view)}")
    parts.append(f"| {count(total(view, 'gaps'), 'gap')}, {count(total(view, 'reconnects'), 'reconnect')}")
    delay, _ = latencies(view)
    if delay is not None:
        parts.append(f"| receive to publish p99 <= {numbers.duration(delay[1])}")
    left = "-" if view.disk_free is None else amount(view.disk_free)
    parts.append(f"| {amount(view.size)} stored, {left} left")
    return one_line(" ".join(parts))


def _book(view: View) -> str:
    book = view.book
    if book.behind:
        return f"{count(book.behind, 'record')} behind"
    if book.reason:
        return f"NOT valid ({book.reason})"
    if not book.bids or not book.asks:
        return "has an empty side"
    return f"{numbers.price(book.bids[0][0])} / {numbers.price(book.asks[0][0])}{' CROSSED' if book.crossed else ''}"


def json_line(view: View, mode: str) -> str:
    """The same as a JSON object, with everything that is shown but the levels beyond the best."""
    delay, lag = latencies(view)
    book = view.book
    about: dict[str, Any] = {
        "time": format_us(view.now_us), "mode": mode, "base_path": view.base_path, "exists": view.exists,
        "products": [
            {
                "product": row.name, "state": row.state, "writer": row.writer, "price": row.price,
                "trades_per_s": round(row.trade_rate, 3), "levels_per_s": round(row.level_rate, 3),
                "records": row.records, "gaps": row.gaps, "bytes": row.size, "age_us": row.age_us,
                "problem": row.problem or None,
            }
            for row in view.products
        ],
        "recorders": [
            {
                "feed": said.feed, "pid": said.pid, "state": said.state, "age_us": said.age_us,
                "connected": said.connected, "queued": said.queued, "frames_per_s": round(said.frame_rate, 3),
                "bytes_per_s": round(said.byte_rate, 3), **said.counts, "last_error": said.last_error or None,
            }
            for said in view.recorders
        ],
        "latency_us": {
            name: None if pair is None else {"p50": pair[0], "p99": pair[1]}
            for name, pair in (("receive_to_publish", delay), ("exchange_to_receive", lag))
        },
        "book": {
            "product": view.chosen or None, "valid": not book.reason and not book.behind, "reason": book.reason or None,
            "behind": book.behind, "crossed": book.crossed, "bid": book.bids[0] if book.bids else None,
            "ask": book.asks[0] if book.asks else None, "time_us": book.time_us,
        },
        "bytes": view.size, "disk_free": view.disk_free, "days_left": view.days_left, "news": list(view.news),
    }  # fmt: skip
    return json.dumps(about)


def lines(
    tick: Callable[[], tuple[View, str]], every_s: float, duration_s: float | None, as_json: bool,
    wait: Callable[[float], bool],
) -> Iterator[str]:  # fmt: skip
    """Yield a line now and then every `every_s` seconds, until `duration_s` is over or `wait` returns True.

    News are lines of their own, but in JSON, where they are in the object.
    """
    began = time.monotonic()
    due = began
    news: list[str] = []
    while True:
        view, mode = tick()
        if as_json:
            news.extend(view.news)
        else:
            yield from (f"{numbers.clock(view.now_us)} {one_line(text)}" for text in view.news)
        if time.monotonic() >= due:
            due = max(due + every_s, time.monotonic())
            yield json_line(_with(view, news), mode) if as_json else line(view, mode)
            news.clear()
        if duration_s is not None and time.monotonic() - began >= duration_s:
            return
        if wait(min(0.5, max(0.0, due - time.monotonic()))):
            return


def _with(view: View, news: list[str]) -> View:
    return replace(view, news=tuple(news))
