"""One agent's tree to an `AgentSpec`: every section read, every problem noted, nothing lost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, Priority, Security
from toka_runtime.specs import fields, tree
from toka_runtime.specs.authority import read_budget, read_grants, read_health, read_restart, read_security
from toka_runtime.specs.findings import Findings, quoted
from toka_runtime.specs.prose import read_prose, read_reporting
from toka_runtime.specs.reading import MAX_DESCRIPTION, MAX_NAME, Reader, Section, fold_key
from toka_runtime.specs.relations import PlacedDependency, check_agent_name, read_dependencies
from toka_runtime.specs.source import Place
from toka_runtime.specs.tree import Node, Scalar, is_null
from toka_runtime.specs.work import read_objectives, read_tasks

_DATES = ("created", "modified")
_BARE_DATE = re.compile(r"\d{4}-\d\d-\d\d([Tt ].*)?")
# What git refuses in a branch name (git-check-ref-format), and a leading “-”, which it would take for an option.
_BAD_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|^[-/.]|[/.]$|^@$")


@dataclass(slots=True)
class Draft:
    """An agent as far as it could be read. `spec` is there even when errors were found elsewhere in the file."""

    name: str
    findings: Findings
    spec: AgentSpec | None = None
    dependencies: Sequence[PlacedDependency] = ()
    place: Place | None = None
    """Of its name."""
    branch_place: Place | None = None
    task_places: Mapping[str, Place] = field(default_factory=dict[str, Place])
    """What a task depends on → where that is written."""
    capability_places: Mapping[str, Place] = field(default_factory=dict[str, Place])
    """Name of a permission → where it is written."""
    fleet_member: bool = False


def read_agent(root: tree.Mapping, findings: Findings, *, stem: str) -> Draft:
    """A file of the one-agent form. `stem` names the draft when the file gives no name."""
    reader = Reader(findings)
    if root.get("metadata") is None and root.get("name") is not None:
        findings.repair(root, "repair.shape", "metadata read from the top of the file")
        return _flat(reader, root, stem, None)
    top = Section(reader, root, "", fields.ROOT)
    metadata = reader.section(top.get("metadata"), "metadata", fields.METADATA)
    if metadata is None and is_null(top.get("metadata")):
        hint = "add “metadata:” with “name: …” below it"
        findings.error(root, "spec.missing_key", "metadata is missing", hint)
    about = reader.section(top.get("spec"), "spec", fields.SPEC)
    title = _text(reader, about, "name", limit=MAX_NAME)
    return _assemble(reader, top, Identity(metadata, about, title), stem, None)


def read_member(root: tree.Mapping, findings: Findings, *, stem: str, defaults: Security) -> Draft:
    """One of a fleet file's `[[agents]]`: identity is flat, security falls back to the file's defaults."""
    draft = _flat(Reader(findings), root, stem, defaults)
    draft.fleet_member = True
    return draft


@dataclass(frozen=True, slots=True)
class Identity:
    """Where an agent's name, branch, domain, priority … are read from; both are one where a file is flat."""

    metadata: Section | None
    about: Section | None
    title: str = ""


def _flat(reader: Reader, root: tree.Mapping, stem: str, defaults: Security | None) -> Draft:
    own = tuple(entry for entry in root if fold_key(entry[0].text) in fields.FLAT)
    body = tuple(entry for entry in root if fold_key(entry[0].text) not in fields.FLAT)
    identity = Section(reader, tree.Mapping(own, root.line, root.column), "", fields.FLAT)
    top = Section(reader, tree.Mapping(body, root.line, root.column), "", fields.BODY)
    return _assemble(reader, top, Identity(identity, identity), stem, defaults)


