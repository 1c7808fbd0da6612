"""A dashboard at work: the model, the recorder inside, the subscriptions, and what the commands do. No terminal.

`tick` looks at everything and returns a `View`; `execute` does a line and answers with lines. Both may be tested, and
are used, without a terminal: `plain` and `app` only show.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence

from deepwater.apps.dashboard import numbers
from deepwater.apps.dashboard.commands import Command, CommandError, help_lines, parse
from deepwater.apps.dashboard.engine import Engine, Event
from deepwater.apps.dashboard.model import Model, View
from deepwater.apps.dashboard.plain import line
from deepwater.apps.subscriptions import check_products
from deepwater.errors import DeepwaterError
from deepwater.timestamps import now_us
from deepwater.wording import count, escaped

__all__ = ["Session"]

LOG_LINES = 2000


class Session:
    """One dashboard. One thread; close it.

    Parameters
    ----------
    base_path : path
    uri : str
        What `start` records from; empty for the public endpoint of the venue.
    products : sequence of str
        The subscriptions to begin with.
    venue : str
        The venue that `start` records. Products of others are shown too, as ``BTC-USD@kraken``.

    Attributes
    ----------
    subs : list of str
        Products that `start` records.
    log : deque of str
        Lines with their time, the newest last.
    noted : int
        How many lines there were in all.
    is_done : bool
        `quit` was said.
    shows_logs : bool
        Whether the log is to be shown.
    """

    def __init__(
        self, base_path: str | os.PathLike[str], uri: str = "", products: Sequence[str] = (), venue: str = "coinbase"
    ) -> None:
        self.subs = list(products)
        self.model = Model(base_path, self.subs, venue)
        self.venue = self.model.catalogue.home
        if products:
            check_products(products, self.venue.check_product)
        self.engine = Engine(uri or self.venue.uri, self.model.base_path, self.venue.name)
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.is_done = False
        self.shows_logs = False
        self.view = View(now_us(), self.model.base_path, os.path.isdir(self.model.base_path))
        self.noted = 0

    # --- looking ---------------------------------------------------------------------------------------

    def tick(self) -> View:
        """Look at everything once, and at what the recorder inside says. Raises nothing that a store may do."""
        for event in self.engine.events():
            self._heard(event)
        self.model.wanted = list(self.subs)
        self.view = self.model.look()
        ours = tuple(f"recorder {pid}: " for pid in self.engine.pids)  # it has said so itself
        for text in self.view.news:
            if not text.startswith(ours):
                self.note(text)
        if self.engine.state == "running" and not self.engine.recorded and self.foreign:
            self.note(f"{_whose(self.foreign)}; this dashboard only looks on")  # who began at the same moment was first
            self.engine.stop()
        return self.view

    def note(self, text: str) -> None:
        """Put a line into the log."""
        self.noted += 1
        self.log.append(f"{numbers.clock(now_us())} {escaped(text)}")

    def _heard(self, event: Event) -> None:
        if event.kind == "exit":
            if event.text:
                self.note(f"the recorder inside ended by itself: {event.text}; start begins anew")
            else:
                self.note("recording ended; all is flushed")
        elif event.kind == "recording":
            self.note(f"{event.product}: recording")
        elif event.kind == "ended":
            self.note(f"{event.product}: no longer recorded")
        elif event.kind == "failed":
            self.note(f"{event.product or 'the recorder inside'}: {event.text}")
        else:
            self.note(event.text)

    @property
    def foreign(self) -> dict[int, tuple[str, ...]]:
        """Products that other processes record into this store, by process."""
        return {pid: names for pid, names in self.view.writers.items() if pid not in self.engine.pids}

    @property
    def mode(self) -> str:
        """What it is doing, in a few words."""
        if self.engine.state == "ending":
            return "ending the recording"
        if self.engine.state == "running":
            return f"recording {count(len(self.engine.recorded), 'product')}"
        if self.foreign:
            return f"attached to {_processes(self.foreign)}"
        if any(row.state in ("gone", "hangs") for row in self.view.products):
            return "the recorder is gone" if any(r.state == "gone" for r in self.view.products) else "it hangs"
        return "not recording"

    # --- commands --------------------------------------------------------------------------------------

    def execute(self, text: str) -> list[str]:
        """Do what was typed.

        Returns
        -------
        list of str
            The answer; an error is one line of it. It is in the log too.
        """
        try:
            command = parse(text)
            answer = [] if command is None else getattr(self, f"_{command.name}")(command)
        except DeepwaterError as error:
            answer = [str(error)]
        for said in answer:
            self.note(said)
        return list(answer)

    def _start(self, _: Command) -> list[str]:
        self._refuse_if_attached("start")
        if self.engine.state == "ending":
            raise CommandError("start: the last recording is still ending; again in a moment")
        if self.engine.state == "running":
            missing = [product for product in self.subs if product not in self.engine.recorded]
            self.engine.sub(missing)
            return [f"recording already{'; again ' + ', '.join(missing) if missing else ''}"]
        if not self.subs:
            raise CommandError("start: no product to record; subscribe first, as: sub BTC-USD")
        self.engine.start(self.subs)
        return [f"recording {', '.join(self.subs)} from {self.engine.uri}"]

    def _stop(self, _: Command) -> list[str]:
        if self.engine.state == "stopped":
            self._refuse_if_attached("stop")
            return ["not recording"]
        self.engine.stop()
        return ["ending the recording"]

    def _sub(self, command: Command) -> list[str]:
        self._refuse_if_attached("sub")
        products = self._at_home(command)
        check_products(products, self.venue.check_product)
        new = [product for product in products if product not in self.subs]
        self.subs += new
        self.model.wanted = list(self.subs)
        if not self.model.chosen and new:
            self.model.choose(self.subs[0])
        if self.engine.state == "running":
            self.engine.sub([product for product in products if product not in self.engine.recorded])
            return [f"subscribed: {', '.join(self.subs)}"]
        return [f"subscribed: {', '.join(self.subs)}; start records"]

    def _unsub(self, command: Command) -> list[str]:
        self._refuse_if_attached("unsub")
        products = self._at_home(command)
        unknown = [product for product in products if product not in self.subs]
        if unknown:
            there = ", ".join(self.subs) or "none"
            raise CommandError(f"unsub: {', '.join(unknown)} is not among the subscriptions ({there})")
        self.subs = [product for product in self.subs if product not in products]
        self.engine.unsub(products)
        return [f"subscribed: {', '.join(self.subs) or 'nothing'}"]

    def _at_home(self, command: Command) -> list[str]:
        """The products of a command as ids of the dashboard's own venue; one of another can not be recorded here."""
        home = self.venue.name
        for product in command.products:
            venue = product.partition("@")[2]
            if venue not in ("", home):
                raise CommandError(
                    f"{command.name}: {product} is of another venue, and this dashboard records {home}; "
                    f"another one would: deepwater dashboard --venue {venue}"
                )
        return list(dict.fromkeys(product.partition("@")[0] for product in command.products))

    def _show(self, command: Command) -> list[str]:
        wanted = command.products[0].removesuffix(f"@{self.venue.name}")
        names = [row.name for row in self.view.products]
        same = [name for name in names if name.upper() == wanted.upper()]
        found = same or [name for name in names if name.partition("@")[0].upper() == wanted.upper()]
        if len(found) > 1:
            raise CommandError(f"show: which one, {' or '.join(found)}?")
        if not found:
            raise CommandError(f"show: no product {wanted} here; there is {', '.join(names) or 'none yet'}")
        self.model.choose(found[0])
        return []

    def next_product(self) -> None:
        """Show the product after the one that is shown."""
        names = [row.name for row in self.view.products]
        if names:
            at = names.index(self.view.chosen) if self.view.chosen in names else -1
            self.model.choose(names[(at + 1) % len(names)])

    def _products(self, _: Command) -> list[str]:
        if not self.view.products:
            return ["no products in this store yet; sub BTC-USD and start record one"]
        return [f"{row.name}: {row.state}, {count(row.records, 'record')}" for row in self.view.products]

    def _subs(self, _: Command) -> list[str]:
        if self.subs:
            words = (f"{name} ({'recorded' if name in self.engine.recorded else 'not recorded'})" for name in self.subs)
            return [f"subscribed: {', '.join(words)}"]
        if self.foreign:
            return [f"no subscriptions here; {_whose(self.foreign)}"]
        return ["no subscriptions; subscribe as: sub BTC-USD"]

    def _status(self, _: Command) -> list[str]:
        return [line(self.view, self.mode)]

    def _reset(self, _: Command) -> list[str]:
        self.model.reset()
        return ["counting from now"]

    def _logs(self, _: Command) -> list[str]:
        self.shows_logs = not self.shows_logs
        return []

    def _help(self, _: Command) -> list[str]:
        self.shows_logs = True  # it is longer than the place for answers
        return help_lines()

    def _quit(self, _: Command) -> list[str]:
        self.is_done = True
        return []

    def _refuse_if_attached(self, name: str) -> None:
        if self.foreign and self.engine.state == "stopped":
            raise CommandError(f"{name}: {_whose(self.foreign)}; this dashboard only looks on")

    def close(self) -> None:
        """End the recording that runs inside, flushed, and let go of the store. Idempotent."""
        for event in self.engine.close():
            self._heard(event)
        self.model.close()


def _processes(foreign: dict[int, tuple[str, ...]]) -> str:
    return f"process {next(iter(foreign))}" if len(foreign) == 1 else f"{len(foreign)} processes"


def _whose(foreign: dict[int, tuple[str, ...]]) -> str:
    pid, names = next(iter(foreign.items()))
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"process {pid} records {shown} into this store"
