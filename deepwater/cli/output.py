"""Where data goes: stdout, or a file that appears whole or not at all; and where talk goes: stderr.

Writes to stdout are told apart from all other I/O here, so that a reader who went away (`head`) is
quiet and a full disk behind stdout is one line, also at the interpreter's exit.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from deepwater.cli.failures import UsageError
from deepwater.cli.signals import terminable
from deepwater.errors import DeepwaterError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = [
    "PipeClosed", "abandon_stdout", "destination", "encoded", "flush", "is_terminal", "keep_standard_descriptors",
    "listened", "say", "write",
]  # fmt: skip

_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class PipeClosed(Exception):  # noqa: N818 - not an error: the reader has seen enough
    """Nobody reads stdout any more."""


@contextlib.contextmanager
def _on_stdout() -> Iterator[IO[bytes]]:
    """Hand out the bytes side of stdout; its errors say that it was stdout."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed", "stdout")
    try:
        yield sys.stdout.buffer
    except BrokenPipeError as error:
        raise PipeClosed from error
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), "stdout") from error


class _Stdout(io.RawIOBase):
    """Stdout as a binary file that nobody can close by accident."""

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        with _on_stdout() as stdout:
            return stdout.write(data)

    def isatty(self) -> bool:
        return sys.stdout is not None and sys.stdout.isatty()


def is_terminal() -> bool:
    """Whether stdout is one: binary data does not go there."""
    return sys.stdout is not None and sys.stdout.isatty()


def write(text: str) -> None:
    """Write text for people to stdout."""
    with _on_stdout() as stdout:
        stdout.write(encoded(text))


def encoded(text: str) -> bytes:
    """Encode text for people as stdout has it; what its encoding lacks is escaped."""
    return text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "backslashreplace")


def say(text: str) -> None:
    """Write a line to stderr; nothing can be done if that fails."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


def flush() -> None:
    """Flush stdout.

    Raises
    ------
    PipeClosed, OSError
        Stdout is abandoned then, so that the interpreter does not try again when it exits.
    """
    if sys.stdout is None:
        return
    try:
        with _on_stdout():
            sys.stdout.flush()
    except (PipeClosed, OSError):
        abandon_stdout()
        raise


def abandon_stdout() -> None:
    """Send what is still buffered for stdout nowhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def keep_standard_descriptors() -> None:
    """See that 0, 1 and 2 are taken, so that no file of ours becomes someone's stdout."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


@contextlib.contextmanager
def listened(when_gone: Callable[[], None]) -> Iterator[None]:
    """See to it that a command that waits for data notices when nobody reads its stdout any more.

    Without this it would wait for its next write, which may never come, as `tail -f | head` shows.

    Parameters
    ----------
    when_gone : callable
        Called in another thread; it should end what runs inside.

    Raises
    ------
    PipeClosed
        On leaving, if stdout was closed by its reader.
    """
    gone = threading.Event()
    done, end = os.pipe()

    def listen() -> None:
        # An interrupt is for the thread that works.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if done not in (fd for fd, _ in ears.poll()):
            gone.set()
            when_gone()

    ears = select.poll()
    ears.register(done, select.POLLIN)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stdout is closed, or no file
        ears.register(sys.stdout.fileno(), 0)
    listener = threading.Thread(target=listen, name="deepwater-listener", daemon=True)
    listener.start()
    try:
        yield
    except DeepwaterError as error:
        if gone.is_set():  # what was ended says so
            raise PipeClosed from error
        raise
    finally:
        os.write(end, b"x")
        listener.join()
        os.close(done)
        os.close(end)
    if gone.is_set():
        raise PipeClosed


# --- files -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def destination(path: str | None, *, force: bool = False, prog: str = "deepwater query") -> Iterator[IO[bytes]]:
    """Open stdout (None or ``-``) or a file for writing bytes.

    Parameters
    ----------
    path : str, optional
        A regular file is written under another name beside it and renamed when it is complete and
        on the device: it appears whole or not at all. A pipe or a device is written to directly.
    force : bool
        Replace a file that is there.
    prog : str
        The command, for messages.

    Raises
    ------
    FileExistsError
        There is a file, and `force` is False.
    """
    if path in (None, "-"):
        yield _Stdout()  # type: ignore[misc]  # RawIOBase is an IO[bytes] in all that is used
        flush()  # before anybody speaks of it
        return
    special = _is_special(path, prog)
    if not special and not force and os.path.lexists(path):
        raise _exists(path)
    with terminable(), _on_file(path), open(path, "wb") if special else _new_file(path, force) as file:
        yield file


@contextlib.contextmanager
def _new_file(path: str, force: bool) -> Iterator[IO[bytes]]:
    directory, name = os.path.split(os.path.realpath(path) if force else path)
    hidden = os.path.join(directory, f".{name[:200]}.{os.getpid()}.tmp")
    try:
        with open(hidden, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _appear(hidden, os.path.join(directory, name), force)
    except OSError as error:
        if error.filename == hidden:  # the name they know
            error.filename = path
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(hidden)


@contextlib.contextmanager
def _on_file(path: str) -> Iterator[None]:
    """Let the errors of writing say where: those of `write` itself have no name."""
    try:
        yield
    except BrokenPipeError as error:
        raise PipeClosed from error
    except OSError as error:
        if error.errno in _WRITE_ERRORS and error.filename is None and not isinstance(error, DeepwaterError):
            error.filename = path
        raise


def _appear(hidden: str, path: str, force: bool) -> None:
    """Give a complete file its name; a link, unlike a rename, never replaces what came there meanwhile."""
    if force:
        os.replace(hidden, path)
        return
    try:
        os.link(hidden, path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise _exists(path) from None
        os.rename(hidden, path)


def _exists(path: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "there is such a file already; --force replaces it", path)


def _is_special(path: Any, prog: str) -> bool:
    """Whether a path is there and is neither a regular file nor a directory: a pipe, /dev/stdout, /dev/full."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    if stat.S_ISDIR(mode):
        raise UsageError(f"-o {path}: is a directory; name a file in it", prog)
    return not stat.S_ISREG(mode)
