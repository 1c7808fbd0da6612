"""Where records go: the part of the public API that a recorder needs, as a protocol.

A recorder opens each feed once (`Sink.open`), learns how the feed ends so that it can go on from
there, and writes. `platform_sink.PlatformSink` is the real one; tests use one in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from deepwater.schema import FeedSpec

__all__ = ["FeedWriter", "Records", "Sink"]

Records = np.ndarray[Any, np.dtype[np.void]]


class FeedWriter(Protocol):
    """One feed, open for appending."""

    def write_batch(self, data: Records, create_index: bool = False) -> int:
        """Append the records; visible at once, whole or not at all. Returns the first position."""
        ...

    def mark_gap(
        self,
        lost: int | None = None,
        from_us: int | None = None,
        to_us: int | None = None,
        reason: str = "",
    ) -> object:
        """Mark the present end of the feed as the place of a gap."""
        ...

    def flush(self) -> object:
        """Make what was written durable."""
        ...

    def close(self) -> None:
        """Close the feed; idempotent."""
        ...


class Sink(Protocol):
    """Opens feeds. One sink a recording; whoever made it closes it."""

    def open(self, spec: FeedSpec) -> FeedWriter:
        """Create the feed if it is absent and open it for appending."""
        ...

    def tail(self, spec: FeedSpec, count: int) -> Records:
        """Return a copy of the last `count` records of the feed; fewer, or none, if it is shorter."""
        ...

    def release(self, name: str) -> None:
        """Flush and close the feed `name`: it is recorded no more. Nothing happens if it is not open."""
        ...

    def check(self) -> None:
        """Raise `DeepwaterError` if what is written now can not be found again. Called about once a second."""
        ...

    def rotated(self) -> list[str]:
        """Return the feeds that have begun a chunk since this was last asked. Called about once a second; cheap."""
        ...

    def retain(self, feeds: Sequence[str] | None = None) -> tuple[int, list[str]]:
        """Apply the setting `retain` of these feeds, or of all that are open. Called in a thread of its own.

        Returns
        -------
        chunks : int
            How many were let go.
        errors : list of str
            A line for each feed where it failed; the others were done.
        """
        ...
