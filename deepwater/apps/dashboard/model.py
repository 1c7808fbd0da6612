"""What the dashboard knows: everything of a store that it shows, as one `View` a look. Knows no terminal.

`Model.look` never waits and never raises for what a store may do: there is none yet, a feed is deleted, damaged or made
anew, a recorder is killed and comes back. What changes is also told as a line of `View.news`, once.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from deepwater.apps import metrics
from deepwater.apps.dashboard import prints
from deepwater.apps.dashboard.catalogue import Catalogue
from deepwater.apps.dashboard.feeds import FeedWatch
from deepwater.apps.dashboard.livebook import BookState, LiveBook
from deepwater.apps.dashboard.prints import TradeRow
from deepwater.apps.dashboard.recorders import Recorder, RecorderWatch
from deepwater.apps.venue import Kind
from deepwater.errors import DeepwaterError
from deepwater.platform import Platform
from deepwater.timestamps import now_us

__all__ = ["Model", "ProductRow", "TradeRow", "View"]

TRADES = 60
PRODUCTS_MAX = 100
_LIST_EVERY_S = 1.0
_ABOUT = "store.json"
_Watch = TypeVar("_Watch", FeedWatch, RecorderWatch)
_KINDS: tuple[Kind, Kind] = ("book", "trades")


@dataclass(frozen=True, slots=True)
class ProductRow:
    """One product of the store, or one that is to be recorded and has no feed yet.

    `writer` is the process that writes it, `state` "live", "waiting" (for its first record), "hangs",
    "gone" (its writer died), "ended" or "no feed"; `history` is records a second, oldest first; `age_us` is the time
    since its writer last wrote.
    """

    name: str
    state: str
    writer: int | None = None
    price: float | None = None
    trade_rate: float = 0.0
    level_rate: float = 0.0
    records: int = 0
    gaps: int = 0
    size: int = 0
    age_us: int | None = None
    history: tuple[float, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """All that is shown, at a moment. Plain values.

    `side_of` is whose side that of a trade is: "maker", "taker", or "side" if the feed does not say.
    `place` is `base_path` as a person would write it here. `days_left` is how long the disk lasts at the present rate;
    None if nothing is written or nobody knows.
    """

    now_us: int
    base_path: str
    exists: bool
    products: tuple[ProductRow, ...] = ()
    recorders: tuple[Recorder, ...] = ()
    chosen: str = ""
    book: BookState = field(default_factory=BookState)
    trades: tuple[TradeRow, ...] = ()
    side_of: str = "side"
    size: int = 0
    place: str = ""
    disk_free: int | None = None
    days_left: float | None = None
    news: tuple[str, ...] = ()

    @property
    def product(self) -> ProductRow | None:
        """The row of the chosen product."""
        return next((row for row in self.products if row.name == self.chosen), None)

    @property
    def writers(self) -> dict[int, tuple[str, ...]]:
        """Products by the process that writes them now."""
        found: dict[int, list[str]] = {}
        for row in self.products:
            if row.writer is not None:
                found.setdefault(row.writer, []).append(row.name)
        return {pid: tuple(names) for pid, names in found.items()}


class Model:
    """Looks at a store. One thread; a context manager.

    Parameters
    ----------
    base_path : path
        It need not exist.
    wanted : sequence of str
        Products shown first, whether they have feeds or not; may be replaced.
    venue : str
        Whose products are called by their id alone; those of others as ``BTC-USD@kraken``.

    Attributes
    ----------
    chosen : str
        Whose book and trades are shown; the first product if it is empty.
    """

    def __init__(
        self, base_path: str | os.PathLike[str], wanted: Sequence[str] = (), venue: str = "coinbase"
    ) -> None:
        self.wanted: list[str] = list(wanted)
        self.chosen = ""
        self.catalogue = Catalogue(venue)
        self._platform = Platform(base_path)
        self._place = _place(self._platform.base_path)
        self._feeds: dict[str, FeedWatch] = {}
        self._placed: dict[str, dict[Kind, str]] = {}
        self._recorders: dict[str, RecorderWatch] = {}
        self._book: LiveBook | None = None
        self._names: list[str] = []
        self._store = _identity(self._platform.base_path)
        self._list_due = 0.0
        self._before: View | None = None
        self._told_gaps: dict[tuple[str, int, int], None] = {}

    @property
    def base_path(self) -> str:
        """The store's directory, absolute."""
        return self._platform.base_path

    def look(self, book_budget_s: float = 0.05) -> View:
        """Look at everything once; some milliseconds, and `book_budget_s` at most for a book that is behind."""
        self._list()
        now_s = time.monotonic()
        for watch in self._feeds.values():
            watch.look(now_s)
        now = now_us()
        recorders = [said for watch in self._recorders.values() if (said := watch.look(now)) is not None]
        products = tuple(self._product(name) for name in self._products())
        names = [row.name for row in products]
        chosen = self.chosen if self.chosen in names else names[0] if names else ""
        free, days = self._disk()
        view = View(
            now_us=now, base_path=self.base_path, exists=os.path.isdir(self.base_path), products=products,
            recorders=tuple(recorders), chosen=chosen, book=self._look_book(chosen, book_budget_s),
            trades=self._trades(chosen), side_of=prints.side_of(self._watch(chosen, "trades")),
            size=sum(watch.size for watch in self._feeds.values()),
            place=self._place, disk_free=free, days_left=days,
        )  # fmt: skip
        news = tuple(self._news(view))
        self._before = view
        return replace(view, news=news)

    # --- feeds -----------------------------------------------------------------------------------------

    def _list(self) -> None:
        """See which feeds there are now."""
        if time.monotonic() < self._list_due:
            return
        self._list_due = time.monotonic() + _LIST_EVERY_S
        self._reopen_if_replaced()
        try:
            self._names = self._platform.list_feeds()
        except (DeepwaterError, OSError):  # the store is just being made, moved or removed
            self._names = []
        self._placed = {}
        for name in self._names:
            place = self.catalogue.place(name)
            if place is not None and (place.product in self._placed or len(self._placed) < PRODUCTS_MAX):
                self._placed.setdefault(place.product, {}).setdefault(place.kind, name)
        kept = [name for kinds in self._placed.values() for name in kinds.values()]
        _keep(self._feeds, kept, lambda name: FeedWatch(self._platform, name))
        found = [name for name in self._names if name.startswith(metrics.PREFIX)]
        _keep(self._recorders, found, lambda name: RecorderWatch(self._platform, name))

    def _reopen_if_replaced(self) -> None:
        """Let go of a store that is not the one at this path any more: what is held open of it may live on for long."""
        there = _identity(self.base_path)
        if there is not None and there != self._store:
            if self._store is not None:
                path = self.base_path
                self.close()
                self._feeds, self._recorders, self._book = {}, {}, None
                self._platform = Platform(path)
            self._store = there

    def _products(self) -> list[str]:
        live = {name for name in self._placed if any(watch.is_written for watch in self._watches(name))}
        first = list(dict.fromkeys(self.wanted))
        return first + sorted(set(self._placed) - set(first), key=lambda name: (name not in live, name))

    def _watch(self, product: str, kind: Kind) -> FeedWatch | None:
        return self._feeds.get(self._placed.get(product, {}).get(kind, ""))

    def _watches(self, product: str) -> list[FeedWatch]:
        found = (self._watch(product, kind) for kind in _KINDS)
        return [watch for watch in found if watch is not None]

    def _product(self, name: str) -> ProductRow:
        watches = self._watches(name)
        if not watches:
            return ProductRow(name, "no feed")
        levels, trades = (self._watch(name, kind) for kind in _KINDS)
        writers = [watch.writer for watch in watches if watch.writer is not None]
        live = next((watch for watch in watches if watch.is_written), None)
        ages = [watch.age_us for watch in watches if watch.age_us is not None]
        longest = max(len(watch.history) for watch in watches)
        history = [sum(pair) for pair in zip(*(_padded(watch.history, longest) for watch in watches), strict=True)]
        return ProductRow(
            name=name, state=_state(writers, any(watch.end for watch in watches)),
            writer=live.writer["pid"] if live and live.writer else None,
            price=prints.last_price(trades), trade_rate=trades.rate if trades else 0.0,
            level_rate=levels.rate if levels else 0.0, records=sum(watch.end for watch in watches),
            gaps=max(watch.gaps for watch in watches), size=sum(watch.size for watch in watches),
            age_us=min(ages, default=None), history=tuple(history),
            problem=next((watch.problem for watch in watches if watch.problem), ""),
        )  # fmt: skip

    def _look_book(self, product: str, budget_s: float) -> BookState:
        feed = self._placed.get(product, {}).get("book", "")
        if product and not feed:  # it may come
            feed = self.catalogue.feed(product, "book")
        if self._book is None or self._book.feed != feed:
            if self._book is not None:
                self._book.close()
            self._book = LiveBook(self._platform, feed) if feed else None
        if self._book is None:
            return BookState(reason=f"there is no feed of the book of {product}" if product else "no product")
        return self._book.look(budget_s)

    def _trades(self, product: str) -> tuple[TradeRow, ...]:
        """The latest trades, the newest first."""
        found = prints.newest(self._watch(product, "trades"), TRADES)
        return tuple(TradeRow(us, side.decode("latin-1"), price, size) for us, side, price, size in reversed(found))

    def _disk(self) -> tuple[int | None, float | None]:
        path = self.base_path
        while not os.path.isdir(path) and path != os.path.dirname(path):
            path = os.path.dirname(path)
        try:
            system = os.statvfs(path)
        except OSError:
            return None, None
        free = system.f_bavail * system.f_frsize
        growth = sum(watch.rate * watch.record_bytes for watch in self._feeds.values())
        return free, free / growth / 86_400 if growth > 0 else None

    # --- news ------------------------------------------------------------------------------------------

    def _news(self, view: View) -> Iterable[str]:
        """Say what has changed since the last look."""
        problems, self.catalogue.problems[:] = list(self.catalogue.problems), []
        yield from problems
        before = self._before
        if before is None:
            return
        if view.exists != before.exists:
            yield "the store is there" if view.exists else f"the store {view.base_path} is gone"
        yield from self._news_of_recorders(before, view)
        states = {row.name: row for row in before.products}
        for row in view.products:
            old = states.get(row.name)
            if old is not None and old.state != row.state and (row.state == "no feed" or old.state == "no feed"):
                yield f"{row.name}: its feeds were deleted" if row.state == "no feed" else f"{row.name}: has feeds now"
            if row.problem and (old is None or old.problem != row.problem):
                yield f"{row.name}: {row.problem}"
        shown = {row.name for row in view.products}
        yield from (f"{name}: its feeds were deleted" for name in states if name not in shown)
        yield from self._news_of_gaps()

    @staticmethod
    def _news_of_recorders(before: View, view: View) -> Iterable[str]:
        old = {said.feed: said for said in before.recorders}
        for said in view.recorders:
            was = old.get(said.feed)
            if was is None or (was.pid, was.state) != (said.pid, said.state):
                if was is None or said.state != "ended" or was.state != "gone":
                    yield _of_recorder(said, was)
            elif said.last_error and said.last_error != was.last_error:
                yield f"recorder {said.pid}: {said.last_error}"

    def _news_of_gaps(self) -> Iterable[str]:
        """One line a gap, however many feeds it is marked in."""
        found: dict[tuple[str, int, int], list[str]] = {}
        for watch in self._feeds.values():
            for gap in watch.new_gaps:
                if gap not in self._told_gaps:
                    found.setdefault(gap, []).append(watch.name)
        for gap, names in found.items():
            self._told_gaps[gap] = None
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            yield f"gap in {names[0]}{more}: {gap[0] or 'no reason given'}"
        while len(self._told_gaps) > 1000:
            del self._told_gaps[next(iter(self._told_gaps))]

    # --- control ---------------------------------------------------------------------------------------

    def choose(self, product: str) -> None:
        """Show the book and the trades of this product from now on."""
        self.chosen = product

    def reset(self) -> None:
        """Count and draw from now; nothing that is stored changes."""
        for watch in self._feeds.values():
            watch.reset()
        for recorder in self._recorders.values():
            recorder.reset()

    def close(self) -> None:
        """Let go of the store. Idempotent."""
        for watch in self._feeds.values():
            watch.close()
        for recorder in self._recorders.values():
            recorder.close()
        if self._book is not None:
            self._book.close()
        self._platform.close()


