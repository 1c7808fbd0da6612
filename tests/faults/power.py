"""A device that loses power: which bytes a store may come back with.

What was synced is there. Of everything since, each 512-byte sector may be as any of its versions was, by itself and in
any order; a name that was made or removed since its directory was synced may be there or not. The device keeps every
version of every file between two looks (`look`), and draws a state from all possible ones (`after_power_cut`).
Nothing is synced for real.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deepwater import checksums, files, index, keeper, retain

SECTOR = 512


class Device:
    """Keeps what was written to the files of one feed's directory.

    Parameters
    ----------
    directory : Path
        The feed's directory. Files in it that are no segments (JSON) are taken as synced: they are when made.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.directory = directory
        self._versions: dict[int, list[np.ndarray]] = {}  # by inode: from what is on the device to what is in memory
        self._named: dict[str, int] = {}  # names on the device
        self._seen: list[dict[str, int]] = []  # names since
        self.syncs = 0
        for module in (files, keeper, index, checksums, retain):
            monkeypatch.setattr(module, "sync", self._sync)
        sync_names = self._sync_names

        def sync(directory: files.Directory) -> None:
            sync_names(directory)

        monkeypatch.setattr(files.Directory, "sync", sync)

    def _files(self) -> Iterator[tuple[str, int]]:
        for entry in os.scandir(self.directory):
            if entry.name.startswith(("chunk_", "F.reg")):
                yield entry.name, entry.inode()

    def look(self) -> None:
        """Note what is in memory now."""
        names = dict(self._files())
        for name, inode in names.items():
            with (self.directory / name).open("rb") as file:
                self._note(inode, file.read())
        if names != (self._seen[-1] if self._seen else self._named):
            self._seen.append(names)

    def _note(self, inode: int, data: bytes) -> None:
        now = np.frombuffer(data, np.uint8).reshape(-1, SECTOR)
        versions = self._versions.setdefault(inode, [np.zeros_like(now)])
        if len(versions[-1]) < len(now):  # it has grown
            grown = [np.vstack([old, np.zeros((len(now) - len(old), SECTOR), np.uint8)]) for old in versions]
            versions[:] = grown
        if not np.array_equal(versions[-1], now):
            versions.append(now)

    def _sync(self, fd: int) -> None:
        self.syncs += 1
        if os.path.dirname(os.readlink(f"/proc/self/fd/{fd}")) != str(self.directory):
            return  # of a store that came back
        self.look()
        info = os.fstat(fd)
        data = os.pread(fd, info.st_size, 0)
        if len(data) % SECTOR == 0:
            self._note(info.st_ino, data)
            self._versions[info.st_ino] = self._versions[info.st_ino][-1:]

    def _sync_names(self, directory: files.Directory) -> None:
        if os.readlink(f"/proc/self/fd/{directory.fd}") != str(self.directory):
            return
        self.look()
        self._named, self._seen = dict(self._files()), []

    def after_power_cut(self, rng: random.Random, store: Path, to: Path) -> None:
        """Make the directory `to`: the store as one of the states it may come back in."""
        feed = to / self.directory.relative_to(store)
        feed.mkdir(parents=True)
        for path in (store / "store.json", *self.directory.glob("*.json")):
            shutil.copy(path, to / path.relative_to(store))
        draw = np.random.default_rng(rng.getrandbits(64))
        names = rng.choice([self._named, *self._seen])
        others = {name: inode for held in (self._named, *self._seen) for name, inode in held.items()}
        for name, inode in others.items():
            if name in names or (rng.random() < 0.5 and name not in self._named):
                (feed / name).write_bytes(self._drawn(draw, inode))

    def _drawn(self, draw: np.random.Generator, inode: int) -> bytes:
        versions = self._versions[inode]
        if len(versions) == 1:
            return versions[0].tobytes()
        how = draw.random()
        if how < 0.2:  # the newest, the oldest: what a store that lags or leads as a whole looks like
            return versions[-1].tobytes()
        if how < 0.3:
            return versions[0].tobytes()
        chosen = draw.integers(0, len(versions), len(versions[0]))
        return np.stack(versions)[chosen, np.arange(len(chosen))].tobytes()
