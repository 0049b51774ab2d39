"""One agent's output: model text, tool cards and marks, wrapped lazily from the bounded ring.

The place in the text is an entry's serial and a row in it, never a row number from the start: nothing has to be
wrapped but what is shown. Following keeps the newest row at the bottom; scrolling up stops following, not the intake.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from rich.segment import Segment
from textual.events import MouseScrollDown, MouseScrollUp
from textual.strip import Strip

from toka_console.format.cells import Row
from toka_console.panes.base import FrameKind, Move, Pane
from toka_console.session import Session

if TYPE_CHECKING:
    from toka_console.identity import AgentKey
    from toka_console.ring import Entry, OutputRing

MAX_CACHED = 100


class OutputPane(Pane, can_focus=True):
    def __init__(
        self, session: Session, focus: Callable[[], AgentKey | None], *, id: str | None = None, title: str = "Output",
        frame: FrameKind = "box", instead: Callable[[int], list[Strip]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(session, id=id, frame=frame)
        self._focus = focus
        self._instead = instead
        """What is shown when no agent is focused, made for a width."""
        self._title = title
        self._key: AgentKey | None = None
        self._anchor: tuple[int, int] | None = None
        """(serial, row) of the first visible row; None: following."""
        self._cache: dict[int, tuple[int, int, list[Strip]]] = {}
        self._bottom: int | None = None
        """Serial of the newest entry when following stopped."""
        self._found: int | None = None
        """Serial of the problem that was jumped to."""
        self._seeking = 0
        """Direction of a jump that waits for what was said before this console looked."""

    @property
    def following(self) -> bool:
        return self._anchor is None

    def follow(self) -> None:
        self._anchor = self._found = None
        self.paint()

    def found(self) -> Entry | None:
        """The problem that was jumped to, while it is in the window."""
        ring = self.ring()
        return ring.get(self._found) if ring is not None and self._found is not None else None

    def to_problem(self, direction: int) -> bool:
        """Jump to the denial or failure after (+1) or before (-1) the last one found; while following, to the first or
        the last of all, once the log has been read. False when there is none."""
        from toka_console.ring import is_problem

        ring = self.ring()
        if ring is None:
            return False
        if self.following and self._earlier_comes(ring):
            self._seeking = direction
            return True
        if self.found() is not None and self._found is not None:
            number = self._found + direction
        elif self._anchor is not None:
            number = self._anchor[0]
        else:
            number = ring.first_serial if direction > 0 else ring.last_serial
        while (entry := ring.get(number)) is not None and not is_problem(entry):
            number += direction
        if entry is None:
            return False
        self._stop_following(ring, (number, 0))
        self._found = number
        self.paint()
        return True

    def _earlier_comes(self, ring: OutputRing) -> bool:
        """Whether history is still to be paged in."""
        state, key = self.session.state, self._focus()
        return ring.history_seq is not None and state is not None and key is not None and state.is_up(key.host)

    def paint(self) -> None:
        if self._seeking and (ring := self.ring()) is not None and not self._earlier_comes(ring):
            direction, self._seeking = self._seeking, 0
            self.to_problem(direction)
        super().paint()

    def ring(self) -> OutputRing | None:
        state, key = self.session.state, self._focus()
        if state is None or key is None or (entry := state.agents.get(key)) is None:
            return None
        if key != self._key:
            self._key, self._anchor, self._found, self._seeking = key, None, None, 0
            self._cache.clear()
        return entry.output

    def heading(self) -> tuple[str, str]:
        key, ring = self._focus(), self.ring()
        title = f"{self._title} {key.name}" if key is not None else self._title
        if ring is None:
            return title, ""
        if self.following:
            return title, "following"
        new = ring.last_serial - (self._bottom if self._bottom is not None else ring.last_serial)
        return title, f"view paused, {new:,} new below (F follows)" if new else "view paused (F follows)"

    def depends(self) -> Hashable:
        ring = self.ring()
        return None if ring is None else (self._focus(), ring.version, self._anchor, self._found)

    def content(self, width: int, height: int) -> list[Strip]:
        ring = self.ring()
        if ring is None or not ring.entries:
            if ring is None and self._instead is not None:
                return self._instead(width)[:height]
            text = "no output yet" if ring is not None else ""
            return [Row(width, self.palette.base).gap(2).add(text, self.palette.muted).strip()]
        if self._anchor is None:
            return self._last_rows(ring, width, height)[0]
        serial, skip = self._valid(self._anchor, ring)
        rows: list[Strip] = []
        for number in range(serial, ring.last_serial + 1):
            entry = ring.get(number)
            if entry is not None:
                drawn = self._rows(ring, entry, width)[skip:]
                rows += self._chosen(drawn, width) if number == self._found else drawn
            skip = 0
            if len(rows) >= height:
                break
        return rows[:height]

    def _chosen(self, rows: list[Strip], width: int) -> list[Strip]:
        base, chosen = self.palette.base, self.palette.selected
        return [Strip([Segment(text, chosen(style or base)) for text, style, _ in row], width) for row in rows]

    def _valid(self, anchor: tuple[int, int], ring: OutputRing) -> tuple[int, int]:
        """`anchor`, or the beginning when its entry has left the window."""
        return anchor if anchor[0] >= ring.first_serial else (ring.first_serial, 0)

    def _rows(self, ring: OutputRing, entry: Entry, width: int) -> list[Strip]:
        from toka_console.format.output_rows import entry_rows, gap_row

        known = self._cache.get(entry.serial)
        if known is None or known[:2] != (entry.version, width):
            if len(self._cache) > MAX_CACHED:
                self._cache.clear()
            known = (entry.version, width, entry_rows(entry, width, self.palette))
            self._cache[entry.serial] = known
        if entry.serial == ring.first_serial and ring.dropped_lines:
            return [gap_row(ring.dropped_lines, width, self.palette), *known[2]]
        return known[2]

    def _last_rows(self, ring: OutputRing, width: int, height: int) -> tuple[list[Strip], tuple[int, int]]:
        """The newest `height` rows, and the anchor of the first of them."""
        parts: list[list[Strip]] = []
        count = 0
        anchor = (ring.first_serial, 0)
        for entry in ring.back(ring.last_serial):
            rows = self._rows(ring, entry, width)
            parts.append(rows)
            count += len(rows)
            anchor = (entry.serial, max(0, count - height))
            if count >= height:
                break
        rows = [row for part in reversed(parts) for row in part]
        return rows[-height:] if height else [], anchor

    # -- moving ---------------------------------------------------------------------------------------------------

    def move(self, how: Move) -> None:
        ring = self.ring()
        if ring is None or not ring.entries:
            return
        height = max(1, self.inner_height)
        if how == "top":
            self._stop_following(ring, (ring.first_serial, 0))
        elif how == "bottom":
            self._anchor = self._found = None
        else:
            step = {"up": -1, "down": 1, "page_up": 1 - height, "page_down": height - 1,
                    "half_up": -(height // 2), "half_down": height // 2}[how]  # fmt: skip
            self._scroll(ring, step)
        self.paint()

    def _width(self) -> int:
        return self.size.width - (2 if self.frame == "box" else 0)

    def _stop_following(self, ring: OutputRing, anchor: tuple[int, int]) -> None:
        if self._anchor is None:
            self._bottom = ring.last_serial
        self._anchor = anchor

    def _scroll(self, ring: OutputRing, rows: int) -> None:
        width, height = self._width(), max(1, self.inner_height)
        end = self._last_rows(ring, width, height)[1]
        if self._anchor is None:
            if rows >= 0:
                return
            self._stop_following(ring, end)
        serial, row = self._valid(self._anchor or end, ring)
        row += rows
        while row < 0 and serial > ring.first_serial:
            serial -= 1
            entry = ring.get(serial)
            row += len(self._rows(ring, entry, width)) if entry is not None else 0
        row = max(0, row)
        while (entry := ring.get(serial)) is not None and row >= (size := len(self._rows(ring, entry, width))):
            row -= size
            serial += 1
        self._anchor = None if (serial, row) >= end and rows > 0 else (serial, row)

    def turn(self, direction: int) -> None:
        """Go to the turn or task before (-1) or after (+1) the first visible row."""
        from toka_console.ring import Mark

        ring = self.ring()
        if ring is None or not ring.entries:
            return
        end = self._last_rows(ring, self._width(), max(1, self.inner_height))[1]
        here = self._valid(self._anchor, ring) if self._anchor is not None else end
        # Inside a block, "before" is the head of this block.
        number = here[0] + (direction if direction > 0 or here[1] == 0 else 0)
        while ring.first_serial <= number <= ring.last_serial:
            entry = ring.get(number)
            if isinstance(entry, Mark) and entry.kind in ("turn", "task"):
                break
            number += direction
        else:
            number = ring.first_serial if direction < 0 else ring.last_serial + 1
        if (number, 0) >= end and direction > 0:
            self._anchor = None
        else:
            self._stop_following(ring, (number, 0))
        self.paint()

    def invalidate(self) -> None:
        super().invalidate()
        self._cache.clear()

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        event.stop()
        for _ in range(3):
            self.move("down")

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        event.stop()
        for _ in range(3):
            self.move("up")
