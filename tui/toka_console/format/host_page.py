"""A host in words: how it is reached, what runs there, how far its clock is off, and what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console import asking_hosts
from toka_console.format.agent_sections import fact
from toka_console.format.units import age, clock_time, elapsed, plural
from toka_runtime.protocol.protections import TIER_MEANING

if TYPE_CHECKING:
    from toka_console.entries import HostEntry
    from toka_console.links import HostLink
    from toka_console.session import Session


def entry_of(link: HostLink, session: Session) -> HostEntry | None:
    """What the console knows of it; None while it is not attached."""
    state = session.state
    return state.hosts.get(link.host) if state is not None and link.host is not None else None


def state_of(link: HostLink, session: Session) -> tuple[str, str]:
    """(word, role of its style)."""
    if asking_hosts.first(session, link.wanted.name) is not None:
        return "asks", "warn"
    entry = entry_of(link, session)
    if entry is None or link.bridge is None:
        return link.step.value, {"detached": "muted", "connecting": "info"}.get(link.step.value, "bad")
    word = entry.link.state.value
    return word, {"up": "good", "connecting": "info", "closed": "muted"}.get(word, "bad")


def round_trip(entry: HostEntry | None) -> str:
    measured = entry.link.round_trip_s if entry is not None else None
    return "" if measured is None else elapsed(measured) if measured >= 0.01 else f"{measured * 1000:.1f} ms"


def skew(seconds: float) -> str:
    """`+1 h 0 m 3 s`, `−12 ms`: ahead of our clock, or behind."""
    sign = "−" if seconds < 0 else "+"
    seconds = abs(seconds)
    if seconds < 60:
        return sign + elapsed(seconds)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return sign + (f"{hours} h " if hours else "") + f"{minutes} m {rest} s"


def clock(entry: HostEntry | None) -> str:
    """`+1 h 0 m 3 s ± 2 ms`; "" while it is not measured."""
    link = entry.link if entry is not None else None
    return "" if link is None or link.skew_s is None else f"{skew(link.skew_s)} ± {elapsed(link.skew_error_s)}"


def role(entry: HostEntry | None) -> str:
    return "" if entry is None else "viewer" if entry.link.read_only else "full"


def agents(entry: HostEntry | None) -> str:
    """`3: 2 running, 1 failed`."""
    if entry is None:
        return ""
    counts: dict[str, int] = {}
    for view in entry.fleet.agents.values():
        word = view.state.value.lower()
        counts[word] = counts.get(word, 0) + 1
    named = ", ".join(f"{number} {word}" for word, number in counts.items())
    return f"{len(entry.fleet.agents)}: {named}" if named else "0"


def last_seen(link: HostLink, entry: HostEntry | None, session: Session) -> str:
    if entry is None:
        return ""
    if entry.link.state.value == "up":
        return "now"
    return f"{age(entry.last_seen, session.now())} ago"


def page(link: HostLink, session: Session, width: int) -> list[Strip]:
    palette, entry = session.palette, entry_of(link, session)
    word, style = state_of(link, session)
    lines = fact("host", f"{link.name}  {link.wanted.address}", session, width, palette.strong)
    since = entry.link.since if entry is not None else link.since
    detail = entry.link.detail if entry is not None else ""
    lines += fact("link", f"{word} since {clock_time(since)}  {detail}".rstrip(), session, width, palette.role(style))
    if (asked := asking_hosts.first(session, link.wanted.name)) is not None:
        lines += fact("asks", f"{asked.text}  (enter answers)", session, width, palette.warn)
    if link.reason:
        lines += fact("why", link.reason, session, width, palette.bad)
    if link.hint:
        lines += fact("do", link.hint, session, width)
    return lines if entry is None else lines + _attached(link, entry, session, width)


def _attached(link: HostLink, entry: HostEntry, session: Session, width: int) -> list[Strip]:
    told, palette = entry.link, session.palette
    version = f"runtime {told.version}" if told.version else ""
    protocol = f"protocol {told.protocol}" if told.protocol else ""
    far = f"round trip {round_trip(entry)}" if round_trip(entry) else ""
    lines = fact("speaks", "  ".join(each for each in (version, protocol, far) if each) or "in this process",
                 session, width)  # fmt: skip
    if told.read_only:
        lines += fact("role", told.read_only, session, width, palette.warn)
    if found := clock(entry):
        corrected = link.client is not None and bool(link.client.ahead)
        note = "  its times are corrected" if corrected else ""
        lines += fact("clock", f"{found}{note}", session, width, palette.warn if corrected else palette.base)
    if (offered := entry.fleet.protections) is not None:
        lines += fact("walls", f"tier {offered.tier.value}: {TIER_MEANING[offered.tier]}", session, width)
    lines += fact("agents", agents(entry), session, width)
    again = session.diagnostics.reconnects[entry.fleet.host]
    missed = f", {plural(entry.missed, 'event')} not shown" if entry.missed else ""
    seen = f"{last_seen(link, entry, session)}, {plural(again, 'reconnect')}{missed}"
    return lines + fact("seen", seen, session, width)
