"""Each trade once: de-duplication by `trade_id`, in bounded memory.

Trade ids of one product count up by one. Each (re)subscription repeats the last 100 trades, so most
ids at or below the highest seen are repeats, and a jump upwards says exactly which trades have not
come. So two things are kept per product: the highest id seen, and the ids below it that are missing.

Rule
    above the highest   new; the ids jumped over become missing
    missing             new, though late: stored when it comes, once
    later by a second   new, and the numbers have begun anew: a repeat is no later than what was seen
    else                a repeat, or older than the recording: not stored

Memory is bounded: of the missing ids at least the newest `MISSING_MAX` are kept, and at most twice as
many; an older one that came after all would be taken for a repeat. Rejected: a set of the last N ids
seen. It needs memory in the ordinary case, and forgets exactly when a long outage makes it matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["MISSING_MAX", "Anew", "Hole", "TradeIds", "believed"]

MISSING_MAX = 65_536
_LATER_US = 1_000_000  # trades of one numbering are not out of order by this much
_AHEAD_US = 86_400_000_000  # no clock is so far ahead of another


def believed(times_us: Sequence[int], recv_us: Sequence[int]) -> list[int]:
    """Return the times of trades for `TradeIds.admit`: 0 for one that is more than a day after its receipt.

    One of the year 9999 would be later than all that come, so that numbers that begin anew were never seen to.

    Examples
    --------
    >>> believed([1_000, 2_000 + 86_400_000_000], [2_000, 1_999])
    [1000, 0]
    """
    return [time if time <= recv + _AHEAD_US else 0 for time, recv in zip(times_us, recv_us, strict=True)]


@dataclass(frozen=True, slots=True)
class Hole:
    """Trade ids `first`..`last` (both inclusive) were jumped over."""

    first: int
    last: int

    @property
    def lost(self) -> int:
        """How many trades."""
        return self.last - self.first + 1

    @property
    def reason(self) -> str:
        """One line for the mark (at most 72 bytes for ids of up to 19 digits)."""
        if self.lost == 1:
            return f"trade id {self.first} missing"
        return f"trade ids {self.first}..{self.last} missing"


@dataclass(frozen=True, slots=True)
class Anew:
    """The exchange numbers anew: `first` came where an id above `high` was due."""

    high: int
    first: int
    lost: None = None

    @property
    def reason(self) -> str:
        """One line for the mark."""
        return f"trade ids anew: {self.first} after {self.high}"


@dataclass(slots=True)
class TradeIds:
    """The trade ids of one product. Not thread-safe; one owner.

    Examples
    --------
    >>> ids = TradeIds()
    >>> ids.admit([10, 11, 12])
    ([True, True, True], [])
    >>> ids.admit([11, 12, 15])
    ([False, False, True], [(2, Hole(first=13, last=14))])
    >>> ids.admit([14, 14, 9])
    ([True, False, False], [])
    """

    high: int = -1
    latest_us: int = 0  # the latest time of a trade that was admitted
    missing: dict[int, None] = field(default_factory=dict)  # a dict keeps its order: oldest first

    @classmethod
    def resume(cls, stored: Sequence[int], times_us: Sequence[int] = ()) -> TradeIds:
        """The state after `stored` (ids in the order of the feed) was written by an earlier life."""
        replayed = cls()
        _, breaks = replayed.admit(stored, times_us)
        begin = next((index for index, found in reversed(breaks) if isinstance(found, Anew)), 0)
        ids = cls(latest_us=replayed.latest_us)
        ids.admit(sorted(set(stored[begin:])))
        return ids

    def admit(
        self, ids: Sequence[int], times_us: Sequence[int] = ()
    ) -> tuple[list[bool], list[tuple[int, Hole | Anew]]]:
        """Say which of `ids` (oldest first) are new, and which were jumped over.

        Parameters
        ----------
        ids : sequence of int
        times_us : sequence of int
            When each happened, by the exchange (0: not known); without them no numbering begins anew.

        Returns
        -------
        (list of bool, list of (int, Hole or Anew))
            One flag per id, True = store it; the breaks, in order, each with the index in `ids` of the
            id behind it.
        """
        flags: list[bool] = []
        holes: list[tuple[int, Hole | Anew]] = []
        for index, number in enumerate(ids):
            time_us = times_us[index] if times_us else 0
            if number > self.high:
                if self.high >= 0 and number > self.high + 1:
                    holes.append((index, self._jump(number)))
                self.high = number
                flags.append(True)
            elif number in self.missing:
                del self.missing[number]
                flags.append(True)
            elif time_us > self.latest_us + _LATER_US:
                holes.append((index, Anew(self.high, number)))
                self.high = number
                self.missing.clear()
                flags.append(True)
            else:
                flags.append(False)
                continue
            self.latest_us = max(self.latest_us, time_us)
        return flags, holes

    def withdraw(self, ids: Iterable[int]) -> None:
        """Take back ids that were admitted but could not be stored: they may come again."""
        self._miss(ids)

    def _jump(self, number: int) -> Hole:
        hole = Hole(self.high + 1, number - 1)
        self._miss(range(max(hole.first, number - MISSING_MAX), number))
        return hole

    def _miss(self, ids: Iterable[int]) -> None:
        self.missing.update(dict.fromkeys(ids))
        if len(self.missing) > 2 * MISSING_MAX:  # seldom, and all at once: a dict is slow to lose its first
            self.missing = dict.fromkeys(list(self.missing)[-MISSING_MAX:])