def _assemble(reader: Reader, top: Section, identity: Identity, stem: str, defaults: Security | None) -> Draft:
    findings = reader.findings
    draft = Draft(name=stem, findings=findings)
    metadata, about = identity.metadata, identity.about
    if metadata is not None:
        _identify(reader, metadata, draft)
    draft.dependencies = read_dependencies(reader, top.get("dependencies"))
    skills = reader.section(top.get("capabilities"), "capabilities", fields.CAPABILITIES)
    security = reader.section(top.get("security"), "security", fields.SECURITY, strict=True)
    grants = read_grants(reader, top.get("grants"), "grants")
    if security is not None:
        grants += read_grants(reader, security.get("grants"), "security.grants")
    tasks = read_tasks(reader, top.get("tasks"))
    if not tasks:
        place = top.get("tasks") or top.node
        findings.warning(place, "spec.no_tasks", "has no tasks: there is nothing to do", "add them under tasks.default")
    budget, task_budget = read_budget(reader, top.get("budget"))
    draft.spec = AgentSpec(
        name=AgentName(draft.name),
        **_metadata(reader, metadata, draft),
        title=identity.title,
        domain=_text(reader, about, "domain"),
        description=_text(reader, about, "description", limit=MAX_DESCRIPTION),
        priority=_priority(reader, about),
        skills_primary=_lines(reader, skills, "primary"),
        skills_secondary=_lines(reader, skills, "secondary"),
        objectives=read_objectives(reader, top.get("objectives")),
        tasks=tasks,
        dependencies=tuple(item.dependency for item in draft.dependencies),
        reporting=read_reporting(reader, top.get("reporting")),
        security=read_security(reader, security, defaults),
        directives=read_prose(top.get("behavioral_directives")),
        risks=read_prose(top.get("risk_mitigation")),
        success_criteria=read_prose(top.get("success_criteria")),
        inputs=reader.as_lines(top.get("inputs"), "inputs"),
        model=_model(reader, top.get("model")),
        budget=budget,
        task_budget=task_budget,
        restart=read_restart(reader, top.get("restart")),
        health=read_health(reader, top.get("health")),
        grants=grants,
        extensions=reader.unknown,
    )
    draft.task_places = reader.task_places
    draft.capability_places = reader.capability_places
    return draft


def _identify(reader: Reader, metadata: Section, draft: Draft) -> None:
    node = metadata.get("name")
    name = reader.as_required_text(metadata, "name", limit=MAX_NAME)
    if node is None or not name:
        return
    draft.place = Place(node.line, node.column)
    if check_agent_name(reader, node, name, metadata.path("name")):
        draft.name = name


def _metadata(reader: Reader, metadata: Section | None, draft: Draft) -> dict[str, str]:
    if metadata is None:
        return {}
    keys = [key for key in fields.METADATA if key not in ("name", "branch")]
    values = {key: _dated(reader, metadata, key) for key in keys}
    return values | {"branch": _branch(reader, metadata, draft)}


def _dated(reader: Reader, metadata: Section, key: str) -> str:
    node = metadata.get(key)
    if key in _DATES and isinstance(node, Scalar) and node.bare and _BARE_DATE.fullmatch(node.text):
        reader.findings.repair(node, "repair.bare_date", f"{metadata.path(key)}: a bare date read as text")
    return reader.as_text(node, metadata.path(key))


def _branch(reader: Reader, metadata: Section, draft: Draft) -> str:
    node = metadata.get("branch")
    branch = reader.as_text(node, metadata.path("branch"), limit=MAX_NAME)
    if node is None or not branch:
        return ""
    draft.branch_place = Place(node.line, node.column)
    if _BAD_BRANCH.search(branch):
        message = f"{metadata.path('branch')} {quoted(branch)} is not a branch name that git allows"
        reader.findings.error(node, "spec.bad_branch", message, "such as feature/tidy-docs")
        return ""
    return branch


def _text(reader: Reader, section: Section | None, key: str, *, limit: int | None = None) -> str:
    return reader.as_text(section.get(key), section.path(key), limit=limit) if section else ""


def _lines(reader: Reader, section: Section | None, key: str) -> tuple[str, ...]:
    return reader.as_lines(section.get(key), section.path(key)) if section else ()


def _priority(reader: Reader, section: Section | None) -> Priority:
    if section is None:
        return Priority.MEDIUM
    return reader.as_choice(section.get("priority"), section.path("priority"), Priority.MEDIUM)


def _model(reader: Reader, node: Node | None) -> str:
    model = reader.as_text(node, "model", limit=MAX_NAME)
    if node is not None and any(character.isspace() for character in model):
        reader.findings.error(node, "spec.bad_value", f"model {quoted(model)} is not a model name")
        return ""
    return model
