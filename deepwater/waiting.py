"""How a follower waits: look, then be woken.

Three ways, by what they cost. *spin* looks all the time: least delay, a whole core. *wake* looks for a few
microseconds and then sleeps on the words of `deepwater.wake`: nothing while idle, tens of microseconds to wake, and
a system call for the writer when somebody sleeps. *auto*, the default, looks a little longer before it sleeps, so
that a burst, or a reader that is slower than the feed, costs the writer nothing.

Where there is nothing to be woken by (no futexes, no shared memory, no writer, or words that are not ours to write)
both sleep between looks for a share of the time waited: a record comes late by at most that share of the pause before
it, at a number of looks that grows with the logarithm of the pause. The thread's sleeps are made exact meanwhile
(`deepwater.timerslack`), for `EXACT_S`.

Rejected, measured at 5,000 records/s: *sleeping between looks first, being woken only when idle* (38 to 46 µs late at
p50 and 57 % of a core, where being woken takes 34 to 45 µs and 28 %), *sleeps that grow by a quarter from 50 µs* (70 µs
late), *a guess when the next record is due* (markets come in bursts).

It knows no records: a chain says which word to look at, and what it was when last loaded.
"""

from __future__ import annotations

import threading
import time
from typing import Literal, Protocol

from deepwater import futex, timerslack
from deepwater.format import COMMIT
from deepwater.ring_files import SharedPlace
from deepwater.wake import Sleeper

Wait = Literal["auto", "spin", "wake"]
WAITS = ("auto", "spin", "wake")
LOOKS = {"auto": 100, "wake": 20, "spin": 3000}
"""Looks in a row before the first sleep (of *spin*: before others may run), some 3 µs a hundred."""
SHARE = 0.2
"""The next sleep between looks, as a share of the time waited so far."""
SHORTEST_SLEEP_S, LONGEST_SLEEP_S = 2e-6, 4e-3
EXACT_S = 0.01
NOBODY_WRITES_S = 0.02
"""The longest sleep where there are no words to be woken by: nobody writes, or they are not ours to write."""


class Watched(Protocol):
    """What is waited for."""

    place: SharedPlace
    feed: str

    def watch(self) -> tuple[memoryview, int] | None:
        """The words of a file and the commit word as last loaded; None when there is no file yet."""
        ...


class Waiter:
    """Waits for one follower. `step` in one thread at a time; `poke` from any."""

    __slots__ = ("_began", "_chain", "_is_over", "_mode", "_slack", "_sleeper")

    def __init__(self, chain: Watched, mode: Wait) -> None:
        self._chain, self._mode = chain, mode
        self._sleeper = Sleeper(chain.place, chain.feed)
        self._is_over = False
        self._slack: tuple[int, int] | None = None
        self.begin()

    def begin(self) -> None:
        """Something has come: be patient anew."""
        self._began = 0.0

    def step(self, until: float) -> None:
        """Wait a little: until there may be something new, or `until` (of `time.monotonic`), or until a look is due."""
        if not self._began:
            self._began = time.monotonic()
            if self._look():
                return
        if self._mode == "spin":
            if not self._look():
                self._be_exact()
                time.sleep(0)  # 7 µs; sched_yield keeps the interpreter: another thread's fsync took 150 ms
            return
        now = time.monotonic()
        self._sleep(now, max(0.0, until - now))

    def _look(self) -> bool:
        """Look many times in a row; whether there is something new."""
        watched = self._chain.watch()
        if watched is None:
            return False
        words, seen = watched
        try:
            for _ in range(LOOKS[self._mode]):
                if words[COMMIT] != seen:
                    return True
        except ValueError:  # the follower went on to another file just now, in another thread
            return True
        return False

    def nothing_new(self) -> bool:
        """Whether the word is as last loaded; False where there is none to look at, and after `poke`."""
        watched = self._chain.watch()
        try:
            return watched is not None and watched[0][COMMIT] == watched[1] and not self._is_over
        except ValueError:
            return False

    def _sleep(self, now: float, seconds: float) -> None:
        if self._chain.watch() is not None and self._sleeper.is_ready():
            self._sleeper.sleep(self.nothing_new, seconds)
            return
        waited = now - self._began
        if waited > EXACT_S:
            self._ease()
        else:
            self._be_exact()
        # Words that could be slept on are there while a writer is: without, there is no hurry.
        longest = NOBODY_WRITES_S if futex.available() else LONGEST_SLEEP_S
        time.sleep(min(longest, max(SHORTEST_SLEEP_S, SHARE * waited), seconds))

    def _be_exact(self) -> None:
        """Have the sleeps of this thread end in time."""
        if self._slack is None and (before := timerslack.tighten()) is not None:
            self._slack = threading.get_ident(), before

    def _ease(self) -> None:
        """Let the sleeps of this thread end as late as before."""
        slack, self._slack = self._slack, None
        if slack is not None and slack[0] == threading.get_ident():
            timerslack.restore(slack[1])

    def poke(self) -> None:
        """End the step that another thread is in, asleep or about to be; for good."""
        self._is_over = True  # before the waking, which nobody hears who does not sleep yet
        self._sleeper.poke()

    def close(self) -> None:
        """Let go of the words. Idempotent; no step may be running."""
        self._ease()
        self._sleeper.close()
