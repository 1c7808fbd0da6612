"""Arguments of the commands that watch over feeds: gaps."""

from __future__ import annotations

from typing import Any

from deepwater.cli.options import base_path, command, json_flag

__all__ = ["COMMANDS"]


def _gaps(commands: Any) -> None:
    parser = command(
        commands, "gaps", "gaps:gaps", "show where feeds are contiguous, and what they missed",
        "deepwater gaps\n"
        "deepwater gaps CB-TRADES-BTC-USD CB-L2-BTC-USD --common --start 2026-08-09\n"
        "deepwater gaps CB-L2-BTC-USD --silence 5s --json | jq '.feeds[].share'",
        "A span is a run of records without a gap. A gap is a mark (a sequence that\n"
        "jumped, a reconnect, records a crash dropped), the beginning that was removed,\n"
        "or, with --silence, a pause of the clock. Exit codes: 0 no gap, 1 gaps (the removed\n"
        "beginning counts only if --start is given) or an error, 2 wrong command line.",
    )  # fmt: skip
    parser.add_argument("feeds", metavar="FEED", nargs="*", help="default: all")
    parser.add_argument("--start", metavar="T", help="first time, inclusive, written as for query")
    parser.add_argument("--end", metavar="T", help="last time, inclusive")
    parser.add_argument("--clock", metavar="COLUMN", help="which clock the times are of (default: the primary)")
    parser.add_argument("--silence", metavar="D", help="a pause longer than this is a gap, as 5s")
    parser.add_argument("--common", action="store_true", help="also the times when none of the feeds misses anything")
    base_path(parser)
    json_flag(parser, "a JSON object, times in us since the epoch, unknown ones null")


COMMANDS = (_gaps,)
