"""What is shown where: pure functions from a `View` and a size to lines of text. No terminal is known here.

Every function returns lines of at most `width` columns, most important first, so that cutting at the end loses least.
Colour is an addition: each line says the same without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deepwater.apps import needs_apps
from deepwater.apps.dashboard import numbers
from deepwater.apps.dashboard.model import ProductRow, View
from deepwater.apps.dashboard.plain import active, latencies, total
from deepwater.wording import amount, count, escaped

try:
    from rich.text import Text
except ImportError as _error:
    needs_apps(_error)

__all__ = ["Layout", "book", "header", "log_title", "messages", "products", "status", "trades"]

GOOD, BAD, DIM, STRONG = "green", "bold red", "dim", "bold"
_STATES = {"live": GOOD, "waiting": "", "hangs": BAD, "gone": BAD, "ended": DIM, "no feed": DIM}
_SIDES = {"B": ("buy", GOOD), "S": ("sell", "red")}


@dataclass(frozen=True, slots=True)
class Layout:
    """Rows of each part and columns of the book, for a terminal of `width` x `height` with so many products."""

    width: int
    height: int
    status: int
    products: int
    market: int
    book: int
    messages: int

    @classmethod
    def of(cls, width: int, height: int, products: int) -> Layout:
        """Share out a terminal: header 1, prompt 1, status 4; the rest to messages, products, and book and trades.

        Where it is low there are two lines of status and one message, so that there is a book.

        >>> Layout.of(80, 24, 2), Layout.of(160, 48, 40).products
        (Layout(width=80, height=24, status=4, products=4, market=12, book=41, messages=2), 16)
        >>> Layout.of(40, 12, 2)
        Layout(width=40, height=12, status=2, products=3, market=4, book=40, messages=1)
        """
        free = max(0, height - 2)
        status = min(free, 4 if height >= 16 else 2)
        messages = min(free - status, 1 if height < 16 else 2 if height < 36 else 5)
        rest = free - status
        few = min(2 + max(1, products), max(3, rest // 3) + (rest > 30) * 2, rest - messages)
        wide = min(width, 41) if width < 100 else width * 55 // 100
        return cls(width, height, status, few, rest - messages - few, wide, messages)


def _line(parts: Sequence[tuple[str, str] | str], width: int) -> Text:
    text = Text(no_wrap=True, overflow="crop", end="")
    for part in parts:
        word, style = (part, "") if isinstance(part, str) else part
        text.append(escaped(word), style)
    text.truncate(width, overflow="crop")
    return text


def _title(words: str, width: int, more: str = "") -> Text:
    """A rule with a title, and something at its right."""
    left, right = f"── {words} ", f" {more} ──" if more else ""
    right = right if len(left) + len(right) < width else ""
    return _line([(left, STRONG), ("─" * max(0, width - len(left) - len(right)), DIM), right], width)


def _fit(parts: Sequence[str], width: int, gap: str = "  ") -> str:
    """Join as many parts, from the left, as there is room for."""
    out = ""
    for part in parts:
        longer = f"{out}{gap}{part}" if out else part
        if len(longer) > width:
            break
        out = longer
    return out


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(0, width - 1)]}…"


# --- header and status -----------------------------------------------------------------------------------


def header(view: View, mode: str, width: int) -> list[Text]:
    """The first line: the store, what is going on, the time."""
    time = f" {numbers.clock(view.now_us)} UTC "
    room = width - len(f" Deepwater    {mode}{time}")
    path = view.place or view.base_path
    path = path if len(path) <= room else f"…{path[len(path) - room + 1 :]}"
    for left, right in (
        (f" Deepwater  {path}  {mode}" if room > 8 else "", time), (f" Deepwater  {mode}", time),
        (f" {mode}", time), (f" {mode}", time.replace(" UTC", "")),
    ):  # fmt: skip
        if left and len(left) + len(right) <= width:
            return [_line([left.ljust(width - len(right)), right], width)]
    return [_line([_cut(f" {mode}", width).ljust(width)], width)]


def status(view: View, width: int) -> list[Text]:
    """Four lines, the most important first: connection and rates; what went wrong; latencies; disk."""
    return [_connection(view, width), _troubles(view, width), _latencies(view, width), _disk(view, width)]


def _connection(view: View, width: int) -> Text:
    said = active(view)
    if not view.exists:
        return _line([f" no store here yet: {_cut(view.base_path, width - 21)}"], width)
    if not said:
        return _line([" no recorder has written metrics here"], width)
    connected, live = sum(each.connected for each in said), any(each.state == "recording" for each in said)
    if not live:
        last = said[-1]
        words = {"gone": "died", "hangs": "is stopped by a signal", "ended": "has ended"}
        text = f" recorder {last.pid} {words[last.state]}; its last word {numbers.ago(last.age_us)} ago"
        return _line([(text, BAD if last.state != "ended" else "")], width)
    up = count(connected, "connection") + (" up" if connected else ": NOT CONNECTED")
    parts = [
        f"frames {numbers.rate(sum(each.frame_rate for each in said))}/s",
        f"{amount(sum(each.byte_rate for each in said))}/s",
        f"queue {sum(each.queued for each in said)}",
        f"recorder {', '.join(str(each.pid) for each in said)}",
    ]
    return _line([" ", (up, GOOD if connected else BAD), "  ", _fit(parts, width - len(up) - 3)], width)


_TROUBLES = (
    ("gaps", "gaps", True), ("lost frames", "lost_frames", False), ("lost trades", "lost_trades", False),
    ("unstored", "unstored", False), ("reconnects", "reconnects", True), ("errors", "errors", True),
    ("bad frames", "bad_frames", False), ("resyncs", "resyncs", False), ("duplicates", "duplicates", False),
)  # fmt: skip


def _troubles(view: View, width: int) -> Text:
    """What went wrong, as whole words: counts that are not 0 come first, then the usual ones, then all.

    Those that are not 0 and for which there is no room are said to be there.
    """
    found = [(label, total(view, name), usual) for label, name, usual in _TROUBLES] if view.recorders else []
    texts = {label: f" {label} {number:,} " for label, number, _ in found}
    wrong = [label for label, number, _ in found if number]
    usual = [label for label, number, usual in found if usual and not number]
    shown = _as_many([*wrong, *usual, *(label for label in texts if label not in (*wrong, *usual))], texts, width)
    left = len(set(wrong) - set(shown))
    more = f" +{left} more " if left else ""
    if more:
        shown = _as_many(wrong, texts, width - len(more))
        more = f" +{len(wrong) - len(shown)} more "
    parts = [(texts[label], BAD if label in wrong else "") for label in texts if label in shown]
    return _line([*parts, (more, BAD)], width)


def _as_many(labels: Sequence[str], texts: dict[str, str], width: int) -> list[str]:
    """The labels, in order, of whose texts there is room for all; what is too long is passed over."""
    shown: list[str] = []
    for label in labels:
        if len(texts[label].rstrip()) <= width:
            shown.append(label)
            width -= len(texts[label])
    return shown


def _latencies(view: View, width: int) -> Text:
    def shown(pair: tuple[int, int] | None) -> str:
        return "-" if pair is None else "/".join(f"<{numbers.duration(us + 1)}" for us in pair).replace(" ", "")

    delay, lag = latencies(view)
    publish = f"receive to publish {shown(delay)}"
    parts = [f"p50/p99: {publish}", f"exchange to receive {shown(lag)}"]
    text = f" {_fit(parts, width - 1) or _fit([publish], width - 1)}"
    note = "  (the last 60 s)"
    return _line([text, (note if len(text) + len(note) <= width else "", DIM)], width)


def _disk(view: View, width: int) -> Text:
    parts = [f"{amount(view.size)} in {count(len(view.products), 'product')}"]
    if view.disk_free is not None:
        parts.append(f"disk {amount(view.disk_free)} left")
    if view.days_left is not None:
        parts.append(f"full in {numbers.duration(view.days_left * 86_400e6)} at this rate")
    is_short = view.days_left is not None and view.days_left < 1
    return _line([(f" {_fit(parts, width - 1)}", BAD if is_short else "")], width)


# --- products --------------------------------------------------------------------------------------------

_COLUMNS = (("product", 12), ("state", 7), ("last", 11), ("trades/s", 8), ("levels/s", 8), ("gaps", 5), ("size", 8),
            ("age", 5))  # fmt: skip
_DISPENSABLE = ("size", "age", "levels/s", "trades/s", "gaps", "last", "state")
"""Columns that are left out, in this order, where there is no room for all."""


def products(view: View, width: int, height: int) -> list[Text]:
    """A table of products with a sparkline each; the chosen one is marked, and always among those shown.

    Columns are shown whole or not at all.
    """
    names = _around([row.name for row in view.products], view.chosen, max(0, height - 2))
    rows = {row.name: row for row in view.products}
    shown = [rows[name] for name in names]
    more = len(view.products) - len(shown)
    cells = [_cells(row) for row in shown]
    columns = _fitting(cells, width - 2)
    used = 2 + sum(columns.values()) + len(columns) - 1
    spark = width - used - 2 if len(columns) == len(_COLUMNS) else 0
    out = [_title("products", width, f"{more} more" if more else ""),
           _line([(f"  {_row({name: name for name in columns}, columns)}", DIM)], width)]  # fmt: skip
    out += [
        _product(row, texts, columns, row.name == view.chosen, spark, width)
        for row, texts in zip(shown, cells, strict=True)
    ]
    if not shown:
        out.append(_line([("  none yet; type: sub BTC-USD, then start", DIM)], width))
    return out[:height]


def _cells(row: ProductRow) -> dict[str, str]:
    """The texts of a product by column."""
    price = "-" if row.price is None else numbers.price(row.price)
    return {
        "product": _cut(row.name, 24), "state": row.state, "last": price,
        "trades/s": numbers.rate(row.trade_rate), "levels/s": numbers.rate(row.level_rate), "gaps": f"{row.gaps:,}",
        "size": amount(row.size), "age": numbers.ago(row.age_us),
    }  # fmt: skip


def _fitting(cells: Sequence[dict[str, str]], room: int) -> dict[str, int]:
    """The columns that there is room for, and how wide they are."""
    columns = {name: max(size, *(len(texts[name]) for texts in cells), 0) for name, size in _COLUMNS}
    for name in _DISPENSABLE:
        if sum(columns.values()) + len(columns) - 1 > room:
            del columns[name]
    return columns


def _row(texts: dict[str, str], columns: dict[str, int]) -> str:
    """Texts in their columns: words at the left, numbers at the right."""
    return " ".join(
        texts[name].ljust(size) if name in ("product", "state") else texts[name].rjust(size)
        for name, size in columns.items()
    )


def _product(
    row: ProductRow, texts: dict[str, str], columns: dict[str, int], is_chosen: bool, spark: int, width: int
) -> Text:
    name = ("> " if is_chosen else "  ") + _row({"product": texts["product"]}, {"product": columns["product"]})
    parts: list[tuple[str, str] | str] = [(f"{name} ", STRONG if is_chosen else "")]
    if row.problem:
        return _line([*parts, (_cut(row.problem, max(0, width - len(name) - 1)), BAD)], width)
    if "state" in columns:
        parts.append((f"{row.state.ljust(columns['state'])} ", _STATES[row.state]))
    rest = {name: size for name, size in columns.items() if name not in ("product", "state")}
    line = numbers.sparkline(row.history, spark) if spark >= 4 else ""
    return _line([*parts, f"{_row(texts, rest)}  ", (line, "cyan")], width)


def _around(names: list[str], chosen: str, room: int) -> list[str]:
    """As many names as there is room for, the chosen one among them."""
    at = names.index(chosen) if chosen in names else 0
    start = max(0, min(at - room + 1, len(names) - room)) if at >= room else 0
    return names[start : start + room]


# --- book and trades -------------------------------------------------------------------------------------


def book(view: View, width: int, height: int) -> list[Text]:
    """The depth ladder: bids at the left, asks at the right, best first; or why there is none to be trusted."""
    found = view.book
    more = ""
    if found.bids and found.asks and not found.reason and not found.behind:
        spread = found.asks[0][0] - found.bids[0][0]
        more = f"spread {numbers.price(spread)}"
    out = [_title(f"book {view.chosen}".rstrip(), width, more)]
    if found.behind:
        return [*out, _line([f" catching up: {count(found.behind, 'record')} behind"], width)][:height]
    if found.reason:
        out += _wrapped(f"not to be trusted: {found.reason}" if found.bids or found.asks else found.reason, width, BAD)
    row = view.product
    if row is not None and row.state in ("gone", "ended", "hangs") and found.time_us:
        out.append(_line([(f" not live: as of {numbers.clock(found.time_us)} UTC", BAD)], width))
    if found.crossed and not found.reason:
        out.append(_line([(" crossed: the best bid is at or above the best ask", BAD)], width))
    if found.reason or not (found.bids or found.asks):
        return out[:height]
    return (out + _ladder(view, width, height - len(out)))[:height]


def _ladder(view: View, width: int, height: int) -> list[Text]:
    levels = max(0, height - 1)
    bids, asks = view.book.bids[:levels], view.book.asks[:levels]
    half = (width - 3) // 2
    price = max([len(numbers.price(at)) for at, _ in (*bids, *asks)], default=5)
    price, size = min(max(price, 5), half), min(9, max(0, half - price - 1))
    sizes = _Half(half, price, size, max((quantity for _, quantity in (*bids, *asks)), default=0.0))
    head = [*sizes.cells("bid", "quantity", "")[::-1], " │ ", *sizes.cells("ask", "quantity", "", turned=True)]
    out = [_line([(part, DIM) for part in head], width)]
    for number in range(max(len(bids), len(asks))):
        left, right = sizes.level(bids[number : number + 1]), sizes.level(asks[number : number + 1], turned=True)
        out.append(_line([*left[::-1], (" │ ", DIM), *right], width))
    return out


@dataclass(frozen=True, slots=True)
class _Half:
    """Columns of one side of a ladder, from the middle outwards: price, quantity, and a bar in what is left."""

    width: int
    price: int
    size: int
    top: float

    def level(self, level: Sequence[tuple[float, float]], *, turned: bool = False) -> list[tuple[str, str] | str]:
        """The cells of a level; of none as many blanks."""
        if not level:
            return [" " * self.width]
        at, quantity = level[0]
        room = max(0, self.width - self.price - self.size - 3)
        bar = "█" * round(room * (quantity / self.top)) if self.top else ""
        cells = self.cells(numbers.price(at), numbers.quantity(quantity), bar, turned=turned)
        style = "red" if turned else GOOD
        return [(cells[0], style), cells[1], (cells[2], f"dim {style}")]

    def cells(self, price: str, quantity: str, bar: str, *, turned: bool = False) -> list[str]:
        """Three texts that are as wide as the half, aligned to the middle."""
        outer = max(0, self.width - self.price - self.size - 1)
        if turned:
            return [price.ljust(self.price), f" {quantity:<{self.size}}", f"  {bar}".ljust(outer)[:outer]]
        return [price.rjust(self.price), f"{quantity:>{self.size}} ", f"{bar}  ".rjust(outer)[:outer]]


def trades(view: View, width: int, height: int) -> list[Text]:
    """The latest trades, newest first. Where it is narrow, first the milliseconds are left out, then the sizes."""
    shown = view.trades[: max(0, height - 2)]
    price = max([len(numbers.price(trade.price)) for trade in shown], default=5)
    price = max(price, 5)
    digits = 3 if width >= 1 + 12 + 1 + 5 + 1 + price + 1 + 9 else 0
    time = 8 + bool(digits) + digits
    head = f" {'time':<{time}} {view.side_of:<5} {'price':>{price}} {'size':>9}"
    out = [_title(f"trades {view.chosen}".rstrip(), width), _line([(head, DIM)], width)]
    for trade in shown:
        side, style = _SIDES.get(trade.side, ("?", ""))
        at, cost = numbers.clock(trade.time_us, digits), numbers.price(trade.price)
        size = numbers.quantity(trade.size)
        out.append(_line([f" {at} ", (side.ljust(5), style), f" {cost:>{price}} {size:>9}"], width))
    if not shown:
        out.append(_line([(" none yet", DIM)], width))
    return out[:height]


# --- messages --------------------------------------------------------------------------------------------


def log_title(width: int) -> list[Text]:
    """The rule above the log, with the way back."""
    return [_title("log", width, "F2: back")]


def messages(log: Sequence[str], width: int, height: int) -> list[Text]:
    """The newest lines of the log."""
    lines = list(log)[-height:] if height > 0 else []
    return [_line([" " + _cut(text, width - 1)], width) for text in lines]


def _wrapped(text: str, width: int, style: str) -> list[Text]:
    out: list[Text] = []
    words, current = text.split(), ""
    for word in words:
        if current and len(current) + 1 + len(word) > width - 1:
            out.append(_line([(f" {current}", style)], width))
            current = word
        else:
            current = f"{current} {word}".strip()
    return [*out, _line([(f" {current}", style)], width)]
