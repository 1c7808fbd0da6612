"""The commands that run until they are told to stop: record, exchange. They need the extra `apps`."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deepwater.cli import output
from deepwater.cli.failures import INTERRUPTED, OK, UsageError
from deepwater.cli.status import StatusLine
from deepwater.cli.text import amount, count, seconds
from deepwater.errors import DeepwaterError
from deepwater.platform import default_base_path

if TYPE_CHECKING:
    from deepwater.apps.counters import Counters

__all__ = ["apps_needed", "exchange", "record_coinbase"]


@contextlib.contextmanager
def apps_needed(command: str) -> Iterator[None]:
    """Turn the failed import of a package of the extra into one line with the way out."""
    try:
        yield
    except ImportError as error:
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        package = (cause.name or str(cause)).partition(".")[0]
        raise DeepwaterError(
            f'{command} needs the package {package!r}, which is not installed: pip install "deepwater[apps]"',
            package=package,
        ) from error


# --- record ----------------------------------------------------------------------------------------------


def record_coinbase(args: argparse.Namespace) -> int:
    """Record until the duration is over or a signal comes.

    Raises
    ------
    DeepwaterError
        Also if the time was over without a single frame, or with errors of the exchange only: what was
        asked for was not done.
    """
    with apps_needed("record"):
        from deepwater.apps.recorder import DEFAULT_URI, run_recorder
        from deepwater.apps.subscriptions import CHANNELS
    uri = args.uri or DEFAULT_URI
    base_path = args.base_path or default_base_path()
    line = StatusLine(every_s=30.0)
    began = time.monotonic()
    if not args.json:
        output.say(f"recording {', '.join(args.product)} from {uri} into {base_path}; Ctrl-C ends it")

    def on_status(counters: Counters) -> None:
        if not args.json and not counters.stopped:
            line.show(_status(counters, time.monotonic() - began))

    def on_metrics(port: int) -> None:
        output.say(json.dumps({"metrics_port": port}) if args.json else f"metrics at http://127.0.0.1:{port}/metrics")

    with line.with_log():
        counters = run_recorder(
            uri, args.product, base_path, args.duration, args.channel or CHANNELS, on_status,
            metrics_port=args.metrics_port, on_metrics=on_metrics,
        )  # fmt: skip
    if not counters.frames and counters.stopped == "duration":
        why = f": {counters.last_error}" if counters.last_error else ""
        raise DeepwaterError(
            f"nothing came from {uri} in {args.duration:g} s{why}; check the URI and the network", uri=uri
        )
    if counters.errors and not counters.trades + counters.levels and counters.stopped == "duration":
        raise DeepwaterError(f"nothing was recorded from {uri}: {counters.last_error}", uri=uri)
    if args.json:
        output.write(json.dumps(counters.to_json()) + "\n")
    else:
        output.say(f"ended by {counters.stopped}: {_status(counters, time.monotonic() - began)}; all is flushed")
    return INTERRUPTED if counters.stopped == "SIGINT" else OK


def _status(counters: Counters, elapsed_s: float) -> str:
    parts = [
        seconds(elapsed_s * 1e6),
        count(counters.trades, "trade"),
        count(counters.levels, "level"),
        amount(counters.bytes),
        count(counters.gaps, "gap"),
        count(counters.reconnects, "reconnect"),
    ]
    troubles = [
        ("error", counters.errors),
        ("bad frame", counters.bad_frames),
        ("unstored record", counters.unstored),
        ("retention error", counters.retain_errors),
    ]
    return ", ".join([*parts, *(count(number, noun) for noun, number in troubles if number)])


# --- exchange --------------------------------------------------------------------------------------------


def exchange(args: argparse.Namespace) -> int:
    """Serve until the duration is over or Ctrl-C; print the URI once it listens."""
    with apps_needed("exchange"):
        from deepwater.apps.exchange import Replay, Synthetic, serve
    if args.tape is None and args.speed is not None:
        raise UsageError("--speed is of a --tape; the synthetic market has --rate", "deepwater exchange")
    if args.tape is not None and (args.product or args.rate is not None):
        raise UsageError("--product and --rate are of the synthetic market; a --tape has its own", "deepwater exchange")

    def stream() -> Replay | Synthetic:
        if args.tape is not None:
            return Replay(args.tape, speed=args.speed)
        products = args.product or ("BTC-USD", "ETH-USD")
        return Synthetic(products, seed=args.seed, rate=args.rate or 20.0, depth=args.depth)

    def on_ready(uri: str) -> None:
        output.write(uri + "\n")
        output.flush()
        output.say(f"listening; record it with: deepwater record coinbase --uri {uri} --product BTC-USD")

    serve(stream, faults=args.fault, host=args.host, port=args.port, duration=args.duration, on_ready=on_ready)
    return OK
