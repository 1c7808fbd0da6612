"""A part of a window: some rows of one chunk, opened when it is first touched.

What a part has handed out keeps its memory alive by itself. It knows arrays, nothing of files or layouts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Part:
    """Some rows of one chunk, opened when first touched.

    Parameters
    ----------
    position : int
        Position of the first row.
    rows : int
        How many rows.
    array : structured array, optional
        The rows, if they are at hand.
    load : callable, optional
        Returns the rows; called when they are first asked for. It may raise `ChunkGoneError`.
    is_view : bool
        False if the rows are a gathered copy (a clock that is not sorted): they need not be neighbours then.
    positions : array of uint64, optional
        The position of each row of a gathered copy.
    """

    __slots__ = ("_array", "_load", "is_view", "position", "positions", "rows")

    def __init__(
        self,
        position: int,
        rows: int,
        array: Array | None = None,
        load: Callable[[], Array] | None = None,
        is_view: bool = True,
        positions: NDArray[np.uint64] | None = None,
    ) -> None:
        self.position = position
        self.rows = rows
        self.is_view = is_view
        self.positions = positions
        self._array = None if array is None else _checked(array, rows)
        self._load = load

    def array(self, *, keep: bool = True) -> Array:
        """Return the rows: a structured, read-only array of one dimension.

        Parameters
        ----------
        keep : bool
            Keep what was loaded, so that `load` is called once. If False, the array lives as long as the
            caller holds it.

        Raises
        ------
        ChunkGoneError
            The chunk was removed before this part was touched.
        """
        array, load = self._array, self._load
        if array is None:
            if load is None:  # another thread has just kept it
                assert self._array is not None, "a part has its rows or a way to them"
                return self._array
            array = _checked(load(), self.rows)
            if keep:
                self._array, self._load = array, None
        return array

    def position_of(self, row: int) -> int:
        """Return the position of one of its rows."""
        return self.position + row if self.positions is None else int(self.positions[row])

    def cut(self, start: int, stop: int, *, keep: bool = True) -> Part:
        """Return rows ``start <= i < stop`` as a part of their own; opens nothing.

        With `keep`, this part is opened with it and stays open for other pieces; without, the piece alone
        keeps what it opens.
        """
        assert 0 <= start <= stop <= self.rows, (start, stop, self.rows)
        if keep and (start, stop) == (0, self.rows):
            return self
        positions = None if self.positions is None else self.positions[start:stop]
        position = self.position_of(start) if start < stop else self.position + start
        array = None if self._array is None else self._array[start:stop]
        load = None if array is not None else lambda: self.array(keep=keep)[start:stop]
        return Part(position, stop - start, array, load, self.is_view, positions)

    def __repr__(self) -> str:
        state = "open" if self._array is not None else "not opened"
        return f"<Part {self.rows} rows from position {self.position}, {state}>"


def _checked(array: Array, rows: int) -> Array:
    assert array.ndim == 1, array.shape
    assert len(array) == rows, (len(array), rows)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array
