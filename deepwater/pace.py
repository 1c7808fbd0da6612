"""The pace of a replay: which moment of the recorded clock is now, and how to wait.

Media time is the clock of the records, µs. It is tied to the machine's monotonic clock at one point and
goes on from there N times as fast; a pause or another speed ties it anew at the moment it has reached, so it
never jumps. All reading of time and all waiting go through a `Timer`, which a test may replace.
"""

from __future__ import annotations

import math
import threading
import time

LOOKS_AWAKE = 20
"""Looks for live records that only give way to others before a waiting replay sleeps."""
SHORTEST_SLEEP_S, LONGEST_SLEEP_S = 50e-6, 1.5e-3
_MOMENT_S = 1e-6
LONGEST_WAIT_S = 600.0
"""A condition cannot wait for centuries; whoever waits looks again."""


class Timer:
    """The machine's monotonic clock, and a wait that ends early when something changes."""

    def now(self) -> float:
        """Seconds, from any beginning."""
        return time.monotonic()

    def wait(self, changed: threading.Condition, seconds: float) -> None:
        """Let go of the lock for so long, or until `changed` is notified; of 0 for a moment.

        Always by the condition's own wait, which has the lock again whatever interrupts it.
        """
        changed.wait(min(max(seconds, _MOMENT_S), LONGEST_WAIT_S))


def checked_speed(speed: float | None) -> float | None:
    """A speed that makes sense: None or a finite number above 0.

    Raises
    ------
    ValueError
    """
    if speed is not None and (isinstance(speed, bool) or not 0 < speed < math.inf):
        raise ValueError(f"speed={speed!r}: a number above 0, such as 10 for ten times real time, or None for no pace")
    return None if speed is None else float(speed)


class Pace:
    """Media time. Its caller holds the lock.

    Attributes
    ----------
    speed : float or None
        None: as fast as possible; there is no media time then.
    """

    def __init__(self, timer: Timer, speed: float | None) -> None:
        self.speed = speed
        self._timer = timer
        self._media_us: int | None = None  # at _since_s; None: the next record says
        self._since_s = 0.0
        self._is_running = True

    def _tie(self, media_us: int | None) -> None:
        self._media_us, self._since_s = media_us, self._timer.now()

    def _now_us(self) -> int | None:
        if self._media_us is None or self.speed is None or not self._is_running:
            return self._media_us
        return self._media_us + round((self._timer.now() - self._since_s) * 1e6 * self.speed)

    def moment_us(self, next_us: int) -> int:
        """Media time now; it begins with `next_us` where it has not begun."""
        if self._media_us is None:
            self._tie(next_us)
        now = self._now_us()
        assert now is not None
        return now

    def wait_s(self, next_us: int) -> float:
        """Seconds until a moment of media time."""
        assert self.speed is not None
        return (next_us - self.moment_us(next_us)) / 1e6 / self.speed

    def change(self, speed: float | None, last_us: int | None) -> None:
        """Go on at another speed, from media time as it is; where there was none, from the last record's."""
        self._tie(last_us if self.speed is None else self._now_us())
        self.speed = speed

    def stop(self) -> None:
        """Hold media time where it is."""
        self._tie(self._now_us())
        self._is_running = False

    def go(self) -> None:
        """Let it run on."""
        self._tie(self._now_us())
        self._is_running = True

    def reach(self, media_us: int) -> None:
        """Be at least there: a record was let through before it was due."""
        now = self._now_us()
        self._tie(media_us if now is None else max(now, media_us))

    def restart(self) -> None:
        """Forget media time: the next record is due at once."""
        self._media_us = None


class Idle:
    """How a replay waits for live records: awake for a moment, then asleep for longer and longer.

    Parameters
    ----------
    timeout : seconds, optional
        When it ends, counted from the first look after `reset`; None never.
    """

    def __init__(self, timer: Timer, timeout: float | None) -> None:
        self._timer, self._timeout = timer, timeout
        self._looks, self._since_s = 0, 0.0

    def reset(self) -> None:
        """There was a record, or something else to do."""
        self._looks = 0

    def wait_s(self) -> float | None:
        """Seconds to the next look; None if it ends."""
        now = self._timer.now()
        if not self._looks:
            self._since_s = now
        left = None if self._timeout is None else self._since_s + self._timeout - now
        if left is not None and left <= 0:
            self._looks = 0
            return None
        self._looks += 1
        if self._looks <= LOOKS_AWAKE:
            return 0.0
        sleep = min(LONGEST_SLEEP_S, SHORTEST_SLEEP_S * 1.2 ** min(self._looks - LOOKS_AWAKE, 100))
        return sleep if left is None else min(sleep, left)