def _keep(watches: dict[str, _Watch], names: list[str], make: Callable[[str], _Watch]) -> None:
    """Let the watches be those of these names."""
    for name in set(watches) - set(names):
        watches.pop(name).close()
    for name in names:
        if name not in watches:
            watches[name] = make(name)


def _identity(path: str) -> tuple[int, ...] | None:
    """Which store is at a path, by the file that is written once (a directory's inode may come back); None of none."""
    with contextlib.suppress(OSError):
        about = os.stat(os.path.join(path, _ABOUT))
        return about.st_dev, about.st_ino, about.st_mtime_ns
    return None


def _place(path: str) -> str:
    """A path as one would write it here: below this directory, or below one's home, if it is."""
    with contextlib.suppress(OSError):
        here, home = os.getcwd(), os.path.expanduser("~")
        for above, sign in ((here, "."), (home, "~")):
            if path.startswith(os.path.join(above, "")):
                return os.path.join(sign, os.path.relpath(path, above))
    return path


def _state(writers: list[dict[str, object]], has_records: bool) -> str:
    states = {str(writer["state"]) for writer in writers}
    live = "live" if has_records else "waiting"
    for state, word in (("alive", live), ("elsewhere", live), ("stopped", "hangs"), ("dead", "gone")):
        if state in states:
            return word
    return "ended"


def _padded(history: Iterable[float], length: int) -> list[float]:
    found = list(history)
    return [0.0] * (length - len(found)) + found


def _of_recorder(said: Recorder, was: Recorder | None) -> str:
    again = " again" if was is not None and was.state in ("gone", "ended", "hangs") else ""
    if said.state == "recording":
        return f"recorder {said.pid} is recording{again}"
    words = {"gone": "is gone: it did not close its feeds", "hangs": "hangs: a signal has stopped it", "ended": "ended"}
    return f"recorder {said.pid} {words[said.state]}"
