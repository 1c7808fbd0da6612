"""The commands about damage: verify says what is wrong, repair mends it."""

from __future__ import annotations

import argparse
import os
import time

from deepwater.check import verify as check
from deepwater.cli import output
from deepwater.cli.failures import one_line
from deepwater.cli.progress import Bar
from deepwater.cli.store import put_json
from deepwater.cli.text import amount, count
from deepwater.findings import ERROR, NOTE, WARNING, Report
from deepwater.platform import default_base_path
from deepwater.repair import Repair
from deepwater.repair import repair as mend

__all__ = ["repair", "verify"]


def verify(args: argparse.Namespace) -> int:
    """Check the files of feeds; the exit code says what was found: 0 fine, 1 warnings, 2 damage."""
    base = os.path.abspath(args.base_path or default_base_path())
    started = time.monotonic()
    with Bar() as bar:
        report = check(base, args.feeds or None, quick=args.quick, jobs=args.jobs, progress=bar.show)
    if args.json:
        put_json(report.to_json())
    else:
        lines = [one_line(str(finding)) for finding in report.findings]
        output.write("".join(f"{line}\n" for line in [*lines, _sum(report, time.monotonic() - started)]))
    return report.code


def repair(args: argparse.Namespace) -> int:
    """Say what would mend the files of feeds, or do it: 0 nothing is wrong any more, 1 not done, 2 not possible."""
    base = os.path.abspath(args.base_path or default_base_path())
    with Bar() as bar:
        done = mend(base, args.feeds or None, apply=args.apply, jobs=args.jobs, progress=bar.show)
    if args.json:
        put_json(done.to_json())
        return done.code
    lines = [one_line(str(change)) for change in done.changes]
    lines += [one_line(f"cannot be mended: {problem}") for problem in done.problems]
    output.write("".join(f"{line}\n" for line in [*lines, _outcome(done)]))
    return done.code


def _outcome(done: Repair) -> str:
    lost = sum((change.stop or 0) - (change.first or 0) for change in done.lost)
    loss = f", {count(lost, 'record')} lost" if done.lost else ""
    if not done.changes:
        return "nothing is mended" if done.problems else "nothing to mend"
    changes = count(len(done.changes) - len(done.lost), "change")
    if not done.applied:
        return f"{changes} to make{loss}; nothing was changed: --apply does it"
    where = f"; what was there before is in {done.aside}" if done.aside else ""
    return f"{changes} made{loss}{where}"


def _sum(report: Report, seconds: float) -> str:
    looked = f"{count(report.feeds, 'feed')}, {count(report.files, 'file')}"
    rate = f" ({amount(report.bytes_read / max(seconds, 1e-9))}/s)" if report.bytes_read > 1 << 24 else ""
    read = f"{count(report.records, 'record')}, {amount(report.bytes_read)}{rate}"
    if report.quick:
        read = "no records read (--quick)"
    parts = [count(report.count(severity), severity) for severity in (ERROR, WARNING, NOTE) if report.count(severity)]
    return f"verified {looked}, {read}: {', '.join(parts) or 'nothing is wrong'}"
