"""Arguments of the commands that print records, or move them: query, trades, tail, head, replay, export, import."""

from __future__ import annotations

from typing import Any

from deepwater.cli.options import (
    FORMATS,
    base_path,
    choice_of_rows,
    code_flag,
    columns,
    command,
    feed_name,
    form,
    json_flag,
    one_of,
    path,
    positive,
    row_count,
    time_range,
    waiting,
)

__all__ = ["COMMANDS"]

_LINES = "= --format json, one object a line"
_TEXTS = FORMATS[:3]


def _query(commands: Any) -> None:
    parser = command(
        commands, "query", "query:query", "print the records of a time range",
        "deepwater query CB-TRADES-BTC-USD --last 5m\n"
        "deepwater query CB-TRADES-BTC-USD --start 2026-08-09T05:23 --end 2026-08-09T05:24 \\\n"
        "    --clock ev_us --columns ev_us,price,size -o trades.parquet",
        _QUERY,
    )  # fmt: skip
    feed_name(parser)
    time_range(parser, "back from the newest record, as 5m; or rows, as 1000")
    choice_of_rows(parser)
    code_flag(form(parser, FORMATS, _LINES, None))
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


def _trades(commands: Any) -> None:
    parser = command(
        commands, "trades", "trades:trades", "print the trades of a product in a window of time",
        "deepwater trades --product BTC-USD --last 5m\n"
        "deepwater trades --feed CB-TRADES-BTC-USD --start 05:23 --end 05:24:30\n"
        "deepwater trades --product BTC-USD --start 2026-08-09T05:23 --code",
        "Without --product or --feed: of the only trades feed there is, else a list of\n"
        "them (exit 2). Without --start: the last minute that is stored, or the last one\n"
        "up to --end. Without --end: up to what is stored, and with -f on from there.\n"
        "A feed of trades is called VENUE-TRADES-PRODUCT; --feed takes any. Times are\n"
        "written as for query, and are of the primary clock. Sides are those stored: of\n"
        "a Coinbase trade the maker's.",
    )  # fmt: skip
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--product", metavar="P", help="as BTC-USD")
    which.add_argument("--feed", metavar="FEED", help="instead: the feed itself")
    time_range(parser)
    waiting(parser, "-f", "go on with what is published")
    choice_of_rows(parser, "end after N rows")
    code_flag(form(parser, _TEXTS, _LINES))
    base_path(parser)


def _tail(commands: Any) -> None:
    parser = command(
        commands, "tail", "tail:tail", "print the newest records, and go on with new ones",
        "deepwater tail CB-TRADES-BTC-USD\n"
        "deepwater tail CB-TRADES-BTC-USD -f --columns proc_us,side,price,size\n"
        "deepwater tail CB-L2-BTC-USD -f --snapshot --json | jq .price",
        "With -f it goes on with what is published, record by record and without a gap or\n"
        "a repeat, until Ctrl-C (exit 130), --timeout or --limit (exit 0). On a terminal\n"
        "times are those of the day named above them.",
    )  # fmt: skip
    feed_name(parser)
    waiting(parser, "-f", "go on with what is published")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-n", "--rows", metavar="N", type=row_count, help="begin N records back (default: 10)")
    where.add_argument(
        "--start", metavar="T", help="begin at a time, as 2026-08-09T05:23, 05:23 (today), -15min, or us; UTC"
    )
    where.add_argument("--snapshot", action="store_true", help="begin at the latest complete snapshot")
    choice_of_rows(parser, "end after N rows")
    parser.add_argument(
        "--wait", choices=("auto", "spin", "wake"),
        help="with -f: how it waits; spin takes a whole core and is the fastest (default: auto)",
    )  # fmt: skip
    code_flag(form(parser, _TEXTS, _LINES))
    base_path(parser)


def _head(commands: Any) -> None:
    parser = command(
        commands, "head", "tail:head", "print the oldest records that a feed holds",
        "deepwater head CB-TRADES-BTC-USD\ndeepwater head CB-L2-BTC-USD -n 3 --json",
    )  # fmt: skip
    feed_name(parser)
    parser.add_argument("-n", "--rows", metavar="N", type=row_count, help="how many (default: 10)")
    parser.add_argument("--columns", metavar="A,B", type=columns, help="only these, in this order")
    code_flag(form(parser, _TEXTS, _LINES))
    base_path(parser)


