"""One console session: what all screens share. Screens read it; handlers and the bridge write it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toka_console import themes
from toka_console.filters import Filter
from toka_console.settings import Settings
from toka_console.typed import Typed
from toka_console.views import Views

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rich.style import Style

    from toka_console.asking_hosts import Asked
    from toka_console.diagnostics import Diagnostics
    from toka_console.entries import DenialEntry
    from toka_console.identity import AgentKey
    from toka_console.incidents import Incidents
    from toka_console.selectors import Alert
    from toka_console.state import ConsoleState
    from toka_console.themes import Depth, Palette
    from toka_runtime.clock import Clock

MESSAGE_S = 8.0
NO_FILTER = Filter()


@dataclass(frozen=True)
class Message:
    """One line to the operator, in the place of the footer until it is old or a key is pressed."""

    text: str
    role: str
    until: float
    """Monotonic seconds."""


@dataclass
class Session:
    clock: Clock
    diagnostics: Diagnostics
    settings: Settings = field(default_factory=Settings)
    theme: str = themes.DEFAULT
    depth: Depth = "full"
    """How many colours the terminal has."""
    state: ConsoleState | None = None
    """None until the runtime is open."""
    phase: str = "starting the runtime"
    """What the console is doing while there is no state, or while it stops."""
    focus: AgentKey | None = None
    """The agent that the Agent and Output screens show."""
    call: DenialEntry | None = None
    """The denial that the Call screen shows."""
    asked: list[Asked] = field(default_factory=list["Asked"])
    """What hosts ask while they are attached, the oldest first."""
    incidents: Incidents | None = None
    """None until they are read."""
    filters: dict[str, Filter] = field(default_factory=dict[str, Filter])
    """Screen → what was typed after `/` there."""
    helped: str = "fleet"
    """The screen that help was opened from."""
    typed: Typed = field(default_factory=Typed)
    message: Message | None = None
    views: Views = field(default_factory=Views)
    keep_views: Callable[[], None] = field(default=lambda: None)
    """To be called after each change of `views`."""
    _alert: tuple[object, Alert | None] | None = None
    _heard: int = 0
    terminal_delay: Callable[[], float] = field(default=lambda: 0.0)
    """Seconds that the terminal needs for a frame: painting takes a rest in proportion."""
    terminal_bytes: Callable[[], int] = field(default=lambda: 0)
    """Bytes written to the terminal so far."""

    @property
    def palette(self) -> Palette:
        return themes.palette(self.theme, self.depth)

    def host_style(self, host: str) -> Style:
        """In which a host's name is drawn everywhere."""
        of_host = self.settings.hosts.get(host)
        return themes.accent(host, of_host.accent if of_host is not None else "", self.theme, self.depth)

    @property
    def known(self) -> ConsoleState:
        """The state, for what is drawn only when there is one."""
        if self.state is None:
            raise RuntimeError("the runtime is not open yet")
        return self.state

    def filter(self, screen: str) -> Filter:
        """The filter of a screen; an empty one when there is none."""
        return self.filters.get(screen, NO_FILTER)

    def now(self) -> datetime:
        return self.clock.now()

    def alert(self) -> Alert | None:
        """The alert line, made anew once a second and when something it tells of has changed."""
        if self.state is None:
            return None
        from toka_console import selectors

        now, state = self.now(), self.state
        hosts = tuple((host.link, host.fleet.stopped, id(host.fleet.notices)) for host in state.hosts.values())
        key = (int(now.timestamp()), state.order_version, state.totals_version, hosts)
        if self._alert is None or self._alert[0] != key:
            self._alert = (key, selectors.alert(state, now))
        return self._alert[1]

    def wants_attention(self) -> bool:
        """A request for approval has come since the last time this was asked, and the operator wants to hear it."""
        requested = self.state.requested if self.state is not None else 0
        news, self._heard = requested > self._heard, requested
        return news and self.settings.bell

    def say(self, text: str, role: str = "info") -> None:
        self.message = Message(text, role, self.clock.monotonic() + MESSAGE_S)

    def current_message(self) -> Message | None:
        if self.message is not None and self.clock.monotonic() > self.message.until:
            self.message = None
        return self.message
