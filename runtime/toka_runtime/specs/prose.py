"""Sections of prose, in whatever shape they were written, to titled lists of lines; and what an agent reports."""

from __future__ import annotations

from toka_runtime.protocol.spec import Metric, ProseSection, ReportFrequency, Reporting
from toka_runtime.specs import fields
from toka_runtime.specs.reading import Reader, Section
from toka_runtime.specs.tree import Mapping, Node, Scalar, Sequence, is_null

FREQUENCIES = {
    "continuous": ReportFrequency.REAL_TIME,
    "realtime": ReportFrequency.REAL_TIME,
    "milestone": ReportFrequency.ON_MILESTONE,
    "completion": ReportFrequency.ON_COMPLETION,
}


def read_prose(node: Node | None) -> tuple[ProseSection, ...]:
    """A mapping of title → lines, a plain list, or one text: nothing is refused, nothing is lost."""
    if node is None or is_null(node):
        return ()
    if isinstance(node, Mapping):
        sections = (ProseSection(title=key.text, lines=tuple(_lines(value))) for key, value in node)
        return tuple(section for section in sections if section.lines)
    lines = tuple(_lines(node))
    return (ProseSection(title="", lines=lines),) if lines else ()


def _lines(node: Node) -> list[str]:
    match node:
        case Sequence():
            return [line for item in node.items if (line := _line(item))]
        case Mapping():
            return [f"{key.text}: {line}" if (line := _line(value)) else key.text for key, value in node]
        case Scalar():
            return [line] if (line := _line(node)) else []


def _line(node: Node) -> str:
    """One line for one item. `{risk: R, mitigation: M}` reads “R (mitigation: M)”."""
    match node:
        case Scalar():
            return "" if node.value is None else " ".join(node.text.split())
        case Sequence():
            return ", ".join(line for item in node.items if (line := _line(item)))
        case Mapping():
            parts = [(key.text, line) for key, value in node if (line := _line(value))]
            if len(parts) < 2:
                return ": ".join(parts[0]) if parts else ""
            rest = "; ".join(f"{key}: {line}" for key, line in parts[1:])
            return f"{parts[0][1]} ({rest})"


def read_reporting(reader: Reader, node: Node | None) -> Reporting:
    section = reader.section(node, "reporting", fields.REPORTING)
    if section is None:
        return Reporting()
    frequency = section.get("frequency")
    return Reporting(
        frequency=reader.as_choice(frequency, "reporting.frequency", ReportFrequency.ON_COMPLETION, FREQUENCIES),
        channels=reader.as_lines(section.get("channels"), "reporting.channels"),
        metrics=_metrics(reader, section.get("metrics")),
    )


def _metrics(reader: Reader, node: Node | None) -> tuple[Metric, ...]:
    """A mapping name → description; a list of one-key mappings, of names, or of {name, description, type, unit}."""
    if isinstance(node, Mapping):
        return tuple(_metric(reader, key, value) for key, value in node)
    found: list[Metric] = []
    repaired = False
    for number, item in enumerate(reader.as_items(node, "reporting.metrics"), 1):
        where = f"reporting.metrics[{number}]"
        if isinstance(item, Mapping) and (item.get("name") is not None or item.get("description") is not None):
            section = reader.section(item, where, fields.METRIC)
            name = reader.as_required_text(section, "name") if section else ""
            if section and name:
                found.append(Metric(name=name, **_rest(reader, section)))
        elif isinstance(item, Mapping):
            repaired = repaired or bool(item.entries)
            found.extend(_metric(reader, key, value) for key, value in item)
        elif name := reader.as_text(item, where):
            found.append(Metric(name=name))
    if repaired:
        reader.findings.repair(node, "repair.list_of_maps", "reporting.metrics: a list of mappings read as one mapping")
    return tuple(found)


def _metric(reader: Reader, key: Scalar, value: Node) -> Metric:
    where = f"reporting.metrics.{key.text}"
    if isinstance(value, Mapping):
        section = reader.section(value, where, fields.METRIC)
        return Metric(name=key.text, **_rest(reader, section)) if section else Metric(name=key.text)
    return Metric(name=key.text, description=reader.as_text(value, where))


def _rest(reader: Reader, section: Section) -> dict[str, str]:
    return {key: reader.as_text(section.get(key), section.path(key)) for key in ("description", "type", "unit")}
