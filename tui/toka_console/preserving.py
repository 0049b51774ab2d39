"""Keeping what happened: `E` writes an evidence bundle of the agent under the cursor, or of all that are marked."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from toka_console.actions import Context
from toka_console.clean import clean, one_line
from toka_console.format.units import plural, size
from toka_console.handling import handles
from toka_console.identity import AgentKey
from toka_runtime.errors import LinkDown, TokaError

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
    from toka_runtime.client.evidence.collect import Written


@handles("agent.evidence")
def evidence(app: ConsoleApp, context: Context, argument: str) -> None:
    keys = chosen(app, context, named=bool(argument))
    if not keys:
        app.say("evidence of whom? no agent is selected", "warn")
    elif app.bridge is not None:
        app.say(f"writing evidence of {_names(keys)} …")
        app.bridge.spawn(_preserve(app, keys), "evidence")


def chosen(app: ConsoleApp, context: Context, *, named: bool) -> tuple[AgentKey, ...]:
    """The marked agents, else those of the incident on screen, else the one that what is under the cursor is about.
    `named`: the focused one was typed."""
    if context.marked:
        return tuple(entry.key for entry in context.targets)
    incidents = app.session.incidents
    if not named and context.screen == "incident" and incidents is not None and incidents.current is not None:
        pinned = [AgentKey(pin.host, pin.agent) for pin in incidents.current.agents]
        return tuple(key for key in pinned if context.state is not None and key in context.state.agents)
    if not named and context.screen in ("denials", "call"):
        return (context.denial.key,) if context.denial is not None else ()
    return (context.focus,) if context.entry is not None and context.focus is not None else ()


async def _preserve(app: ConsoleApp, keys: tuple[AgentKey, ...]) -> None:
    try:
        done = await write(app, keys)
    except (TokaError, OSError) as error:
        app.say(f"NO EVIDENCE was written of {_names(keys)}: {_cause(error)}", "bad")
        return
    if app.session.incidents is not None:
        app.session.incidents.preserved(keys, done.path, done.digest)
    left = f"; not in it: {one_line(clean(done.missing[0]))}" if done.missing else ""
    more = f" and {len(done.missing) - 1} more" if len(done.missing) > 1 else ""
    facts = f"{plural(done.files, 'file')}, {size(done.bytes)}, sha256 {done.digest[:16]}…"
    app.say(f"wrote {done.path}: {facts}{left}{more}", "warn" if done.missing else "info")


async def write(app: ConsoleApp, keys: tuple[AgentKey, ...]) -> Written:
    """Write a bundle, of one host or several, to the operator's evidence folder. Raises TokaError, OSError."""
    bridges = {key.host: app.links.bridge_of(key.host) for key in keys}
    attached = {host: bridge for host, bridge in bridges.items() if bridge is not None}
    if away := bridges.keys() - attached.keys():
        raise LinkDown(f"not attached: {', '.join(sorted(away))}")
    # In a thread: it takes the interpreter's time, not the loop's turn.
    await asyncio.to_thread(importlib.import_module, "toka_runtime.client.evidence.collect")
    from toka_runtime.client.evidence import collect, place
    from toka_runtime.client.evidence.report import About

    incidents = app.session.incidents
    current = incidents.current if incidents is not None and incidents.has(keys) else None
    about = About(app.session.now(), next(iter(attached.values())).actor, current)
    folder = place.evidence_folder()
    await asyncio.to_thread(_make_private, folder)
    path = folder / place.file_name([key.name for key in keys], about.at)
    subjects = [
        collect.Subject(bridge.client, tuple(key.name for key in keys if key.host == host))
        for host, bridge in attached.items()
    ]
    return await collect.write_bundle(path, subjects, about)


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _names(keys: tuple[AgentKey, ...]) -> str:
    return keys[0].name if len(keys) == 1 else plural(len(keys), "agent")


def _cause(error: Exception) -> str:
    if isinstance(error, FileExistsError):
        return f"{error.filename} is there already"
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return one_line(clean(f"{error.strerror or error}{where}"))
    return one_line(clean(str(error) or type(error).__name__))
