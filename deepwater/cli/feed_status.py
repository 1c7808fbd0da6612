"""The command status: whether feeds are fresh, for people, cron and containers.

The line that is rewritten while a command runs is another thing: `deepwater.cli.status`.
"""

from __future__ import annotations

import argparse
from typing import Any

from deepwater.cli import failures, output
from deepwater.cli.failures import FAILED, OK
from deepwater.cli.store import no_room, put_json
from deepwater.cli.text import Table, amount, seconds, terminal_width
from deepwater.errors import DeepwaterError
from deepwater.feed_status import status_of
from deepwater.platform import Platform
from deepwater.timestamps import format_us

__all__ = ["status"]

ERROR = failures.TROUBLE["status"]
_TABLE = Table(("feed", "state", "age", "newest (UTC)", "rate/s", "a day", "gaps today", "not durable", "writer"),
               left=frozenset({"feed", "state", "writer"}),
               spare=("newest (UTC)", "not durable", "a day", "writer"))  # fmt: skip


def status(args: argparse.Namespace) -> int:
    """Show how feeds are doing. Exit codes: 0 fresh, 1 stale, 2 an error; an error counts more."""
    try:
        with Platform(args.base_path) as dw:
            names = list(dict.fromkeys(args.feeds)) or dw.list_feeds()
            rows = [_row(dw, name, args.max_age) for name in names]
    except (DeepwaterError, OSError) as error:
        output.say(failures.describe(error, as_json=args.json))
        return ERROR
    disk = _disk(rows)
    if args.json:
        put_json({"feeds": rows, "disk": disk})
    elif rows:
        _show(rows, disk)
    if not rows:
        output.say(f"no feeds in {dw.base_path}")
    if disk is not None and disk["full_in_days"] is not None and disk["full_in_days"] < 1 and not args.json:
        hours = disk["full_in_days"] * 24
        output.say(f"deepwater: warning: the disk will be full in {hours:.1f} h at the present rate")
    if not rows or any(row["state"] == "error" for row in rows):
        return ERROR
    return FAILED if any(row["state"] == "stale" for row in rows) else OK


def _row(dw: Platform, name: str, max_age_s: float | None) -> dict[str, Any]:
    """A feed with its state: fresh, stale, or error with its problem."""
    try:
        with dw.create_reader(name) as reader:
            found = status_of(reader)
    except (DeepwaterError, OSError) as error:
        return {"feed": name, "state": "error", "problem": failures.message(error)}
    age = found["age_us"]
    is_stale = max_age_s is not None and (age is None or age > max_age_s * 1e6)
    return {"feed": name, "state": "stale" if is_stale else "fresh", "problem": None, **found}


def _disk(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What is free for the durable feeds, and for how many days at the rate of those that are being written."""
    durable = [row for row in rows if row.get("disk_free") is not None]
    if not durable:
        return None
    free = min(row["disk_free"] for row in durable)
    running = [row for row in durable if row["writer"] and row["writer"]["state"] in ("alive", "elsewhere")]
    a_day = sum(row["bytes_per_day"] for row in running)
    return {"free": free, "bytes_per_day": a_day, "full_in_days": round(free / a_day, 2) if a_day else None}


def _show(rows: list[dict[str, Any]], disk: dict[str, Any] | None) -> None:
    cells, width = [_cells(row) for row in rows], terminal_width()
    lines = _TABLE.lines(cells, width)
    if disk is not None:
        days = disk["full_in_days"]
        pace = f"{amount(disk['bytes_per_day'])} a day"
        when = "nothing is being written" if days is None else f"disk full in {days:,.1f} days at {pace}"
        lines.append(f"disk: {amount(disk['free'])} free, {when}")
    output.write("\n".join(lines) + "\n")
    no_room(_TABLE.left_out(cells, width))
    for row in rows:
        if row["problem"]:
            output.say(f"deepwater: error: feed {row['feed']}: {row['problem']}")


def _cells(row: dict[str, Any]) -> list[str]:
    if row["problem"]:
        return [row["feed"], row["state"], *[""] * 7]
    writer, age, lag = row["writer"], row["age_us"], row["durable_lag"]
    return [
        row["feed"], row["state"], "never" if age is None else seconds(age),
        format_us(row["newest_us"]) if row["newest_us"] is not None else "-", f"{row['rate']:,.1f}",
        "ring" if row["bytes_per_day"] is None else amount(row["bytes_per_day"]), f"{row['gaps_today']:,}",
        "-" if lag is None else f"{lag:,}",
        f"pid {writer['pid']} on {writer['host']}, {writer['state']}" if writer else "none",
    ]  # fmt: skip
