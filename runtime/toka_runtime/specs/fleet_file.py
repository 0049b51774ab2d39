"""The TOML form: one file, settings for the fleet, and many agents."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from pydantic import Field

from toka_runtime.protocol.model import Model
from toka_runtime.protocol.spec import SandboxMode, Security
from toka_runtime.protocol.usage import ResourceLimits
from toka_runtime.specs import fields, units
from toka_runtime.specs.authority import read_limits
from toka_runtime.specs.findings import Findings, nearest, quoted
from toka_runtime.specs.normalise import Draft, read_agent, read_member
from toka_runtime.specs.reading import Reader, Section
from toka_runtime.specs.tree import Mapping, Node, Sequence, plain

WORKSPACE_READER = ("filesystem-read",)
"""Permissions of an agent that declares none: reading its workspace, no more."""


_READ = frozenset({"agents", "orchestration", "security", "llm"})
_TYPO = 0.85


class FleetSettings(Model):
    """What a fleet file says of all its agents. Only what is typed here has an effect; the rest is kept."""

    file: str
    max_concurrent_agents: int | None = None
    agent_spawn_timeout_s: float | None = None
    workstream_timeout_s: float | None = None
    default_security: Security = Security(capabilities_required=WORKSPACE_READER)
    provider: str = ""
    """`llm.provider` and `llm.model` as written: for show, the runtime has settings of its own."""
    model: str = ""
    extensions: dict[str, Any] = Field(default_factory=dict[str, Any])
    """Every other section and key: storage, monitoring, caching …"""


def read_fleet(root: Mapping, file: str, findings: Findings) -> tuple[FleetSettings | None, list[Draft]]:
    """Settings (None after an error in them or when there are none) and one draft an agent. Problems of the file as a
    whole go to `findings`, those of an agent to its draft."""
    stem = PurePath(file).stem
    agents = root.get("agents")
    if agents is None and root.get("metadata") is not None:
        return None, [read_agent(root, findings, stem=stem)]
    if not isinstance(agents, Sequence) or not agents.items:
        message = "is not a fleet file: it has no [[agents]]"
        findings.error(agents or root, "spec.no_agents", message, "give each agent an [[agents]] table")
        return None, []
    settings = _settings(root, file, findings)
    drafts: list[Draft] = []
    for number, item in enumerate(agents.items, 1):
        own = Findings(file)
        if isinstance(item, Mapping):
            drafts.append(read_member(item, own, stem=f"{stem}-{number}", defaults=settings.default_security))
        else:
            Reader(own).wrong_type(item, f"agents[{number}]", "a table")
            drafts.append(Draft(name=f"{stem}-{number}", findings=own))
    return settings, drafts


def _settings(root: Mapping, file: str, findings: Findings) -> FleetSettings:
    reader = Reader(findings)
    extensions = {key.text: plain(value) for key, value in root if key.text not in _READ}
    orchestration, rest = _known(reader, root.get("orchestration"), "orchestration", fields.ORCHESTRATION)
    extensions |= rest
    security, rest = _known(reader, root.get("security"), "security", fields.FLEET_SECURITY)
    extensions |= rest
    llm, rest = _known(reader, root.get("llm"), "llm", fields.FLEET_LLM)
    extensions |= rest
    timeout = _duration(reader, orchestration, "workstream_timeout")
    return FleetSettings(
        file=file,
        max_concurrent_agents=_get_count(reader, orchestration),
        agent_spawn_timeout_s=_duration(reader, orchestration, "agent_spawn_timeout"),
        workstream_timeout_s=timeout,
        default_security=_security(reader, security, timeout),
        provider=reader.as_text(llm.get("provider"), "llm.provider") if llm else "",
        model=reader.as_text(llm.get("model"), "llm.model") if llm else "",
        extensions=extensions,
    )


def _known(reader: Reader, node: Node | None, name: str, known: fields.Fields) -> tuple[Section | None, dict[str, Any]]:
    """The keys we read as a section; the others, which are many and no mistake, as they are."""
    mapping = reader.as_mapping(node, name)
    if mapping is None:
        return None, {}
    names = set(known) | {alias for key in known.values() for alias in key.aliases}
    ours = tuple(entry for entry in mapping if entry[0].text in names)
    rest: dict[str, Any] = {}
    for key, value in mapping:
        if key.text in names:
            continue
        rest[f"{name}.{key.text}"] = plain(value)
        if meant := nearest(key.text, [key for key in known if mapping.get(key) is None], _TYPO):
            message = f"unknown key {quoted(f'{name}.{key.text}')}"
            # A limit or a sandbox setting that is misspelt must not silently be none.
            reader.findings.error(key, "spec.unknown_key", message, f"did you mean {quoted(meant)}?")
    return Section(reader, Mapping(ours, mapping.line, mapping.column), name, known), rest


def _get_count(reader: Reader, section: Section | None) -> int | None:
    key = "max_concurrent_agents"
    return reader.as_count(section.get(key), section.path(key)) if section else None


def _duration(reader: Reader, section: Section | None, key: str) -> float | None:
    return reader.as_quantity(section.get(key), section.path(key), units.parse_duration) if section else None


def _security(reader: Reader, section: Section | None, timeout_s: float | None) -> Security:
    base = ResourceLimits(timeout_s=timeout_s)
    if section is None:
        return Security(capabilities_required=WORKSPACE_READER, limits=base)
    sandboxed = reader.as_bool(section.get("sandbox_enabled"), "security.sandbox_enabled", True)
    return Security(
        sandbox=SandboxMode.REQUIRED if sandboxed else SandboxMode.NONE,
        capabilities_required=WORKSPACE_READER,
        limits=read_limits(reader, section.get("resource_limits"), "security.resource_limits", base),
    )
