"""Where a store may lie: file systems and machines on which its promises do not hold are refused or warned of.

Two processes see one store through one page cache, and locks die with their process. Between the hosts of a network
file system neither is so: a mapping is not coherent, and a lock is emulated. Behind FUSE, or a directory shared with
a virtual machine's host, it depends on who serves it. Words are 8 bytes, little-endian, and stored at once.

The kind of a file system is looked up in ``/proc/self/mountinfo`` by device (`os.statvfs` does not tell it; calling
statfs(2) through ctypes would need its layout on each platform). Where that is not to be had nothing is known, and
nothing is said.
"""

from __future__ import annotations

import os
import struct
import sys
import warnings
from functools import lru_cache

from deepwater.errors import DeepwaterError
from deepwater.files import Directory

ANY_VARIABLE = "DEEPWATER_ANY_FILE_SYSTEM"
"""Set to 1, a writer is warned where it would be refused."""
MOUNTS = "/proc/self/mountinfo"
NETWORK = frozenset((
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "coda", "ncpfs", "glusterfs", "lustre", "beegfs",
    "gpfs", "orangefs", "pvfs2", "gfs2", "ocfs2", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.s3fs",
    "fuse.gcsfuse", "fuse.rclone", "fuse.juicefs", "fuse.mount-s3",
))  # fmt: skip
"""Seen by several hosts: refused to writers."""
SHARED_WITH_A_HOST = frozenset(("virtiofs", "vboxsf", "vmhgfs", "prl_fs", "fuse.vmhgfs-fuse", "fakeowner", "drvfs"))


def check_machine(word_bytes: int = struct.calcsize("P"), byte_order: str = sys.byteorder) -> None:
    """Refuse a machine whose words are not what the files hold.

    Raises
    ------
    DeepwaterError
    """
    if word_bytes != 8 or byte_order != "little":
        raise DeepwaterError(
            f"this Python is {8 * word_bytes}-bit and {byte_order}-endian: Deepwater's files are mapped words of 64 "
            f"bits, little-endian; use a 64-bit little-endian Python", word_bytes=word_bytes, byte_order=byte_order,
        )  # fmt: skip


def check_place(directory: Directory, *, write: bool) -> None:
    """Warn of a directory on a file system that does not keep the promises; refuse one seen by several hosts.

    Parameters
    ----------
    write : bool
        Somebody is about to write there; who only reads is warned.

    Raises
    ------
    DeepwaterError
        A writer on a network file system, and ``$DEEPWATER_ANY_FILE_SYSTEM`` is not 1.
    """
    check_machine()
    kind = kind_of(os.fstat(directory.fd).st_dev, directory.path, MOUNTS)
    reason = why_not(kind)
    if not reason:
        return
    refused = kind in NETWORK and write and os.environ.get(ANY_VARIABLE) != "1"
    text = f"{directory.path} is on {kind}: {reason}"
    if refused:
        raise DeepwaterError(
            f"{text}; keep the store on a local file system, or set ${ANY_VARIABLE}=1 if one host alone uses it",
            path=directory.path, file_system=kind,
        )  # fmt: skip
    warnings.warn(text, UserWarning, stacklevel=2)


def why_not(kind: str) -> str:
    """What does not hold on a kind of file system; empty if all does, or nobody knows."""
    if kind in NETWORK:
        return "a network file system: mappings are not coherent between hosts, locks do not die with a process"
    if kind in SHARED_WITH_A_HOST:
        return "shared with the host of this machine, whose programs must not open the store at the same time"
    if kind == "fuse" or kind.startswith("fuse."):
        return "served by a program (FUSE): whether mappings, locks and syncs hold depends on it; they are not tested"
    return ""


@lru_cache(maxsize=64)
def kind_of(device: int, path: str, mounts: str) -> str:
    """The kind of a file system ("ext4", "nfs4", "fuse.sshfs"), by device, else by path; empty if nobody tells.

    Parameters
    ----------
    device : int
        `st_dev` of a file on it.
    path : str
        Of that file, for systems whose files have devices of their own (btrfs).
    mounts : str
        The file that lists the mounts.
    """
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split() for line in file]
    except OSError:
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    real, best, by_path = os.path.realpath(path), "", ""
    for words in lines:
        if "-" not in words[6:] or len(words) < 10:
            continue
        kind = words[words.index("-", 6) + 1]
        if words[2] == wanted:
            return kind
        point = _unescaped(words[4])
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, by_path = point, kind
    return by_path


def _unescaped(text: str) -> str:
    """A mount point as it is called: blanks and backslashes are written in octal."""
    for code in (" ", "\t", "\n", "\\"):
        text = text.replace(f"\\{ord(code):03o}", code)
    return text
