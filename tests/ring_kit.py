"""Rings under fire: records that tell where they belong, and what readers in other processes count.

The record at position p is row ``p % PERIOD`` of one table. PERIOD is a prime beyond every capacity used, so the
records that follow one another in a slot differ in every word: a torn, stale or misplaced record cannot pass.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

PERIOD = 262_147
FIELDS = [{"name": name, "type": "uint64"} for name in ("ts_us", "a", "b", "c", "d", "e", "f", "g")]
SIZE = 64
COUNTERS = ("accepted", "wrong", "lost", "laps", "overlaps", "position", "batches", "raised", "done", "started",
            "edges")  # fmt: skip


def spec(capacity: int, name: str = "RING") -> dict[str, Any]:
    return {"feed_name": name, "ts_col": "ts_us", "persist": False, "chunk_size_bytes": capacity * SIZE,
            "fields": FIELDS}  # fmt: skip


def table() -> np.ndarray:
    """PERIOD + PERIOD rows of 8 words, so that any run of up to PERIOD positions is one slice."""
    row = np.arange(PERIOD, dtype=np.uint64)
    words = np.empty((PERIOD, 8), np.uint64)
    words[:, 0] = row
    for k in range(1, 8):
        words[:, k] = (row + np.uint64(k)) * np.uint64(0x9E3779B97F4A7C15 + 2 * k)
    return np.concatenate([words, words])


def words_of(records: np.ndarray) -> np.ndarray:
    return records.view(np.uint64).reshape(-1, 8)


def wrong_rows(truth: np.ndarray, records: np.ndarray, position: int) -> int:
    """How many of the records are not the ones of these positions."""
    wrong = 0
    for start in range(0, len(records), PERIOD):
        piece = words_of(records[start : start + PERIOD])
        at = (position + start) % PERIOD
        same = piece == truth[at : at + len(piece)]
        if not same.all():
            wrong += int((~same.all(axis=1)).sum())
    return wrong


class Board:
    """Counters that a process writes and another reads, in a mapped file."""

    def __init__(self, path: Path | str) -> None:
        if not os.path.exists(path):
            Path(path).write_bytes(bytes(4096))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 4096)
        self._words = memoryview(self._map).cast("Q")

    def __getitem__(self, name: str) -> int:
        return self._words[COUNTERS.index(name)]

    def __setitem__(self, name: str, value: int) -> None:
        self._words[COUNTERS.index(name)] = value

    def close(self) -> None:
        self._words.release()
        self._map.close()

    def all(self) -> dict[str, int]:
        return {name: self[name] for name in COUNTERS}
