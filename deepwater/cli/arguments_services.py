"""Arguments of the commands that run by themselves: demo, record, exchange, book, dashboard."""

from __future__ import annotations

from typing import Any

from deepwater.cli.options import (
    base_path,
    command,
    json_flag,
    levels,
    listed,
    path,
    port,
    positive,
    products,
    seconds,
)  # fmt: skip

__all__ = ["COMMANDS"]


def _demo(commands: Any) -> None:
    parser = command(
        commands, "demo", "demo:demo", "record a market on this machine and query it; needs no network",
        "deepwater demo\ndeepwater demo --seconds 20 --base-path ./demo_data",
        "It starts a local exchange that loses a frame and hangs up once, records it\n"
        "through a websocket, and reads what was recorded from a third process.\n"
        "The data stays; where is printed.",
    )  # fmt: skip
    parser.add_argument("--seconds", metavar="N", type=seconds, default=8.0, help="how long to record (default: 8)")
    base_path(parser, "a new directory under the temporary one; must be empty")


def _record(commands: Any) -> None:
    parser = command(
        commands, "record", "services:record", "record a live market into feeds",
        "deepwater record --product BTC-USD,ETH-USD --base-path ./platform_data\n"
        "deepwater record --venue kraken --product BTC-USD --duration 10m --json\n"
        "deepwater record --products-file products.txt    # kill -HUP reads it anew\n"
        "deepwater record --product BTC-USD --print-systemd > deepwater.service",
        "Two feeds a product, its book and its trades (Coinbase: CB-L2-<product>,\n"
        "CB-TRADES-<product>); what was missed is a gap mark in them. Runs until\n"
        "--duration is over or SIGTERM comes (exit 0), or Ctrl-C (130); each time all\n"
        "that was received is written and flushed. Messages that could not be used are\n"
        "kept aside whole, in bad_frames.jsonl of the store: a JSON object a line, with\n"
        "time and reason.",
    )  # fmt: skip
    parser.add_argument("source", metavar="VENUE", nargs="?", help="as --venue")
    parser.add_argument("--venue", metavar="NAME", help="the exchange (default: coinbase)")
    parser.add_argument(
        "--product", metavar="P", action="extend", type=listed, default=[], help="e.g. BTC-USD; A,B or once for each"
    )
    parser.add_argument(
        "--products-file", metavar="FILE", type=path,
        help="one product a line, # begins a comment; SIGHUP reads it anew: what is new is subscribed, what is gone no "
        "longer, and a file with a mistake changes nothing",
    )  # fmt: skip
    parser.add_argument("--uri", metavar="URI", help="the endpoint (default: the venue's public one)")
    parser.add_argument("--duration", metavar="S", type=seconds, help="seconds, or 5m, 2h (default: for ever)")
    parser.add_argument(
        "--channel", metavar="C", action="append",
        help="only this one (default: all); coinbase: level2, market_trades; kraken: book, trade",
    )  # fmt: skip
    parser.add_argument(
        "--metrics-port", metavar="N", type=port, help="serve Prometheus at 127.0.0.1:N/metrics (0: any free one)"
    )
    parser.add_argument("--print-systemd", action="store_true", help="print a unit that records so, and end")
    base_path(parser)
    json_flag(parser, "print the totals as JSON at the end")
    parser.on_help = _venues


def _venues() -> str:
    """Also those that installed packages add; none is loaded."""
    from deepwater.apps.venues import venue_names

    return f"venues: {', '.join(venue_names())}"


def _exchange(commands: Any) -> None:
    parser = command(
        commands, "exchange", "services:exchange", "serve a local exchange on this machine",
        "deepwater exchange --port 8765 --fault drop@200 --fault close@4s\n"
        "deepwater record coinbase --uri ws://127.0.0.1:8765 --product BTC-USD",
        "A seeded synthetic market, or a recorded tape, in the protocol of a venue.\n"
        "Prints its URI on stdout once it listens.\n\n"
        "Faults: drop (a frame is not sent), swap (it comes behind the next), error (an\n"
        "error frame before it), close (the connection), reset (it is cut off), silent\n"
        "(nothing more comes); each @FRAME or @SECONDSs, once, or again and again with\n"
        "a * behind it.",
    )  # fmt: skip
    parser.add_argument("--venue", metavar="NAME", default="coinbase", help="whose protocol (default: coinbase)")
    parser.add_argument("--product", metavar="P", action="extend", type=listed, help="default: BTC-USD and ETH-USD")
    parser.add_argument("--tape", metavar="FILE", help="play this recorded session instead of a synthetic market")
    parser.add_argument("--speed", metavar="X", type=positive, help="of a tape: 1 as it was (default: at once)")
    parser.add_argument("--rate", metavar="N", type=positive, help="steps a second of the market (default: 20)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the market (default: 0)")
    parser.add_argument("--depth", metavar="N", type=int, default=500, help="levels a side (default: 500)")
    parser.add_argument(
        "--fault", metavar="F", action="append", default=[],
        help="see above: drop@200, close@2.5s, swap@500*; once for each",
    )  # fmt: skip
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=port, default=8765, help="0: any free one (default: 8765)")
    parser.add_argument("--duration", metavar="S", type=seconds, help="end after so long (default: never)")


