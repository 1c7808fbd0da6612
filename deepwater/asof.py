"""The answer of `Reader.asof`: for each time the record that was in force."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deepwater import frames
from deepwater.errors import RecordError
from deepwater.layout import Layout

if TYPE_CHECKING:
    import pandas as pd

MISSING = -1
Gather = Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]


class AsOf:
    """One row per time asked for, in their order.

    Attributes
    ----------
    times : numpy.ndarray of uint64
        As asked for, µs since the epoch.
    positions : numpy.ndarray of int64
        Of the record in force; -1 where there was none yet (or none within the tolerance).
    """

    def __init__(self, layout: Layout, clock: str, times: npt.NDArray[np.uint64], positions: npt.NDArray[np.int64],
                 gather: Gather) -> None:  # fmt: skip
        self.layout, self.clock, self.times, self.positions = layout, clock, times, positions
        self._gather = gather
        self._records: npt.NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    def __repr__(self) -> str:
        return f"<AsOf {len(self)} times on {self.clock}, {int((self.positions >= 0).sum())} found>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.positions, dtype=dtype, copy=bool(copy) or dtype not in (None, self.positions.dtype))

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Where there is a record."""
        return np.asarray(self.positions >= 0)

    def records(self) -> npt.NDArray[Any]:
        """The records found, one per found time, in order; a copy (read once, then kept)."""
        if self._records is None:
            self._records = self._gather(self.positions[self.found])
        return self._records

    def __getitem__(self, column: str) -> npt.NDArray[Any]:
        """A column, one value per time; floats are NaN where nothing was found.

        Raises
        ------
        RecordError
            A time has no record and the column cannot say so: use `found` and `records()`.
        """
        values = self.records()[self.layout.column(column).name]
        if len(values) == len(self):
            return values
        if values.dtype.kind != "f":
            raise RecordError(
                f"column {column!r}: {len(self) - len(values)} of {len(self)} times have no record, and {values.dtype} "
                f"cannot say so: use .found and .records(), or to_pandas()", column=column,
            )  # fmt: skip
        out = np.full((len(self), *values.shape[1:]), np.nan, values.dtype)
        out[self.found] = values
        return out

    def to_pandas(self) -> pd.DataFrame:
        """A frame indexed by the times asked for, with every column and `position`.

        Where nothing was found: NaN, NaT or NA (integer columns become pandas' nullable integers
        then, so that none loses precision), and position -1.
        """
        return frames.asof_frame(self.layout, self.clock, self.times, self.positions, self.records())
