"""What one connection is subscribed to: who is to be asked for, who has answered, and when to ask again.

An exchange may refuse a product, and then some (Coinbase) refuse the whole message that names it, the good ones with
it, in an error frame that need not say whom it is about. Others (Kraken) answer for each product. So

    together    what is new is asked for in one message a channel: thirty products take two messages, not sixty, and a
                second of messages more would be a second of data less after every reconnect;
    alone       when such a message is refused, those that the error names are asked for one by one, the rest together
                again; if it names none, all one by one. One at a time, so that an answer can be told to be its answer;
    refused     who is refused alone is refused: said once, counted once, left out of everything that names others (also
                on the next connection, also of requests for fresh books), and asked for alone: once on each new
                connection, and now and then, from `AGAIN_S` to `AGAIN_MAX_S` seconds apart;
    silent      who does not answer in `ANSWER_S` seconds is asked for alone too, with pauses that double from there.

An answer is a record of its feed, or the venue's word (`Message.granted`, `Message.refused`). An error that names no
product is taken for the answer to the oldest request that has none. If that is wrong the good product answers by its
data, which makes it good again, and the other one stays silent and is asked for anew. If the connection ends before
that, the next one asks: whoever waited for `AGAIN_S` then would lose that long by an error that was of nobody.

An error of a message that named several is held back until it is known whom it was about: if it turns out that
nobody is refused, it is said as any other.

Rejected: *each product in a message of its own from the start* (slow, see above); *asking about products elsewhere
first* (another protocol, and its answer may differ).
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from deepwater.apps.venue import FeedKey, Venue

__all__ = ["AGAIN_MAX_S", "AGAIN_S", "ANSWER_S", "Roll"]

ANSWER_S = 10.0
AGAIN_S, AGAIN_MAX_S = 60.0, 3600.0


class _Pair(NamedTuple):
    channel: str
    product: str


@dataclass(slots=True)
class _Standing:
    """How a pair stands: `waiting` is for `due_s`, `refused` whether that was the exchange's last word."""

    state: Literal["new", "asked", "alone", "waiting", "granted"] = "new"
    due_s: float = 0.0
    delay_s: float = 0.0
    asked_s: float = 0.0
    refused: bool = False


@dataclass(slots=True)
class _Request:
    """A message on its way: who has not answered yet, and whether anybody has."""

    pairs: set[_Pair]
    sent_s: float
    granted: bool = False


