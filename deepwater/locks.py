"""Who may change a feed: kernel locks that die with their process.

WRITER is an exclusive ``flock`` on the feed's directory, MAINTENANCE one on its ``layout.json``
(written once, never replaced): there is no lock file to delete, and a lock is never stolen by a
time-out. Nobody takes a lock to look. ``flock`` belongs to the open file, not to the process, so a
forked child would keep it: `after_fork` closes the child's copy and marks its writers as foreign.

Rejected: ``fcntl.lockf`` (dropped when any other descriptor of the file is closed in the process),
a lock file with a PID in it (two holders after a race, or none after a crash), robust mutexes in the
mapping (not in pure Python).
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import socket
import time
import weakref
from typing import Protocol

from deepwater.format import Owner


class _Holder(Protocol):
    def after_fork(self) -> None: ...


_holders: weakref.WeakSet[_Holder] = weakref.WeakSet()


def watch_fork(holder: _Holder) -> None:
    """Have ``holder.after_fork()`` called in every child forked from this process."""
    _holders.add(holder)


def _after_fork() -> None:
    for holder in list(_holders):
        holder.after_fork()
    _holders.clear()


os.register_at_fork(after_in_child=_after_fork)


class Lock:
    """An exclusive ``flock`` on an existing directory or file, held until `release`.

    Parameters
    ----------
    fd : int
        An open file of its own; the lock closes it.
    """

    __slots__ = ("__weakref__", "_fd")

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def take(cls, name: str, dir_fd: int | None = None) -> Lock | None:
        """Take the lock, or return None at once when another holds it. A FIFO of that name is not waited for."""
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(fd)
            if isinstance(error, BlockingIOError):
                return None
            raise
        lock = cls(fd)
        watch_fork(lock)
        return lock

    @property
    def stat(self) -> os.stat_result:
        """Of the locked file: compare it with the path's to see that it was not replaced."""
        return os.fstat(self._fd)

    @property
    def released(self) -> bool:
        """Whether it was let go."""
        return self._fd < 0

    def release(self) -> None:
        """Let go. Idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    after_fork = release

    def __del__(self) -> None:
        try:  # noqa: SIM105  # contextlib may be gone already
            self.release()
        except Exception:  # noqa: BLE001  # at interpreter exit anything may be gone already
            pass


def boot_id() -> bytes:
    """16 bytes that differ after a reboot; zeros where the system does not tell."""
    with (
        contextlib.suppress(OSError, ValueError),
        open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file,
    ):
        return bytes.fromhex(file.read().strip().replace("-", ""))
    return bytes(16)


@functools.lru_cache(maxsize=1)
def this_boot() -> bytes:
    """The `boot_id` that this process lives in."""
    return boot_id()


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks after boot; 0 when there is none or nobody tells.

    With the PID it names a process for good: PIDs come again, a pair does not before a reboot.
    """
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])
    return 0


def this_owner(segment_stat: os.stat_result, held: bool = True) -> Owner:
    """The present process as the owner of a segment."""
    pid = os.getpid()
    return Owner(pid, start_ticks(pid), boot_id(), segment_stat.st_ino, segment_stat.st_dev,
                 time.time_ns() // 1000, socket.gethostname(), held)  # fmt: skip


def may_be_alive(owner: Owner) -> bool:
    """Whether the owner's process may run: it does, or it is out of sight (a container of this machine)."""
    hidden = owner.held and owner.boot_id == boot_id() and owner.host.encode() != socket.gethostname().encode()[:63]
    return hidden or is_alive(owner)


def is_alive(owner: Owner) -> bool:
    """Whether the owner's process runs on this machine since this boot."""
    if owner.boot_id != boot_id() or not owner.held:
        return False
    if owner.start:
        return start_ticks(owner.pid) == owner.start
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(owner.pid, 0)
        return True
    return False
