"""The command demo: runs the demonstration and shows it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deepwater.cli import output, rows
from deepwater.cli.failures import OK, UsageError
from deepwater.cli.services import apps_needed
from deepwater.cli.signals import terminable
from deepwater.cli.status import StatusLine
from deepwater.cli.text import Table, amount, count, seconds, terminal_width
from deepwater.timestamps import format_us

if TYPE_CHECKING:
    from deepwater.apps.demo import Gap, Progress, Report

__all__ = ["demo"]

_SHORTEST_S = 2.0  # less, and the exchange's faults and the recorder's return do not fit in


def demo(args: argparse.Namespace) -> int:
    """Record a synthetic market, then read it back and show what there is."""
    if not _SHORTEST_S <= args.seconds <= 3600:
        raise UsageError(f"--seconds {args.seconds:g}: 2 to 3600", "deepwater demo")
    with apps_needed("demo"):
        import deepwater.apps.exchange
        import deepwater.apps.recorder  # noqa: F401 - the children will want both: say now what is missing
        from deepwater.apps.demo import Progress, run_demo
    output.say(
        "One process plays an exchange, which will lose a frame and hang up once; one\n"
        "records it through a websocket; this one looks on, and then reads it back.\n"
    )
    line = StatusLine(every_s=1.0)

    def on_progress(progress: Progress) -> None:
        line.show(_progress(progress, args.seconds))

    with terminable():
        try:
            report = run_demo(args.base_path, args.seconds, on_progress)
        except BaseException:
            line.clear()
            raise
    gaps = [feed["gaps"] for feed in report.feeds]
    records = {feed["feed"]: feed["records"] for feed in report.feeds}
    line.show(_progress(Progress(args.seconds, records, max(gaps)), args.seconds), last=True)
    for text in _sections(report):
        output.write(text + "\n")
    return OK


def _progress(progress: Progress, whole_s: float) -> str:
    trades, levels = (
        sum(records for feed, records in progress.records.items() if feed.startswith(kind))
        for kind in ("CB-TRADES-", "CB-L2-")
    )
    elapsed = f"{min(progress.elapsed_s, whole_s):4.1f} of {whole_s:g} s"
    return f"  {elapsed}   trades {trades:>7,}   book levels {levels:>8,}   gaps {progress.gaps}"


# --- the report ------------------------------------------------------------------------------------------


def _sections(report: Report) -> Iterator[str]:
    yield ""
    yield _title("Trades of two seconds")
    yield f"  trades[{report.start!r}:{report.end!r}]: {count(len(report.trades), 'row')}"
    yield from _indented(rows.short_table(report.trades[_COLUMNS], few=4))
    yield _title("\nOne-second bars, by the exchange's clock")
    yield from _bars(report)
    yield _title("\nGaps, from the marks stored beside the records")
    yield from _gaps(report)
    yield _title("\nRates")
    yield from _rates(report)
    yield _title("\nThe data stays in")
    size = amount(sum(feed["bytes"] for feed in report.feeds))
    yield f"  {report.base_path} ({size} on disk; remove it when you like)"
    yield _title("\nPaste into Python")
    yield from report.python
    yield _title("\nor into a shell")
    yield from report.shell


_COLUMNS = ["proc_us", "side", "price", "size", "trade_id"]


def _title(text: str) -> str:
    """Bold on a terminal that can."""
    tty = sys.stdout is not None and sys.stdout.isatty()
    if not tty or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return text
    return f"\x1b[1m{text}\x1b[0m"


def _indented(lines: list[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _bars(report: Report) -> Iterator[str]:
    titles = ("second (UTC)", "open", "high", "low", "close", "volume", "trades")
    cells = [
        (
            format_us(int(bar["second_us"]))[11:19],
            *(f"{bar[name]:,.2f}" for name in ("open", "high", "low", "close")),
            f"{bar['volume']:,.4f}",
            f"{bar['trades']:,}",
        )
        for bar in report.bars
    ]
    yield from Table(titles, indent=2).lines(cells, terminal_width())


def _gaps(report: Report) -> Iterator[str]:
    if not report.gaps:
        yield "  none"
        return
    titles = ("from (UTC)", "lasted", "lost", "why", "feeds")
    cells = [_gap_cells(gap, len(report.feeds)) for gap in report.gaps]
    yield from Table(titles, left=frozenset({"why"}), indent=2).lines(cells, terminal_width())


def _gap_cells(gap: Gap, feeds: int) -> tuple[str, ...]:
    lost = "?" if gap.lost is None else f"{gap.lost:,}"
    lasted = seconds(max(0, gap.to_us - gap.from_us))
    return format_us(gap.from_us)[11:23], lasted, lost, gap.reason, f"{len(gap.feeds)} of {feeds}"


def _rates(report: Report) -> Iterator[str]:
    titles = ("feed", "records", "records/s", "size", "gaps")
    cells = []
    for feed in report.feeds:
        lasted_us = max(1, (feed["last_us"] or 0) - (feed["first_us"] or 0))
        rate = feed["records"] / lasted_us * 1e6
        size = amount(feed["records"] * feed["record_bytes"])
        cells.append((feed["feed"], f"{feed['records']:,}", f"{rate:,.0f}", size, str(feed["gaps"])))
    yield from Table(titles, left=frozenset({"feed"}), indent=2).lines(cells, terminal_width())
    counters = report.counters
    frames, reconnects = count(counters["frames"], "frame"), count(counters["reconnects"], "reconnect")
    yield f"  websocket: {frames}, {amount(counters['bytes'])}, {reconnects}"
    yield "  from the socket to the record: {} median, {} 99th percentile".format(*map(seconds, report.delay_us))
    millions = report.read_rows / max(report.read_s, 1e-9) / 1e6
    lasted = seconds(report.read_s * 1e6)
    yield f"  read back: {count(report.read_rows, 'record')} in {lasted}, {millions:,.1f} million/s (best of 3)"