def _book(commands: Any) -> None:
    parser = command(
        commands, "book", "book:book", "keep the order book of a product, or show it at a time",
        "deepwater book --product BTC-USD --depth 500 --interval 1\n"
        "deepwater book --product BTC-USD,ETH-USD --interval 0.25 --persist\n"
        "deepwater book --product BTC-USD --at 2026-08-09T21:06 --levels 10",
        "Follows CB-L2-<product> (waits until it is there) and writes the best levels,\n"
        "with the position to go on from, to CB-L2SNAP-<product>: every interval, and at\n"
        "once on a new snapshot or a gap. A reader starts there instead of at the\n"
        "exchange's last snapshot. Runs until --duration is over or SIGTERM comes (exit\n"
        "0), or Ctrl-C (130); killed, the next one goes on.\n\n"
        "With --at it writes nothing and prints the book at that time: all published\n"
        "changes up to it, inclusive; now is what is stored.",
    )  # fmt: skip
    parser.add_argument(
        "--product", metavar="P", type=products, action="extend",
        help="or P,Q; one process keeps them all (default: BTC-USD)",
    )  # fmt: skip
    parser.add_argument("--depth", metavar="N", type=levels, help="levels a side of a record (default: 500)")
    parser.add_argument("--interval", metavar="S", type=seconds, help="seconds, also 0.25 (default: 1)")
    parser.add_argument("--persist", action="store_true", help="write a durable feed (default: a ring in memory)")
    parser.add_argument("--duration", metavar="S", type=seconds, help="end after so long, 5m, 2h (default: never)")
    parser.add_argument("--at", metavar="T", help="show the book at a time, written as for query")
    parser.add_argument("--levels", metavar="N", type=levels, help="with --at: levels a side (default: 10)")
    base_path(parser)
    json_flag(parser, "JSON lines: how it goes, or the book; times in us since the epoch")


def _dashboard(commands: Any) -> None:
    parser = command(
        commands, "dashboard", "dashboard:dashboard", "watch a store in the terminal, and record into it",
        "deepwater dashboard --base-path ./platform_data\n"
        "deepwater dashboard --product BTC-USD,ETH-USD\n"
        "deepwater dashboard --venue kraken --product BTC-USD\n"
        "deepwater dashboard --json --duration 1m | jq .latency_us",
        "Connection, products, rates, latencies, gaps, sizes, the live book and the\n"
        "trades. It records the products named, in a process of its own that ends with\n"
        "it; where another process records already it only looks on. It shows feeds of\n"
        "every venue, those of another than --venue as BTC-USD@kraken. Type help at its\n"
        "prompt. Without a terminal (a pipe, TERM=dumb) it prints plain lines. NO_COLOR\n"
        "is obeyed. Quit, --duration, SIGTERM and SIGHUP end it (exit 0), and Ctrl-C (of\n"
        "plain lines 130); each time what it records is flushed.",
    )  # fmt: skip
    parser.add_argument("--venue", metavar="NAME", help="the exchange that it records (default: coinbase)")
    parser.add_argument("--product", metavar="P", type=products, action="extend", help="or P,Q: record these at once")
    parser.add_argument("--uri", metavar="URI", help="the endpoint (default: the venue's public one)")
    parser.add_argument("--plain", action="store_true", help="plain lines, also on a terminal")
    parser.add_argument("--interval", metavar="S", type=seconds, help="between two lines (default: 2, of --json 1)")
    parser.add_argument("--duration", metavar="S", type=seconds, help="of lines: end after so long (default: never)")
    base_path(parser)
    json_flag(parser, "an object a line")
    parser.on_help = _venues


COMMANDS = (_demo, _record, _exchange, _book, _dashboard)
