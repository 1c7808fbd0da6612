"""The command line: what may be said, and the help. Only argparse: asking for help must cost nothing."""

from __future__ import annotations

import argparse
import math
import re
import shutil
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn

import deepwater
from deepwater.cli import output
from deepwater.cli.failures import UsageError

__all__ = ["FORMATS", "parse", "wants_json"]

FORMATS = ("table", "csv", "json", "parquet", "arrow")
_TIMES = {"--start", "--end", "--last"}
_HIDDEN = argparse.SUPPRESS


class _Help(argparse.RawDescriptionHelpFormatter):
    """Wraps to the terminal, but never so narrow that argparse fails."""

    def __init__(self, prog: str) -> None:
        width = shutil.get_terminal_size().columns
        super().__init__(prog, max_help_position=26, width=min(max(width, 50), 100))


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line, and notices when its help cannot be written."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(formatter_class=_Help, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self.prog)

    def print_help(self, file: Any = None) -> None:
        output.write(self.format_help())


class _Version(argparse.Action):
    """Argparse's own passes over a stdout that is full or closed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        output.write(f"deepwater {deepwater.__version__}\n")
        parser.exit()


def wants_json(words: Sequence[str]) -> bool:
    """Whether errors are to be JSON: known before the command line is understood.

    Examples
    --------
    >>> wants_json(["feeds", "--json"]), wants_json(["query", "X", "--format=json"]), wants_json(["feeds"])
    (True, True, False)
    """
    formats = [after for word, after in pairwise(words) if word == "--format"]
    return "--json" in words or "--format=json" in words or "json" in formats


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Understand the words of a command.

    Returns
    -------
    argparse.Namespace
        `run` names the function that does it, as ``module:function``.

    Raises
    ------
    UsageError
    SystemExit
        Help or the version was asked for, and shown.
    """
    parser = _parser()
    args = parser.parse_args(_joined(words))
    if args.run is None:
        commands = "demo, record, exchange, create, feeds, info or query"
        raise UsageError(f"which command? {commands}")
    return args


def _joined(words: Sequence[str]) -> list[str]:
    """Join ``--start -15min`` to one word: argparse takes the time for an option.

    >>> _joined(["query", "X", "--start", "-15min", "--limit", "3"])
    ['query', 'X', '--start=-15min', '--limit', '3']
    """
    out: list[str] = []
    for word in words:
        if out and out[-1] in _TIMES and re.match(r"-\d", word):
            out[-1] = f"{out[-1]}={word}"
        else:
            out.append(word)
    return out


# --- values ----------------------------------------------------------------------------------------------


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("a path is needed, this is empty")
    return text


