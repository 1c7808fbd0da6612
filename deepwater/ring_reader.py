"""The reader of a ring: the same calls as of a durable feed, over what the ring still holds.

Every call returns a checked copy, so nothing that was handed out changes: the writer may overwrite the ring at once.
`RingReader.borrow` is the form without a copy, for who can do with being told afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from deepwater import search
from deepwater.asof import Gather
from deepwater.errors import LappedError
from deepwater.feed_files import Feed
from deepwater.follow import CHECK_S
from deepwater.held import Held
from deepwater.reader import Reader
from deepwater.ring_chain import RingChain
from deepwater.window import Part, Window


class RingReader(Reader):
    """Reads an ephemeral feed (``persist: false``). Made by `Platform.create_reader`; any number may.

    As `Reader`, over what the ring still holds: `first` moves on while the writer writes, windows and arrays are
    copies, there are no marks. A reader made before the first writer waits for it; one whose writer died goes on
    with the next; a resize is followed. After the feed was deleted each call raises FeedNotFoundError.

    Notes
    -----
    A range may leave out records that the writer was about to overwrite while it was read. LappedError is raised
    only if the writer fills the whole ring during each of many attempts: the ring is far too small.
    """

    def __init__(self, chain: RingChain, feed: Feed) -> None:
        super().__init__(chain, feed)
        self._ring_chain = chain
        self._check_at = time.monotonic() + CHECK_S

    @property
    def _chain(self) -> RingChain:
        """The chain of an open reader; now and then it is made sure that the ring is still the feed's."""
        chain = super()._chain
        assert isinstance(chain, RingChain)
        if (now := time.monotonic()) >= self._check_at:
            self._check_at = now + CHECK_S
            chain.check_there()
        return chain

    def _parts(self, question: Callable[[Held], list[Part]]) -> list[Part]:
        return self._ask(lambda held: _copied(question(held)))

    def _as_of(self, number: int, wanted: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], Gather]:
        def question(held: Held) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.void]]:
            positions = search.positions_asof(held, number, wanted)
            distinct = np.unique(positions[positions >= 0])
            return positions, distinct, search.gather(held, distinct, self.layout.dtype)

        positions, distinct, records = self._ask(question)
        raw = records.view(f"V{self.layout.record_size}")
        return positions, lambda some: raw[distinct.searchsorted(some)].view(self.layout.dtype)

    def _where(self) -> str:
        ring = self._ring_chain.tail
        return f"a ring of {ring.capacity:,}" if ring is not None else "no ring yet"

    @contextmanager
    def borrow(self, n: int) -> Iterator[Window]:
        """Lend the newest `n` records (or as many as there are) without a copy, for the length of a ``with``.

        Yields
        ------
        Window
            Of one slice, or two where the ring begins anew: live, read-only views of the ring's memory. They stay
            readable for ever, but are only known to be true if the ``with`` ends without an error: keep
            results, not views.

        Raises
        ------
        LappedError
            On leaving: `lost` of the records lent were overwritten meanwhile; what was worked out of them is void.
            (Not if the block raised something itself.)

        Examples
        --------
        ::

            with reader.borrow(1000) as window:
                vwap = (window["price"] * window["size"]).sum() / window["size"].sum()
        """
        chain, rows = self._ring_chain, self._checked(n)
        self._chain.refresh()
        ring, end = chain.tail, chain.end
        held = chain.live()
        first = max(chain.first, end - max(0, rows))
        yield self._window([Part(p.position, p.rows, p.array()) for p in search.rows_between(held, first, end)], 0)
        if ring is not None and first < end:
            lost = min(end, ring.oldest()) - first
            if lost > 0:
                raise LappedError(
                    f"feed {self.feed!r}: the writer overwrote {lost:,} of the {end - first:,} records that were "
                    f"borrowed: borrow fewer, be quicker, make the ring larger, or read copies with latest()",
                    feed=self.feed, lost=lost,
                )  # fmt: skip


def _copied(parts: list[Part]) -> list[Part]:
    """Copies of parts; neighbours become one."""
    out: list[Part] = []
    runs: list[list[Part]] = []
    for part in parts:
        neighbour = runs and part.positions is None and runs[-1][-1].positions is None
        if neighbour and runs[-1][-1].position + runs[-1][-1].rows == part.position:
            runs[-1].append(part)
        else:
            runs.append([part])
    for run in runs:
        dtype = run[0].array().dtype
        data = b"".join(p.array().view(np.uint8).data for p in run)
        records = np.frombuffer(data, dtype)
        out.append(Part(run[0].position, len(records), records, is_view=False, positions=run[0].positions))
    return out
