"""The dependency graph: boxes in the colours of their states, what holds whom up, the critical path, a cursor.

Where everything stands is worked out once for each change of the graph (in a thread when it is large); a change of
state paints the cells in view again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Hashable
from typing import TYPE_CHECKING, Any

from rich.segment import Segment
from rich.style import Style
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.strip import Strip

from toka_console import fleet_list
from toka_console.format import graph_box, units
from toka_console.format.cells import Row
from toka_console.graph.critical import Critical, critical_path
from toka_console.graph.dag import Pair
from toka_console.graph.drawing import Point
from toka_console.graph.scene import Fleet, Scene, compose
from toka_console.identity import AgentKey
from toka_console.panes.base import FrameKind, Move, Pane
from toka_console.panes.table import Moved, Opened

if TYPE_CHECKING:
    from toka_console.graph.drawing import Box
    from toka_console.graph.layout import NetKey
    from toka_console.graph.scene import Part
    from toka_console.session import Session
    from toka_runtime.protocol.ids import AgentName, HostId

SMALL = 60
"""Up to so many agents the picture is made at once."""
_AROUND = 7
"""Rows of a screen around the picture, with all that may stand there."""
Spawn = Callable[[Coroutine[Any, Any, None], str], None]


class GraphPane(Pane, can_focus=True):
    def __init__(self, session: Session, spawn: Spawn, *, id: str | None = None, frame: FrameKind = "box") -> None:
        super().__init__(session, id=id, frame=frame)
        self.cursor: AgentKey | None = None
        self.scene = Scene()
        self.left = self.top = 0
        self.busy = False
        self._spawn = spawn
        self._asked: Hashable = None
        self._structure: Hashable = None
        self._critical: tuple[object, dict[HostId, Critical]] = (None, {})
        self._lines: tuple[Hashable, dict[Point, tuple[int, NetKey]]] = (None, {})

    # -- the picture ----------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Take the graph as it is now."""
        state = self.session.state
        width, height = self._window()
        if state is None or width <= 0 or height <= 0:
            return
        # Of the terminal: an alert line that comes and goes is no reason to lay everything out anew.
        height = self.screen.size.height - _AROUND
        chosen = self.session.filter("graph")
        asked = (state.order_version, chosen, width, height)
        if asked == self._asked:
            return
        self._asked = asked
        fleets = [Fleet(host, [view.spec for view in entry.fleet.agents.values()], self._chosen(host))
                  for host, entry in state.hosts.items()]  # fmt: skip
        graphs = tuple((host, tuple(map(id, specs)), names and tuple(names)) for host, specs, names in fleets)
        structure = (graphs, width, height)
        if structure == self._structure:
            return
        self._structure = structure
        if sum(len(fleet.specs) for fleet in fleets) <= SMALL:
            self._take(compose(fleets, width, height))
        else:
            self.busy = True
            self._spawn(self._make(fleets, width, height, structure), "graph")

    async def _make(self, fleets: list[Fleet], width: int, height: int, structure: Hashable) -> None:
        scene = await asyncio.to_thread(compose, fleets, width, height)
        if structure == self._structure:
            self._take(scene)
            self.paint()
            self.post_message(Moved())

    def _take(self, scene: Scene) -> None:
        self.busy = False
        self.scene = scene
        boxes = scene.boxes
        keys = {key for key, _ in boxes}
        if self.cursor not in keys:
            focus = self.session.focus
            self.cursor = focus if focus in keys else boxes[0][0] if boxes else None
        self._reveal()

    def _chosen(self, host: HostId) -> Collection[AgentName] | None:
        chosen, state = self.session.filter("graph"), self.session.known
        if not chosen:
            return None
        rows = fleet_list.rows(state, self.session.now(), chosen)
        return [row.agent.name for row in rows if row.agent is not None and row.host == host]

    def critical(self) -> dict[HostId, Critical]:
        """The critical path of each host, as of now."""
        state = self.session.known
        key = (id(self.scene), state.order_version)
        if self._critical[0] != key:
            found = {
                part.host: critical_path(part.dag, state.hosts[part.host].fleet.agents)
                for part in self.scene.parts
                if part.host in state.hosts
            }
            self._critical = (key, found)
        return self._critical[1]

    # -- cursor and window ----------------------------------------------------------------------------------------

    def _window(self) -> tuple[int, int]:
        """Cells for the picture; the last row of the pane tells what its lines mean."""
        return self.size.width - (2 if self.frame == "box" else 0), self.inner_height - 1

    def box(self) -> Box | None:
        part = self.scene.part(self.cursor.host) if self.cursor is not None else None
        found = part.drawing.boxes.get(self.cursor.name) if part is not None and self.cursor is not None else None
        return found._replace(y=found.y + part.top) if found is not None and part is not None else None

    def select(self, key: AgentKey | None) -> None:
        """Put the cursor on an agent, if it is in the picture."""
        if key is not None and any(key == other for other, _ in self.scene.boxes):
            self.cursor = key
            self._reveal()
            self.paint()
            self.post_message(Moved())

    def move(self, how: Move) -> None:
        self.step(how)

    def step(self, how: str) -> None:
        """Go to the nearest box in a direction: left, right, or one of `Move`."""
        if (here := self.box()) is not None:
            self.select(self.scene.beside(here, how, self._window()[1]))

    def cycle(self, by: int) -> None:
        """The next or the previous box in the order of reading."""
        keys = [key for key, _ in self.scene.boxes]
        if keys:
            at = keys.index(self.cursor) if self.cursor is not None and self.cursor in keys else -by
            self.select(keys[(at + by) % len(keys)])

    def _reveal(self) -> None:
        """Scroll as far as it takes to see the box under the cursor, with the lines beside it where there is room."""
        width, height = self._window()
        box = self.box()
        if box is None:
            self.left = self.top = 0
            return
        for_y, for_x = max(0, min(2, (height - box.height) // 2)), max(0, min(4, (width - box.width) // 2))
        self.top = max(min(self.top, box.y - for_y), box.y + box.height + for_y - height)
        self.left = max(min(self.left, box.x - for_x), box.x + box.width + for_x - width)
        self._bound()

    def _bound(self) -> None:
        width, height = self._window()
        self.top = max(0, min(self.top, self.scene.height - height))
        self.left = max(0, min(self.left, self.scene.width - width))

    def _more(self) -> str:
        """Arrows to where the picture goes on."""
        width, height = self._window()
        sides = (
            ("←", self.left > 0), ("→", self.left + width < self.scene.width),
            ("↑", self.top > 0), ("↓", self.top + height < self.scene.height),
        )  # fmt: skip
        there = " ".join(sign for sign, more in sides if more)
        return f"more {there}" if there else ""

    # -- drawing --------------------------------------------------------------------------------------------------

    def heading(self) -> tuple[str, str]:
        nodes = sum(len(part.dag.names) for part in self.scene.parts)
        edges = sum(len(part.dag.edges) for part in self.scene.parts)
        chosen = self.session.filter("graph")
        text = f"Graph {nodes}" + (f"  /{chosen.source}" if chosen else f"  {units.plural(edges, 'edge')}")
        return text + ("  drawing …" if self.busy else ""), self._more()

    def depends(self) -> Hashable:
        self.sync()
        state = self.session.state
        if state is None:
            return self.session.phase
        window = (self.left, self.top, *self._window())
        seen = tuple(state.agents[key].version for key, _ in self._visible() if key in state.agents)
        return id(self.scene), self.busy, self.cursor, window, state.order_version, seen

    def _visible(self) -> list[tuple[AgentKey, Box]]:
        width, height = self._window()
        return [
            (key, box)
            for key, box in self.scene.boxes
            if box.y < self.top + height and box.y + box.height > self.top
            and box.x < self.left + width and box.x + box.width > self.left
        ]  # fmt: skip

    def content(self, width: int, height: int) -> list[Strip]:
        self.sync()
        if self.session.state is None or not self.scene.parts or not self.scene.boxes:
            return [Row(width, self.palette.base).strip(), self._said(width)]
        self._bound()
        palette, rows = self.palette, height - 1
        canvas = _Canvas(width, rows, palette.base)
        for part in self.scene.parts:
            self._draw_lines(canvas, part)
            if len(self.scene.parts) > 1:
                canvas.put(0 - self.left, part.top - 1 - self.top, Row(width, palette.heading).add(part.host).strip())
        critical = {AgentKey(host, name) for host, found in self.critical().items() for name in found.agents}
        for key, box in self._visible():
            self._draw_box(canvas, key, box, critical=key in critical)
        return [*canvas.strips(), self._legend(width)][:height]

    def _said(self, width: int) -> Strip:
        chosen = self.session.filter("graph")
        text = self.scene.too_many or ("drawing …" if self.busy else "no agent is loaded")
        if chosen and not self.busy and not self.scene.too_many:
            text = f"no agent matches /{chosen.source}; esc clears the filter"
        elif self.session.state is None:
            text = f"{self.session.phase} …"
        return Row(width, self.palette.muted).gap(2).add(text).strip()

    def _draw_lines(self, canvas: _Canvas, part: Part) -> None:
        palette, (width, height) = self.palette, self._window()
        left, top = self.left, self.top - part.top
        key = (id(self.scene), part.host, left, top, width, height)
        if self._lines[0] != key:
            self._lines = (key, part.drawing.cells(left, top, width, height))
        cells = self._lines[1]
        for point, (mask, net) in cells.items():
            kind = graph_box.LIGHT if net.required else graph_box.DASHED
            canvas.set(point.x - left, point.y - top, kind[mask], palette.warn if net.upward else palette.faint)
        arrows: dict[Point, Style] = dict.fromkeys(part.drawing.arrows, palette.muted)
        for pair, kind, style in self._emphasised(part):
            for line in part.drawing.paths[pair]:
                for point, mask in line.cells(left, top, left + width, top + height):
                    known = cells.get(point)
                    whole = known[0] if known is not None and known[1] == line.net else mask
                    canvas.set(point.x - left, point.y - top, kind[whole], style)
            arrows[part.drawing.paths[pair][-1].end] = style
        for point, style in arrows.items():
            canvas.set(point.x - left, point.y - top, part.drawing.arrows[point], style)

    def _emphasised(self, part: Part) -> list[tuple[Pair, str, Style]]:
        """Edges of the critical path, then those that hold somebody up now: the later is seen."""
        palette, state = self.palette, self.session.known
        critical = self.critical().get(part.host, Critical()).pairs
        found = [(pair, graph_box.DOUBLE, palette.accent) for pair in critical if pair in part.drawing.paths]
        host = state.hosts.get(part.host)
        for pair in part.drawing.paths if host is not None else ():
            view = host.fleet.agents.get(pair.after) if host is not None else None
            if (
                view is not None
                and view.blockers
                and any(text.split(" ", 1)[0] == pair.before for text in view.blockers)
            ):
                found.append((pair, graph_box.HEAVY, palette.warn))
        return found

    def _draw_box(self, canvas: _Canvas, key: AgentKey, box: Box, *, critical: bool) -> None:
        palette, entry = self.palette, self.session.known.agents.get(key)
        inner, rows, chosen = box.width - 2, box.height - 2, key == self.cursor
        if entry is None:
            face = graph_box.absent(key.name, self.session, inner, rows)
        else:
            face = graph_box.face(entry, self.session, inner, rows, critical=critical, chosen=chosen)
        frame = graph_box.FRAMES["heavy" if chosen and not critical else face.frame]
        edge = palette.selected(face.edge) if chosen else face.edge
        x, y = box.x - self.left, box.y - self.top
        canvas.text(x, y, frame[0] + frame[1] * inner + frame[2], edge)
        for number, strip in enumerate(face.lines, 1):
            canvas.text(x, y + number, frame[3], edge)
            canvas.put(x + 1, y + number, strip, palette.selected if chosen else None)
            canvas.text(x + inner + 1, y + number, frame[3], edge)
        canvas.text(x, y + box.height - 1, frame[4] + frame[1] * inner + frame[5], edge)

    def _legend(self, width: int) -> Strip:
        """What the lines mean, and how long it takes at least."""
        palette = self.palette
        here = self.critical().get(self.cursor.host) if self.cursor is not None else None
        row = Row(width, palette.base).gap()
        if here is not None and len(here.agents) > 1:
            left = f", {units.elapsed(here.duration_s)} left by its specs" if here.duration_s is not None else ""
            row.add("══", palette.accent).add(f" critical path: {len(here.agents)} in a row{left}  ", palette.muted)
        row.add("━━", palette.warn).add(" holds up  ", palette.muted).add("╌╌", palette.faint).add(
            " optional", palette.muted
        )
        if any(edge.closes_cycle for part in self.scene.parts for edge in part.dag.edges):
            row.add("  △", palette.warn).add(" closes a cycle", palette.muted)
        return row.strip()

    def thumb(self, height: int) -> tuple[int, int] | None:
        shown = self._window()[1]
        if shown <= 0 or self.scene.height <= shown:
            return None
        size = max(1, shown * shown // self.scene.height)
        return round((shown - size) * self.top / (self.scene.height - shown)), size

    # -- mouse ----------------------------------------------------------------------------------------------------

    def on_click(self, event: Click) -> None:
        offset = 1 if self.frame == "box" else 0
        x, y = event.x - offset + self.left, event.y - (self.frame != "none") + self.top
        for key, box in self._visible():
            if box.x <= x < box.x + box.width and box.y <= y < box.y + box.height:
                self.select(key)
                if event.chain == 2:
                    self.post_message(Opened())

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        self._scroll(event, 3)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        self._scroll(event, -3)

    def _scroll(self, event: MouseScrollDown | MouseScrollUp, by: int) -> None:
        event.stop()
        if event.shift:
            self.left += 2 * by
        else:
            self.top += by
        self._bound()
        self.paint()


class _Canvas:
    """Cells of a window, each with its style; what lies outside is not drawn. Every character is one cell wide."""

    def __init__(self, width: int, height: int, base: Style) -> None:
        self._width = width
        self._base = base
        self._text = [[" "] * width for _ in range(height)]
        self._styles = [[base] * width for _ in range(height)]

    def set(self, x: int, y: int, character: str, style: Style) -> None:
        if 0 <= y < len(self._text) and 0 <= x < self._width:
            self._text[y][x] = character
            self._styles[y][x] = style

    def text(self, x: int, y: int, text: str, style: Style) -> None:
        for offset, character in enumerate(text):
            self.set(x + offset, y, character, style)

    def put(self, x: int, y: int, strip: Strip, changed: Callable[[Style], Style] | None = None) -> None:
        """A strip, its styles `changed`. The second cell of a wide character is left empty."""
        for text, style, _ in strip:
            drawn = changed(style or self._base) if changed is not None else style or self._base
            for character in text:
                size = Segment(character).cell_length
                self.set(x, y, character, drawn)
                for extra in range(1, size):
                    self.set(x + extra, y, "", drawn)
                x += size

    def strips(self) -> list[Strip]:
        """One strip a row; equal styles are one segment."""
        found: list[Strip] = []
        for texts, styles in zip(self._text, self._styles, strict=True):
            segments: list[Segment] = []
            start = 0
            for end in range(1, self._width + 1):
                if end == self._width or styles[end] is not styles[start]:
                    segments.append(Segment("".join(texts[start:end]), styles[start]))
                    start = end
            found.append(Strip(segments))
        return found
