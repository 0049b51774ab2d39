"""The base of all screens: the rows around the body, the command line, keys through the keymap, painting."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.app import ComposeResult
from textual.events import Key, Resize, ScreenResume
from textual.screen import Screen

from toka_console import completion
from toka_console.actions import ACTIONS, Action
from toka_console.filters import NumberKeys
from toka_console.identity import AgentKey, ApprovalKey, GrantKey
from toka_console.keymap import canonical
from toka_console.panes.base import Pane, ZoomAsked
from toka_console.panes.chrome import AlertStrip, Banner, Footer, Header, Pressed, TooSmall
from toka_console.panes.command_line import Closed, CommandLine, Entered
from toka_console.panes.group import Group
from toka_console.panes.table import TablePane
from toka_console.place import Place
from toka_console.screens.desk import Desk
from toka_console.screens.zoom import Zoom
from toka_console.session import Session
from toka_console.typed import LineKind

if TYPE_CHECKING:
    from toka_console.entries import DenialEntry

LEAST_WIDTH, LEAST_HEIGHT = 60, 15


class ConsoleScreen(Screen[None]):
    """Subclasses give `ID`, `body()` and, when the sizes of their panes depend on the room, `arrange_body()`."""

    ID: ClassVar[str] = ""
    FILTER_KEYS: ClassVar[tuple[str, ...]] = ()
    """What `key:value` after `/` may name here; (): nothing can be filtered."""
    NUMBER_KEYS: ClassVar[NumberKeys] = {}
    """Those of them that hold a figure, which can be compared."""
    AUTO_FOCUS = ""
    ALLOW_SELECT = False
    BLANK = True

    def __init__(self, session: Session, desk: Desk) -> None:
        super().__init__(id=f"screen-{self.ID}")
        self.session = session
        self.desk = desk
        self.header = Header(session, self.ID, lambda: desk.keymap.tabs)
        self.banner = Banner(session, id="banner")
        self.alert = AlertStrip(session, id="alert")
        self.footer = Footer(session, self.footer_actions)
        self.command_line = CommandLine(session, self._complete, self._filter_hint())
        self.too_small = TooSmall(session, id="too-small")
        self.container = Group(id="body")
        self._panes: list[Pane] = []
        self._fitted: object = None
        self._zoom = Zoom()
        self.zoomed: Pane | None = None
        """The pane that has the whole body for itself."""
        self._bounds = (0, 0, 0)

    def body(self) -> Iterable[Pane | Group]:
        raise NotImplementedError

    def arranged_for(self) -> Hashable:
        """What the arrangement depends on beside the size, e.g. how many rows there are."""
        return None

    def arrange_body(self, width: int, height: int) -> None:
        """Set the sizes of the body's panes for a body of this size."""

    def subject(self) -> ApprovalKey | GrantKey | None:
        """The request or grant that actions are about."""
        return None

    def marked(self) -> tuple[AgentKey, ...]:
        """Agents that are marked here: what is done to agents is done to them."""
        return ()

    def scope(self) -> Collection[AgentKey] | None:
        """Agents that `everything` means here; None: the whole fleet."""
        return None

    def place_below(self) -> Place | None:
        """Where `enter` on what is under the cursor leads; None: it has been done here, or there is nothing."""
        return None

    def denial(self) -> DenialEntry | None:
        """What was refused, where actions are about that."""
        return None

    def is_settled(self) -> bool:
        """Whether the operator has had the time to see what the subject is."""
        return True

    def main_pane(self) -> Pane:
        """What has the keys at first."""
        raise NotImplementedError

    def panes(self) -> list[Pane]:
        """Panes of the body that take part in `tab`, in order."""
        return [pane for pane in self.container.query(Pane) if pane.can_focus and pane.display]

    def compose(self) -> ComposeResult:
        yield self.header
        yield self.banner
        yield self.alert
        with self.container:
            yield from self.body()
        yield self.footer
        yield self.command_line
        yield self.too_small

    def on_mount(self) -> None:
        self._panes = list(self.query(Pane))
        self.main_pane().focus(scroll_visible=False)

    # -- painting -------------------------------------------------------------------------------------------------

    def paint(self) -> None:
        """Bring every pane up to date with the session."""
        if not self.is_mounted:
            return
        self._fit()
        for pane in self._panes:
            if pane.display:
                pane.paint()

    def _fit(self) -> None:
        width, height = self.size
        small = width < LEAST_WIDTH or height < LEAST_HEIGHT
        state = self.session.state
        banner = not small and state is not None and bool(state.banner())
        alert = not small and height >= 18 and self.session.alert() is not None
        grown = self.session.views.sizes.get(self.ID, 0)
        fit = (width, height, banner, alert, grown, self.zoomed, self.arranged_for())
        if fit == self._fitted:
            return
        self._fitted = fit
        if small and self.line_is_open:
            self.close_line()
        self.set_class(small, "small")
        self.banner.display, self.alert.display = banner, alert
        self._zoom.leave()
        if not small:
            self.arrange_body(width, height - 2 - banner - alert)
            if self.zoomed is not None:
                self._zoom.enter(self.zoomed, self.container)

    def resized(self, natural: int, least: int, most: int) -> int:
        """How many rows the main pane gets: `natural`, and what the operator has added, within bounds. For
        `arrange_body` of screens where this can be changed."""
        self._bounds = (natural, least, most)
        return max(least, min(natural + self.session.views.sizes.get(self.ID, 0), most))

    def resize_body(self, by: int) -> None:
        """Give the main pane more rows, or fewer."""
        natural, least, most = self._bounds
        rows = max(least, min(self.resized(natural, least, most) + by, most))
        self.session.views.sizes[self.ID] = rows - natural
        self.session.keep_views()
        self.paint()

    def zoom(self, pane: Pane) -> None:
        """Show one pane alone, or all of them again."""
        if self.zoomed is None and pane in self.container.query(Pane):
            self.zoomed = pane
            pane.focus(scroll_visible=False)
        else:
            self.zoomed = None
        self.paint()

    def on_zoom_asked(self, message: ZoomAsked) -> None:
        message.stop()
        self.zoom(message.pane)

    def on_resize(self, event: Resize) -> None:
        self.paint()

    def on_screen_resume(self, event: ScreenResume) -> None:
        self.invalidate()
        self.paint()

    def invalidate(self) -> None:
        """Forget what is on screen: everything is drawn again."""
        for pane in self._panes:
            pane.invalidate()

    # -- keys -----------------------------------------------------------------------------------------------------

    def on_key(self, event: Key) -> None:
        event.stop()
        event.prevent_default()
        character = event.character if event.is_printable else None
        if self.line_is_open:
            self.command_line.handle(event.key, character)
            return
        self.desk.press(canonical(character or event.key))

    def active_pane(self) -> Pane:
        focused = self.focused
        return focused if isinstance(focused, Pane) and focused is not self.command_line else self.main_pane()

    def next_pane(self, step: int) -> None:
        panes = self.panes()
        if panes:
            here = panes.index(self.active_pane()) if self.active_pane() in panes else 0
            panes[(here + step) % len(panes)].focus(scroll_visible=False)

    def footer_actions(self) -> list[tuple[str, str, str, bool]]:
        """(id, key, title, can be done now), in order."""
        context = self.desk.context()
        keymap = self.desk.keymap
        shown = [action for action in ACTIONS if action.footer and action.on(self.ID) and self.offers(action)]
        shown.sort(key=lambda action: action.footer)
        pairs = [(action, keymap.key_of(action.id, self.ID)) for action in shown]
        return [(act.id, key, act.title_in(context), not act.disabled(context)) for act, key in pairs if key]

    def offers(self, action: Action) -> bool:
        """Whether the footer of this screen shows this action."""
        return action.id != "app.quit"

    def on_pressed(self, message: Pressed) -> None:
        message.stop()
        self.desk.perform(message.action)

    # -- the command line -----------------------------------------------------------------------------------------

    @property
    def line_is_open(self) -> bool:
        return self.has_class("line")

    def open_line(self, kind: LineKind, text: str = "") -> None:
        if self.has_class("small"):
            return
        self.command_line.open(kind, text)
        self.set_class(True, "line")
        self.command_line.focus(scroll_visible=False)
        self.command_line.paint()

    def close_line(self) -> None:
        self.set_class(False, "line")
        self.main_pane().focus(scroll_visible=False)
        self.paint()

    def on_entered(self, message: Entered) -> None:
        message.stop()
        self.close_line()
        self.desk.entered(message.kind, message.text)

    def on_closed(self, message: Closed) -> None:
        message.stop()
        self.close_line()

    def filter_values(self, key: str) -> Iterable[str]:
        """What TAB offers after `key:`. A screen with words of its own adds them."""
        state, values = self.session.state, completion.VALUES.get(key)
        return values(state) if state is not None and values is not None else ()

    def sort_columns(self) -> Iterable[str]:
        """What TAB offers after `:sort`."""
        pane = self.main_pane()
        return list(cast("TablePane[Any]", pane).sort_keys()) if isinstance(pane, TablePane) else ()

    def _complete(self, kind: LineKind, text: str) -> completion.Completed:
        from toka_console import colon

        if kind == "command":
            return colon.complete(text, lambda takes: completion.arguments(self, takes))
        return completion.filter_word(text, [*self.FILTER_KEYS, *self.NUMBER_KEYS], self.filter_values)

    def _filter_hint(self) -> str:
        return "  ".join(["text", "!not", "-f fuzzy", *(f"{key}:" for key in self.FILTER_KEYS if key != "text")])
