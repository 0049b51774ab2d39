"""The app: wiring of session, bridge, screens, keys and actions. What things do is in their own modules."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual._compositor import ChopsUpdate
from textual.app import App
from textual.driver import Driver

from toka_console import keymap, themes
from toka_console.actions import BY_ID, Context
from toka_console.diagnostics import Diagnostics
from toka_console.failure import Failure, trace_of
from toka_console.links import Links
from toka_console.navigation import Navigator
from toka_console.preferences import Preferences
from toka_console.screens.base import ConsoleScreen
from toka_console.session import Session
from toka_console.tight import TightUpdate
from toka_console.typed import LineKind, Typed
from toka_console.views import ViewsFile
from toka_runtime import aio
from toka_runtime.clock import SystemClock
from toka_runtime.errors import TokaError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.command import Provider
    from textual.screen import Screen
    from textual.signal import Signal

    from toka_console.bridge import Bridge, Told
    from toka_console.dialogs.choose import Choice
    from toka_console.dialogs.confirm import Question
    from toka_console.identity import AgentKey
    from toka_console.screens.fleet import FleetScreen
    from toka_runtime.client.base import RuntimeClient
    from toka_runtime.clock import Clock
    from toka_runtime.protocol.commands import Command

START_S = 20.0
"""How long leaving waits for a start that is under way."""


def _action_provider() -> type[Provider]:
    from toka_console.palette_provider import ActionProvider

    return ActionProvider


class ConsoleApp(App[None], inherit_bindings=False):
    """`open_client` opens the client of the runtime that the console is for, after the first frame is on screen. None:
    there are only `hosts`, as the operator wrote them; `start_hosts`: a runtime is served there when none is."""

    CSS_PATH = "console.tcss"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = ""
    ALLOW_SELECT = False
    TITLE = "toka"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_action_provider}

    def __init__(
        self,
        open_client: Callable[[], Awaitable[RuntimeClient]] | None,
        *,
        hosts: Sequence[str] = (),
        start_hosts: bool = False,
        clock: Clock | None = None,
        settings_file: Path | None = None,
        typed_file: Path | None = None,
        views_file: Path | None = None,
        incident_folder: Path | None = None,
        start_fleet: bool = True,
        driver_class: type[Driver] | None = None,
        depth: themes.Depth = "full",
    ) -> None:
        super().__init__(driver_class=driver_class, ansi_color=None if depth == "full" else True)
        self.use_command_palette = True
        self.session = Session(clock or SystemClock(), Diagnostics(), depth=depth)
        self.keymap: keymap.Keymap = keymap.build()[0]
        self.links = Links(self.session, self.repaint, start=start_hosts)
        self.failure: Failure | None = None
        self.stopping = False
        self._open_client, self._hosts = open_client, hosts
        self.session.typed = Typed(typed_file)
        self.preferences = Preferences(self, settings_file)
        self._views_file = views_file
        self._incident_folder = incident_folder
        self._start_fleet = start_fleet
        self._tasks = aio.TaskOwner(self._task_failed)
        self._starting: asyncio.Task[None] | None = None
        self._tick_due = 0.0
        self.navigator = Navigator(self)
        for theme in themes.OURS:
            self.register_theme(theme)
        self.set_reactive(App.theme, self.session.theme)

    # -- start and end --------------------------------------------------------------------------------------------

    def get_default_screen(self) -> FleetScreen:
        return self.navigator.fleet

    def on_mount(self) -> None:
        terminal = getattr(self._driver, "terminal", None)
        if terminal is not None:
            self.session.terminal_delay = lambda: terminal.delay_s
            self.session.terminal_bytes = lambda: terminal.written
        # Stopped and continued from outside: the terminal has forgotten what was on it.
        resumed = cast("Signal[App[None]]", self.app_resume_signal)  # pyright: ignore[reportUnknownMemberType] # open in Textual
        resumed.subscribe(self, lambda _: self.redraw())
        self.call_after_refresh(self._first_frame_is_drawn)

    def _first_frame_is_drawn(self) -> None:
        self._starting = self._tasks.spawn(self._start(), name="start")

    async def _start(self) -> None:
        # Imports are done in a thread: they take the interpreter's time, not the loop's turn.
        await asyncio.to_thread(importlib.import_module, "toka_console.bridge")
        await asyncio.to_thread(importlib.import_module, "toka_console.handlers")
        await self.preferences.load()
        await self.preferences.tell(self.session.typed.load())
        await asyncio.to_thread(importlib.import_module, "toka_console.incidents")
        from toka_console.incidents import Incidents

        self.session.incidents = Incidents(self.session, self._incident_folder, self._tasks)
        await self.session.incidents.open()
        if self._views_file is not None:
            await ViewsFile(self.session, self._views_file, self._tasks).open()
        if self._hosts:
            self.links.begin(self._hosts)
        if self._open_client is not None:
            await self.links.open_first(self._open_client)
        if self.stopping:
            return
        self.session.phase = ""
        # What is there now stays: later collections look at what came after it alone.
        gc.freeze()
        gc.enable()
        self._tick_due = asyncio.get_running_loop().time() + 1.0
        self.set_interval(1.0, self._tick, name="tick")
        self.repaint()
        if self._start_fleet:
            self.links.start_first()

    def _task_failed(self, name: str, error: BaseException) -> None:
        if isinstance(error, TokaError):
            self.failure = Failure(error.code, error.message, error.hint)
        else:
            trace = trace_of(error)
            self.failure = Failure("console.internal", f"{name}: {error or type(error).__name__}", trace=trace)
        self.exit(return_code=1)

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        if type(renderable) is ChopsUpdate:
            renderable = cast("RenderableType", TightUpdate(renderable))
        self.session.diagnostics.frames += renderable is not None
        super()._display(screen, renderable)  # pyright: ignore[reportUnknownMemberType] # open in Textual

    def _fatal_error(self) -> None:
        """A defect of ours. Textual would print every local variable, whatever is in them; the trace is enough."""
        error = sys.exc_info()[1] or self._exception
        trace = trace_of(error) if error is not None else ""
        self.failure = Failure("console.internal", f"defect: {error!r}", trace=trace)
        self._close_messages_no_wait()

    def stop(self) -> None:
        """End what runs, show how far that is, then leave. A second call changes nothing."""
        if not self.stopping:
            self.stopping = True
            self.session.phase = "stopping"
            self.repaint()
            self._tasks.spawn(self._stop(), name="stop")

    async def _stop(self) -> None:
        await self.aclose()
        self.exit(return_code=self.return_code or 0)

    async def aclose(self) -> None:
        """Close the client: a local one leaves no process. Safe to call twice."""
        await self.links.aclose()

    async def finish(self) -> None:
        """After the screen has gone: close what is still open (a start that never ended, a crash)."""
        if self._starting is not None:
            # A runtime that is half open is opened first: only then is there something that can be closed in order.
            await asyncio.wait({self._starting}, timeout=START_S)
        await self.aclose()
        await self._tasks.aclose()

    def _tick(self) -> None:
        now = asyncio.get_running_loop().time()
        self.session.diagnostics.tick(now, now - self._tick_due, self.session.terminal_bytes())
        self._tick_due = now + 1.0
        self.links.poll()
        if self.session.incidents is not None:
            self.session.incidents.tick(self.links.bridges)
        self.spawn(self.preferences.watch(), "settings")
        if self.stopping and self.session.state is not None:
            live = len(self.session.state.live())
            self.session.phase = f"stopping, {live} still live" if live else "stopping"
        self.repaint()

    # -- what screens and handlers ask ----------------------------------------------------------------------------

    @property
    def bridge(self) -> Bridge | None:
        return self.links.near(self.session.focus)

    @property
    def current(self) -> ConsoleScreen:
        """The screen below any dialog."""
        return next(screen for screen in reversed(self.screen_stack) if isinstance(screen, ConsoleScreen))

    def context(self) -> Context:
        current, session = self.current, self.session
        about = (current.subject(), current.marked(), current.denial())
        return Context(current.ID, session.state, session.focus, self.stopping, *about)

    def repaint(self) -> None:
        """Bring what is on screen up to date."""
        if not self.is_running or not self.screen_stack:
            return
        started = asyncio.get_running_loop().time()
        if self.session.wants_attention():
            self.bell()
        self.current.paint()
        if self.screen is not self.current:
            paint = getattr(self.screen, "paint", None)
            if callable(paint):
                paint()
        self.session.diagnostics.painted(asyncio.get_running_loop().time() - started)
        focus = self.session.focus
        if focus is not None and (bridge := self.links.bridge_of(focus.host)) is not None:
            bridge.load_history(focus)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do something beside; the app ends it when it ends, and with it when it fails."""
        self._tasks.spawn(work, name=name)

    def redraw(self) -> None:
        self.current.invalidate()
        self.refresh()
        self.repaint()

    def use_theme(self, name: str) -> None:
        self.session.theme = name
        self.theme = name
        self.navigator.invalidate()
        self.repaint()

    def say(self, text: str, role: str = "info") -> None:
        self.session.say(text, role)
        self.repaint()

    def press(self, key: str) -> None:
        self.session.message = None
        action = self.keymap.action(self.current.ID, key)
        if action is not None:
            self.perform(action.id)
        else:
            self.current.footer.paint()

    def perform(self, action: str, argument: str = "") -> None:
        from toka_console.handlers import HANDLERS

        found, context = BY_ID[action], self.context()
        if found.takes == "agent" and argument and context.state is not None:
            key = next((key for key in context.state.agents if key.name == argument), None)
            context = Context(context.screen, context.state, key, context.stopping)
        reason = found.disabled(context)
        if reason:
            self.say(f"{found.title}: {reason}", "warn")
        else:
            HANDLERS[action](self, context, argument)
            self.current.footer.paint()

    def entered(self, kind: LineKind, text: str) -> None:
        from toka_console import colon, completion, filters

        if self.session.typed.add(kind, text):
            self.spawn(self.preferences.tell(self.session.typed.save()), "history")
        try:
            if kind == "command" and text:
                current = self.current
                parsed = colon.parse(text, lambda takes: completion.arguments(current, takes))
                self.perform(parsed.action.id, parsed.argument)
            elif kind == "filter":
                current = self.current
                self.session.filters[current.ID] = filters.parse(text, current.FILTER_KEYS, current.NUMBER_KEYS)
        except (colon.ColonError, filters.FilterError) as error:
            self.session.say(str(error), "warn")
        self.repaint()

    def send(
        self, command: Command, text: str, keys: tuple[AgentKey, ...], subject: str = "", told: Told | None = None
    ) -> None:
        """To the host of the agents; with no agents, to the host that is looked at."""
        bridge = self.links.bridge_of(keys[0].host) if keys else self.bridge
        if bridge is not None:
            bridge.send(command, text, keys, subject, told)

    def ask(self, question: Question, answered: Callable[[bool | None], None]) -> None:
        from toka_console.dialogs.confirm import ConfirmDialog

        self.push_screen(ConfirmDialog(self.session, question), answered)

    def choose(self, choice: Choice, answered: Callable[[int | None], None]) -> None:
        from toka_console.dialogs.choose import ChooseDialog

        self.push_screen(ChooseDialog(self.session, choice), answered)
