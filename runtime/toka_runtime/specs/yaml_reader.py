"""YAML to a tree, from the parser's events: no tag constructs anything, depth, aliases and size are bounded.

Working on events instead of a library's loader keeps every place, lets `on`, `no`, `1:30` and dates stay what was
written (YAML 1.2's core rules), and stops a nesting or alias bomb before it is built. The C parser is used where PyYAML
has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from toka_runtime.specs.findings import Findings, quoted
from toka_runtime.specs.source import FORBIDDEN, Place
from toka_runtime.specs.tree import Mapping, Node, Scalar, Sequence, Value

try:
    from yaml.cyaml import CBaseLoader as Parser
except ImportError:  # PyYAML built without libyaml: the same events, about twenty times slower
    from yaml import BaseLoader as Parser

MAX_DEPTH = 64
MAX_NODES = 20_000
MAX_ALIASED = 100_000
"""Characters and nodes that aliases may repeat, in all."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OTHER_INT = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({"!", _TAG + "str", _TAG + "timestamp"})
_KNOWN_TAGS = _TEXT_TAGS | {_TAG + kind for kind in ("null", "bool", "int", "float", "seq", "map")}
_MAX_DIGITS = 400


class _Stop(Exception):
    """The rest of the file can't be read; the reason is in the findings."""


@dataclass(slots=True)
class _Open:
    """A collection whose end has not been met."""

    event: NodeEvent
    anchor: str | None
    place: Place
    items: list[Node] = field(default_factory=list[Node])
    keys: list[Scalar] = field(default_factory=list[Scalar])
    weight: int = 1

    @property
    def expects_key(self) -> bool:
        return isinstance(self.event, MappingStartEvent) and len(self.keys) == len(self.items)


def read_yaml(text: str, findings: Findings) -> Node | None:
    """The one document's root, None when nothing could be read (the reason is in `findings`)."""
    try:
        # PyYAML's stubs leave the loader untyped.
        events = cast(Iterator[Event], cast(Any, yaml).parse(text, Loader=Parser))
        return _Builder(findings).build(events)
    except _Stop:
        return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else None
        message = ", ".join(part for part in (error.context, error.problem) if part) or "cannot be parsed"
        hint = _syntax_hint(text, place, message)
        if error.context_mark and place and error.context_mark.line + 1 != place.line:
            message += f"; it begins on line {error.context_mark.line + 1}"
        findings.error(place, "spec.yaml_syntax", f"YAML: {message}", hint)
    except yaml.YAMLError as error:
        findings.error(None, "spec.yaml_syntax", f"YAML: {str(error).splitlines()[0]}")
    return None


def _syntax_hint(text: str, place: Place | None, message: str) -> str:
    lines = text.splitlines()
    line = lines[place.line - 1] if place and 0 < place.line <= len(lines) else ""
    if line[: len(line) - len(line.lstrip())].count("\t"):
        return "indent with spaces: YAML does not allow tabs there"
    if "mapping values are not allowed" in message:
        return "put the text in quotes when it holds “: ”, or check the indentation"
    if "could not find expected ':'" in message or "did not find expected key" in message:
        return "check the indentation, and the colon after each key"
    if "did not find expected ',' or" in message or "flow node" in message:
        return "a [ or { is not closed"
    if "quoted scalar" in message:
        return "a quote is not closed"
    return ""


