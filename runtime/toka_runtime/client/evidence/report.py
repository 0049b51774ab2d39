"""REPORT.md: the bundle in words, for whoever has to understand what happened. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from toka_runtime.client.evidence.story import Lines, Story, shown, stamp
from toka_runtime.client.incident import Incident, Step
from toka_runtime.protocol.snapshot import AgentView


@dataclass(slots=True)
class AgentPart:
    view: AgentView
    folder: str
    story: Story = field(default_factory=Story)
    redactions: int = 0
    """In the transcript, when it was read."""
    missing: dict[str, str] = field(default_factory=dict[str, str])
    """What the bundle does not have → why."""


@dataclass(slots=True)
class HostPart:
    host: str
    folder: str
    version: str
    head: int
    agents: list[AgentPart]
    acts: Lines = field(default_factory=Lines)
    proof: str = "unavailable"
    """What was known of the audit log's proof when the bundle was made."""


@dataclass(frozen=True, slots=True)
class About:
    at: datetime
    actor: str
    incident: Incident | None = None
    """What the bundle is about, when it is about one."""


def report(about: About, hosts: Sequence[HostPart]) -> str:
    agents = ", ".join(f"{part.view.name} on {host.host}" for host in hosts for part in host.agents)
    title = about.incident.title if about.incident else ""
    lines = [
        f"# Evidence: {_text(title or agents)}",
        "",
        f"- agents: {_text(agents)}",
        f"- made: {stamp(about.at)} by {_text(about.actor)}",
        "- check: `toka-runtime evidence verify FILE`; every entry’s size and SHA-256 is in MANIFEST.json",
        "",
    ]
    if about.incident:
        lines += _incident(about.incident)
    for host in hosts:
        for part in host.agents:
            lines += _agent(host, part)
        lines += [f"## Operators on {_text(host.host)}", "", *_list(host.acts, f"{host.folder}/operators.jsonl"), ""]
    lines += _what_to_know(hosts)
    return "\n".join(lines) + "\n"


def _incident(incident: Incident) -> list[str]:
    steps = [f"{step}: {stamp(incident.steps[step]) if step in incident.steps else 'not done'}" for step in Step]
    notes = [f"{stamp(note.at)}  {note.text}" for note in incident.notes]
    lines = [f"- incident {_text(incident.id)}: opened {stamp(incident.opened_at)} by {_text(incident.opened_by)}", ""]
    return [*lines, "## Steps", "", *_bullets(steps), "", "## Notes of the operator", "", *_bullets(notes), ""]


def _agent(host: HostPart, part: AgentPart) -> list[str]:
    view, story = part.view, part.story
    verified = f"{view.tasks_done} of {len(view.tasks)} tasks done, {view.tasks_verified} verified"
    spent = f"{view.tokens.total_tokens:,} tokens, ${view.cost_usd:,.4f}, {view.model_calls} model calls"
    facts = [
        ("state at the end", f"{view.state}{f', {view.reason}' if view.reason else ''}, since {stamp(view.since)}"),
        ("detail", view.detail),
        ("runs", ", ".join(story.runs) or "none"),
        ("work", verified),
        ("spent", spent),
        ("records", f"{story.kinds.total():,}, up to number {host.head} of the log"),
        ("time", f"{stamp(story.first)} to {stamp(story.last)}" if story.first and story.last else "nothing recorded"),
        ("protections", "; ".join(view.protections) or "none in force"),
        ("survivors", ", ".join(map(str, view.survivors))),
        ("files", f"{part.folder}/"),
    ]
    lines = [f"## {_text(view.name)} on {_text(host.host)}", ""]
    lines += [f"- {name}: {_text(value)}" for name, value in facts if value]
    lines += ["", "### Declared rights", "", *_bullets(view.rights.text), ""]
    for title, found in (("States", story.states), ("Denials", story.denials), ("Acts of operators", story.acts)):
        lines += [f"### {title}", "", *_list(found, f"{part.folder}/events.jsonl"), ""]
    return lines


def _what_to_know(hosts: Sequence[HostPart]) -> list[str]:
    lines = ["## What to know about this bundle", ""]
    for host in hosts:
        lines.append(f"- proof of the audit log of {_text(host.host)}: {_text(host.proof)}")
        for part in host.agents:
            name = _text(part.view.name)
            lines.append(
                f"- redacted of {name}: {part.redactions} in the transcript when it was read, "
                f"{part.story.redactions} in requests to the model when they were made. Output and events were "
                "redacted when they were recorded, the git diff when it was made. What is taken out (known secrets, "
                "and what looks like a key) reads [redacted:…]"
            )
            lines += [f"- not here of {name}: {_text(what)}: {_text(why)}" for what, why in part.missing.items()]
    return lines


def _list(found: Lines, file: str) -> list[str]:
    more = found.count - len(found.kept)
    return _bullets(found.kept) + ([f"- … and {more:,} more: {file}"] if more else [])


def _bullets(texts: Iterable[str]) -> list[str]:
    return [f"- {_text(text)}" for text in texts] or ["- none"]


def _text(text: str) -> str:
    """One line that neither a terminal nor a reader of Markdown takes for more than text."""
    text = shown(" ".join(text.split()))
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in text)
