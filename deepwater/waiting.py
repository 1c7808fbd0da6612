"""How a follower waits: look, then sleep, then be woken.

Three ways, by what they cost. *spin* looks all the time: least delay, a whole core. *wake* looks for a few
microseconds and then sleeps on the words of `deepwater.wake`: nothing while idle, tens of microseconds to wake, and
a system call a write for the writer. *auto*, the default, looks, then sleeps longer and longer between looks, so a
busy feed costs its writer nothing; and once nothing has come for `PATIENCE_S` is woken too, so an idle feed costs
its reader nothing. Where there is nothing to be woken by, sleeping between looks goes on, up to `LONGEST_SLEEP_S`.

It knows no records: a chain says which word to look at, and what it was when last loaded.
"""

from __future__ import annotations

import os
import time
from typing import Literal, Protocol

from deepwater import futex
from deepwater.format import COMMIT
from deepwater.ring_files import SharedPlace
from deepwater.wake import Sleeper

Wait = Literal["auto", "spin", "wake"]
WAITS = ("auto", "spin", "wake")
LOOKS = {"auto": 100, "wake": 20, "spin": 1000}
"""Looks in a row, some 3 µs a hundred."""
LOOKS_IN_ROW = {"auto": 3, "wake": 0}
"""How often that is done before sleeping."""
SHORTEST_SLEEP_S, LONGEST_SLEEP_S, GROWTH = 50e-6, 4e-3, 1.25
NOBODY_WRITES_S = 0.02
"""The longest sleep where there are no words to be woken by: nobody writes, or they are not ours to write."""
PATIENCE_S = 0.01


class Watched(Protocol):
    """What is waited for."""

    place: SharedPlace
    feed: str

    def watch(self) -> tuple[memoryview, int] | None:
        """The words of a file and the commit word as last loaded; None when there is no file yet."""
        ...


class Waiter:
    """Waits for one follower. `step` in one thread at a time; `poke` from any."""

    __slots__ = ("_began", "_chain", "_is_over", "_mode", "_pause", "_sleeper", "_steps")

    def __init__(self, chain: Watched, mode: Wait) -> None:
        self._chain, self._mode = chain, mode
        self._sleeper = Sleeper(chain.place, chain.feed)
        self._is_over = False
        self.begin()

    def begin(self) -> None:
        """Something has come: be patient anew."""
        self._steps, self._pause = 0, SHORTEST_SLEEP_S
        self._began = 0.0

    def step(self, until: float) -> None:
        """Wait a little: until there may be something new, or `until` (of `time.monotonic`), or until a look is due."""
        self._steps += 1
        if self._look():
            return
        if self._mode == "spin":
            os.sched_yield()
            return
        if self._steps <= LOOKS_IN_ROW[self._mode]:
            return  # without giving way: who has just run would get the core back late, a sleeper gets it at once
        now = time.monotonic()
        self._began = self._began or now
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
        patient = self._mode == "auto" and now - self._began < PATIENCE_S
        if not patient and self._chain.watch() is not None and self._sleeper.is_ready():
            self._sleeper.sleep(self.nothing_new, seconds)
            return
        time.sleep(min(self._pause, seconds))
        # Words that could be slept on are there while a writer is: without, there is no hurry.
        longest = LONGEST_SLEEP_S if patient or not futex.available() else NOBODY_WRITES_S
        self._pause = min(longest, self._pause * GROWTH)

    def poke(self) -> None:
        """End the step that another thread is in, asleep or about to be; for good."""
        self._is_over = True  # before the waking, which nobody hears who does not sleep yet
        self._sleeper.poke()

    def close(self) -> None:
        """Let go of the words. Idempotent; no step may be running."""
        self._sleeper.close()
