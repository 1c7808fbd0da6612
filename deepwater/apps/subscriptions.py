"""What a client says: subscription messages, how products share connections, and how fast to talk.

Limits of the public endpoint, kept here and nowhere else: one channel a message, at most 30 level2
products on a connection, 8 messages (and new connections) a second, and the first subscription
within 5 seconds of connecting.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import pairwise

from deepwater.apps import needs_apps
from deepwater.errors import DeepwaterError

try:
    import msgspec
except ImportError as _error:
    needs_apps(_error)

__all__ = [
    "CHANNELS",
    "LEVEL2_PRODUCTS_MAX",
    "MESSAGES_PER_SECOND",
    "SUBSCRIBE_WITHIN_S",
    "Pacer",
    "check_product",
    "check_products",
    "message",
    "spread",
]

CHANNELS = ("level2", "market_trades")
LEVEL2_PRODUCTS_MAX = 30
MESSAGES_PER_SECOND = 8
SUBSCRIBE_WITHIN_S = 5.0
_PRODUCT = re.compile(r"[A-Z0-9]+(?:[-.][A-Z0-9]+)*")


def message(kind: str, channel: str, products: Sequence[str] = ()) -> str:
    """One subscription message.

    Parameters
    ----------
    kind : {"subscribe", "unsubscribe"}
    channel : str
        One channel; the endpoint takes no more in a message.
    products : sequence of str
        Product ids. None for `heartbeats`, which has no products.

    Returns
    -------
    str
        JSON text.

    Examples
    --------
    >>> message("subscribe", "level2", ["BTC-USD"])
    '{"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}'
    >>> message("subscribe", "heartbeats")
    '{"type":"subscribe","channel":"heartbeats"}'
    """
    body: dict[str, object] = {"type": kind}
    if products:
        body["product_ids"] = list(products)
    body["channel"] = channel
    return msgspec.json.encode(body).decode()


def check_product(product: str) -> None:
    """See that this can be a product id of the exchange; whether it has it only it can say.

    Raises
    ------
    DeepwaterError
        If it is not made of capitals and digits, as all are: its feeds would stay empty.
    """
    if not _PRODUCT.fullmatch(product):
        meant = product.upper()
        hint = f"did you mean {meant}?" if _PRODUCT.fullmatch(meant) else "expected e.g. BTC-USD"
        raise DeepwaterError(f"product {product!r} is not allowed: {hint}", product=product)


def check_products(products: Sequence[str], check: Callable[[str], None] = check_product) -> None:
    """See that these can be recorded together.

    Raises
    ------
    DeepwaterError
        If there is none, one is named twice (two connections would write one feed), or `check` raises it of one.
    """
    if not products:
        raise DeepwaterError("no product to record: expected at least one, e.g. BTC-USD")
    for product in products:
        check(product)
    if len(set(products)) < len(products):
        twice = Counter(products).most_common(1)[0][0]
        raise DeepwaterError(f"product {twice!r} is named twice: name each product once", product=twice)


def spread(
    products: Sequence[str], size: int = LEVEL2_PRODUCTS_MAX, check: Callable[[str], None] = check_product
) -> list[list[str]]:
    """Share the products out over as few connections as the limit allows, evenly, order kept.

    Raises
    ------
    DeepwaterError
        See `check_products`.

    Examples
    --------
    >>> [len(group) for group in spread([f"P{i}-USD" for i in range(61)])]
    [21, 20, 20]
    """
    check_products(products, check)
    groups = -(-len(products) // size)
    base, more = divmod(len(products), groups)
    starts = [i * base + min(i, more) for i in range(groups + 1)]
    return [list(products[a:b]) for a, b in pairwise(starts)]


class Pacer:
    """Lets at most `count` turns pass in any `period_s` seconds, in order of asking. For one event loop.

    A connection takes a turn before it connects, and one for each text just before it sends it. The endpoint hangs up
    on who is silent for 5 seconds after connecting, so the first text is said `soon`: of all who can wait only one is
    in the line before it.

    Parameters
    ----------
    count : int
        Turns a period.
    period_s : float
        Length of the period in seconds.
    """

    __slots__ = ("_line", "_patient", "_period_s", "_turns")

    def __init__(self, count: int = MESSAGES_PER_SECOND, period_s: float = 1.0) -> None:
        self._turns: deque[float] = deque([float("-inf")] * count, maxlen=count)
        self._period_s = period_s
        self._line, self._patient = asyncio.Lock(), asyncio.Lock()

    async def take(self, *, soon: bool = False) -> None:
        """Wait until a turn is free, and take it; `soon` goes before those who are not."""
        if soon:
            await self._turn()
        else:
            async with self._patient:
                await self._turn()

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._line:
            await asyncio.sleep(max(self._turns[0] + self._period_s - loop.time(), 0))
            self._turns.append(loop.time())
