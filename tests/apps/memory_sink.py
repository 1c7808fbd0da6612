"""Feeds in memory: the `Sink` protocol for tests, with a disk that can be full."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deepwater.errors import StorageFullError
from deepwater.layout import Layout
from deepwater.schema import FeedSpec


@dataclass
class MemoryFeed:
    """One feed; it outlives its writers."""

    spec: FeedSpec
    batches: list[tuple[np.ndarray[Any, Any], bool]] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    full: bool = False
    marks_full: bool | None = None  # None: as `full`
    flushed: int = 0
    dtype: np.dtype[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.dtype = Layout.compile(self.spec).dtype

    @property
    def records(self) -> np.ndarray[Any, Any]:
        out = np.zeros(self.end, self.dtype)
        at = 0
        for batch, _ in self.batches:
            out[at : at + len(batch)] = batch
            at += len(batch)
        return out

    @property
    def end(self) -> int:
        return sum(len(batch) for batch, _ in self.batches)

    def write_batch(self, data: np.ndarray[Any, Any], create_index: bool = False) -> int:
        assert data.dtype == self.dtype
        self._room()
        position = self.end
        self.batches.append((data.copy(), create_index))
        return position

    def mark_gap(
        self,
        lost: int | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        reason: str = "",
    ) -> int:
        if self.full if self.marks_full is None else self.marks_full:
            raise StorageFullError("no space", errno=errno.ENOSPC, path="memory")
        assert from_us is not None
        assert to_us is not None
        assert 0 < from_us <= to_us
        assert len(reason.encode()) <= 72
        position = self.end
        gap = {"position": position, "lost": lost, "from_us": from_us, "to_us": to_us, "reason": reason}
        self.gaps.append(gap)
        return position

    def flush(self) -> None:
        self.flushed = self.end

    def close(self) -> None:
        pass

    def _room(self) -> None:
        if self.full:
            raise StorageFullError("no space", errno=errno.ENOSPC, path="memory")


class MemorySink:
    """Holds `feeds` by name."""

    def __init__(self) -> None:
        self.feeds: dict[str, MemoryFeed] = {}
        self.released: list[str] = []

    def open(self, spec: FeedSpec) -> MemoryFeed:
        return self.feeds.setdefault(spec.feed_name, MemoryFeed(spec))

    def tail(self, spec: FeedSpec, count: int) -> np.ndarray[Any, Any]:
        return self.feeds[spec.feed_name].records[-count:]

    def release(self, name: str) -> None:
        self.released.append(name)

    def check(self) -> None:
        pass

    def rotated(self) -> list[str]:
        return []

    def retain(self, feeds: Sequence[str] | None = None) -> tuple[int, list[str]]:
        return 0, []
