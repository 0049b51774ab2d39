"""Dependencies on other agents, in all the shapes they are written in."""

from __future__ import annotations

import re
from dataclasses import dataclass

from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import Dependency, DependencyCondition
from toka_runtime.specs import fields
from toka_runtime.specs.findings import quoted
from toka_runtime.specs.reading import MAX_NAME, Reader
from toka_runtime.specs.source import Place
from toka_runtime.specs.tree import Mapping, Node, Scalar, Sequence, is_null

_NAME = re.compile(fields.NAME_PATTERN.removesuffix("$"))
_NAME_HINT = "letters, digits, “-”, “_” and “.”, beginning with a letter or digit"


@dataclass(frozen=True, slots=True)
class PlacedDependency:
    dependency: Dependency
    place: Place


def is_agent_name(text: str) -> bool:
    """A name that is safe as a folder, as the last part of a git branch and on a command line."""
    whole = _NAME.fullmatch(text) is not None and len(text) <= MAX_NAME
    return whole and ".." not in text and not text.endswith((".", ".lock"))


def check_agent_name(reader: Reader, node: Node, text: str, what: str) -> bool:
    if is_agent_name(text):
        return True
    hint = f"at most {MAX_NAME} characters" if len(text) > MAX_NAME else _NAME_HINT
    reader.findings.error(node, "spec.bad_name", f"{what} {quoted(text)} is not a name", hint)
    return False


def read_dependencies(reader: Reader, node: Node | None) -> tuple[PlacedDependency, ...]:
    """Required ones first, each in file order. One agent counts once: required wins over optional."""
    if isinstance(node, Sequence):
        reader.findings.repair(node, "repair.shape", "dependencies: a list read as dependencies.required")
        found = _group(reader, node, "dependencies", required=True)
    else:
        section = reader.section(node, "dependencies", fields.DEPENDENCIES, strict=True)
        if section is None:
            return ()
        found = _group(reader, section.get("required"), "dependencies.required", required=True)
        found += _group(reader, section.get("optional"), "dependencies.optional", required=False)
    kept: dict[AgentName, PlacedDependency] = {}
    for item in found:
        name = item.dependency.agent
        if name in kept:
            line = kept[name].place.line
            message = f"dependency on {quoted(name)} is there twice; the one on line {line} counts"
            reader.findings.warning(item.place, "spec.duplicate_dependency", message, "remove one")
        else:
            kept[name] = item
    return tuple(kept.values())


def _group(reader: Reader, node: Node | None, where: str, *, required: bool) -> list[PlacedDependency]:
    found: list[PlacedDependency | None] = []
    match node:
        case None:
            pass
        case Mapping():
            found = [_one(reader, key, key.text, value, where, required) for key, value in node]
        case Sequence():
            repaired = False
            for item in node.items:
                if isinstance(item, Mapping) and (item.get("agent") is not None or item.get("name") is not None):
                    found.append(_detailed(reader, item, where, required))
                elif isinstance(item, Mapping):
                    repaired = True
                    found += [_one(reader, key, key.text, value, where, required) for key, value in item]
                elif name := reader.as_text(item, where):
                    found.append(_one(reader, item, name, None, where, required))
            if repaired:
                reader.findings.repair(node, "repair.list_of_maps", f"{where}: a list of mappings read as one mapping")
        case Scalar():
            if not is_null(node) and (name := reader.as_text(node, where)):
                reader.findings.repair(node, "repair.single_value", f"{where}: one name read as a list of one")
                found = [_one(reader, node, name, None, where, required)]
    return [item for item in found if item is not None]


def _one(
    reader: Reader, at: Node, name: str, value: Node | None, where: str, required: bool
) -> PlacedDependency | None:
    if not check_agent_name(reader, at, name, where):
        return None
    condition, reason = DependencyCondition.COMPLETED, ""
    if isinstance(value, Mapping):
        section = reader.section(value, f"{where}.{name}", fields.DEPENDENCY, strict=True)
        if section is not None:
            reason = reader.as_text(section.get("reason"), section.path("reason"))
            condition = reader.as_choice(section.get("condition"), section.path("condition"), condition)
    elif value is not None:
        reason = reader.as_text(value, f"{where}.{name}")
        if reason in list(DependencyCondition):
            hint = f"write {{condition: {reason}}} if a condition was meant"
            reader.findings.warning(value, "spec.reason_or_condition", f"{quoted(reason)} is read as a reason", hint)
    dependency = Dependency(agent=AgentName(name), reason=reason, required=required, condition=condition)
    return PlacedDependency(dependency, Place(at.line, at.column))


def _detailed(reader: Reader, item: Mapping, where: str, required: bool) -> PlacedDependency | None:
    section = reader.section(item, where, fields.DEPENDENCY, strict=True)
    if section is None or not (name := reader.as_required_text(section, "agent")):
        return None
    at = section.get("agent") or item
    rest = Mapping(tuple((key, value) for key, value in item if key.text not in ("agent", "name")))
    return _one(reader, at, name, rest, where, required)
