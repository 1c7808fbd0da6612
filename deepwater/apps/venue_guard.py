"""A plug-in venue, held to its protocol: what it raises, and what it returns that is none, is one line that names it.

Only venues of other distributions are wrapped: it costs a few µs a message. What is wrong ends the recording, cleanly:
nothing of such a message is stored. One that does not return can not be helped here; a second signal ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from deepwater.apps.venue import Batch, FeedKey, FeedPlan, Message, Missed, Stream, Venue
from deepwater.errors import DeepwaterError
from deepwater.layout import Layout

if TYPE_CHECKING:
    from deepwater.apps.exchange_session import ExchangeSession
    from deepwater.apps.market import Market

__all__ = ["GuardedVenue", "VenueFaultError"]

_Found = TypeVar("_Found")


class VenueFaultError(DeepwaterError):
    """A plug-in venue raised what it may not, or returned nonsense. Attribute: `venue`."""


class GuardedVenue:
    """See `venue.Venue`; passes on what `venue` says.

    Parameters
    ----------
    venue : Venue
    owner : str
        Whose it is, for messages.

    Raises
    ------
    VenueFaultError
        Of an attribute that is none; later of every call.
    """

    def __init__(self, venue: Venue, owner: str) -> None:
        self._venue, self._owner = venue, owner
        self._dtypes: dict[FeedKey, np.dtype[Any]] = {}
        self.name, self.title = self._a(str, "name"), self._a(str, "title")
        self.uri = self._a(str, "uri")
        channels: Any = venue.channels
        if not channels or not _are(str, channels):
            raise self.fault(f"channels is {channels!r}, expected names")
        self.channels: tuple[str, ...] = tuple(channels)
        self.products_max = self._positive(int, "products_max")
        self.messages_per_second = self._positive(int, "messages_per_second")
        self.idle_s = float(self._positive((int, float), "idle_s"))

    def fault(self, text: str) -> VenueFaultError:
        """Return the error to raise."""
        name = getattr(self._venue, "name", "?")
        return VenueFaultError(f"venue {name!r} of {self._owner} is broken: {text}", venue=name)

    def _a(self, kind: type[_Found], name: str) -> _Found:
        found = getattr(self._venue, name)
        if not isinstance(found, kind):
            raise self.fault(f"{name} is {found!r}, expected {kind.__name__}")
        return found

    def _positive(self, kind: Any, name: str) -> Any:
        found = getattr(self._venue, name)
        if not isinstance(found, kind) or isinstance(found, bool) or not 0 < found < 1e9:
            raise self.fault(f"{name} is {found!r}, expected a number above 0")
        return found

    def call(self, name: str, function: Callable[..., _Found], *words: Any) -> _Found:
        """Call a part of it."""
        try:
            return function(*words)
        except DeepwaterError:
            raise
        except (Exception, SystemExit) as error:
            raise self.fault(f"{name} raised {type(error).__name__}: {error}") from error

    def check_product(self, product: str) -> None:
        """See `venue.Venue`."""
        self.call("check_product", self._venue.check_product, product)

    def feeds(self, product: str, channels: Sequence[str]) -> list[FeedPlan]:
        """See `venue.Venue`; the layouts are kept, for what comes."""
        found = self.call("feeds", self._venue.feeds, product, channels)
        if not _are(FeedPlan, found):
            raise self.fault(f"feeds returned {found!r:.200}, expected a list of FeedPlan")
        for plan in found:
            self._dtypes[plan.key] = self.call("feeds", Layout.compile, plan.spec).dtype
        return found

    def subscribe(self, channels: Sequence[str], products: Sequence[str]) -> list[str]:
        """See `venue.Venue`."""
        return self._texts("subscribe", self._venue.subscribe, channels, products)

    def unsubscribe(self, channels: Sequence[str], products: Sequence[str]) -> list[str]:
        """See `venue.Venue`."""
        return self._texts("unsubscribe", self._venue.unsubscribe, channels, products)

    def liveness(self) -> list[str]:
        """See `venue.Venue`."""
        return self._texts("liveness", self._venue.liveness)

    def resync(self, products: Sequence[str]) -> list[str]:
        """See `venue.Venue`."""
        return self._texts("resync", self._venue.resync, products)

    def _texts(self, name: str, function: Callable[..., list[str]], *words: Any) -> list[str]:
        found = self.call(name, function, *words)
        if not _are(str, found):
            raise self.fault(f"{name} returned {found!r:.200}, expected a list of texts")
        return list(found)

    def connection(self) -> Stream:
        """See `venue.Venue`."""
        found = self.call("connection", self._venue.connection)
        if not callable(getattr(found, "take", None)):
            raise self.fault(f"connection returned {found!r:.200}, expected something with take")
        return _GuardedStream(self, found)

    def exchange_session(self, market: Market) -> ExchangeSession:
        """See `venue.Venue`."""
        return self.call("exchange_session", self._venue.exchange_session, market)

    def checked(self, message: object) -> Message:
        """Return what `take` returned, if it is a message whose records are those of their feeds."""
        if not isinstance(message, Message):
            raise self.fault(f"take returned {message!r:.200}, expected a Message")
        lists = (Batch, message.batches), (Missed, message.missed), (FeedKey, message.granted)
        sound = all(_are(kind, found) for kind, found in lists)
        keys = [*message.granted, *(batch.key for batch in message.batches)] if sound else []
        if not (sound and all(map(_is_key, keys)) and all(map(_is_missed, message.missed))):
            raise self.fault(f"take returned {message!r:.200}, expected batches, missed and granted as in `venue`")
        if not _are(str, (message.error, message.bad, message.breach, message.refused)):
            raise self.fault(f"take returned {message!r:.200}, expected texts")
        if not _are(int, (message.delivers, message.heartbeat, message.ignored)):  # a bool is one
            raise self.fault(f"take returned {message!r:.200}, expected numbers")
        for batch in message.batches:
            self._check_records(batch)
        return message

    def _check_records(self, batch: Batch) -> None:
        expected = self._dtypes.get(batch.key)
        if expected is None:
            return  # not recorded
        records: object = batch.records
        if not isinstance(records, np.ndarray) or records.ndim != 1 or records.dtype != expected:
            what = repr(type(records))
            if isinstance(records, np.ndarray):
                what = f"array {records.shape} of {records.dtype}"
            raise self.fault(f"{what:.200} for the {batch.key.kind} of {batch.key.product}, expected {expected}")
        if not records.flags.writeable:
            raise self.fault(f"records for {batch.key.kind} of {batch.key.product} are read-only, expected new memory")


class _GuardedStream:
    def __init__(self, venue: GuardedVenue, stream: Stream) -> None:
        self._venue, self._stream = venue, stream

    def take(self, data: bytes, recv_us: int) -> Message:
        return self._venue.checked(self._venue.call("take", self._stream.take, data, recv_us))


def _is_key(found: object) -> bool:
    return isinstance(found, FeedKey) and _are(str, found)


def _is_missed(found: Missed) -> bool:
    numbers = (found.frames, 0 if found.from_us is None else found.from_us)
    feeds: Any = () if found.feeds is None else found.feeds
    if not _are(str, [found.reason]) or not _are(int, numbers) or not _are(FeedKey, feeds):
        return False
    return min(numbers) >= 0 and numbers[1] < 2**63 and all(map(_is_key, feeds))


def _are(kind: type, found: object) -> bool:
    return isinstance(found, list | tuple) and all(isinstance(one, kind) for one in found)
