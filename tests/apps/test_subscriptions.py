"""What a client may say, how often, and how products share connections."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwater.apps.coinbase_venue import COINBASE
from deepwater.apps.subscriptions import Pacer, check_products, spread
from deepwater.errors import DeepwaterError


def test_a_connection_subscribes_one_channel_a_message_and_to_heartbeats() -> None:
    texts = COINBASE.subscribe(["level2", "market_trades"], ["BTC-USD", "ETH-USD"]) + COINBASE.liveness()
    said = [json.loads(text) for text in texts]
    assert said == [
        {"type": "subscribe", "product_ids": ["BTC-USD", "ETH-USD"], "channel": "level2"},
        {"type": "subscribe", "product_ids": ["BTC-USD", "ETH-USD"], "channel": "market_trades"},
        {"type": "subscribe", "channel": "heartbeats"},
    ]


@given(st.integers(1, 200))
def test_products_are_spread_evenly_over_as_few_connections_as_are_allowed(count: int) -> None:
    products = [f"P{number}-USD" for number in range(count)]
    groups = spread(products)
    assert [name for group in groups for name in group] == products
    assert len(groups) == -(-count // 30)
    sizes = {len(group) for group in groups}
    assert max(sizes) <= 30
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("products", "said"),
    [
        ([], "no product"),
        (["A-USD", "B-USD", "A-USD"], "'A-USD' is named twice"),
        (["btc-usd"], "did you mean BTC-USD"),
        (["BTC-USD", ""], "product '' is not allowed"),
        (["BTC/USD"], "expected e.g. BTC-USD"),
        (["BTC-USD\n"], "not allowed"),
        (["-USD"], "not allowed"),
    ],
)
def test_what_can_be_no_products_is_refused(products: list[str], said: str) -> None:
    with pytest.raises(DeepwaterError, match=said):
        spread(products)


def test_one_that_is_twice_among_a_hundred_thousand_is_found_at_once() -> None:
    products = [f"P{number}" for number in range(100_000)]
    with pytest.raises(DeepwaterError, match="'P99999' is named twice"):
        check_products([*products, "P99999"])  # looking for each in all the others takes minutes


class Clock:
    """An event loop's time that only sleeping moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0

        async def sleep(delay: float) -> None:
            self.now += delay

        monkeypatch.setattr(asyncio, "sleep", sleep)


def test_no_more_than_eight_turns_in_any_second(monkeypatch: pytest.MonkeyPatch) -> None:
    async def turns() -> list[float]:
        clock = Clock(monkeypatch)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: clock.now)
        pacer = Pacer()
        times = []
        for burst in (1, 3, 3, 3, 8, 1, 20):
            for _ in range(burst):
                await pacer.take()
            times.append((clock.now, burst))
            clock.now += 0.05
        return times

    times = asyncio.run(turns())
    assert times[2][0] < 1001  # seven turns are free at once
    for start, _ in times[:5]:
        assert sum(count for at, count in times[:5] if start <= at < start + 1) <= 8 or start == times[4][0]
    assert times[-1][0] >= 1000 + (39 - 8) // 8
