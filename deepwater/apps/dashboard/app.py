"""The terminal: widgets that show lines, a prompt, keys. All it knows of the market is a `Session`.

A look a tick (half a second; sooner while a book is catching up), and only lines that changed are drawn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import IO, Any, ClassVar

from deepwater.apps import needs_apps
from deepwater.apps.dashboard import panels
from deepwater.apps.dashboard.commands import History, complete
from deepwater.apps.dashboard.panels import Layout
from deepwater.apps.dashboard.session import Session

try:
    from rich.text import Text
    from textual import events
    from textual.app import App, ComposeResult
    from textual.binding import Binding, BindingType
    from textual.containers import Horizontal, Vertical
    from textual.drivers.linux_driver import LinuxDriver
    from textual.geometry import Region
    from textual.message import Message
    from textual.strip import Strip
    from textual.widget import Widget
    from textual.widgets import Input, RichLog, Static
except ImportError as _error:
    needs_apps(_error)

__all__ = ["Dashboard", "Prompt", "run"]

TICK_S = 0.5
_HURRY_S = 0.06
_MOST_LETTERS = 1000


class _Output:
    """Where the terminal is drawn; once it is gone, what is written goes nowhere and `when_gone` is called.

    Textual writes in a thread, which an error ends; then its queue fills up and the program waits for good, deaf to
    signals, with a recording inside.
    """

    def __init__(self, file: IO[str], when_gone: Callable[[], None]) -> None:
        self._file, self._when_gone, self._is_gone = file, when_gone, False

    def write(self, text: str) -> None:
        """Write, as a file does."""
        self._guarded(lambda: self._file.write(text))

    def flush(self) -> None:
        """Flush, as a file does."""
        self._guarded(self._file.flush)

    def fileno(self) -> int:
        """Return the descriptor of the file."""
        return self._file.fileno()

    def _guarded(self, do: Callable[[], object]) -> None:
        if self._is_gone:
            return
        try:
            do()
        except (OSError, ValueError):
            self._is_gone = True
            self._when_gone()


class Driver(LinuxDriver):
    """The terminal, of which the program hears when it is gone."""

    def __init__(self, app: App[None], **options: Any) -> None:
        super().__init__(app, **options)
        loop = asyncio.get_running_loop()

        def leave() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(app.action_leave)  # type: ignore[attr-defined]  # it is ours

        self._file: Any = _Output(self._file, leave)


class Panel(Widget):
    """Lines of text; only those that changed are drawn again.

    By Textual's line API: a `Static` renders all of its text for each change, which took several times the CPU of
    everything else here.
    """

    can_focus = False

    def __init__(self, name: str) -> None:
        super().__init__(id=name)
        self._lines: list[Text] = []

    def put(self, lines: Sequence[Text]) -> None:
        """Show these lines from now on."""
        before, self._lines = self._lines, list(lines)
        width = self.size.width
        pairs = enumerate(zip_longest(before, self._lines))
        changed = [Region(0, at, width, 1) for at, (old, new) in pairs if old is None or new is None or old != new]
        if changed:
            self.refresh(*changed)

    def high(self, height: int) -> None:
        """Be so many rows high."""
        if self.styles.height is None or self.styles.height.value != height:
            self.styles.height = height

    def render_line(self, y: int) -> Strip:
        """One row, as Textual asks for it."""
        width, style = self.size.width, self.rich_style
        if y >= len(self._lines):
            return Strip.blank(width, style)
        segments = self._lines[y].render(self.app.console)
        return Strip(segments).apply_style(style).adjust_cell_length(width, style)


class Prompt(Input):
    """Where commands are typed: up and down call back earlier ones, tab completes.

    Its keys are handled here and not by bindings: those are looked up by the app, before or after other keys, and lines
    that are pasted, or typed faster than the screen is drawn, would be mixed up. A line has an end: each letter looks
    at all of it, and a text of ten thousand pasted by mistake would keep the program busy for a minute.
    """

    class Entered(Message):
        """A line was entered."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, session: Session) -> None:
        text = "type a command; help lists them"
        super().__init__(placeholder=text, id="prompt", select_on_focus=False, max_length=_MOST_LETTERS)
        self.cursor_blink = False
        self._is_cut = False
        self._session = session
        self.history = History()

    def put(self, text: str) -> None:
        """Replace the line, with the cursor at its end."""
        self._is_cut = False
        self.value = text
        self.cursor_position = len(text)

    async def _on_key(self, event: events.Key) -> None:
        keys: dict[str, Callable[[], None]] = {
            "enter": self._enter,
            "up": lambda: self.put(self.history.up(self.value)),
            "down": lambda: self.put(self.history.down()),
            "tab": self._complete,
            "escape": lambda: self.put(""),
        }
        if event.key in keys:
            event.stop()
            event.prevent_default()
            keys[event.key]()

    def restricted(self) -> None:
        """Take note of a letter that there was no room for; what is left of the line is no command."""
        self._is_cut = True

    def _enter(self) -> None:
        text = self.value
        is_cut, self._is_cut = self._is_cut, False
        self.put("")
        if is_cut:
            self._session.note(f"? a line has at most {_MOST_LETTERS} letters: nothing was done")
            return
        self.history.add(text)
        self.post_message(self.Entered(text))

    def _complete(self) -> None:
        """Complete the word at the cursor; say the choices if there are several."""
        session = self._session
        names = dict.fromkeys([*session.subs, *(row.name for row in session.view.products)])
        before, after = self.value[: self.cursor_position], self.value[self.cursor_position :]
        line, choices = complete(before, list(names))
        self.value = line + after
        self.cursor_position = len(line)
        if choices and line == before:
            session.note(f"? {' '.join(choices)}")


