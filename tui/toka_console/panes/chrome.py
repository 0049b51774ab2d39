"""What every screen has around its body: header, banner, alert strip, footer. One row each."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from rich.segment import Segment
from rich.style import Style
from textual.events import Click
from textual.message import Message
from textual.strip import Strip

from toka_console import approvals, asking_hosts, selectors
from toka_console.format import units
from toka_console.format.cells import Row, clip, clip_left, width_of
from toka_console.panes.base import Pane
from toka_console.session import Session

HELP = "screen.help"
Tabs = tuple[tuple[str, str, str], ...]
"""(key, title, action that opens it)."""


class Pressed(Message):
    """An action was clicked in the footer or the header."""

    def __init__(self, action: str) -> None:
        super().__init__()
        self.action = action


class Header(Pane):
    """Screens at the left, the runtime at the right."""

    def __init__(self, session: Session, screen: str, tabs: Callable[[], Tabs]) -> None:
        super().__init__(session, id="header")
        self._screen_id = screen
        self._tabs = tabs
        self._spans: list[tuple[int, int, str]] = []

    def depends(self) -> Hashable:
        state = self.session.state
        if state is None:
            return self.session.phase, self._tabs()
        hosts = state.hosts.values()
        asked = approvals.summary(state, self.session.now())
        return (
            self.session.phase,
            asking_hosts.summary(self.session),
            asked,
            self._tabs(),
            tuple(self._troubles().values()),
            tuple((id(host.fleet.runtime), id(host.fleet.protections), host.link) for host in hosts),
        )

    def content(self, width: int, height: int) -> list[Strip]:
        palette = self.palette
        right = self._runtime()
        # What is most important at the right has its room before the titles of other screens.
        least = width_of(right[-1][0]) + 3 if right else 0
        pieces = self._pieces(short=False)
        if 6 + sum(width_of(text) for _, piece in pieces for text, _ in piece) + least > width:
            pieces = self._pieces(short=True)
        row = Row(width, palette.bar).add(" toka ", palette.bar_strong)
        self._spans = []
        for action, piece in pieces:
            start = width - row.room
            for text, style in piece:
                row.add(text, style)
            self._spans.append((start, width - row.room, action))
        room = row.room - 2
        while right and sum(width_of(text) + 2 for text, _ in right) > room:
            if len(right) == 1:
                right = [(clip_left(right[0][0], room - 2), right[0][1])] if room > 12 else []
                break
            right.pop(0)
        used = sum(width_of(text) + 2 for text, _ in right)
        row.gap(row.room - used)
        for text, style in right:
            row.add(text, style).gap(2)
        return [row.strip()]

    def _pieces(self, short: bool) -> list[tuple[str, list[tuple[str, Style]]]]:
        """Action and texts of each tab; `short`: the title of this screen alone."""
        palette, troubles = self.palette, self._troubles()
        pieces: list[tuple[str, list[tuple[str, Style]]]] = []
        for key, title, action in self._tabs():
            current = action == f"screen.{self._screen_id}"
            name = palette.bar_strong if current else palette.bar_muted
            piece = [(f" {key} ", name if current or short else palette.key)]
            if current or not short:
                piece.append((f"{title} ", name))
            if count := troubles.get(action, 0):
                piece.append((f"{units.count(count)} ", palette.key))
            pieces.append((action, piece))
        return pieces

    def _troubles(self) -> dict[str, int]:
        """How much there is on other screens that should be looked at."""
        state = self.session.state
        if state is None:
            return {}
        return {"screen.denials": state.denied, "screen.approvals": len(approvals.waiting(state))}

    def _host(self, host: str) -> Style:
        return self.palette.bar + Style(color=self.session.host_style(host).color)

    def _runtime(self) -> list[tuple[str, Style]]:
        """Least important first: the front is dropped where there is no room."""
        palette, state = self.palette, self.session.state
        if state is None:
            return [(f"{self.session.phase} …", palette.bar_strong)]
        parts: list[tuple[str, Style]] = []
        for host in state.hosts.values():
            runtime = host.fleet.runtime
            if runtime is not None:
                parts.append((clip_left(runtime.workspace, 44), palette.bar_muted))
                parts.append((runtime.provider, palette.bar_muted))
            if (found := host.fleet.protections) is not None:
                parts.append((f"tier {found.tier.value}", palette.bar if found.sandbox else palette.key))
            link = host.link
            up = link.state.value == "up"
            parts.append(
                (
                    f"{'●' if up else '○'} {host.fleet.host} {link.state.value}",
                    self._host(host.fleet.host) if up else palette.key,
                )
            )
        if self.session.phase:
            parts.append((self.session.phase, palette.key))
        if asking := asking_hosts.summary(self.session):
            parts.append((f"◇ {asking}", palette.key))
        if asked := approvals.summary(state, self.session.now()):
            parts.append((f"◇ {asked}", palette.key))
        return parts

    def on_click(self, event: Click) -> None:
        for start, end, action in self._spans:
            if start <= event.x < end:
                self.post_message(Pressed(action))


class Banner(Pane):
    """What must be said loudly all the time (an agent runs unconfined, no model is used)."""

    def depends(self) -> Hashable:
        return self.session.state.banner() if self.session.state is not None else ""

    def content(self, width: int, height: int) -> list[Strip]:
        state, palette = self.session.state, self.palette
        text = state.banner() if state is not None else ""
        return [Row(width, palette.banner).add(" ▲ ").add(clip(text, width - 5)).strip()]


class AlertStrip(Pane):
    def depends(self) -> Hashable:
        return self.session.alert() or ""

    def content(self, width: int, height: int) -> list[Strip]:
        palette, alert = self.palette, self.session.alert()
        if alert is None:
            return [Row(width, palette.base).strip()]
        style = palette.alert_bad if alert.bad else palette.alert
        return [Row(width, style).add(" ! " if alert.bad else " · ").add(clip(alert.text, width - 4)).strip()]

    def on_click(self, event: Click) -> None:
        self.post_message(Pressed("trouble.next"))


class Footer(Pane):
    """Keys of the actions that can be done here, from the registry; a message to the operator while there is one."""

    def __init__(self, session: Session, shown: Callable[[], list[tuple[str, str, str, bool]]]) -> None:
        super().__init__(session, id="footer")
        self._shown = shown
        self._spans: list[tuple[int, int, str]] = []

    def depends(self) -> Hashable:
        message = self.session.current_message()
        return message if message is not None else tuple(self._shown())

    def content(self, width: int, height: int) -> list[Strip]:
        palette = self.palette
        self._spans = []
        message = self.session.current_message()
        if message is not None:
            style = palette.bar + Style(color=palette.role(message.role).color, bold=True)
            return [Row(width, style).gap().add(clip(message.text, width - 2)).strip()]
        row = Row(width, palette.bar)
        shown = self._shown()
        # Help is never the one that has no room.
        kept = sum(width_of(key) + width_of(title) + 3 for action, key, title, _ in shown if action == HELP)
        for action, key, title, enabled in shown:
            kept -= width_of(key) + width_of(title) + 3 if action == HELP else 0
            if row.room - kept < width_of(key) + width_of(title) + 3:
                continue
            start = width - row.room
            row.gap().add(key, palette.key if enabled else palette.bar_muted)
            row.add(f" {title} ", palette.bar if enabled else palette.bar_muted)
            self._spans.append((start, width - row.room, action))
        return [row.strip()]

    def on_click(self, event: Click) -> None:
        for start, end, action in self._spans:
            if start <= event.x < end:
                self.post_message(Pressed(action))


class TooSmall(Pane):
    """Below 60×15: one line that says so. Containment and kill still work."""

    def content(self, width: int, height: int) -> list[Strip]:
        state, focus = self.session.state, self.session.focus
        live = len(state.live()) if state is not None else 0
        name = focus.name if focus is not None else "no agent"
        state_word = ""
        if state is not None and focus is not None and (entry := state.agents.get(focus)) is not None:
            pending = state.pending_of(focus)
            state_word = f"{pending.text}…" if pending else selectors.badge(entry.view).word
        message = self.session.current_message()
        text = message.text if message else f"{name} {state_word} · {live} live · p pause K kill · needs 60×15"
        style = self.palette.banner
        row = Row(width, style).add(clip(text, width))
        return [row.strip(), *(Strip([Segment(" " * width, self.palette.base)], width) for _ in range(height - 1))]
