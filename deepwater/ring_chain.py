"""A feed's ring as one reader sees it: what it holds now, in at most two pieces, and where it goes on.

`refresh` loads the commit and the claim word and takes the records between as the answer to "what is held". The
pieces are live views: an answer worked out on them counts only if the writer has not come into them meanwhile
(`overrun`), and what is handed out is copied before that is asked. `answer` does all of it.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from deepwater import format as fmt
from deepwater.errors import CorruptFileError, FeedNotFoundError, LappedError
from deepwater.files import Directory
from deepwater.held import Held
from deepwater.layout import Layout
from deepwater.ring import Ring, ring_ids
from deepwater.ring_files import SharedPlace, ring_name

T = TypeVar("T")
Records = npt.NDArray[Any]
_MAX_US = 2**64 - 1
ATTEMPTS = 8
"""Times an answer is worked out on the live ring before the ring is copied for it."""
_COPIES = 1000
_LOOKS_FOR_SUCCESSOR, _BETWEEN_LOOKS_S = 50, 0.002
COPY_BYTES = 4 << 20
"""A follower copies so much at a time, unless it was overtaken in the middle of less."""


class Pieces:
    """Records in position order, in pieces, all at hand. Satisfies `Held`."""

    def __init__(self, layout: Layout, pieces: list[tuple[int, Records]], first: int, end: int,
                 steps: list[int]) -> None:  # fmt: skip
        self.layout, self.first, self.end = layout, first, end
        self._pieces, self._steps = pieces, steps
        self._bases = [base for base, _ in pieces]

    def __len__(self) -> int:
        return len(self._pieces)

    def base(self, index: int) -> int:
        """Position of a piece's first record."""
        return self._bases[index]

    def count(self, index: int) -> int:
        """Records in a piece."""
        return len(self._pieces[index][1])

    def records(self, index: int) -> Records:
        """The records of a piece."""
        return self._pieces[index][1]

    def opener(self, index: int) -> Callable[[], Records]:
        """A way to the records of a piece."""
        return partial(self.records, index)

    def column(self, index: int, clock: int) -> npt.NDArray[np.uint64]:
        """A clock of a piece."""
        return np.asarray(self._pieces[index][1][self.layout.clocks[clock]])

    def index_of(self, position: int) -> int:
        """The piece that holds a position."""
        return bisect_right(self._bases, position) - 1

    def is_in_order(self, clock: int) -> bool:
        """Whether the records are in order on a clock."""
        return self._steps[clock] <= self.first + 1

    def bounds(self, index: int, clock: int) -> fmt.ClockBounds:
        """First and last record of a piece if in order; else everything."""
        if not self.is_in_order(clock):
            return fmt.ClockBounds(True, 0, _MAX_US)
        column = self.column(index, clock)
        return fmt.ClockBounds(False, int(column[0]), int(column[-1]))

    def span(self, clock: int) -> tuple[int, int]:
        """The least and the greatest value of a clock, exact; looks at all records if they are not in order."""
        columns = [self.column(k, clock) for k in range(len(self))]
        if self.is_in_order(clock):
            return int(columns[0][0]), int(columns[-1][-1])
        return min(int(c.min()) for c in columns), max(int(c.max()) for c in columns)

    def candidates(self, clock: int, low: int, high: int) -> Iterator[int]:
        """The pieces that can hold a record with ``low <= clock <= high``."""
        for index in range(len(self)):
            bounds = self.bounds(index, clock)
            if bounds.low <= high and bounds.high >= low:
                yield index

    def reach(self, clock: int, index: int) -> int:
        """The greatest value of a clock over the pieces up to `index`."""
        return max(self.bounds(k, clock).high for k in range(index + 1))


def _look_again(words: memoryview, capacity: int) -> tuple[int, int]:
    """Commit and claim of one moment.

    A write takes at most half, so the claim is never a whole ring ahead of the commit; if it is, the writer went
    around between the two loads (or the word is damaged: there is a bound on how often this looks).
    """
    for _ in range(_COPIES):
        count = words[fmt.COMMIT] & fmt.COUNT_MASK
        overwritten = words[fmt.CLAIM] - capacity
        if overwritten < count:
            break
    return count, overwritten