class Dashboard(App[None]):
    """The terminal program.

    Parameters
    ----------
    session : Session
        Whoever made it closes it.
    """

    CSS = """
    Screen { layout: vertical; overflow: hidden; }
    #header { height: 1; background: $primary; color: $text; text-style: bold; }
    #status { height: 4; }
    #main { height: 1fr; }
    #market { height: 1fr; }
    #trades { width: 1fr; margin-left: 1; }
    #logtitle { height: 1; display: none; }
    #log { height: 1fr; scrollbar-size-vertical: 1; display: none; }
    #asked { height: 1; layout: horizontal; dock: bottom; }
    #sign { width: 2; }
    #prompt { border: none; height: 1; padding: 0; width: 1fr; background: $background; }
    Dashboard.plain #header { background: ansi_default; color: ansi_default; text-style: reverse; }
    """
    TITLE = "Deepwater"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "logs", show=False, priority=True),
        Binding("f3", "next", show=False, priority=True),
        Binding("ctrl+c", "leave", show=False, priority=True),
        Binding("ctrl+d", "leave", show=False, priority=True),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__(driver_class=Driver)
        self.session = session
        self._logged = 0
        self._hurries = False
        self._book_width = 0

    def compose(self) -> ComposeResult:
        """The parts, top to bottom."""
        yield Panel("header")
        yield Panel("status")
        with Vertical(id="main"):
            yield Panel("products")
            with Horizontal(id="market"):
                yield Panel("book")
                yield Panel("trades")
        yield Panel("logtitle")
        yield RichLog(id="log", wrap=True, markup=False, highlight=False, max_lines=2000)
        yield Panel("messages")
        with Horizontal(id="asked"):
            yield Static("> ", id="sign", markup=False)
            yield Prompt(self.session)

    def on_mount(self) -> None:
        """Begin to look."""
        self.query_one("#log", RichLog).can_focus = False
        if os.environ.get("NO_COLOR"):
            self.add_class("plain")
        self.query_one(Prompt).focus()
        for number in (signal.SIGTERM, signal.SIGHUP):  # so that the terminal is given back as it was
            if signal.getsignal(number) != signal.SIG_IGN:
                with contextlib.suppress(ValueError, RuntimeError):  # not the main thread
                    asyncio.get_running_loop().add_signal_handler(number, self.action_leave)
        self.set_interval(TICK_S, self.tick)
        self.call_after_refresh(self.tick)

    def tick(self) -> None:
        """Look at everything, and draw."""
        view = self.session.tick()
        self.draw()
        if view.book.behind and not self._hurries:
            self._hurries = True
            self.set_timer(_HURRY_S, self._hurry)

    def _hurry(self) -> None:
        self._hurries = False
        self.tick()

    def draw(self) -> None:
        """Draw what is known."""
        session, view = self.session, self.session.view
        width, height = self.size
        layout = Layout.of(width, height, len(view.products))
        self._panel("header").put(panels.header(view, session.mode, width))
        self._panel("status").high(layout.status)
        self._panel("status").put(panels.status(view, width))
        shows_logs = session.shows_logs
        self.query_one("#main").display = not shows_logs
        self.query_one("#log").display = shows_logs
        self._panel("messages").display = not shows_logs
        self._panel("logtitle").display = shows_logs
        self._panel("logtitle").put(panels.log_title(width))
        self._tell()
        if shows_logs:
            return
        self._panel("products").high(layout.products)
        self._panel("products").put(panels.products(view, width, layout.products))
        if layout.book != self._book_width:
            self._book_width = self._panel("book").styles.width = layout.book
        self._panel("book").put(panels.book(view, layout.book, layout.market))
        self._panel("trades").put(panels.trades(view, max(0, width - layout.book - 1), layout.market))
        self._panel("messages").high(layout.messages)
        self._panel("messages").put(panels.messages(session.log, width, layout.messages))

    def _panel(self, name: str) -> Panel:
        return self.query_one(f"#{name}", Panel)

    def _tell(self) -> None:
        """Write what is new into the log view."""
        log = self.query_one("#log", RichLog)
        new = self.session.noted - self._logged
        for text in list(self.session.log)[-new:] if new else []:
            log.write(Text(text))
        self._logged = self.session.noted

    def on_resize(self) -> None:
        """Share the terminal out anew."""
        if self.query("#prompt"):
            self.draw()

    def on_prompt_entered(self, event: Prompt.Entered) -> None:
        """Do what was typed."""
        self.session.execute(event.text)
        if self.session.is_done:
            self.exit()
        else:
            self.tick()

    def action_logs(self) -> None:
        """Show or hide the log."""
        self.session.shows_logs = not self.session.shows_logs
        self.draw()

    def action_next(self) -> None:
        """Show the next product."""
        self.session.next_product()
        self.tick()

    def action_leave(self) -> None:
        """End, as `quit`."""
        self.session.execute("quit")
        self.exit()


    def _print_error_renderables(self) -> None:
        """Print no traceback at the end: whoever runs this says what went wrong, in one line."""


def run(session: Session) -> None:
    """Show a session in this terminal until it is quit; blocks.

    Raises
    ------
    Exception
        What went wrong in the program itself; the session is still to be closed.
    """
    app = Dashboard(session)
    app.run()
    if app._exception is not None:
        raise app._exception
