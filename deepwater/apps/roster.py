"""Which products are recorded, over which connections; both may change while it runs.

At first the products are shared out evenly over as few connections as the venue allows. A product that comes later
goes to the connection with the fewest, or to a new one when all are full; a connection whose last product went ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from deepwater.apps.connection import Group, Link, keep_connected
from deepwater.apps.counters import Counters
from deepwater.apps.ingest import Ingest, KeepBad
from deepwater.apps.sink import Sink
from deepwater.apps.subscriptions import Pacer, check_products, spread
from deepwater.apps.venue import Venue
from deepwater.errors import DeepwaterError

__all__ = ["Roster", "pacer_of"]

_log = logging.getLogger("deepwater.recorder")
_PERIOD_S = 1.25  # what is sent a second apart may arrive closer together, and the exchange counts what arrives


def pacer_of(venue: Venue) -> Pacer:
    """What keeps to the messages a second that a venue takes from one address."""
    return Pacer(venue.messages_per_second, _PERIOD_S)


class Roster:
    """The connections of a recording. One owner, one event loop.

    Parameters
    ----------
    venue : Venue
    link : Link
    products : sequence of str
        To begin with.
    sink : Sink
    counters : Counters
    channels : sequence of str
        Of the venue.
    keep_bad : callable, optional
        See `ingest.KeepBad`.
    pacer : Pacer, optional
        One that other recordings of this process share.

    Raises
    ------
    DeepwaterError
        Of a wrong product; of a feed that can not be opened.
    """

    def __init__(
        self,
        venue: Venue,
        link: Link,
        products: Sequence[str],
        sink: Sink,
        counters: Counters,
        channels: Sequence[str],
        keep_bad: KeepBad | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        self._venue = venue
        self._link = link
        self._sink = sink
        self._counters = counters
        self._channels = list(channels)
        self._keep_bad = keep_bad
        self._pacer = pacer or pacer_of(venue)
        self._changed = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], Group] = {}
        self.groups = [self._group(part) for part in spread(products, venue.products_max, venue.check_product)]

    @property
    def products(self) -> list[str]:
        """What is recorded now."""
        return [product for group in self.groups for product in group.products]

    def set(self, products: Sequence[str]) -> None:
        """Record these from now on: subscribe what is new, unsubscribe what is gone, and ask anew for what was refused.

        A product whose feeds can not be opened is said (`Counters.last_error`, the log) and left out.

        Raises
        ------
        DeepwaterError
            If a product is wrong, twice there, or there is none; nothing has changed then.
        """
        check_products(products, self._venue.check_product)
        known = set(self.products)
        for group in self.groups:
            for product in [product for product in group.products if product not in products]:
                group.remove(product)
                _log.warning("product %s is recorded no more", product)
        for product in [product for product in products if product not in known]:
            try:
                self._add(product)
                _log.warning("product %s is asked for from now on", product)
            except DeepwaterError as error:
                self._counters.last_error = f"product {product} is not recorded: {error}"
                _log.warning("%s", self._counters.last_error)
        for group in self.groups:
            group.ingest.roll.remind()
            group.tell()
        self.groups = [group for group in self.groups if group.products]
        self._changed.set()

    async def run(self) -> None:
        """Keep all connections up, until cancelled or one of them fails (and raise what it raised)."""
        changed = asyncio.create_task(self._changed.wait())
        try:
            while True:
                self._start_and_end()
                done, _ = await asyncio.wait([changed, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
                for task in done - {changed}:
                    task.result()
                if changed in done:
                    self._changed.clear()
                    changed = asyncio.create_task(self._changed.wait())
        finally:
            for task in (changed, *self._tasks):
                task.cancel()
            await asyncio.gather(changed, *self._tasks, return_exceptions=True)

    def close(self) -> None:
        """Mark what is still unmarked in all feeds."""
        for group in self.groups:
            group.ingest.close()

    def _start_and_end(self) -> None:
        """A task for each connection, and none for those without products."""
        for task, group in list(self._tasks.items()):
            if group not in self.groups:
                task.cancel()
                task.add_done_callback(lambda task: None if task.cancelled() else task.exception())
                del self._tasks[task]
        running = list(self._tasks.values())
        for group in self.groups:
            if group not in running:
                task = asyncio.create_task(keep_connected(self._link, group, self._pacer, self._counters))
                self._tasks[task] = group

    def _group(self, products: Sequence[str]) -> Group:
        ingest = Ingest(
            self._sink, products, self._counters, self._channels, venue=self._venue, keep_bad=self._keep_bad
        )
        return Group(self._venue, ingest, products)

    def _add(self, product: str) -> None:
        group = min(self.groups, key=lambda group: len(group.products), default=None)
        if group is None or len(group.products) >= self._venue.products_max:
            self.groups.append(self._group([product]))
        else:
            group.add(product)
