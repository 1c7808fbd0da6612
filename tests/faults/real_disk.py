"""A disk that can be pulled at any moment: ext4 on a loop device whose image is copied while all runs.

The image lies on a file system of its own, which is frozen for the copy: a copy made over some milliseconds would mix
an early view of some blocks with a late one of others, which no disk ever held. What was not written back to the image
when the freeze began is not in the copy.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

SIZE_MB = 64
FREEZE, THAW = 0xC0045877, 0xC0045878
"""FIFREEZE and FITHAW of `linux/fs.h`."""
_VM = Path("/proc/sys/vm")
_OFTEN = {"dirty_writeback_centisecs": b"8", "dirty_expire_centisecs": b"15"}
_AS_THE_KERNEL_HAS_IT = {"dirty_writeback_centisecs": b"500", "dirty_expire_centisecs": b"3000"}


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def loop_devices() -> str:
    return subprocess.run(["losetup", "-a"], check=True, capture_output=True, text=True).stdout


@contextmanager
def mounted(image: Path, at: Path, options: str = "loop") -> Iterator[Path]:
    """Mount an image; unmounted in any case, if need be once its last user is gone."""
    at.mkdir(exist_ok=True)
    run("mount", "-t", "ext4", "-o", options, image, at)
    try:
        yield at
    finally:
        for _ in range(40):
            if subprocess.run(["umount", str(at)], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.05)
        else:
            run("umount", "-l", at)


def make_image(path: Path, megabytes: int, *options: str) -> Path:
    with path.open("wb") as file:
        file.truncate(megabytes << 20)
    run("mkfs.ext4", "-q", "-F", "-m0", *options, path)
    return path


class RealDisk:
    """Mounted at `path`; `cut` copies what is on the device at one moment.

    Parameters
    ----------
    directory : Path
        Where the images are.
    options : str
        Of the mount that loses its power.
    """

    def __init__(self, directory: Path, options: str = "commit=1") -> None:
        self.directory = directory
        self._stack = ExitStack()
        try:
            outer = make_image(directory / "below", SIZE_MB + 32, "-O", "^has_journal")
            below = self._stack.enter_context(mounted(outer, directory / "below.d"))
            self._image = make_image(below / "image", SIZE_MB)
            self.path = self._stack.enter_context(mounted(self._image, directory / "disk", f"loop,{options}"))
            self._below = os.open(below, os.O_RDONLY | os.O_DIRECTORY)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> RealDisk:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._below)
        self._stack.close()
        for name in ("below", "below.d", "disk"):
            path = self.directory / name
            path.rmdir() if path.is_dir() else path.unlink()

    def cut(self, to: Path) -> Path:
        """The disk as it would be if the power went now."""
        fcntl.ioctl(self._below, FREEZE, 0)
        try:
            run("cp", "--sparse=always", self._image, to)
        finally:
            fcntl.ioctl(self._below, THAW, 0)
        return to

    def write_back_some(self, rng: random.Random) -> None:
        """Have the kernel write some pages now, as it may at any time and in any order: often the words of a chunk."""
        paths = [os.path.join(top, name) for top, _, files in os.walk(self.path) for name in files]
        newest = {os.path.dirname(path): path for path in sorted(paths) if path.endswith(".bin")}
        with suppress(OSError):  # gone meanwhile
            fd = os.open(rng.choice([*newest.values()] if newest and rng.random() < 0.7 else paths), os.O_RDONLY)
            try:
                pages = max(1, os.fstat(fd).st_size // 4096)
                first = rng.choice((0, 1, 1, 1, rng.randrange(pages)))
                os.posix_fadvise(fd, 4096 * first, 4096 * rng.choice((1, 1, 2, 8)), os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


@pytest.fixture
def real_disks() -> Iterator[None]:
    """Skip where no loop device can be mounted; the devices in use are the same afterwards as before."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a loop device")
    try:
        before = loop_devices()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there are no loop devices here")
    yield
    until = time.monotonic() + 5
    while (now := loop_devices()) != before and time.monotonic() < until:  # the kernel lets go of one a moment later
        time.sleep(0.05)
    mine = set(now.splitlines()) - set(before.splitlines())
    assert not [line for line in mine if "below" in line or "cut-" in line], now


@contextmanager
def real_disk(directory: Path, options: str = "commit=1") -> Iterator[RealDisk]:
    try:
        disk = RealDisk(directory, options)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        pytest.skip(f"cannot mount a loop device here: {said.decode(errors='replace').strip()}")
    with disk:
        yield disk


@pytest.fixture
def written_back_often() -> Iterator[None]:
    """The kernel looks for dirty pages every 80 ms and writes those older than 150 ms."""
    try:
        before = {name: (_VM / name).read_bytes().strip() for name in _OFTEN}
        _set(_OFTEN)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
            raise
        pytest.skip("may not change how often the kernel writes back")
    yield
    ours = before == _OFTEN  # a run beside this one, or one that was killed
    _set(_AS_THE_KERNEL_HAS_IT if ours else before)


def _set(values: dict[str, bytes]) -> None:
    for name, value in values.items():
        (_VM / name).write_bytes(value)
