"""What copying and exporting of logs and output do: a line, a window, or complete records from the runtime's store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from toka_console import clipboard
from toka_console.actions import Context
from toka_console.exporting import told, write_pages
from toka_console.format.units import plural, size
from toka_console.handling import handles

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
    from toka_console.bridge import Bridge
    from toka_console.identity import AgentKey
    from toka_runtime.protocol.events import OutputAppended

EXPORT_PAGE = 1_000


@handles("logs.copy")
def copy_line(app: ConsoleApp, context: Context, argument: str) -> None:
    from toka_console.panes.logs import LogsPane

    pane = app.current.active_pane()
    line = pane.selected() if isinstance(pane, LogsPane) else None
    if line is None:
        app.say("nothing is under the cursor", "warn")
    else:
        _copy(app, line.text, "line" + (f" (its first {len(line.text):,} characters)" if line.cut else ""))


@handles("logs.copy_all")
def copy_window(app: ConsoleApp, context: Context, argument: str) -> None:
    """Every line that scope, range and filter let through, as far as they are here."""
    from toka_console.panes.logs import LogsPane

    pane = app.current.active_pane()
    lines = pane.visible_text() if isinstance(pane, LogsPane) else []
    _copy(app, "\n".join(lines), plural(len(lines), "line"))


def _copy(app: ConsoleApp, text: str, what: str) -> None:
    async def work() -> None:
        try:
            method = await clipboard.copy(text, app.copy_to_clipboard)
        except clipboard.NotCopied as error:
            app.say(str(error), "bad")
        else:
            app.say(f"copied {what}, {size(len(text.encode()))}, by {method}")

    if app.bridge is not None:
        app.bridge.spawn(work(), "copy")


@handles("logs.export")
def export(app: ConsoleApp, context: Context, argument: str) -> None:
    """Without a file: the line, begun."""
    if not argument:
        app.current.open_line("command", "export ")
        return
    scope, path = _scope(app, context), Path(argument).expanduser()
    bridge = app.links.bridge_of(scope.host) if scope is not None else app.bridge
    if bridge is not None:
        bridge.spawn(told(app, path, _export(bridge, path, scope)), "export")


def _scope(app: ConsoleApp, context: Context) -> AgentKey | None:
    from toka_console.screens.logs import LogsScreen

    return app.current.logs.scope if isinstance(app.current, LogsScreen) else context.focus


async def _export(bridge: Bridge, path: Path, scope: AgentKey | None) -> tuple[str, str]:
    """What the log has, nothing cut: `.txt` what was printed, anything else JSON lines of every event. What the runtime
    itself did not keep, because it came too fast, is told."""
    from toka_runtime.protocol.codec import encode
    from toka_runtime.protocol.commands import ReadEvents
    from toka_runtime.protocol.events import OutputAppended

    lost = 0

    async def records() -> AsyncGenerator[list[bytes]]:
        nonlocal lost
        read = ReadEvents(agent=scope.name if scope is not None else None, limit=EXPORT_PAGE)
        async with aclosing(bridge.pages(read)) as pages:
            async for page in pages:
                printed = [event for each in page if isinstance(event := each.event, OutputAppended)]
                lost += sum(event.dropped_bytes for event in printed)
                whole = path.suffix != ".txt"
                yield [encode(each) + b"\n" for each in page] if whole else [_printed(event) for event in printed]

    async with aclosing(records()) as pages:
        done = await write_pages(path, pages)
    of = scope.name if scope is not None else "all agents"
    less = f"{size(lost)} came too fast and were not kept; " if lost else ""
    facts = f"{plural(done.records, 'record')} of {of}, {size(done.bytes)}, sha256 {done.digest}"
    return f"{less}wrote {path}: {facts}", "warn" if less else "info"


def _printed(event: OutputAppended) -> bytes:
    note = f"\n⋯ {event.dropped_bytes:,} bytes came too fast and were not kept ⋯\n" if event.dropped_bytes else ""
    return (event.text + note).encode()
