"""Run works 1-4 and 6 of the bench beside raw file, LMDB, Arrow IPC and the prototype; print ratios and targets.

    PYTHONPATH=. python tests/bench/run_peers.py SCRATCH [--records 10000000] [--rounds 3]

The harness (``../shared/bench``) is copied to SCRATCH with Deepwater's peer added, and runs there: about 5 GB
for ten million records, removed at the end except for the results. `README.md` says how to make the interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HARNESS = ROOT.parent / "shared" / "bench"
PEERS = ("deepwater", "rawfile", "lmdb_", "arrow_ipc", "proto_tuned")
ITEMS = ("ingest_batch", "ingest_small", "ingest_single", "range", "point")
SLACK = 1.5
"""How far from its target a ratio may be for now."""

Values = dict[tuple[str, str], list[float]]

# work, item, key, is a rate (else a time), the anchor, the target for anchor / Deepwater (rates: the inverse)
TARGETS = (
    ("1 ingest, batches of 10,000", "ingest_batch", "rate", "rawfile", 1.0),
    ("1 ingest, batches of 10,000", "ingest_batch", "rate", "lmdb_", 1.3),
    ("2 ingest, batches of 10", "ingest_small", "rate", "rawfile", 1.3),
    ("3 single records, visible", "ingest_single", "rate", "rawfile", 2.0),
    ("4a open + 1 minute, arrays", "range", "arr_0.1%", "rawfile", 1.3),
    ("4b open + 1 minute, pandas", "range", "pd_0.1%", "lmdb_", 1.5),
    ("4b open + 10 %, pandas", "range", "pd_10%", "arrow_ipc", 1.0),
    ("6 latest record", "point", "latest", "rawfile", 1.0),
    ("6 1000 as-of lookups", "point", "asof1000", "rawfile", 1.0),
)


def prepare(scratch: Path, harness: Path) -> Path:
    """Copy the harness to `scratch` and put the peer into it."""
    copy = scratch / "harness"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(harness, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "deepwater_peer.py", copy / "peers" / "deepwater.py")
    return copy


def environment(scratch: Path, records: int) -> dict[str, str]:
    """Return the variables of a run: where its data goes, and where the package comes from."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "DW_BENCH_ROOT": str(scratch / "data"), "DW_BENCH_N": str(records), "PYTHONPATH": os.pathsep.join(paths),
    }  # fmt: skip


def run(args: argparse.Namespace, scratch: Path, results: Path) -> None:
    """Load the stores once, then run the rounds: peers in turn, a process each, never two at once."""
    harness = prepare(scratch, args.harness)
    command = [args.python, "run.py", "--out", str(results), "--peers", args.peers, "--items", args.items]
    command += ["--rounds", str(args.rounds), "--load"]
    try:
        subprocess.run(command, cwd=harness, env=environment(scratch, args.records), check=True)
    finally:
        if not args.keep:
            shutil.rmtree(scratch / "data", ignore_errors=True)
            shutil.rmtree(harness, ignore_errors=True)


def collect(results: Path) -> tuple[Values, list[str]]:
    """Return seconds or rates by (peer, item:key), and what went wrong."""
    values: Values = {}
    problems = []
    for line in results.read_text().splitlines():
        row = json.loads(line)
        who = f"{row['peer']} {row['item']}"
        if "error" in row:
            problems.append(f"{who}: {row['error']}")
        elif row.get("ok") is False:
            problems.append(f"{who}: a wrong answer, or records that another process did not see")
        for key, found in row.items():
            if isinstance(found, list):
                values.setdefault((row["peer"], f"{row['item']}:{key}"), []).extend(found)
            elif key.startswith("calib"):
                values.setdefault(("", "calib"), []).append(found)
    return values, problems


def show(value: float, is_rate: bool) -> str:
    """Return records a second or a time as text."""
    if is_rate:
        return f"{value / 1e6:.2f} M/s"
    return f"{value * 1e6:.0f} µs" if value < 1e-3 else f"{value * 1e3:.2f} ms"


def figures(values: Values) -> list[str]:
    """Return a table: medians (best) of every peer."""
    peers = [p for p in PEERS if any(peer == p for peer, _ in values)]
    lines = ["| work | " + " | ".join(peers) + " |", "|---" * (len(peers) + 1) + "|"]
    for work, item, key in dict.fromkeys((t[0], t[1], t[2]) for t in TARGETS):
        rate = key == "rate"
        cells = []
        for peer in peers:
            found = values.get((peer, f"{item}:{key}"))
            best = (max if rate else min)(found) if found else 0.0
            cells.append(f"{show(statistics.median(found), rate)} ({show(best, rate)})" if found else "-")
        lines.append(f"| {work} | " + " | ".join(cells) + " |")
    return lines


def ratios(values: Values) -> list[str]:
    """Return a table: how often Deepwater is as fast as the anchor, by medians and by best, and the target."""
    lines = [
        "| work | beside | by median | by best | target | |",
        "|---|---|---|---|---|---|",
    ]
    for work, item, key, anchor, target in TARGETS:
        ours, theirs = (values.get((peer, f"{item}:{key}")) for peer in ("deepwater", anchor))
        if not ours or not theirs:
            continue
        rate = key == "rate"
        top = max if rate else min
        median = statistics.median(ours) / statistics.median(theirs)
        best = top(ours) / top(theirs)
        if not rate:
            median, best = 1 / median, 1 / best
        verdict = "met" if median >= target else f"within {SLACK}x" if median >= target / SLACK else "MISSED"
        lines.append(f"| {work} | {anchor} | {median:.2f}x | {best:.2f}x | {target:.1f}x | {verdict} |")
    return lines


def report(results: Path) -> str:
    """Return the tables of a results file as Markdown."""
    values, problems = collect(results)
    lines = ["Medians (best):", "", *figures(values), "", "Deepwater beside its anchors, one interleaved run:", ""]
    lines += ratios(values)
    calib = sorted(values.get(("", "calib"), []))
    if calib:
        middle = statistics.median(calib)
        lines += ["", f"64 MiB memcpy around the runs: median {middle:.1f} GB/s, {calib[0]:.1f} to {calib[-1]:.1f}"]
    return "\n".join([*lines, *(f"PROBLEM: {problem}" for problem in problems)])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path, help="a directory for data and results")
    parser.add_argument("--records", type=int, default=10_000_000, help="at least 200,000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--items", default=",".join(ITEMS))
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--harness", type=Path, default=HARNESS)
    parser.add_argument("--keep", action="store_true", help="leave data and stores where they are")
    parser.add_argument("--report", action="store_true", help="only print the tables of SCRATCH/results.jsonl")
    args = parser.parse_args(argv)
    scratch: Path = args.scratch.resolve()
    results = scratch / "results.jsonl"
    if not args.report:
        scratch.mkdir(parents=True, exist_ok=True)
        results.unlink(missing_ok=True)
        run(args, scratch, results)
    print(report(results))
    return 1 if collect(results)[1] else 0


if __name__ == "__main__":
    sys.exit(main())
