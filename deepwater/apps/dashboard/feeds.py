"""One feed, looked at again and again: how far it is, how fast, what was missed, who writes it.

Each look is cheap (one word is read); what needs files (size, marks, writer) is asked anew every few seconds, and then
the feed is opened anew, so that one that was deleted and made again meanwhile is noticed. Of one that was not, the
reader is kept, and its marks are read again only when there are more.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import deque
from typing import Any

from deepwater.chain import Chain
from deepwater.errors import DeepwaterError
from deepwater.feed_status import heartbeat_us, writer_state
from deepwater.marks import NewMarks, none, of_kind
from deepwater.platform import Platform
from deepwater.reader import Reader
from deepwater.timestamps import now_us

__all__ = ["RATE_S", "FeedWatch"]

RATE_S = 5.0
"""Rates are over so many seconds."""
HISTORY = 120
_SLOW_S = 3.0
_NEWS_S = 1.0  # so soon again, when records come of whom nobody knows


class FeedWatch:
    """A feed that is there, was there, or may come. One thread.

    Attributes
    ----------
    end : int
        Position after the newest record.
    size, gaps : int
        Bytes, and gap marks held.
    new_gaps : list of (reason, from_us, to_us)
        Gap marks that came since the last look; empty at the first.
    writer : dict or None
        As in `deepwater.feed_status.status_of`.
    age_us : int or None
        Since its writer last wrote.
    history : deque of float
        Records of each whole second, the newest last.
    problem : str
        Why nothing can be said of it; "" if it can.
    """

    def __init__(self, platform: Platform, name: str) -> None:
        self.name = name
        self.reader: Reader | None = None
        self.end = self.size = self.gaps = self.record_bytes = 0
        self.new_gaps: list[tuple[str, int, int]] = []
        self.writer: dict[str, Any] | None = None
        self.age_us: int | None = None
        self.problem = ""
        self.history: deque[float] = deque(maxlen=HISTORY)
        self._platform = platform
        self._marks: NewMarks | None = None
        self._samples: deque[tuple[float, int]] = deque()
        self._second = (0, 0)
        self._slow_due = self._closely_s = 0.0
        self._life = ""
        self._gaps_seen: int | None = None

    @property
    def is_written(self) -> bool:
        """Whether a living process has it open for writing."""
        return self.writer is not None and self.writer["state"] in ("alive", "stopped", "elsewhere")

    @property
    def rate(self) -> float:
        """Records a second, over the last seconds."""
        if len(self._samples) < 2:
            return 0.0
        (before, low), (now, high) = self._samples[0], self._samples[-1]
        return (high - low) / (now - before) if now > before else 0.0

    def look(self, now_s: float | None = None) -> None:
        """Look again. Raises nothing; see `problem`."""
        now_s = time.monotonic() if now_s is None else now_s
        self.new_gaps = []
        try:
            if self.reader is None or now_s >= self._slow_due:
                self._look_closely(now_s)
            assert self.reader is not None
            if int(self.reader.end) != self.end and not self.is_written:  # somebody has begun to write it
                self._slow_due = min(self._slow_due, self._closely_s + _NEWS_S)
            self._take(int(self.reader.end), now_s)
            self.problem = ""
        except (DeepwaterError, OSError) as error:
            self.close()
            self.problem = " ".join(str(error).split())

    def _look_closely(self, now_s: float) -> None:
        reader = self._reopened()
        life = reader.incarnation
        if life != self._life:
            self._life, self._gaps_seen = life, None if not self._life else 0
            self._samples.clear()
            self._second = (0, 0)
        self.size, self.record_bytes = reader._chain.stored_bytes(), reader.layout.record_size
        self.writer, heartbeat = writer_state(reader), heartbeat_us(reader)
        self.age_us = None if heartbeat is None else max(0, now_us() - heartbeat)
        self._closely_s = now_s
        # Not all feeds at one look, and those that nobody writes less often.
        self._slow_due = now_s + _SLOW_S * (0.75 + random.random() / 2) * (1 if self.is_written else 3)
        marks = none() if self._marks is None else of_kind(self._marks.since(int(reader.first)), "gap")
        if self._gaps_seen is not None and len(marks) > self._gaps_seen:
            self.new_gaps = [
                (mark["reason"].decode("utf-8", "replace"), int(mark["from_us"]), int(mark["to_us"]))
                for mark in marks[self._gaps_seen :]
            ]
        self.gaps = self._gaps_seen = len(marks)

    def _reopened(self) -> Reader:
        """A reader of the feed that is there now: the one that was, if it is the same feed."""
        reader = self._platform.create_reader(self.name)
        if self.reader is not None and reader.incarnation == self.reader.incarnation:
            reader.close()
            return self.reader
        self.close()
        self.reader = reader
        self._marks = NewMarks(reader._chain) if isinstance(reader._chain, Chain) else None
        return reader

    def _take(self, end: int, now_s: float) -> None:
        if end < self.end:
            self._samples.clear()
            self._second = (0, 0)
        self.end = end
        self._samples.append((now_s, end))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - RATE_S:
            self._samples.popleft()
        second, base = self._second
        if int(now_s) != second:
            if second:
                passed = int(now_s) - second
                self.history.extend([(end - base) / passed] * min(passed, HISTORY))
            self._second = (int(now_s), end)

    def reset(self) -> None:
        """Forget the rates."""
        self._samples.clear()
        self.history.clear()

    def close(self) -> None:
        """Let go of the feed; a later look opens it again."""
        if self.reader is not None:
            with contextlib.suppress(DeepwaterError, OSError):
                self.reader.close()
            self.reader = None