class RingChain:
    """The ring of one feed. One thread at a time.

    Attributes
    ----------
    first, end : int
        Positions held, as of the last `refresh`.
    tail : Ring or None
        The ring; None before the first writer.
    """

    def __init__(self, directory: Directory, place: SharedPlace, feed: str, layout: Layout, ids: fmt.Ids) -> None:
        self.directory, self.place, self.feed, self.layout, self.ids = directory, place, feed, layout, ids
        self.tail: Ring | None = None
        self.first = self.end = 0
        self._count = 0
        self._copy_rows = max(1, COPY_BYTES // layout.record_size)
        self.refresh()

    def __len__(self) -> int:
        return int(self.tail is not None)

    def again(self) -> RingChain:
        """Another one over the same feed, for another thread."""
        directory = Directory(".", parent=self.directory, path=self.directory.path)
        return RingChain(directory, self.place, self.feed, self.layout, self.ids)

    @property
    def incarnation(self) -> str:
        """Which life of the ring this is; "" before the first writer."""
        if self.tail is None:
            self.refresh()
        return self.tail_incarnation()

    def tail_incarnation(self) -> str:
        """As `incarnation`, without looking for a ring."""
        return self.tail.incarnation.hex() if self.tail is not None else ""

    def refresh(self) -> int:
        """Load what is held now. Returns `end`. No system call while the ring stays the same.

        Raises
        ------
        FeedNotFoundError
            The feed was deleted.
        CorruptFileError
        """
        ring = self.tail
        if ring is None and (ring := self._attach(0)) is None:
            return self.end
        words = ring.segment.words
        count = words[fmt.COMMIT]
        if count >= fmt.SEALED:
            ring = self._follow_on(ring)  # the old one goes with the last that borrowed it
            words = ring.segment.words
            count = words[fmt.COMMIT] & fmt.COUNT_MASK
        overwritten = words[fmt.CLAIM] - ring.capacity  # loaded after the commit word
        if overwritten >= count > 0:
            count, overwritten = _look_again(words, ring.capacity)
        overwritten = max(overwritten, count - ring.capacity)  # in a sane file the claim is never behind
        base = ring.base
        self.tail, self._count = ring, count
        self.end = base + count
        self.first = base if overwritten <= 0 else base + min(overwritten, count)
        return self.end

    def _follow_on(self, ring: Ring) -> Ring:
        """The ring after one that is sealed.

        It is there before the seal, but may be replaced again while it is looked for; a feed whose directory is gone,
        or that shows no successor for a while, was deleted.
        """
        for _ in range(_LOOKS_FOR_SUCCESSOR):
            following = self._attach(ring.id)
            if following is not None:
                return following
            if self.directory.is_gone:
                break
            time.sleep(_BETWEEN_LOOKS_S)
        raise self._deleted()

    def _attach(self, after: int) -> Ring | None:
        """The feed's ring: the first that is not sealed, of those with a higher id; None if there is none.

        Names are listed and then opened, and a resize may come in between: while something that was listed is gone
        or sealed, it is listed again.
        """
        for _ in range(_COPIES):
            try:
                with self.place.open() as shared:
                    listed = [ring_id for ring_id in ring_ids(shared, self.feed) if ring_id > after]
                    found, moved = self._first_of(shared, listed)
                    moved = moved or listed != [k for k in ring_ids(shared, self.feed) if k > after]
            except FileNotFoundError:
                return None
            if found is not None or not moved:
                return found
        return None

    def _first_of(self, shared: Directory, listed: list[int]) -> tuple[Ring | None, bool]:
        """The first ring of these that is not sealed; and whether one was gone or sealed."""
        moved = False
        for ring_id in listed:
            try:
                ring = Ring.open(shared, self.feed, ring_id, self.layout, self.ids)
            except FileNotFoundError:
                moved = True
                continue
            if ring is None:
                continue
            again = self.tail is not None and ring.incarnation != self.tail.incarnation  # positions are others there
            sealed = ring.state()[1]
            if not again and not sealed:
                return ring, moved
            moved = moved or (sealed and not again)
            ring.close()
        return None, moved

    def _deleted(self) -> FeedNotFoundError:
        return FeedNotFoundError(
            f"feed {self.feed!r} was deleted (if there is one of that name now, it is another: open it anew)",
            feed=self.feed,
        )

    def check_there(self) -> None:
        """Raise if the feed or its ring was removed. Takes system calls: for who waits."""
        if self.directory.is_gone:
            raise self._deleted()
        ring = self.tail
        if ring is None:
            return
        try:
            with self.place.open() as shared:
                now = os.stat(ring_name(self.feed, ring.id), dir_fd=shared.fd, follow_symlinks=False)
            there = ring.owner()
            gone = there is not None and (now.st_ino, now.st_dev) != (there.inode, there.device)
        except (FileNotFoundError, CorruptFileError):
            gone = True
        if gone and not ring.state()[1]:  # sealed: `refresh` knows what came of it
            text = f"the ring of feed {self.feed!r} was removed from {self.place.path}: open the feed anew"
            raise FeedNotFoundError(text, feed=self.feed)

    # --- answers ---------------------------------------------------------------------------------

    def overrun(self) -> int:
        """How many of the records held at the last `refresh` may have been overwritten since."""
        return max(0, self.tail.oldest() - self.first) if self.tail is not None else 0

    def live(self) -> Pieces:
        """What is held, as live views."""
        ring = self.tail
        if ring is None or self.first == self.end:
            return Pieces(self.layout, [], self.first, self.end, [0] * len(self.layout.clocks))
        return Pieces(self.layout, ring.pieces(self.first, self.end), self.first, self.end, self._steps(ring))

    def _steps(self, ring: Ring) -> list[int]:
        return [ring.stepped_back(k) for k in range(len(self.layout.clocks))]

    def answer(self, question: Callable[[Held], T]) -> T:
        """Ask something of what is held, on the live ring.

        `question` must copy what it hands out. While the writer overtakes it, it is asked again leaving out the
        records that are about to be overwritten, and at last on a copy.

        Raises
        ------
        LappedError
            The writer filled the whole ring during each of many copies.
        """
        margin = 0
        for _ in range(ATTEMPTS):
            self.refresh()
            self.first = min(self.end, self.first + margin)
            try:
                found = question(self.live())
                over = self.overrun()
                if not over:
                    return found
            except Exception:
                over = self.overrun()
                if not over:
                    raise  # else the records changed under it
            margin = 2 * max(over, margin)
            if self.tail is not None and margin > self.tail.capacity // 4:
                break
        return question(self._copied())

    def _copied(self) -> Pieces:
        for _ in range(_COPIES):
            self.refresh()
            if self.tail is None or self.first == self.end:
                return self.live()
            ring = self.tail
            steps = self._steps(ring)
            first, records = ring.copy(self.first, self.end, self.layout.dtype)
            if first < self.end:
                self.first = first
                return Pieces(self.layout, [(first, records)], first, self.end, steps)
        text = f"feed {self.feed!r}: the writer filled the whole ring during each of {_COPIES} copies: make it larger"
        raise LappedError(text, lost=0)

    # --- following -------------------------------------------------------------------------------

    def take(self, position: int, most: int | None) -> tuple[Records | None, int, int]:
        """Copy what is there from a position on, at most so many records.

        Returns
        -------
        records : numpy.ndarray or None
            None if nothing is there.
        next : int
            The position after them.
        lost : int
            How many records from `position` on were overwritten before they could be copied.
        """
        if position >= self.end and self.refresh() <= position:
            return None, position, 0
        limit = self._copy_rows if most is None else most
        start = position
        while True:
            start = max(start, self.first)
            ring = self.tail
            assert ring is not None
            stop = min(self.end, start + limit)
            if start == stop:  # all that is published may be overwritten by a write under way
                return None, start, start - position
            valid, records = ring.copy(start, stop, self.layout.dtype)
            if stop > valid:
                if most is not None and stop - valid > most:
                    records, stop = records[:most], valid + most
                return records, stop, valid - position
            start, limit = valid, ring.capacity  # a longer copy has more that is not overtaken
            self.refresh()

    def why_lost(self, lost: int) -> str:
        """What to tell a follower that was overtaken."""
        return (
            f"the writer of the ring overwrote {lost:,} records before they were read: read faster, make the ring "
            f"larger (resize_feed), or take on_lap='skip'"
        )

    def close(self) -> None:
        """Let go of the files. What was handed out stays valid."""
        if self.tail is not None:
            self.tail.close()
            self.tail = None  # its array of all slots would keep the mapping, and its descriptor
        self.directory.close()

    def watch(self) -> tuple[memoryview, int] | None:
        """The words and the commit word as last loaded: a new value means there is something to `take`."""
        return (self.tail.segment.words, self._count) if self.tail is not None else None

    def stored_bytes(self) -> int:
        """Bytes in shared memory."""
        return self.tail.segment.size if self.tail is not None else 0

    @property
    def path(self) -> str:
        """Where the ring is, or will be."""
        return os.path.join(self.place.path, ring_name(self.feed, self.tail.id if self.tail is not None else 1))
