"""Arguments of the commands that run by themselves: demo, record, exchange, book."""

from __future__ import annotations

from typing import Any

from deepwater.cli.options import Parser, base_path, command, json_flag, levels, port, positive, products, seconds

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
    parser = commands.add_parser(
        "record", help="record a live market into feeds", description="Record a live market into feeds.",
        epilog="example:\n  deepwater record coinbase --product BTC-USD --product ETH-USD\n",
    )  # fmt: skip
    sources = parser.add_subparsers(title="sources", metavar="SOURCE", required=True, parser_class=Parser)
    coinbase = command(
        sources, "coinbase", "services:record_coinbase", "record Coinbase Advanced Trade: books and trades",
        "deepwater record coinbase --product BTC-USD --base-path ./platform_data\n"
        "deepwater record coinbase --product BTC-USD --duration 10m --json",
        "Two feeds a product, CB-L2-<product> and CB-TRADES-<product>; what was missed is\n"
        "a gap mark in them. Runs until --duration is over or SIGTERM comes (exit 0), or\n"
        "Ctrl-C (130); each time all that was received is written and flushed.",
    )  # fmt: skip
    coinbase.add_argument("--product", metavar="P", action="append", required=True, help="e.g. BTC-USD; once for each")
    coinbase.add_argument("--uri", metavar="URI", help="the endpoint (default: the public one)")
    coinbase.add_argument("--duration", metavar="S", type=seconds, help="seconds, or 5m, 2h (default: for ever)")
    coinbase.add_argument(
        "--channel", action="append", choices=("level2", "market_trades"), help="only this one (default: both)"
    )
    base_path(coinbase)
    json_flag(coinbase, "print the totals as JSON at the end")


def _exchange(commands: Any) -> None:
    parser = command(
        commands, "exchange", "services:exchange", "serve a local exchange that speaks Coinbase's protocol",
        "deepwater exchange --port 8765 --fault drop@200 --fault close@4s\n"
        "deepwater record coinbase --uri ws://127.0.0.1:8765 --product BTC-USD",
        "A seeded synthetic market, or a recorded tape. Prints its URI on stdout once it\nlistens.",
    )  # fmt: skip
    parser.add_argument("--product", metavar="P", action="append", help="default: BTC-USD and ETH-USD")
    parser.add_argument("--tape", metavar="FILE", help="play this recorded session instead of a synthetic market")
    parser.add_argument("--speed", metavar="X", type=positive, help="of a tape: 1 as it was (default: at once)")
    parser.add_argument("--rate", metavar="N", type=positive, help="steps a second of the market (default: 20)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the market (default: 0)")
    parser.add_argument("--depth", metavar="N", type=int, default=500, help="levels a side (default: 500)")
    parser.add_argument(
        "--fault", metavar="F", action="append", default=[],
        help="drop, close or silent, then @FRAME or @SECONDSs: drop@200, close@2.5s",
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


COMMANDS = (_demo, _record, _exchange, _book)
