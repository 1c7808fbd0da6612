"""Python processes for tests: given a deadline, always reaped, never orphaned.

Code handed over as text runs with the repository first on its path, so it sees the tree under test whatever
is installed. Each process ends itself after its deadline, with all its stacks on stderr, even if the test
that started it is gone; warnings are errors in it, as in the tests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from types import TracebackType
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent

_DEADLINE = "import faulthandler as f; f.enable(); f.dump_traceback_later({timeout}, exit=True); del f; "
_SCRIPT = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
_SOURCE = "exec(compile({source!r}, '<worker>', 'exec'))"  # alone, so that line numbers and __future__ hold


def _command(code: str | Path, args: tuple[object, ...], timeout: float) -> list[str]:
    if isinstance(code, Path):
        body, words = _SCRIPT, (code, *args)
    else:
        body, words = _SOURCE.format(source=textwrap.dedent(code)), args
    return [sys.executable, "-W", "error", "-c", _DEADLINE.format(timeout=timeout) + body, *map(str, words)]


def environment(env: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment, with the repository first on the path, and `env`."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), **(env or {})}


def peak_kilobytes() -> int:
    """The most memory that this process has had (kB). `ru_maxrss` tells that of who started it, if that was more."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0])


class Worker:
    """A Python process that runs beside the test, used as a context manager.

    Parameters
    ----------
    code : str or Path
        Source text (dedented), or the path of a script.
    *args
        What it finds in ``sys.argv[1:]``, as text.
    timeout : float
        Seconds until it ends itself and dumps its stacks.
    env : dict, optional
        Additions to this process's environment.

    Notes
    -----
    On leaving the block the process is killed if it still runs, and reaped.
    """

    def __init__(
        self, code: str | Path, *args: object, timeout: float = 60, env: dict[str, str] | None = None
    ) -> None:
        # A file, not a pipe: nobody reads stderr until the end, and a full pipe would stop the process.
        self._stderr: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by close)
        self.process: subprocess.Popen[str] = subprocess.Popen(
            _command(code, args, timeout),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr,
            text=True, bufsize=1, env=environment(env),
        )
        self.pid = self.process.pid

    def readline(self) -> str:
        """Return its next line without the newline; waits until there is one. EOFError if it ended."""
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise EOFError(f"the worker ended ({self.process.returncode}) and said no more:\n{self.stderr()}")
        return line.rstrip("\n")

    def send(self, line: object) -> None:
        """Write one line to its stdin."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, wait for the end, return the exit code (negative: the signal that ended it)."""
        self.process.send_signal(number)
        return self.process.wait()

    def finish(self, *, check: bool = True) -> str:
        """Close its stdin, wait for its end, return what remained on stdout; AssertionError if it failed."""
        rest, _ = self.process.communicate()
        assert not check or self.process.returncode == 0, f"exit {self.process.returncode}:\n{self.stderr()}"
        return rest

    def stderr(self) -> str:
        """Return what it has written to stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read()

    def close(self) -> None:
        """Kill it if it runs, reap it, close the pipes. Idempotent."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._stderr):
            with contextlib.suppress(BrokenPipeError):  # a last line that it no longer read
                stream.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        self.close()


def run_python(
    code: str | Path, *args: object, timeout: float = 60, check: bool = True, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run Python to its end and return `returncode`, `stdout` and `stderr` (text).

    Parameters are those of `Worker`; `options` are `env`, and any of `subprocess.run`. With `check` (the
    default) a failing process is an AssertionError that shows its stderr.
    """
    env = environment(options.pop("env", None))
    # The process ends itself first, so that its stacks are seen; the second deadline is for one that can not.
    done = subprocess.run(
        _command(code, args, timeout),
        capture_output=True, text=True, check=False, timeout=timeout + 10, env=env, **options,
    )
    assert not check or done.returncode == 0, f"exit {done.returncode}:\n{done.stdout}{done.stderr}"
    return done