def _rows(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: a number of rows is a whole number, 0 or more")
    return int(text)


def _seconds(text: str) -> float:
    """``90``, ``1.5``, ``30s``, ``5m``, ``2h``, ``1d``."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h|d)?", text)
    value = float(found[1]) * {"m": 60, "min": 60, "h": 3600, "d": 86400}.get(found[2], 1) if found else 0.0
    if not 0 < value < 1e9 or not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r}: seconds above 0 are needed, as 90 or 1.5, or 30s, 5m, 2h, 1d")
    return value


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r}: a number above 0 is needed")
    return value


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r}: a port is 0 (any free one) to 65535")
    return int(text)


# --- commands --------------------------------------------------------------------------------------------


def _parser() -> _Parser:
    parser = _Parser(
        prog="deepwater",
        description="Live and historical market data as arrays: record feeds, and read them by time.",
        epilog="Start with:  deepwater demo\n\nA store is a directory: --base-path, else $DEEPWATER_HOME, else "
        "./platform_data.\nTimes are UTC. Data goes to stdout, talk to stderr. Exit codes: 0, 1 it failed,\n"
        "2 wrong command line, 130 interrupted. DEEPWATER_DEBUG=1 shows tracebacks.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    parser.add_argument("--base-path", metavar="DIR", type=_path, default=None, help="the store")
    parser.set_defaults(run=None, json=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    for add in (_demo, _record, _exchange, _create, _feeds, _info, _query):
        add(commands)
    return parser


def _command(commands: Any, name: str, run: str, text: str, example: str, more: str = "") -> _Parser:
    description = f"{text[0].upper()}{text[1:]}."
    parser: _Parser = commands.add_parser(
        name, help=text, description=f"{description}\n\n{more}" if more else description,
        epilog=f"example:\n{_indented(example)}",
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def _base_path(parser: _Parser, default: str = "$DEEPWATER_HOME, else ./platform_data") -> None:
    # SUPPRESS: one given before the command stays.
    text = f"the store (default: {default})"
    parser.add_argument("--base-path", metavar="DIR", type=_path, default=_HIDDEN, help=text)


def _json(parser: _Parser, text: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"{text}; errors are JSON too, on stderr")


def _demo(commands: Any) -> None:
    parser = _command(
        commands, "demo", "demo:demo", "record a market on this machine and query it; needs no network",
        "deepwater demo\ndeepwater demo --seconds 20 --base-path ./demo_data",
        "It starts a local exchange that loses a frame and hangs up once, records it\n"
        "through a websocket, and reads what was recorded from a third process.\n"
        "The data stays; where is printed.",
    )  # fmt: skip
    parser.add_argument("--seconds", metavar="N", type=_seconds, default=8.0, help="how long to record (default: 8)")
    _base_path(parser, "a new directory under the temporary one; must be empty")


def _record(commands: Any) -> None:
    parser = commands.add_parser(
        "record", help="record a live market into feeds", description="Record a live market into feeds.",
        epilog="example:\n  deepwater record coinbase --product BTC-USD --product ETH-USD\n",
    )  # fmt: skip
    sources = parser.add_subparsers(title="sources", metavar="SOURCE", required=True, parser_class=_Parser)
    coinbase = _command(
        sources, "coinbase", "services:record_coinbase", "record Coinbase Advanced Trade: books and trades",
        "deepwater record coinbase --product BTC-USD --base-path ./platform_data\n"
        "deepwater record coinbase --product BTC-USD --duration 10m --json",
        "Two feeds a product, CB-L2-<product> and CB-TRADES-<product>; what was missed is\n"
        "a gap mark in them. Runs until --duration is over or SIGTERM comes (exit 0), or\n"
        "Ctrl-C (130); each time all that was received is written and flushed.",
    )  # fmt: skip
    coinbase.add_argument("--product", metavar="P", action="append", required=True, help="e.g. BTC-USD; once for each")
    coinbase.add_argument("--uri", metavar="URI", help="the endpoint (default: the public one)")
    coinbase.add_argument("--duration", metavar="S", type=_seconds, help="seconds, or 5m, 2h (default: for ever)")
    coinbase.add_argument(
        "--channel", action="append", choices=("level2", "market_trades"), help="only this one (default: both)"
    )
    _base_path(coinbase)
    _json(coinbase, "print the totals as JSON at the end")


def _exchange(commands: Any) -> None:
    parser = _command(
        commands, "exchange", "services:exchange", "serve a local exchange that speaks Coinbase's protocol",
        "deepwater exchange --port 8765 --fault drop@200 --fault close@4s\n"
        "deepwater record coinbase --uri ws://127.0.0.1:8765 --product BTC-USD",
        "A seeded synthetic market, or a recorded tape. Prints its URI on stdout once it\nlistens.",
    )  # fmt: skip
    parser.add_argument("--product", metavar="P", action="append", help="default: BTC-USD and ETH-USD")
    parser.add_argument("--tape", metavar="FILE", help="play this recorded session instead of a synthetic market")
    parser.add_argument("--speed", metavar="X", type=_positive, help="of a tape: 1 as it was (default: at once)")
    parser.add_argument("--rate", metavar="N", type=_positive, help="steps a second of the market (default: 20)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the market (default: 0)")
    parser.add_argument("--depth", metavar="N", type=int, default=500, help="levels a side (default: 500)")
    parser.add_argument(
        "--fault", metavar="F", action="append", default=[],
        help="drop, close or silent, then @FRAME or @SECONDSs: drop@200, close@2.5s",
    )  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8765, help="0: any free one (default: 8765)")
    parser.add_argument("--duration", metavar="S", type=_seconds, help="end after so long (default: never)")


def _create(commands: Any) -> None:
    parser = _command(
        commands, "create", "store:create", "create a feed from a spec",
        "deepwater create schemas/cb-trades.json\n"
        "deepwater create --name CB-TRADES-SOL-USD --spec schemas/cb-trades.json",
        "A feed that exists with the same layout stays as it is.",
    )  # fmt: skip
    parser.add_argument("file", metavar="SPEC.json", nargs="?", help="the spec, a JSON file; - is stdin")
    parser.add_argument("--spec", metavar="FILE", help="the same, by name")
    parser.add_argument("--name", metavar="FEED", help="instead of the spec's feed_name")
    parser.add_argument("--update", action="store_true", help="give a feed that exists the spec's settings")
    _base_path(parser)
    _json(parser, "print what was made as a JSON object")


def _feeds(commands: Any) -> None:
    parser = _command(
        commands, "feeds", "store:feeds", "list the feeds of a store",
        "deepwater feeds\ndeepwater feeds --json | jq '.[].feed'",
    )  # fmt: skip
    _base_path(parser)
    _json(parser, "a JSON array of objects, times in us since the epoch")


def _info(commands: Any) -> None:
    parser = _command(
        commands, "info", "store:info", "show what a feed is and holds", "deepwater info CB-TRADES-BTC-USD"
    )
    parser.add_argument("feed", metavar="FEED")
    _base_path(parser)
    _json(parser, "a JSON object, times in us since the epoch")


def _query(commands: Any) -> None:
    parser = _command(
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
    parser.add_argument("--columns", metavar="A,B", help="only these, in this order")
    parser.add_argument("--limit", metavar="N", type=_rows, help="at most the first N rows")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--format", choices=FORMATS, help="default: by the ending of -o, else table")
    how.add_argument("--json", action="store_true", help="= --format json; errors are JSON too, on stderr")
    parser.add_argument("-o", "--output", metavar="FILE", type=_path, help="write to a file (- is stdout)")
    parser.add_argument("--force", action="store_true", help="replace FILE if it exists")
    _base_path(parser)


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
