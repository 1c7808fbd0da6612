"""Arguments of the commands that print records: query, tail, replay."""

from __future__ import annotations

from typing import Any

from deepwater.cli.options import base_path, columns, command, json_flag, path, positive, row_count, seconds

__all__ = ["COMMANDS"]

FORMATS = ("table", "csv", "json", "parquet", "arrow")


def _query(commands: Any) -> None:
    parser = command(
        commands, "query", "query:query", "print the records of a time range",
        "deepwater query CB-TRADES-BTC-USD --last 5m\n"
        "deepwater query CB-TRADES-BTC-USD --start 2026-08-09T05:23 --end 2026-08-09T05:24 \\\n"
        "    --clock ev_us --columns ev_us,price,size -o trades.parquet",
        _QUERY,
    )  # fmt: skip
    parser.add_argument("feed", metavar="FEED")
    parser.add_argument("--start", metavar="T", help="first time, inclusive")
    parser.add_argument("--end", metavar="T", help="last time, inclusive")
    parser.add_argument("--last", metavar="D", help="instead: back from the newest record, as 5m; or rows, as 1000")
    parser.add_argument("--clock", metavar="COLUMN", help="which clock the times are of (default: the primary)")
    parser.add_argument("--columns", metavar="A,B", type=columns, help="only these, in this order")
    parser.add_argument("--limit", metavar="N", type=row_count, help="at most the first N rows")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--format", choices=FORMATS, help="default: by the ending of -o, else table")
    how.add_argument("--json", action="store_true", help="= --format json; errors are JSON too, on stderr")
    parser.add_argument("-o", "--output", metavar="FILE", type=path, help="write to a file (- is stdout)")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    base_path(parser)


_QUERY = """times:   2026-08-09, 2026-08-09T05:23, 05:23:42 (today), now, -15min, or 15 to
         20 digits of us since the epoch. UTC. Text names a period: as --start
         its first us, as --end its last.
formats: table    for people: the first and the last rows, or the first --limit,
                  or, with -o, all
         csv      with a header; times as ISO 8601
         json     one object a line; times as ISO 8601 text, NaN as null
         parquet  a file
         arrow    the IPC file format with -o, the IPC stream format on a pipe
-o FILE  appears whole or not at all, and replaces nothing without --force."""


def _tail(commands: Any) -> None:
    parser = command(
        commands, "tail", "tail:tail", "print the newest records, and go on with new ones",
        "deepwater tail CB-TRADES-BTC-USD\n"
        "deepwater tail CB-TRADES-BTC-USD -f --columns proc_us,side,price,size\n"
        "deepwater tail CB-L2-BTC-USD -f --snapshot --json | jq .price",
        "With -f it goes on with what is published, record by record and without a gap or\n"
        "a repeat, until Ctrl-C (exit 130), --timeout or --limit (exit 0).",
    )  # fmt: skip
    parser.add_argument("feed", metavar="FEED")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is published")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-n", "--rows", metavar="N", type=row_count, help="begin N records back (default: 10)")
    where.add_argument(
        "--start", metavar="T", help="begin at a time, as 2026-08-09T05:23, 05:23 (today), -15min, or us; UTC"
    )
    where.add_argument("--snapshot", action="store_true", help="begin at the latest complete snapshot")
    parser.add_argument("--columns", metavar="A,B", type=columns, help="only these, in this order")
    parser.add_argument("--limit", metavar="N", type=row_count, help="end after N rows")
    parser.add_argument("--timeout", metavar="S", type=seconds, help="with -f: end after so long without a record")
    parser.add_argument(
        "--wait", choices=("auto", "spin", "wake"),
        help="with -f: how it waits; spin takes a whole core and is the fastest (default: auto)",
    )  # fmt: skip
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--format", choices=FORMATS[:3], default="table", help="default: table")
    json_flag(how, "= --format json, one object a line")
    base_path(parser)


def _replay(commands: Any) -> None:
    parser = command(
        commands, "replay", "replay:replay", "print the records of several feeds in the order of their times",
        "deepwater replay CB-TRADES-BTC-USD CB-L2-BTC-USD --last 1m --speed 10\n"
        "deepwater replay CB-TRADES-BTC-USD CB-TRADES-ETH-USD --json | jq .feed",
        "As fast as it can, or --speed times as fast as it was. Times are written as for\n"
        "query. Ctrl-C ends it (exit 130).",
    )  # fmt: skip
    parser.add_argument("feeds", metavar="FEED", nargs="+")
    parser.add_argument("--start", metavar="T", help="first time, inclusive")
    parser.add_argument("--end", metavar="T", help="last time, inclusive")
    parser.add_argument("--last", metavar="D", help="instead: so long back from the newest record, as 5m")
    parser.add_argument("--clock", metavar="COLUMN", help="which clock orders them (default: each feed's primary)")
    parser.add_argument("--speed", metavar="X", type=positive, help="1 as it was, 10 ten times as fast")
    parser.add_argument("--live", action="store_true", help="at the end go on with what is published")
    parser.add_argument("--timeout", metavar="S", type=seconds, help="with --live: end after so long without a record")
    parser.add_argument("--columns", metavar="A,B", type=columns, help="only these, of the feeds that have them")
    parser.add_argument("--limit", metavar="N", type=row_count, help="end after N rows")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    json_flag(how, "= --format json, one object a line, with its feed and position")
    base_path(parser)


COMMANDS = (_query, _tail, _replay)