def _replay(commands: Any) -> None:
    parser = command(
        commands, "replay", "replay:replay", "print the records of several feeds in the order of their times",
        "deepwater replay CB-TRADES-BTC-USD CB-L2-BTC-USD --last 1m --speed 10\n"
        "deepwater replay CB-TRADES-BTC-USD CB-TRADES-ETH-USD --json | jq .feed",
        "As fast as it can, or --speed times as fast as it was. Times are written as for\n"
        "query; --clock orders the records too. Ctrl-C ends it (exit 130).",
    )  # fmt: skip
    parser.add_argument("feeds", metavar="FEED", nargs="+")
    time_range(parser)
    parser.add_argument("--speed", metavar="X", type=positive, help="1 as it was, 10 ten times as fast")
    waiting(parser, "--live", "at the end go on with what is published")
    choice_of_rows(parser, "end after N rows")
    form(parser, ("table", "json"), f"{_LINES}, with its feed and position")
    base_path(parser)


def _export(commands: Any) -> None:
    parser = command(
        commands, "export", "transfer:export", "write records of a feed to a file",
        "deepwater export CB-TRADES-BTC-USD -o trades.parquet\n"
        "deepwater export CB-L2-BTC-USD --start 2026-08-09 --columns proc_us,price -o l2.csv",
        "Parquet, Arrow IPC (Feather 2), CSV or .npy, by --format or the ending of FILE,\n"
        "which appears whole or not at all. Times are written as for query. What a file\n"
        "of all columns holds, import makes the same feed of; of CSV and .npy say which\n"
        "clock is the primary (--ts-col). Parquet and Arrow end at a time of 2^63-1.",
    )  # fmt: skip
    feed_name(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=path, required=True, help="- is stdout")
    one_of(parser, "--format", ("parquet", "arrow", "csv", "npy"), "by the ending of -o")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    time_range(parser, "back from the newest record, as 5m; or rows, as 1000")
    choice_of_rows(parser)
    base_path(parser)
    json_flag(parser, "say what was written as a JSON object")


def _import(commands: Any) -> None:
    parser = command(
        commands, "import", "transfer:import_", "append the records of a file to a feed",
        "deepwater import trades.parquet TRADES\n"
        "deepwater import ticks.csv.gz TICKS --ts-col time --dry-run\n"
        "deepwater import glbx-mdp3-20240701.trades.dbn.zst ES-TRADES",
        _IMPORT,
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", type=path)
    feed_name(parser, "made if there is none")
    one_of(parser, "--format", ("parquet", "arrow", "csv", "npy", "dbn"), "by the ending of FILE")
    parser.add_argument("--spec", metavar="SPEC.json", type=path, help="of a feed that is made (default: inferred)")
    parser.add_argument("--ts-col", metavar="COLUMN", help="the clock, where several columns could be it")
    parser.add_argument("--columns", metavar="A,B", type=columns, help="only these of the file")
    parser.add_argument("--skip", metavar="N", type=row_count, default=0, help="leave out the first N rows of the file")
    parser.add_argument("--dry-run", action="store_true", help="check all of the file, write nothing")
    base_path(parser)
    json_flag(parser, "say what was imported, and the spec, as a JSON object")


_IMPORT = """Parquet, Arrow IPC, CSV (.gz, .bz2 and .zst too), .npy, or Databento's DBN (mbo,
trades, mbp-1, mbp-10, tbbo, bbo, ohlcv). The file is checked first and
then written: a row that does not fit is named by row (from 1) and column, and
nothing is imported. A feed that is made appears when all of it is written: what
breaks that off (a full disk, Ctrl-C, a kill) leaves none. In a feed that was
there it leaves the first rows of the file, as many as info shows that it has
more than before: --skip so many to go on. Columns are matched by name; times
get names that end in _us. What is finer than a microsecond is cut, and said.
Without --spec the width of text in CSV is that of the longest there: a later
file with a longer one does not fit."""


COMMANDS = (_query, _trades, _tail, _head, _replay, _export, _import)
