"""What the actions of the Timeline do: showing it, going from trouble to trouble, writing it to a file."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from toka_console.actions import Context
from toka_console.exporting import told, write_pages
from toka_console.format.units import plural, size
from toka_console.handling import handles

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
    from toka_console.bridge import Bridge
    from toka_console.screens.timeline import TimelineScreen

EXPORT_PAGE = 2_000


@handles("screen.timeline")
def timeline(app: ConsoleApp, context: Context, argument: str) -> None:
    app.navigator.go("timeline")


@handles("agent.audit")
def audit(app: ConsoleApp, context: Context, argument: str) -> None:
    if context.focus is not None:
        app.navigator.go("timeline")
        app.entered("filter", f"agent:={context.focus.name} host:={context.focus.host}")


def _screen(app: ConsoleApp) -> TimelineScreen:
    from toka_console.screens.timeline import TimelineScreen

    if not isinstance(app.current, TimelineScreen):
        app.navigator.go("timeline")
    screen = app.current
    if not isinstance(screen, TimelineScreen):
        raise TypeError("the Timeline is not on screen: the registry allows this action elsewhere")
    return screen


@handles("timeline.next_problem")
def next_problem(app: ConsoleApp, context: Context, argument: str) -> None:
    if not _screen(app).table.to_problem(1):
        app.say("no denial or failure further down", "info")


@handles("timeline.previous_problem")
def previous_problem(app: ConsoleApp, context: Context, argument: str) -> None:
    if not _screen(app).table.to_problem(-1):
        app.say("no denial or failure further up, as far as the log has been read", "info")


@handles("timeline.follow")
def follow(app: ConsoleApp, context: Context, argument: str) -> None:
    table = _screen(app).table
    table.following = not table.following
    app.repaint()


@handles("timeline.export")
def export(app: ConsoleApp, context: Context, argument: str) -> None:
    """Without a file: the line, begun."""
    if not argument:
        app.current.open_line("command", "export-timeline ")
    elif (bridge := app.bridge) is not None:
        path = Path(argument).expanduser()
        bridge.spawn(told(app, path, _export(app, bridge, path)), "export of the timeline")


async def _export(app: ConsoleApp, bridge: Bridge, path: Path) -> tuple[str, str]:
    """All records that the filter lets through, from the log itself, as JSON lines."""
    async with aclosing(_records(app, bridge)) as pages:
        done = await write_pages(path, pages)
    facts = f"{plural(done.records, 'record')}, {size(done.bytes)}, sha256 {done.digest[:16]}…"
    return f"wrote {path}: {facts}", "info"


async def _records(app: ConsoleApp, bridge: Bridge) -> AsyncGenerator[list[bytes]]:
    from toka_console.format import record_page
    from toka_console.panes.trail_table import matching
    from toka_console.trail import KINDS, record_of
    from toka_runtime.protocol.commands import ReadEvents

    chosen = app.session.filter("timeline")
    async with aclosing(bridge.pages(ReadEvents(kinds=KINDS, limit=EXPORT_PAGE))) as pages:
        async for page in pages:
            shown = matching(map(record_of, page), chosen, app.session.now())
            yield [f"{record_page.as_json(each)}\n".encode() for each in shown]
