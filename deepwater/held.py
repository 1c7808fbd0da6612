"""What searching needs of a feed: the pieces it holds, in order. Chunks are such pieces, and a ring's two parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from deepwater.format import ClockBounds


class Held(Protocol):
    """The records of a feed as of one look: positions ``first <= p < end`` in pieces numbered from 0, the oldest."""

    first: int
    end: int

    def __len__(self) -> int:
        """How many pieces."""
        ...

    def base(self, index: int) -> int:
        """Position of a piece's first record."""
        ...

    def count(self, index: int) -> int:
        """Records in a piece."""
        ...

    def records(self, index: int) -> npt.NDArray[Any]:
        """The records of a piece, a read-only view."""
        ...

    def opener(self, index: int) -> Callable[[], npt.NDArray[Any]]:
        """A way to the records of a piece that stays true when the pieces are numbered anew."""
        ...

    def column(self, index: int, clock: int) -> npt.NDArray[np.uint64]:
        """A clock of a piece, a strided view."""
        ...

    def index_of(self, position: int) -> int:
        """The piece that holds a position."""
        ...

    def bounds(self, index: int, clock: int) -> ClockBounds:
        """Bounds of a clock over a piece that holds records: exact if sorted, else a superset."""
        ...

    def span(self, clock: int) -> tuple[int, int]:
        """The least and the greatest value of a clock over all records (there is one); exact."""
        ...

    def candidates(self, clock: int, low: int, high: int) -> Iterator[int]:
        """The pieces that can hold a record with ``low <= clock <= high``, ascending."""
        ...

    def is_in_order(self, clock: int) -> bool:
        """Whether a clock is known never to step back over all records."""
        ...

    def reach(self, clock: int, index: int) -> int:
        """The greatest value of a clock over the pieces up to `index` inclusive, or more."""
        ...
