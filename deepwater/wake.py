"""Waking readers: one page of words a feed, beside the rings, that readers may write.

Readers map feeds read-only, so who waits says so in a small file of its own (16 KiB, ``<feed>.wake``, see
`deepwater.ring_files`), made by the writer, removed when it closes. Absent, or not to be written: readers poll.

::

    0     magic    8 bytes  89 44 57 57 41 4B 45 0A
    64    waiting  u64      not 0: somebody sleeps, or is about to
    128   futex    u32      what they sleep on; changes with each waking
    192   fenced   u64      1: the writer's process is registered for membarrier
    200   closed   u64      1: the writer let go of the page: sleep on it no more
    256   owner    128      the writer, as in a segment's header (`deepwater.format`)

*Writer*, after the commit store: load `waiting`; if it is 0, that is all (no system call when nobody waits).
Else store 0, change `futex`, wake all. *Reader*: load `futex`; store 1 into `waiting`; a barrier; look at the feed
once more; if nothing has come, sleep while `futex` is what was loaded. So a waking between the two loads makes the
sleep return at once, and who finds its 1 overwritten by the 0 of a waking under way is woken by it.

The lost wake-up: "store commit, load waiting" is the one order that x86 does turn around, as does the reader's
"store waiting, load commit". If both do, both see the old value and a reader sleeps on a record that is there. The
reader therefore has the kernel execute a barrier on the writer's processor too (membarrier, a microsecond, only
when about to sleep), which leaves the writer's path free of fences. Where that is not to be had, and for whatever
else may go wrong (a writer killed between store and wake), each sleep is bounded: `BOUND_S`, or `FENCED_BOUND_S`.

Rejected: a count of waiters (no atomic add from Python, and a killed waiter would stay counted); a slot for each
reader (a bound on their number, stale slots after kills) for saving wake-ups that everybody wants anyway.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from deepwater import futex
from deepwater.errors import CorruptFileError
from deepwater.files import Directory
from deepwater.format import PAGE, pack_owner
from deepwater.locks import this_owner
from deepwater.ring_files import SharedPlace, remove_half_made, wake_name
from deepwater.segment import Page

MAGIC = b"\x89DWWAKE\n"
WAITING, FENCED, CLOSED = 64 // 8, 192 // 8, 200 // 8
FUTEX_OFFSET = 128
OWNER_OFFSET = 256
BOUND_S, FENCED_BOUND_S = 0.05, 0.5
REOPEN_S = 0.05
"""How often a reader looks for the words of a writer that was not there."""


class Bell:
    """The writer's side: wakes who waits for its feed.

    Attributes
    ----------
    waiting : memoryview
        Of u64; `WAITING` is not 0 when `ring` is due. Of nothing but zeros where there is no shared memory.
    """

    __slots__ = ("_feed", "_futex", "_name", "_page", "_place", "waiting")

    def __init__(self, place: SharedPlace, feed: str) -> None:
        self._place, self._feed, self._name = place, feed, wake_name(feed)
        self._page: Page | None = None
        self._futex: futex.Futex | None = None
        self.waiting = memoryview(bytearray(256)).cast("Q")
        if not futex.available():
            return
        with contextlib.suppress(OSError, CorruptFileError):  # no shared memory: readers poll
            self._page = place.with_directory(self._open)
            self._futex = futex.Futex(self._page.mapping, FUTEX_OFFSET)
            self.waiting = self._page.words
            self._page.write(OWNER_OFFSET, pack_owner(this_owner(self._page.stat))[1])
            self.waiting[FENCED] = int(futex.register_for_barriers())
            self.waiting[CLOSED] = 0

    def _open(self, directory: Directory) -> Page:
        remove_half_made(directory, self._feed)
        try:
            return Page.open(directory, self._name, MAGIC)
        except FileNotFoundError:
            pass
        except CorruptFileError:
            directory.remove(self._name)
        with contextlib.suppress(FileExistsError):
            Page.create(directory, self._name, MAGIC, PAGE)
        return Page.open(directory, self._name, MAGIC)

    def ring(self) -> None:
        """Wake all who wait."""
        self.waiting[WAITING] = 0
        if self._futex is not None:
            self._futex.wake()

    def close(self) -> None:
        """Remove the words, so that nothing is left of a feed nobody writes; wake who waits, to notice. Idempotent."""
        page, self._page = self._page, None
        self.waiting = memoryview(bytearray(256)).cast("Q")
        if page is not None and self._futex is not None:
            with contextlib.suppress(OSError, CorruptFileError), self._place.open() as directory:
                directory.remove(self._name)
            page.words[CLOSED] = 1
            self._futex.wake()
            self.forget(page)
            self._place.tidy()

    def forget(self, page: Page | None = None) -> None:
        """Drop the mapping and leave the file alone: it belongs to the process this one was forked from."""
        page, self._page = page or self._page, None
        self.waiting = memoryview(bytearray(256)).cast("Q")
        if self._futex is not None:
            self._futex.close()
            self._futex = None
        if page is not None:
            page.close()


class Sleeper:
    """A reader's side: sleeps until something is published. One thread sleeps; `poke` may come from any.

    Notes
    -----
    Opens the words when it first sleeps, and again when the writer has made others.
    """

    __slots__ = ("_futex", "_name", "_next_look", "_page", "_place", "_slept_in_vain")

    def __init__(self, place: SharedPlace, feed: str) -> None:
        self._place, self._name = place, wake_name(feed)
        self._page: Page | None = None
        self._futex: futex.Futex | None = None
        self._next_look = 0.0
        self._slept_in_vain = False

    def is_ready(self) -> bool:
        """Whether there are words to sleep on; looks for them now and then."""
        if self._page is not None:
            if not self._page.words[CLOSED] and not (self._slept_in_vain and self._page.is_gone):
                return True
            self.close()
        now = time.monotonic()
        if now < self._next_look or not futex.available():
            return False
        self._next_look = now + REOPEN_S
        with contextlib.suppress(OSError, CorruptFileError), self._place.open() as directory:
            page = Page.open(directory, self._name, MAGIC)
            self._futex = futex.Futex(page.mapping, FUTEX_OFFSET)
            self._page = page
        return self._page is not None

    def sleep(self, nothing_new: Callable[[], bool], seconds: float) -> None:
        """Sleep until the writer rings, at most `seconds` and at most the bound; not if something is new.

        Only after `is_ready`.
        """
        page, word = self._page, self._futex
        if page is None or word is None:
            return
        value = word.value
        page.words[WAITING] = 1
        fenced = futex.barrier() and page.words[FENCED]
        if nothing_new() and not page.words[CLOSED]:
            bound = FENCED_BOUND_S if fenced else BOUND_S
            self._slept_in_vain = not word.wait(value, min(seconds, bound))

    def poke(self) -> None:
        """Wake the sleepers, for them to see that they are closed. Never fails."""
        with contextlib.suppress(AttributeError, TypeError):  # closed just now
            if self._futex is not None:
                self._futex.wake()

    def close(self) -> None:
        """Let go of the words. Idempotent."""
        word, self._futex = self._futex, None
        page, self._page = self._page, None
        if word is not None:
            word.close()
        if page is not None:
            page.close()
