"""Which feed is of which product: asked of the venues, by the names that they give to feeds.

A venue says which feeds a product has (`venue.Venue.feeds`); the way back nobody says. So each venue is asked for the
feeds of one product, and what stands before and behind that in their names is what the names of a store are held
against. Then it is asked again, for the product found: a feed is of a product only if its venue names it so.

A product is called by its id alone if it is of the dashboard's own venue, and ``BTC-USD@kraken`` if it is of another:
nothing that comes into the store later changes what a product is called.

Venues of other distributions are loaded when the store has a feed that none of the package's own knows, not before. One
that is broken is said once (`problems`) and left out.

Rejected: *a method of the venue for the way back* (one more thing for each plug-in to get right, and to get wrong), and
*prefixes written down here* (then the dashboard knows the venues it was written for).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from deepwater.apps import metrics, specs
from deepwater.apps.venue import Kind, Venue
from deepwater.apps.venues import BUILTIN, VenueError, find_venue, venue_names

__all__ = ["Catalogue", "Place"]

_PROBE = "BTC-USD"
_OWN = (metrics.PREFIX, specs.feed_name(specs.SNAPSHOTS, ""))  # of no venue
_CACHE_MAX = 10_000


class Place(NamedTuple):
    """What a feed is: the `kind` of a product; `product` is as it is called here."""

    product: str
    kind: Kind


class Catalogue:
    """Finds the product of a feed. One thread.

    Parameters
    ----------
    venue : str
        The dashboard's own.

    Attributes
    ----------
    home : Venue
    problems : list of str
        What is wrong with venues, since it was last emptied.

    Raises
    ------
    VenueError

    Examples
    --------
    >>> Catalogue("coinbase").place("CB-L2-BTC-USD")
    Place(product='BTC-USD', kind='book')
    >>> Catalogue("coinbase").place("KR-TRADES-BTC-USD")
    Place(product='BTC-USD@kraken', kind='trades')
    """

    def __init__(self, venue: str) -> None:
        self.home = find_venue(venue)
        self.problems: list[str] = []
        self._known: dict[str, Place | None] = {}
        self._affixes: list[tuple[Venue, str, str]] = []
        self._added: list[str] | None = None
        self._enlist(self.home)
        for name in BUILTIN:
            if name != self.home.name:
                self._enlist(find_venue(name))

    def called(self, product: str, venue: str) -> str:
        """What a venue's product is called here."""
        return product if venue == self.home.name else f"{product}@{venue}"

    def feed(self, product: str, kind: Kind) -> str:
        """The name that the dashboard's own venue gives to a product's feed; empty if it has none."""
        return next((name for at, name in self._feeds(self.home, product) if at == kind), "")

    def place(self, feed: str) -> Place | None:
        """What a feed is; None if no venue knows it."""
        if feed not in self._known:
            if len(self._known) >= _CACHE_MAX:
                self._known.clear()
            self._known[feed] = None if feed.startswith(_OWN) else self._look_up(feed)
        return self._known[feed]

    def _look_up(self, feed: str) -> Place | None:
        found = self._find(feed, self._affixes)
        if found is None and self._added is None:
            before = len(self._affixes)
            self._added = [name for name in venue_names() if name not in BUILTIN and name != self.home.name]
            for name in self._added:
                self._load(name)
            found = self._find(feed, self._affixes[before:])
        return found

    def _find(self, feed: str, affixes: Iterable[tuple[Venue, str, str]]) -> Place | None:
        for venue, before, behind in affixes:
            product = feed[len(before) : len(feed) - len(behind)]
            if not product or feed != f"{before}{product}{behind}":
                continue
            kind = next((at for at, name in self._feeds(venue, product) if name == feed), None)
            if kind is not None:
                return Place(self.called(product, venue.name), kind)
        return None

    def _load(self, name: str) -> None:
        try:
            self._enlist(find_venue(name))
        except VenueError as error:
            self.problems.append(str(error))

    def _enlist(self, venue: Venue) -> None:
        for _, name in self._feeds(venue, _PROBE):
            before, probe, behind = name.partition(_PROBE)
            if probe:
                self._affixes.append((venue, before, behind))

    def _feeds(self, venue: Venue, product: str) -> list[tuple[Kind, str]]:
        """The feeds of a product, by kind; none if the venue can not say."""
        try:
            plans = venue.feeds(product, venue.channels)
            return [(plan.key.kind, plan.spec.feed_name) for plan in plans]
        except Exception as error:  # noqa: BLE001 - whatever a plug-in does, the others are shown
            text = f"venue {venue.name!r} can not name the feeds of {product}: {type(error).__name__}: {error}"
            if text not in self.problems:
                self.problems.append(text)
            return []
