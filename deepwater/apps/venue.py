"""What a venue is: the seam between the recorder and an exchange's protocol.

A venue is a plug-in: an object of the protocol `Venue`, found by its name (`venues`). It is pure: bytes of a message
in, record arrays and what is known to be missing out. It touches no socket, no feed, no clock, and never waits; all of
that is on the recorder's side of the seam (`connection`, `ingest`, `outlet`), the same for every venue.

What a venue says
    products    `check_product` refuses what can be no product; ids are of the form ``BTC-USD`` on this side, whatever
                the exchange writes: they are part of feed names.
    feeds       `feeds(product, channels)`: which feeds a product has, each with its spec. Two kinds are known:
                "book" (columns of ``schemas/cb-l2.json`` or more: `type side packet_us recv_us proc_us ev_us price qty
                seq`) and "trades" (those of ``schemas/cb-trades.json``). `proc_us` is left 0: who writes sets it.
                A feed's name holds the product's id as it is: by that the dashboard knows the feeds of every venue.
                Whose side `side` of a trade is its description says, by the word maker or taker.
    messages    `subscribe`, `unsubscribe`, `resync` (what brings fresh snapshots of books) and `liveness` (what makes
                the exchange say something every few seconds): texts to send. `messages_per_second` and `products_max`
                (on one connection) are kept by the recorder.
    frames      `connection()` makes a `Stream`, the state of ONE connection (numbers, checksums); its `take` turns each
                message into a `Message`.

Liveness. Nothing at all for `idle_s` seconds means a dead path: the recorder connects anew. So an exchange that is
silent in quiet markets needs a heartbeat, asked for by `liveness`.

Gaps. `Message.missed` says what is known to be missing BEFORE the message's records; each is a gap mark in the feeds
it names (None: in every feed of the connection), before those records. A book that missed something is stale: the
recorder asks for a fresh snapshot by `resync`, and until that comes whoever reads the feed is told that the book is
not to be trusted. A venue without numbers must find losses by what it has (Kraken: checksums). Lost connections and
restarts are marked by the recorder; a venue says nothing of them.

Books. The records of a book feed must rebuild the book by the common rules (`deepwater.book`): quantities are
absolute, 0 removes. What an exchange leaves to its clients (Kraken: levels beyond the depth are to be forgotten) is
said in records, or every reader would need to know the venue.

Errors. What `take` may say of a message:
    error       the exchange refuses something; counted and shown, not fatal: other products go on. `refused` is the
                product that it is about, if the message says so; `granted` are feeds that were subscribed. What was
                asked for is asked for again, apart from the others, if it must be: see `roll`.
    bad         the message can not be used. It is counted and kept aside, nothing of it is stored, and if it is known
                to have had a place in the stream, `missed` says so. Never fatal: new message types may come any day.
    breach      the stream is not the one that was subscribed to (its numbers step back): fatal for the connection.
`take` raises nothing. What it raises all the same is a bug of the venue and ends the recording, as what it returns
that is no `Message`, or of another dtype than its feed: of a plug-in it is one line that names it (`venue_guard`).

Rejected: a base class to inherit from (its internals would become the protocol), and venues that write feeds
themselves (each would have to get marks, full disks and restarts right anew).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from deepwater.apps.sink import Records
from deepwater.schema import FeedSpec

if TYPE_CHECKING:
    from deepwater.apps.exchange_session import ExchangeSession
    from deepwater.apps.market import Market

__all__ = ["Batch", "FeedKey", "FeedPlan", "Kind", "Message", "Missed", "Stream", "Venue"]

Kind = Literal["book", "trades"]


class FeedKey(NamedTuple):
    """Names one feed of a connection."""

    kind: Kind
    product: str


class FeedPlan(NamedTuple):
    """A feed to open: which one, and its spec."""

    key: FeedKey
    spec: FeedSpec


@dataclass(slots=True)
class Batch:
    """Records of one feed, in order; new memory. A snapshot holds the whole book."""

    key: FeedKey
    records: Records
    snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Missed:
    """Something is known to be missing before the records of a message.

    Attributes
    ----------
    reason : str
        One line for the mark; what is beyond 72 bytes is cut.
    frames : int
        How many messages, as far as known.
    feeds : tuple of FeedKey, optional
        Where. None: anything the connection carries.
    from_us : int, optional
        The last moment known to be whole, by `recv_us`. None: when the connection last delivered.
    """

    reason: str
    frames: int = 1
    feeds: tuple[FeedKey, ...] | None = None
    from_us: int | None = None


@dataclass(slots=True)
class Message:
    """What one message of the exchange holds; see the module's text.

    Attributes
    ----------
    batches : list of Batch
        In the order of the message. Batches of feeds that are not recorded are counted and let go.
    missed : list of Missed
        Marked before the batches.
    delivers : bool
        The stream flows: an interruption ends here, and all before is known to have come, but for `missed`.
    heartbeat : bool
        A sign of life only.
    ignored : int
        Parts that are of no interest.
    error, bad, breach : str
        One line each; empty if there is nothing of the kind.
    refused : str
        The product that a refused subscription is of; empty if there is none, or the message does not say.
    granted : list of FeedKey
        Feeds that the exchange says are subscribed. Whatever has records is, without a word.
    """

    batches: list[Batch] = field(default_factory=list)
    missed: list[Missed] = field(default_factory=list)
    delivers: bool = False
    heartbeat: bool = False
    ignored: int = 0
    error: str = ""
    bad: str = ""
    breach: str = ""
    refused: str = ""
    granted: list[FeedKey] = field(default_factory=list)


class Stream(Protocol):
    """The state of one connection; made anew for each. One owner, one event loop."""

    def take(self, data: bytes, recv_us: int) -> Message:
        """Take the next message.

        Parameters
        ----------
        data : bytes
            The whole message.
        recv_us : int
            When it was received, µs.
        """
        ...


@runtime_checkable
class Venue(Protocol):
    """An exchange. One object serves all connections; it keeps nothing of any of them.

    Attributes
    ----------
    name : str
        As in ``--venue``; small letters, digits and "-".
    title : str
        For lists of venues, one line.
    uri : str
        The public endpoint.
    channels : tuple of str
        What can be recorded; all of them by default.
    products_max : int
        Products on one connection.
    messages_per_second : int
        That the endpoint takes from one address.
    idle_s : float
        Seconds without any message after which a connection is dead.
    """

    name: str
    title: str
    uri: str
    channels: tuple[str, ...]
    products_max: int
    messages_per_second: int
    idle_s: float

    def check_product(self, product: str) -> None:
        """Raise `DeepwaterError` if this can be no product; whether there is one only the exchange can say."""
        ...

    def feeds(self, product: str, channels: Sequence[str]) -> list[FeedPlan]:
        """Return the feeds of a product."""
        ...

    def subscribe(self, channels: Sequence[str], products: Sequence[str]) -> list[str]:
        """Return the messages that subscribe to these; the exchange answers with snapshots."""
        ...

    def unsubscribe(self, channels: Sequence[str], products: Sequence[str]) -> list[str]:
        """Return the messages that end it."""
        ...

    def liveness(self) -> list[str]:
        """Return the messages, said once a connection after `subscribe`, that keep it from being silent."""
        ...

    def resync(self, products: Sequence[str]) -> list[str]:
        """Return the messages that bring fresh snapshots of the books of these."""
        ...

    def connection(self) -> Stream:
        """Return the state of a new connection."""
        ...

    def exchange_session(self, market: Market) -> ExchangeSession:
        """Return the other side, for the local exchange: what one client of a synthetic market is sent.

        Raises
        ------
        DeepwaterError
            If the venue has none; tapes can be played all the same.
        """
        ...
