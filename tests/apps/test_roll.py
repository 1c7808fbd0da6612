"""Who is asked for, together or alone, and when again: against an exchange that is a few lines here."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable

import pytest

from deepwater.apps.coinbase_venue import COINBASE
from deepwater.apps.kraken_venue import KRAKEN
from deepwater.apps.roll import AGAIN_MAX_S, AGAIN_S, ANSWER_S, Roll
from deepwater.apps.venue import FeedKey, Venue

NAMES = [f"P{number}-USD" for number in range(12)]


class Bench:
    """A roll, its clock, and an exchange: of a message that names a product it has not, it refuses all."""

    def __init__(self, has: Iterable[str], venue: Venue = COINBASE, *, names: bool = False, mute: bool = False) -> None:
        self.has, self.names, self.mute = set(has), names, mute
        self.now = 1000.0
        self.said: list[dict[str, object]] = []
        self.errors: list[str] = []
        self.refused: list[str] = []
        self.granted: list[str] = []
        self.subscribed: set[tuple[str, str]] = set()
        self.roll = Roll(venue, venue.channels, self.errors.append, lambda product, _: self.refused.append(product),
                         self.granted.append, lambda: self.now)  # fmt: skip

    def add(self, *products: str) -> None:
        for product in products:
            self.roll.add(product)

    def talk(self, until: float | None = None) -> int:
        """Say and answer what is due, up to a time; return how many messages that took."""
        count = len(self.said)
        while True:
            wait_s = self.roll.wait_s()
            if wait_s == 0.0:
                self.answer(self.roll.next())
            elif wait_s is not None and until is not None and self.now + wait_s <= until:
                self.now += wait_s
            else:
                self.now = self.now if until is None else until
                return len(self.said) - count

    def answer(self, text: str | None) -> None:
        if text is None:
            return
        message = json.loads(text)
        self.said.append(message)
        channel, products = message["channel"], message.get("product_ids", [])
        if channel == "heartbeats" or self.mute:
            return
        wrong = [name for name in products if name not in self.has]
        if wrong:
            self.roll.error(f"Failed to subscribe: {wrong[0]} is not a valid product" if self.names else "no")
        elif message["type"] == "unsubscribe":
            self.subscribed -= {(channel, name) for name in products}
        else:
            self.subscribed |= {(channel, name) for name in products}
            self.roll.granted(FeedKey("book" if channel == "level2" else "trades", name) for name in products)

    def whole(self, *products: str) -> bool:
        return self.subscribed == {(channel, name) for channel in COINBASE.channels for name in products}


def test_who_is_new_is_asked_for_together_and_nothing_is_said_after_that() -> None:
    bench = Bench(NAMES)
    bench.add(*NAMES)
    assert bench.roll.open == 24
    assert bench.talk(until=1e6) == 3 and bench.said[-1] == {"type": "subscribe", "channel": "heartbeats"}
    assert bench.whole(*NAMES) and bench.roll.open == 0 and bench.roll.wait_s() is None
    assert bench.errors == bench.refused == []


@pytest.mark.parametrize(("names", "messages"), [(False, 2 + 1 + 24), (True, 2 + 1 + 2 + 2)])
def test_one_that_is_refused_costs_the_others_nothing_and_is_said_once(names: bool, messages: int) -> None:
    bench = Bench(NAMES[1:], names=names)
    bench.add(*NAMES)
    assert bench.talk() == messages
    assert bench.whole(*NAMES[1:]) and bench.refused == NAMES[:1] and bench.errors == []
    assert bench.roll.has(FeedKey("book", NAMES[1])) and not bench.roll.has(FeedKey("book", NAMES[0]))
    # Asked for again, alone, and less and less often.
    count, began = len(bench.said), bench.now
    bench.talk(until=began + 12 * 3600)
    again = bench.said[count:]
    assert 2 * 12 <= len(again) <= 2 * 20 and all(message["product_ids"] == NAMES[:1] for message in again)
    assert bench.refused == NAMES[:1] and bench.errors == []
    # Until there is such a product.
    bench.has.add(NAMES[0])
    bench.talk(until=bench.now + AGAIN_MAX_S)
    assert bench.whole(*NAMES) and bench.granted == NAMES[:1] and bench.roll.open == 0


def test_the_next_connection_begins_with_all_the_others_and_asks_for_the_refused_alone() -> None:
    bench = Bench(NAMES[:-1])
    bench.add(*NAMES)
    bench.talk()
    for _ in range(3):
        bench.subscribed.clear()
        bench.roll.begin()
        assert bench.talk() == 5 and bench.whole(*NAMES[:-1])
        assert [said["product_ids"] for said in bench.said[-2:]] == [NAMES[-1:]] * 2
    assert bench.refused == NAMES[-1:]


def test_an_error_of_nobody_before_the_connection_is_lost_keeps_no_product_away() -> None:
    bench = Bench(NAMES[:2], mute=True)
    bench.add(NAMES[0])
    bench.talk()
    bench.roll.error("internal error")  # taken for the answer to what was asked first, the book
    assert bench.refused == NAMES[:1]
    bench.mute = False
    bench.roll.begin()
    bench.talk()
    assert bench.whole(NAMES[0]) and bench.granted == NAMES[:1]


def test_who_comes_later_with_one_that_is_refused_comes_all_the_same() -> None:
    bench = Bench(NAMES[:3])
    bench.add(NAMES[0])
    bench.talk()
    bench.add(NAMES[9], NAMES[1], NAMES[2])
    bench.talk()
    assert bench.whole(*NAMES[:3]) and bench.refused == [NAMES[9]]
    bench.roll.remove(NAMES[9])  # it was never subscribed: who unsubscribed it with another would spoil that
    bench.roll.remove(NAMES[1])
    bench.talk()
    assert bench.whole(NAMES[0], NAMES[2]) and bench.errors == []
    assert bench.said[-1]["product_ids"] == [NAMES[1]]


def test_a_connection_of_refused_ones_only_says_something_at_once() -> None:
    bench = Bench([])
    bench.add(NAMES[0])
    bench.talk()
    bench.roll.begin()
    assert bench.talk() == 3 and bench.refused == NAMES[:1]


def test_who_is_silent_is_asked_for_alone_with_pauses_that_double() -> None:
    bench = Bench(NAMES, mute=True)
    bench.add(*NAMES[:2])
    assert bench.talk(until=1000 + ANSWER_S - 1) == 3
    assert bench.talk(until=1000 + 86_400) < 4 * 40
    assert all(len(message["product_ids"]) == 1 for message in bench.said[3:])  # type: ignore[arg-type]
    bench.mute = False
    bench.talk(until=bench.now + 2 * AGAIN_MAX_S)
    assert bench.whole(*NAMES[:2]) and bench.errors == bench.refused == []


def test_an_error_that_was_of_nobody_is_said_in_the_end() -> None:
    bench = Bench(NAMES)
    bench.add(*NAMES[:2])
    assert bench.roll.next() is not None
    bench.roll.error("slow down")
    assert bench.errors == []
    bench.roll.granted(FeedKey("book", name) for name in NAMES[:2])
    assert bench.errors == ["slow down"]
    bench.talk()
    bench.roll.error("and again")
    assert bench.errors == ["slow down", "and again"] and bench.refused == []


def test_a_wrong_guess_is_put_right_by_the_data() -> None:
    """The error is of the second request, and the answer to the first is late."""
    bench = Bench(NAMES)
    bench.add(NAMES[0])
    bench.roll.next()
    bench.roll.error("of something else")
    assert bench.refused == [NAMES[0]] and not bench.roll.has(FeedKey("book", NAMES[0]))
    bench.roll.granted([FeedKey("book", NAMES[0])])
    assert bench.granted == [NAMES[0]] and bench.roll.has(FeedKey("book", NAMES[0]))


def test_a_reminder_asks_soon_but_not_each_time() -> None:
    bench = Bench([])
    bench.add(NAMES[0])
    bench.talk(until=1000 + 86_400)
    for _ in range(5):
        bench.roll.remind()
    assert bench.talk(until=bench.now + AGAIN_S) <= 2 * 2


def test_an_exchange_that_names_whom_it_refuses_is_believed_and_the_others_are_not_asked_for_again() -> None:
    bench = Bench([], KRAKEN)
    bench.add("A-USD", "B-USD")
    assert [bench.roll.next() is None for _ in range(3)] == [False, False, True]
    bench.roll.error("Currency pair not supported B/USD", "B-USD")
    bench.roll.granted([FeedKey("book", "A-USD"), FeedKey("trades", "A-USD")])
    bench.roll.error("Currency pair not supported B/USD", "B-USD")
    assert bench.refused == ["B-USD"] and bench.errors == [] and bench.roll.next() is None
    bench.roll.error("Currency pair not supported A/USD", "A-USD")  # it is there: something else
    assert bench.errors == ["Currency pair not supported A/USD"]


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_those_that_there_are_come_in_the_end(seed: int) -> None:
    chance = random.Random(seed)
    bench = Bench(chance.sample(NAMES, 8), names=chance.random() < 0.5)
    wanted: set[str] = set()
    for _ in range(40):
        name = chance.choice(NAMES)
        if name in wanted:
            bench.roll.remove(name)
        else:
            bench.add(name)
        wanted ^= {name}
        kind = chance.random()
        if kind < 0.2:
            bench.subscribed.clear()
            bench.roll.begin()
        elif kind < 0.4:
            bench.answer(bench.roll.next())
        elif kind < 0.6:
            bench.talk(until=bench.now + chance.choice([0, 1, 20, 100]))
        elif kind < 0.7:
            bench.has ^= {chance.choice(NAMES)}
    bench.talk(until=bench.now + 2 * AGAIN_MAX_S)
    here = {pair for pair in bench.subscribed if pair[1] in bench.has}
    assert here == {(channel, name) for channel in COINBASE.channels for name in wanted & bench.has}


@pytest.mark.parametrize("said", [0, 1, 2])
def test_who_goes_and_comes_back_is_asked_for_though_data_of_before_still_comes(said: int) -> None:
    """What was subscribed goes on until the exchange has read that it should not: that is no answer to what follows."""
    bench = Bench(NAMES)
    bench.add(*NAMES[:2])
    bench.talk()
    bench.roll.remove(NAMES[1])
    for _ in range(said):
        bench.answer(bench.roll.next())
    bench.add(NAMES[1])
    bench.roll.granted([FeedKey("book", NAMES[1]), FeedKey("trades", NAMES[1])])
    bench.talk(until=bench.now + 2 * ANSWER_S)
    assert bench.whole(*NAMES[:2]) and bench.roll.open == 0
