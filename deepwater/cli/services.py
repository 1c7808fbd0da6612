"""The commands that run until they are told to stop: record, exchange. They need the extra `apps`."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from deepwater.cli import output, systemd
from deepwater.cli.failures import INTERRUPTED, OK, UsageError
from deepwater.cli.signals import put_off, terminable
from deepwater.cli.status import StatusLine
from deepwater.cli.text import amount, count, seconds
from deepwater.errors import DeepwaterError
from deepwater.platform import default_base_path

if TYPE_CHECKING:
    from deepwater.apps.counters import Counters

__all__ = ["apps_needed", "exchange", "record"]


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


def record(args: argparse.Namespace) -> int:
    """Record until the duration is over or a signal comes; or print a unit that does.

    SIGTERM ends it with 0. One that comes before it has begun ends it with 143, or kills it while modules are loaded
    (a shell shows 143 too): nothing is half-made then, and nothing was received.

    Raises
    ------
    DeepwaterError
        Also if the time was over without a single frame, or with errors of the exchange only: what was
        asked for was not done.
    """
    name = _venue_name(args)
    if not args.product and args.products_file is None:
        raise UsageError("what to record? --product or --products-file", "deepwater record")
    base_path = args.base_path or default_base_path()
    if args.print_systemd:
        output.write(systemd.unit(systemd.recorder_words(args, name, base_path), f"record {name}", args.products_file))
        return OK
    if not args.products_file:
        return _record(args, name, base_path)
    with put_off(signal.SIGHUP) as again:
        return _record(args, name, base_path, again)


def _record(
    args: argparse.Namespace, name: str, base_path: str, on_signals: Callable[[], None] = lambda: None
) -> int:
    """Record; `on_signals` is called once signals are handled."""
    with apps_needed("record"):
        from deepwater.apps.products_file import read_products
        from deepwater.apps.recorder import run_recorder
        from deepwater.apps.venues import find_venue

        venue = find_venue(name)

    def products() -> list[str]:
        listed = read_products(args.products_file) if args.products_file else []
        return [*args.product, *(product for product in listed if product not in args.product)]

    wanted = products()
    uri = args.uri or venue.uri
    line = StatusLine(every_s=30.0)
    began = time.monotonic()

    ports: list[int] = []

    def on_begin() -> None:
        on_signals()
        if not args.json:
            output.say(f"recording {', '.join(wanted)} from {uri} into {base_path}; Ctrl-C ends it")
        for port in ports:
            text = f"metrics at http://127.0.0.1:{port}/metrics"
            output.say(json.dumps({"metrics_port": port}) if args.json else text)

    def on_status(counters: Counters) -> None:
        if not args.json and not counters.stopped:
            line.show(_status(counters, time.monotonic() - began))

    with terminable(signal.SIGTERM), line.with_log():
        counters = run_recorder(
            uri, wanted, base_path, args.duration, args.channel, on_status,
            venue=venue, reload=products if args.products_file else None,
            metrics_port=args.metrics_port, on_metrics=ports.append, on_begin=on_begin,
        )  # fmt: skip
    _nothing_recorded(counters, uri, args.duration)
    if args.json:
        output.write(json.dumps(counters.to_json()) + "\n")
    else:
        output.say(f"ended by {counters.stopped}: {_status(counters, time.monotonic() - began)}; all is flushed")
    if counters.bad_frames and not args.json:
        output.say(f"the bad frames are in {base_path}/bad_frames.jsonl: a JSON object a line, with time and reason")
    return INTERRUPTED if counters.stopped == "SIGINT" else OK


def _venue_name(args: argparse.Namespace) -> str:
    if args.source and args.venue and args.source != args.venue:
        raise UsageError(f"which venue, {args.source} or {args.venue}?", "deepwater record")
    return str(args.venue or args.source or "coinbase")


def _nothing_recorded(counters: Counters, uri: str, duration: float | None) -> None:
    if counters.stopped != "duration":
        return
    if not counters.frames:
        why = f": {counters.last_error}" if counters.last_error else ""
        raise DeepwaterError(f"nothing came from {uri} in {duration:g} s{why}; check the URI and the network", uri=uri)
    if counters.errors and not counters.trades + counters.levels:
        raise DeepwaterError(f"nothing was recorded from {uri}: {counters.last_error}", uri=uri)


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
    parts += [count(number, noun) for noun, number in troubles if number]
    if counters.disk_full_s is not None and counters.disk_full_s < 86_400:
        parts.append(f"DISK FULL in {seconds(counters.disk_full_s * 1e6)}")
    return ", ".join(parts)


# --- exchange --------------------------------------------------------------------------------------------


def exchange(args: argparse.Namespace) -> int:
    """Serve until the duration is over, SIGTERM (0) or Ctrl-C (130); print the URI once it listens."""
    with apps_needed("exchange"):
        from deepwater.apps.exchange import Replay, Synthetic, serve
        from deepwater.apps.venues import find_venue

        venue = find_venue(args.venue)
    if args.tape is None and args.speed is not None:
        raise UsageError("--speed is of a --tape; the synthetic market has --rate", "deepwater exchange")
    if args.tape is not None and (args.product or args.rate is not None):
        raise UsageError("--product and --rate are of the synthetic market; a --tape has its own", "deepwater exchange")

    def stream() -> Replay | Synthetic:
        if args.tape is not None:
            return Replay(args.tape, speed=args.speed, venue=venue.name)
        products = args.product or ("BTC-USD", "ETH-USD")
        return Synthetic(
            products, seed=args.seed, rate=args.rate or 20.0, depth=args.depth, session=venue.exchange_session
        )

    def on_ready(uri: str) -> None:
        output.write(uri + "\n")
        output.flush()
        output.say(f"listening; record it with: deepwater record {venue.name} --uri {uri} --product BTC-USD")

    serve(stream, faults=args.fault, host=args.host, port=args.port, duration=args.duration, on_ready=on_ready)
    return OK