class _Builder:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._nodes = 0
        self._aliased = 0
        self._root: Node | None = None

    def build(self, events: Iterator[Event]) -> Node | None:
        documents = 0
        for event in events:
            match event:
                case DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        self._stop(event, "spec.many_documents", "a second document begins here", "one agent a file")
                case AliasEvent():
                    self._alias(event)
                case ScalarEvent():
                    self._add(self._scalar(event), len(event.value) + 1, event.anchor)
                case MappingStartEvent() | SequenceStartEvent():
                    self._begin(event)
                case MappingEndEvent() | SequenceEndEvent():
                    self._end()
                case _:
                    pass
        return self._root

    def _stop(self, event: Event | Place, code: str, message: str, hint: str = "") -> NoReturn:
        self._findings.error(event if isinstance(event, Place) else _place(event), code, message, hint)
        raise _Stop

    def _begin(self, event: MappingStartEvent | SequenceStartEvent) -> None:
        if len(self._stack) == MAX_DEPTH:
            self._stop(event, "spec.too_deep", f"is nested more than {MAX_DEPTH} levels deep")
        self._check_tag(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = None  # open: an alias to it would never end
        self._stack.append(_Open(event, event.anchor, _place(event)))

    def _end(self) -> None:
        done = self._stack.pop()
        line, column = done.place.line, done.place.column
        if isinstance(done.event, SequenceStartEvent):
            node: Node = Sequence(tuple(done.items), line, column)
        else:
            node = Mapping(self._entries(done), line, column)
        self._add(node, done.weight, done.anchor)

    def _add(self, node: Node, weight: int, anchor: str | None) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(Place(node.line, node.column), "spec.too_large", f"holds more than {MAX_NODES:,} values")
        if anchor is not None:
            self._anchors[anchor] = (node, weight)
        if not self._stack:
            self._root = node
            return
        parent = self._stack[-1]
        parent.weight += weight
        if not parent.expects_key:
            parent.items.append(node)
        elif isinstance(node, Scalar):
            parent.keys.append(node)
        else:
            place = Place(node.line, node.column)
            self._stop(place, "spec.wrong_type", f"{node.kind} cannot be a key", "a key is text")

    def _alias(self, event: AliasEvent) -> None:
        name = quoted(event.anchor)
        if event.anchor not in self._anchors:
            self._stop(event, "spec.yaml_syntax", f"alias {name} refers to nothing")
        found = self._anchors[event.anchor]
        if found is None:
            self._stop(event, "spec.alias_loop", f"alias {name} lies inside what it refers to")
        node, weight = found
        self._aliased += weight
        if self._aliased > MAX_ALIASED:
            self._stop(event, "spec.too_many_aliases", "aliases repeat too much", "write fewer of them")
        self._add(node, weight, None)

    def _entries(self, mapping: _Open) -> tuple[tuple[Scalar, Node], ...]:
        entries: dict[str, tuple[Scalar, Node]] = {}
        merged: list[Node] = []
        for key, value in zip(mapping.keys, mapping.items, strict=True):
            if key.text == "<<" and key.value == "<<":
                merged.extend(value.items if isinstance(value, Sequence) else [value])
            elif key.text in entries:
                first = entries[key.text][0].line
                message = f"key {quoted(key.text)} is there twice; the first is on line {first}"
                self._findings.error(key, "spec.duplicate_key", message, "remove one")
            else:
                entries[key.text] = (key, value)
        for other in merged:
            if not isinstance(other, Mapping):
                self._findings.error(other, "spec.wrong_type", "“<<” merges mappings only")
                continue
            for key, value in other:
                entries.setdefault(key.text, (key, value))
        return tuple(entries.values())

    def _check_tag(self, event: ScalarEvent | MappingStartEvent | SequenceStartEvent) -> None:
        if event.tag is not None and event.tag not in _KNOWN_TAGS:
            self._stop(event, "spec.tag", f"tag {quoted(event.tag)} is not allowed", "remove it: values are plain YAML")

    def _scalar(self, event: ScalarEvent) -> Scalar:
        self._check_tag(event)
        text, place = event.value, _place(event)
        # Only an escape can bring such a character past the check of the file's text.
        if event.style == '"' and (found := FORBIDDEN.search(text)):
            message = f"holds the control character U+{ord(found[0]):04X}"
            self._stop(event, "spec.control_character", message, "remove the escape")
        is_text = event.tag in _TEXT_TAGS if event.tag is not None else event.style not in (None, "")
        value = text if is_text else resolve(text)
        return Scalar(value, text, place.line, place.column, bare=not is_text)


def _place(event: Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1)


def resolve(text: str) -> Value:
    """A plain scalar's value by YAML 1.2's core schema: everything that is not plainly something else is text."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if len(text) > _MAX_DIGITS:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _OTHER_INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return float(text.replace(".", "").lower()) if _NOT_FINITE.fullmatch(text) else text
