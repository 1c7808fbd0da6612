"""The dashboard's side of its recorder: starts the child, tells it, hears from it. Never waits but in `close`.

A thread reads what the child says into a queue that `events` empties, so nobody polls a pipe. The child has a session
of its own: Ctrl-C at the terminal is for the dashboard, which then ends the child in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

__all__ = ["Engine", "Event"]

_END_S = 20.0
_KILL_S = 5.0


@dataclass(frozen=True, slots=True)
class Event:
    """What the child says: `kind` "recording", "ended" or "failed" of a product, "log", or "exit" of itself."""

    kind: str
    text: str = ""
    product: str = ""


class Engine:
    """A recorder in a process of its own. One thread.

    Parameters
    ----------
    uri, base_path : str
    venue : str
        The name of a venue.

    Attributes
    ----------
    recorded : set of str
        Products that are recorded, or about to be.
    pids : set of int
        Of the children there were so far: what they write is ours.
    """

    def __init__(self, uri: str, base_path: str, venue: str = "coinbase") -> None:
        self.uri = uri
        self.base_path = base_path
        self.venue = venue
        self.recorded: set[str] = set()
        self.pids: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._is_ending = False

    @property
    def pid(self) -> int | None:
        """The child's process id; None if there is no child."""
        return None if self._process is None else self._process.pid

    @property
    def state(self) -> str:
        """Return "stopped", "running" or "ending"."""
        if self._process is None:
            return "stopped"
        return "ending" if self._is_ending else "running"

    def start(self, products: Sequence[str]) -> None:
        """Start the child, to record these products."""
        assert self._process is None
        # This very package, wherever the caller stands.
        home = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
        words = ["-m", "deepwater.apps.dashboard.recording", "--venue", self.venue, f"--uri={self.uri}",
                 f"--base-path={self.base_path}"]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip
        self.pids.add(self._process.pid)
        self._is_ending = False
        self._reader = threading.Thread(target=self._hear, args=(self._process,), name="deepwater-engine", daemon=True)
        self._reader.start()
        self.sub(products)

    def sub(self, products: Iterable[str]) -> None:
        """Record these too."""
        self._tell("sub", products)
        self.recorded.update(products)

    def unsub(self, products: Iterable[str]) -> None:
        """Record these no longer."""
        self._tell("unsub", products)

    def stop(self) -> None:
        """Ask the child to end; an event "exit" says when it has."""
        if self._process is not None and self._process.stdin is not None:
            self._is_ending = True
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _tell(self, what: str, products: Iterable[str]) -> None:
        if self._process is not None and self._process.stdin is not None and not self._is_ending:
            with contextlib.suppress(OSError):  # it has just ended, and the event says so
                self._process.stdin.write(json.dumps({"do": what, "products": list(products)}).encode() + b"\n")
                self._process.stdin.flush()

    def _hear(self, process: subprocess.Popen[bytes]) -> None:
        """In a thread of its own: what the child says, to its end."""
        assert process.stdout is not None
        for line in process.stdout:
            text = line.decode(errors="replace").strip()
            try:
                said = json.loads(text)
                self._events.put(Event(said["event"], said["text"], said["product"]))
            except (ValueError, KeyError, TypeError):
                if text:
                    self._events.put(Event("log", text))
        self._events.put(Event("exit"))

    def events(self) -> list[Event]:
        """Return what was heard since the last call, and reap a child that has ended."""
        found: list[Event] = []
        with contextlib.suppress(Empty):
            while True:
                event = self._events.get_nowait()
                if event.kind in ("ended", "failed"):
                    self.recorded.discard(event.product)
                elif event.kind == "recording":
                    self.recorded.add(event.product)
                elif event.kind == "exit":
                    event = Event("exit", self._reap())
                found.append(event)
        return found

    def _reap(self) -> str:
        """Let go of a child that has ended; say how, if not well."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        process, self._process = self._process, None
        code = process.wait()
        if self._reader is not None:
            self._reader.join()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self.recorded.clear()
        was_asked, self._is_ending = self._is_ending, False
        if code < 0:
            return f"killed by signal {-code}"
        return "" if was_asked and not code else f"exit code {code}"

    def close(self) -> list[Event]:
        """End the child and wait for it: until it has flushed, and not for ever. Returns what it said at last."""
        self.stop()
        process = self._process
        if process is None:
            return []
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_KILL_S)
        finally:
            process.kill()
            process.wait()
            if self._reader is not None:
                self._reader.join()
        return self.events()
