"""An incident as strips: the clock, what is done and what is not, whom it is about, who did what, what was kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console import selectors
from toka_console.format import units
from toka_console.format.agent_sections import fact, heading
from toka_console.format.cells import Row
from toka_console.identity import AgentKey
from toka_console.incidents import elapsed_since
from toka_runtime.client.incident import Step

if TYPE_CHECKING:
    from toka_console.session import Session
    from toka_runtime.client.incident import Incident, Pinned

HOW = {
    Step.FIND: "open the incident",
    Step.CONTAIN: "p pauses it; ! pauses all",
    Step.SEE: ". goes to a denial, enter opens its call",
    Step.CUT: "x denies and revokes",
    Step.DECIDE: "p resumes it, K kills it",
    Step.PRESERVE: "E keeps the evidence",
}
_STEP = 9
_PAST = 20


def front(incident: Incident, session: Session, width: int) -> list[Strip]:
    """The clock, the checklist and the agents."""
    now = session.now()
    lasted = units.elapsed(elapsed_since(incident, now))
    ended = f"closed {units.clock_time(incident.closed_at)} after {lasted}" if incident.closed_at else f"{lasted} ago"
    opened = f"{incident.opened_at.astimezone():%Y-%m-%d %H:%M:%S}, {ended}"
    lines = fact("what", incident.title or "(no title)", session, width, session.palette.heading)
    lines += fact("opened", opened, session, width, session.palette.warn if incident.closed_at is None else None)
    lines += fact("by", f"{incident.opened_by}  {incident.id}", session, width, session.palette.muted)
    lines.append(heading("CHECKLIST", session, width))
    lines += [_step(incident, step, session, width) for step in Step]
    lines.append(heading(f"AGENTS {len(incident.agents)}", session, width))
    for pin in incident.agents:
        lines += _agent(pin, session, width)
    return lines


def _step(incident: Incident, step: Step, session: Session, width: int) -> Strip:
    palette, at = session.palette, incident.steps.get(step)
    row = Row(width, palette.base).gap()
    if at is None:
        return (
            row.add("○ ", palette.muted)
            .add(step.value, palette.base, _STEP)
            .gap()
            .add(HOW[step], palette.muted)
            .strip()
        )
    after = units.elapsed(max(0.0, (at - incident.opened_at).total_seconds()))
    row.add("✓ ", palette.good).add(step.value, palette.good, _STEP).gap()
    return row.add(f"done {units.clock_time(at)}, after {after}", palette.base).strip()


def _agent(pin: Pinned, session: Session, width: int) -> list[Strip]:
    entry = session.state.agents.get(AgentKey(pin.host, pin.agent)) if session.state is not None else None
    palette = session.palette
    row = Row(width, palette.base).gap().add(pin.agent, palette.base, min(34, max(12, width // 2))).gap()
    if entry is None:
        return [row.add(f"not here ({pin.host})", palette.muted).strip()]
    badge = selectors.badge(entry.view)
    row.add(f"{badge.glyph} {badge.word}", palette.role(badge.role))
    why = f"  {entry.view.denials} denials  {selectors.why(entry.view)}".rstrip()
    return [row.add(why, palette.muted).strip()]


def record(incident: Incident, session: Session, width: int) -> list[Strip]:
    """Who did what when, the notes, and what was kept."""
    palette = session.palette
    lines = [heading(f"WHO DID WHAT {len(incident.acts)}", session, width)]
    for act in incident.acts:
        lines += fact(units.clock_time(act.at), act.text, session, width)
    lines.append(heading(f"NOTES {len(incident.notes)}", session, width))
    for note in incident.notes:
        lines += fact(units.clock_time(note.at), note.text, session, width, palette.info)
    lines.append(heading(f"EVIDENCE {len(incident.evidence)}", session, width))
    for kept in incident.evidence:
        lines += fact(units.clock_time(kept.at), f"{kept.file}  sha256 {kept.sha256}", session, width)
    return lines


def past(incidents: list[Incident], session: Session, width: int) -> list[Strip]:
    """Those that are closed, the newest first."""
    if not incidents:
        return []
    lines = [heading(f"PAST {len(incidents)}", session, width)]
    for each in incidents[:_PAST]:
        done = f"{len(each.steps)} of {len(Step)} done in {units.elapsed(elapsed_since(each, session.now()))}"
        agents = ", ".join(pin.agent for pin in each.agents)
        text = f"{each.opened_at.astimezone():%Y-%m-%d %H:%M} {each.title or agents}: {done}"
        lines += fact("", text, session, width, session.palette.muted)
    return lines


def nothing(session: Session, width: int) -> list[Strip]:
    palette = session.palette
    text = "No incident is open. :incident open TITLE opens one about the agent under the cursor, or all marked ones."
    return [*fact("", text, session, width, palette.base)]