class Roll:
    """The subscriptions of one connection after another. One owner, one event loop.

    Parameters
    ----------
    venue : Venue
    channels : sequence of str
    on_error : callable
        Called with what the exchange says that is no refusal of a product.
    on_refused : callable
        Called with a product and why, when it is refused for the first time.
    on_granted : callable
        Called with a product that was refused and is not any more.
    clock : callable
        Seconds; for tests.

    Attributes
    ----------
    open : int
        How many have not answered: 0, and nothing need be reported.
    changed : bool
        There may be something to say. Whoever looks sets it back.
    """

    def __init__(
        self,
        venue: Venue,
        channels: Sequence[str],
        on_error: Callable[[str], None],
        on_refused: Callable[[str, str], None],
        on_granted: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._venue, self._channels, self._clock = venue, list(channels), clock
        self._on_error, self._on_refused, self._on_granted = on_error, on_refused, on_granted
        self._pairs: dict[_Pair, _Standing] = {}
        self._by_key: dict[FeedKey, list[_Pair]] = {}
        self._requests: list[_Request] = []  # oldest first
        self._gone: list[_Pair] = []
        self._left: set[_Pair] = set()  # unsubscribed on this connection, or about to be, and not asked for since
        self._texts: deque[str] = deque()
        self._held: list[tuple[str, set[_Pair]]] = []
        self._refused: set[str] = set()
        self._liveness = list(venue.liveness())
        self.open = 0
        self.changed = False

    # -- products ------------------------------------------------------------------------------------

    def add(self, product: str) -> None:
        """Ask for a product from now on."""
        for channel in self._channels:
            pair = _Pair(channel, product)
            self._pairs[pair] = _Standing()
            for plan in self._venue.feeds(product, [channel]):
                self._by_key.setdefault(plan.key, []).append(pair)
        self._note()

    def remove(self, product: str) -> None:
        """Unsubscribe a product, as far as it was asked for and not refused."""
        for pair in [pair for pair in self._pairs if pair.product == product]:
            standing = self._pairs.pop(pair)
            if standing.state in ("granted", "asked"):
                self._left.add(pair)
            if standing.state == "granted":
                self._gone.append(pair)
            elif standing.state == "asked":  # who knows: in a message of its own
                self._texts.extend(self._venue.unsubscribe([pair.channel], [product]))
            self._settle(pair)
        for key in [key for key in self._by_key if key.product == product]:
            del self._by_key[key]
        self._refused.discard(product)
        self._note()

    def remind(self) -> None:
        """Ask for the refused ones soon, if the last time is `AGAIN_S` ago: somebody wants them again."""
        for standing in self._pairs.values():
            if standing.state == "waiting":
                standing.due_s = min(standing.due_s, standing.asked_s + AGAIN_S)
        self._note()

    def has(self, key: FeedKey) -> bool:
        """Whether the exchange sends this feed; to name a product that it may not have spoils a message for others."""
        return any(self._pairs[pair].state == "granted" for pair in self._by_key.get(key, ()))

    # -- what is said --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a connection: nothing has been said on it."""
        for text, _ in self._held:
            self._on_error(text)
        for queue in (self._requests, self._gone, self._left, self._texts, self._held):
            queue.clear()
        self._liveness = list(self._venue.liveness())
        for pair, standing in self._pairs.items():
            if standing.refused:
                standing.state = "alone"
            else:
                self._pairs[pair] = _Standing()
        self._note()

    def wait_s(self) -> float | None:
        """Return in how many seconds there will be something to say: 0 now, None not before something changes."""
        now_s = self._clock()
        self._expire(now_s)
        states = {standing.state for standing in self._pairs.values()}
        if self._texts or self._gone or self._liveness or "new" in states:
            return 0.0
        if self._requests:
            return max(0.0, min(request.sent_s for request in self._requests) + ANSWER_S - now_s)
        if "alone" in states:
            return 0.0
        due_s = [standing.due_s for standing in self._pairs.values() if standing.state == "waiting"]
        return max(0.0, min(due_s) - now_s) if due_s else None

    def next(self) -> str | None:
        """Return what is to be said next, which counts as said; None: nothing now."""
        if not self._texts:
            self._ask(self._clock())
        return self._texts.popleft() if self._texts else None

    def _ask(self, now_s: float) -> None:
        """Make the next texts."""
        self._expire(now_s)
        for channel in self._channels:
            gone = [pair for pair in self._gone if pair.channel == channel]
            if gone:
                self._gone = [pair for pair in self._gone if pair.channel != channel]
                self._texts.extend(self._venue.unsubscribe([channel], [pair.product for pair in gone]))
                return
        for channel in self._channels:
            new = [pair for pair, found in self._pairs.items() if found.state == "new" and pair.channel == channel]
            if new:
                self._request(new, now_s)
                return
        self._texts.extend(self._liveness)
        self._liveness.clear()
        if not self._texts and not self._requests:
            pair = self._next_alone(now_s)
            if pair is not None:
                self._request([pair], now_s)

    def _next_alone(self, now_s: float) -> _Pair | None:
        """Who is asked for alone now: first who has not been, then who has waited longest."""
        waiting: list[tuple[float, _Pair]] = []
        for pair, standing in self._pairs.items():
            if standing.state == "alone":
                return pair
            if standing.state == "waiting" and standing.due_s <= now_s:
                waiting.append((standing.due_s, pair))
        return min(waiting)[1] if waiting else None

    def _request(self, pairs: list[_Pair], now_s: float) -> None:
        self._requests.append(_Request(set(pairs), now_s))
        self._left.difference_update(pairs)
        for pair in pairs:
            self._pairs[pair].state, self._pairs[pair].asked_s = "asked", now_s
        self._texts.extend(self._venue.subscribe([pairs[0].channel], [pair.product for pair in pairs]))

    # -- what is answered ----------------------------------------------------------------------------

    def granted(self, keys: Iterable[FeedKey]) -> None:
        """Take note that these feeds come.

        Who went and came back is not granted before it was asked for anew: what comes until then is of the subscription
        before, whose end is on its way.
        """
        for key in keys:
            for pair in self._by_key.get(key, ()):
                if self._pairs[pair].state != "granted" and pair not in self._left:
                    self._grant(pair)

    def error(self, text: str, product: str = "") -> None:
        """Take an error of the exchange, about `product` if it is known."""
        if product:
            self._named(text, product)
            return
        request = next((request for request in self._requests if not request.granted), None)
        if request is None:
            self._on_error(text)
            return
        self._requests.remove(request)
        if len(request.pairs) == 1:
            self._refuse(request.pairs, text)
        else:
            self._part(request.pairs, text)
        self._note()

    def _named(self, text: str, product: str) -> None:
        pairs = {pair for pair, found in self._pairs.items() if pair.product == product and found.state != "granted"}
        if not pairs:
            self._on_error(text)
            return
        for pair in pairs:
            self._settle(pair, keep_held=True)
        self._refuse(pairs, text)
        self._note()

    def _part(self, pairs: set[_Pair], text: str) -> None:
        """A message that named several was refused: part those that may be the cause from the rest."""
        named = {pair.product for pair in pairs if _names(text, pair.product)}
        for pair in pairs:
            self._pairs[pair].state = "alone" if not named or pair.product in named else "new"
        self._held.append((text, set(pairs)))

    def _refuse(self, pairs: set[_Pair], text: str) -> None:
        """Who was asked for alone, or was named, is refused; an error that was held back is explained by that."""
        for pair in pairs:
            self._pairs[pair].refused = True
            self._later(self._pairs[pair], AGAIN_S)
        self._held = [(held, about) for held, about in self._held if not about & pairs]
        for product in sorted({pair.product for pair in pairs} - self._refused):
            self._refused.add(product)
            self._on_refused(product, text)

    def _grant(self, pair: _Pair) -> None:
        self._pairs[pair] = _Standing("granted")
        self._settle(pair)
        if pair.product in self._refused and not self._has_refused(pair.product):
            self._refused.discard(pair.product)
            self._on_granted(pair.product)
        self._note()

    def _has_refused(self, product: str) -> bool:
        return any(pair.product == product and found.refused for pair, found in self._pairs.items())

    def _settle(self, pair: _Pair, keep_held: bool = False) -> None:
        """Nothing is waited for from this one any more."""
        for request in self._requests:
            if pair in request.pairs:
                request.pairs.discard(pair)
                request.granted = True
        self._requests = [request for request in self._requests if request.pairs]
        if keep_held:
            return
        for text, about in list(self._held):
            about.discard(pair)
            if not about:
                self._held.remove((text, about))
                self._on_error(text)

    def _expire(self, now_s: float) -> None:
        """Who was silent for too long is asked for alone, later."""
        for request in [request for request in self._requests if now_s - request.sent_s >= ANSWER_S]:
            self._requests.remove(request)
            for pair in sorted(request.pairs):
                self._later(self._pairs[pair], 0.0)
                self._settle(pair)

    def _later(self, standing: _Standing, pause_s: float) -> None:
        """Ask again after a pause of at least this, and twice as long as the last one."""
        pause_s = max(pause_s, standing.delay_s)
        standing.state, standing.due_s = "waiting", self._clock() + pause_s
        standing.delay_s = min(max(2 * pause_s, ANSWER_S), AGAIN_MAX_S)

    def _note(self) -> None:
        self.open = sum(standing.state != "granted" for standing in self._pairs.values())
        self.changed = True


def _names(text: str, product: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(product)}(?![\w-])", text) is not None
