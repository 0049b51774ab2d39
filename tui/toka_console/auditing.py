"""What the actions of the Timeline do: showing it, going from trouble to trouble, writing it to a file."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from toka_console.actions import Context
from toka_console.format.units import plural, size
from toka_console.handling import handles

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
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
    elif app.bridge is not None:
        app.bridge.spawn(_export(app, Path(argument).expanduser()), "export of the timeline")


async def _export(app: ConsoleApp, path: Path) -> None:
    """All records that the filter lets through, from the log itself, as JSON lines."""
    from toka_console.format import record_page
    from toka_console.panes.trail_table import matching
    from toka_console.trail import KINDS, record_of
    from toka_runtime.protocol.commands import ReadEvents
    from toka_runtime.whole_file import write_new

    bridge, chosen = app.bridge, app.session.filter("timeline")
    if bridge is None:
        return
    lines: list[str] = []
    after, more = 0, True
    while more:
        found, more = await bridge.read_page(ReadEvents(after_seq=after, kinds=KINDS, limit=EXPORT_PAGE))
        records = [record_of(envelope) for envelope in found]
        lines += [record_page.as_json(each) for each in matching(records, chosen, app.session.now())]
        after = found[-1].seq if found else after
        more = more and bool(found)
    data = "".join(line + "\n" for line in lines).encode()
    try:
        await asyncio.to_thread(write_new, path, data)
    except FileExistsError:
        app.say(f"{path} is there already; nothing was written", "bad")
    except OSError as error:
        app.say(f"{path} cannot be written: {error.strerror or error}", "bad")
    else:
        digest = hashlib.sha256(data).hexdigest()
        app.say(f"wrote {path}: {plural(len(lines), 'record')}, {size(len(data))}, sha256 {digest[:16]}…")
