"""Arguments of the commands that watch over feeds: gaps, status."""

from __future__ import annotations

from typing import Any

from deepwater.cli.options import base_path, command, json_flag, seconds, time_range

__all__ = ["COMMANDS"]


def _gaps(commands: Any) -> None:
    parser = command(
        commands, "gaps", "gaps:gaps", "show where feeds are contiguous, and what they missed",
        "deepwater gaps\n"
        "deepwater gaps CB-TRADES-BTC-USD CB-L2-BTC-USD --common --start 2026-08-09\n"
        "deepwater gaps CB-L2-BTC-USD --silence 5s --json | jq '.feeds[].share'",
        "A span is a run of records without a gap. A gap is a mark (a sequence that\n"
        "jumped, a reconnect, records a crash dropped), the beginning that was removed,\n"
        "or, with --silence, a pause of the clock. Exit codes: 0 no gap, 1 gaps (the\n"
        "removed beginning counts only if --start is given), 2 it could not look (no such\n"
        "feed, wrong command line). Times are written as for query.",
    )  # fmt: skip
    parser.add_argument("feeds", metavar="FEED", nargs="*", help="default: all")
    time_range(parser, last="")
    parser.add_argument("--silence", metavar="D", help="a pause longer than this is a gap, as 5s")
    parser.add_argument("--common", action="store_true", help="also the times when none of the feeds misses anything")
    base_path(parser)
    json_flag(parser, "a JSON object, times in us since the epoch, unknown ones null")


def _status(commands: Any) -> None:
    parser = command(
        commands, "status", "feed_status:status", "show whether feeds are fresh: for cron and containers",
        "deepwater status\n"
        "deepwater status CB-TRADES-BTC-USD --max-age 30s || restart-the-recorder\n"
        "HEALTHCHECK CMD deepwater status --max-age 1m",
        "Of each feed its newest record, its writer, its rate, and how long the disk\n"
        "lasts at that rate. A feed's age is the time since its writer last wrote. Only\n"
        "looks: takes no lock, creates nothing. Exit codes: 0 fresh, 1 stale (with\n"
        "--max-age: a feed is older, or was never written), 2 it could not look (no such\n"
        "feed, damage, wrong command line).",
    )  # fmt: skip
    parser.add_argument("feeds", metavar="FEED", nargs="*", help="default: all; there must be one")
    parser.add_argument("--max-age", metavar="D", type=seconds, help="as 30s, 5m; without it no feed is stale")
    base_path(parser)
    json_flag(parser, "a JSON object, times in us since the epoch, unknown ones null")


COMMANDS = (_gaps, _status)
