"""Makes the pictures anew: ``python docs/pictures/make.py [--seconds 60]``. No network, no terminal.

A local exchange with a synthetic market (one frame is lost, so that there is a gap) is recorded by a dashboard for so
long; then its screen is written out as text, once for each size. With ``--demo`` it is what ``deepwater demo`` says.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from deepwater import Platform
from deepwater.apps.dashboard.app import Dashboard
from deepwater.apps.dashboard.session import Session

HERE = Path(__file__).resolve().parent
SIZES = ((80, 24), (160, 48))


async def pictures(session: Session, seconds: float) -> dict[str, str]:
    """The screens by file name."""
    found = {}
    app = Dashboard(session)
    async with app.run_test(size=SIZES[0]) as pilot:
        await pilot.pause(seconds)
        for width, height in SIZES:
            await pilot.resize_terminal(width, height)
            app.tick()
            await pilot.pause(0.2)
            lines = [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]
            found[f"dashboard-{width}x{height}.txt"] = "\n".join(lines) + "\n"
    return found


def demo(scratch: str) -> str:
    """What the demo says, with its store called ./demo_data."""
    beside = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    command = ["deepwater", "demo", "--base-path", f"{scratch}/demo_data"]
    said = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "PATH": beside}
    ).stdout
    return said.replace(scratch, ".")


def main() -> None:
    """Record, and write the files beside this one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--to", type=Path, default=HERE)
    parser.add_argument("--demo", action="store_true")
    args = parser.parse_args()
    if args.demo:
        with tempfile.TemporaryDirectory() as scratch:
            (args.to.resolve() / "demo.txt").write_text(demo(scratch), encoding="utf-8")
        return
    market = ["--port=0", "--rate=40", "--seed=11", "--fault=drop@900"]
    command = [sys.executable, "-m", "deepwater.cli", "exchange", *market]
    with tempfile.TemporaryDirectory() as scratch:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as exchange:
            assert exchange.stdout is not None
            os.chdir(scratch)
            session = Session("platform_data", exchange.stdout.readline().strip(), ["BTC-USD", "ETH-USD"])
            try:
                session.execute("start")
                found = asyncio.run(pictures(session, args.seconds))
            finally:
                session.close()
                exchange.terminate()
            with Platform("platform_data") as dw:  # what is in shared memory would stay
                for name in dw.list_feeds():
                    dw.delete_feed(name)
        for name, text in found.items():
            (args.to.resolve() / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
