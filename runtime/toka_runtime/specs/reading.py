"""Reading typed values out of the tree: generous in shape, strict in meaning, every repair and every problem noted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from toka_runtime.specs.findings import Findings, did_you_mean, nearest, quoted
from toka_runtime.specs.source import Place
from toka_runtime.specs.tree import Mapping, Node, Scalar, Sequence, is_null, kind_of, plain
from toka_runtime.specs.units import Raw, UnitError

E = TypeVar("E", bound=StrEnum)
N = TypeVar("N", int, float)

MAX_NAME = 256
MAX_DESCRIPTION = 4096
MAX_COUNT = 2**53
_TYPO = 0.85
_TYPO_STRICT = 0.75
_WORDS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a section: what the JSON schema says of it, and other names it is met under."""

    schema: dict[str, Any]
    aliases: tuple[str, ...] = ()


Fields = dict[str, Field]


def fold_key(text: str) -> str:
    """`Max-Memory` and `max memory` are spellings of `max_memory`."""
    return text.strip().lower().replace("-", "_").replace(" ", "_")


@dataclass(slots=True)
class Reader:
    """Reads the values of one agent. Each `as_…` gives its default when the value is absent or wrong."""

    findings: Findings
    unknown: dict[str, Any] = field(default_factory=dict[str, Any])
    """Keys that no section knows, by dotted path: kept as extensions."""
    task_places: dict[str, Place] = field(default_factory=dict[str, Place])
    """What a task depends on → where that is written first."""
    capability_places: dict[str, Place] = field(default_factory=dict[str, Place])
    """Name of a permission → where it is written first."""

    def wrong_type(self, node: Node, what: str, wanted: str) -> None:
        self.findings.error(node, "spec.wrong_type", f"{what} is {kind_of(node)}, not {wanted}")

    def as_text(self, node: Node | None, what: str, *, limit: int | None = None) -> str:
        if node is None or is_null(node):
            return ""
        if not isinstance(node, Scalar):
            self.wrong_type(node, what, "text")
            return ""
        if not isinstance(node.value, str):
            self.findings.repair(node, "repair.text", f"{what}: {kind_of(node)} read as the text {quoted(node.text)}")
        text = node.text.strip()
        if limit is not None and len(text) > limit:
            self.findings.error(node, "spec.too_long", f"{what} has {len(text):,} characters", f"at most {limit:,}")
            return ""
        return text

    def as_required_text(self, section: Section, key: str, *, limit: int | None = None) -> str:
        """Empty only together with an error."""
        before = len(self.findings.errors)
        text = self.as_text(section.get(key), section.path(key), limit=limit)
        if not text and len(self.findings.errors) == before:
            place = section.get(key) or section.node
            self.findings.error(place, "spec.missing_key", f"{section.path(key)} is missing", f"add “{key}: …”")
        return text

    def as_lines(self, node: Node | None, what: str) -> tuple[str, ...]:
        """A list of texts; one text alone counts as a list of one."""
        if node is None or is_null(node):
            return ()
        if isinstance(node, Scalar):
            self.findings.repair(node, "repair.single_value", f"{what}: one value read as a list of one")
            return tuple(text for text in (self.as_text(node, what),) if text)
        if isinstance(node, Mapping):
            if node.entries:
                self.wrong_type(node, what, "a list")
            return ()
        texts = (self.as_text(item, f"{what}[{number}]") for number, item in enumerate(node.items, 1))
        return tuple(text for text in texts if text)

    def as_mapping(self, node: Node | None, what: str) -> Mapping | None:
        """A list of mappings counts as one mapping, when no key is there twice."""
        if node is None or is_null(node):
            return None
        if isinstance(node, Mapping):
            return node
        if isinstance(node, Sequence) and all(isinstance(item, Mapping) for item in node.items):
            entries = [entry for item in node.items if isinstance(item, Mapping) for entry in item]
            if len({key.text for key, _ in entries}) == len(entries):
                if entries:
                    self.findings.repair(node, "repair.list_of_maps", f"{what}: a list of mappings read as one mapping")
                return Mapping(tuple(entries), node.line, node.column)
        self.wrong_type(node, what, "a mapping")
        return None

    def as_items(self, node: Node | None, what: str) -> tuple[Node, ...]:
        """The items of a list; an empty mapping or nothing is an empty list, one mapping a list of one."""
        if node is None or is_null(node) or (isinstance(node, Mapping) and not node.entries):
            return ()
        if isinstance(node, Sequence):
            return node.items
        if isinstance(node, Mapping):
            self.findings.repair(node, "repair.single_value", f"{what}: one mapping read as a list of one")
            return (node,)
        self.wrong_type(node, what, "a list")
        return ()

    def as_choice(self, node: Node | None, what: str, default: E, aliases: dict[str, E] | None = None) -> E:
        if node is None or is_null(node):
            return default
        kind = type(default)
        values = [member.value for member in kind]
        if not isinstance(node, Scalar):
            self.wrong_type(node, what, "one of " + ", ".join(values))
            return default
        folded = node.text.strip().lower().replace("_", "-").replace(" ", "-")
        found = kind(folded) if folded in values else (aliases or {}).get(folded)
        if found is None:
            hint = did_you_mean(node.text, values, "one of " + ", ".join(values))
            self.findings.error(node, "spec.bad_value", f"{what} cannot be {quoted(node.text)}", hint)
            return default
        if node.text != found.value:
            self.findings.repair(node, "repair.alias", f"{what}: {quoted(node.text)} read as {quoted(found.value)}")
        return found

    def as_bool(self, node: Node | None, what: str, default: bool) -> bool:
        if node is None or is_null(node):
            return default
        if isinstance(node, Scalar):
            if isinstance(node.value, bool):
                return node.value
            if (meant := _WORDS.get(node.text.strip().lower())) is not None:
                self.findings.repair(node, "repair.alias", f"{what}: {quoted(node.text)} read as {str(meant).lower()}")
                return meant
        self.wrong_type(node, what, "true or false")
        return default

    def as_quantity(
        self, node: Node | None, what: str, parse: Callable[[Raw], N], *, minimum: float = 0, hint: str = ""
    ) -> N | None:
        """A number with a unit, None when absent or wrong. Zero is refused: a limit of nothing lets nothing run."""
        if node is None or is_null(node):
            return None
        if not isinstance(node, Scalar) or node.value is None:
            self.wrong_type(node, what, "a quantity")
            return None
        try:
            amount = parse(node.value)
        except UnitError as error:
            self.findings.error(node, error.code, f"{what}: {error.message}", error.hint)
            return None
        if amount <= 0 or amount < minimum:
            hint = hint or "it must be above zero"
            self.findings.error(node, "spec.bad_value", f"{what} cannot be {quoted(node.text)}", hint)
            return None
        return amount

    def as_count(self, node: Node | None, what: str, *, minimum: int = 1) -> int | None:
        """A whole number; digits may be grouped with _ or commas."""
        if node is None or is_null(node):
            return None
        if not isinstance(node, Scalar) or isinstance(node.value, bool):
            self.wrong_type(node, what, "a whole number")
            return None
        digits = node.text.strip().replace("_", "").replace(",", "")
        if isinstance(node.value, float) and node.value.is_integer():
            digits = str(int(node.value))
        if digits.isascii() and digits.isdigit() and len(digits) <= 16 and minimum <= int(digits) <= MAX_COUNT:
            return int(digits)
        hint = f"a whole number, at least {minimum}"
        self.findings.error(node, "spec.bad_value", f"{what} cannot be {quoted(node.text)}", hint)
        return None

    def section(self, node: Node | None, name: str, fields: Fields, *, strict: bool = False) -> Section | None:
        mapping = self.as_mapping(node, name)
        return None if mapping is None else Section(self, mapping, name, fields, strict=strict)


class Section:
    """A mapping whose keys are known. `get` finds a key under its own name, another spelling of it, or an alias.

    A key that nobody knows is kept (dotted) and warned of. In a `strict` section a near miss is an error: a misspelt
    limit must not become no limit.
    """

    def __init__(self, reader: Reader, node: Mapping, name: str, fields: Fields, *, strict: bool = False) -> None:
        self.node = node
        self.name = name
        self._reader = reader
        self._found: dict[str, tuple[Scalar, Node]] = {}
        aliases = {alias: key for key, known in fields.items() for alias in known.aliases}
        unknown: list[tuple[Scalar, Node]] = []
        for key, value in node:
            folded = fold_key(key.text)
            canonical = folded if folded in fields else aliases.get(folded)
            if canonical is None:
                unknown.append((key, value))
            else:
                self._take(canonical, key, value)
        free = [known for known in fields if known not in self._found]
        for key, value in unknown:
            self._unknown(key, value, free, strict)

    def path(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def get(self, key: str) -> Node | None:
        found = self._found.get(key)
        return found[1] if found else None

    def key(self, key: str) -> Scalar | None:
        """The key itself, for its place."""
        found = self._found.get(key)
        return found[0] if found else None

    def _take(self, canonical: str, key: Scalar, value: Node) -> None:
        findings = self._reader.findings
        if canonical in self._found:
            first = quoted(self._found[canonical][0].text)
            message = f"{self.path(canonical)} is given twice, as {first} and as {quoted(key.text)}"
            findings.error(key, "spec.duplicate_key", message, "remove one")
            return
        if key.text != canonical:
            findings.repair(key, "repair.alias", f"{quoted(key.text)} read as {self.path(canonical)}")
        self._found[canonical] = (key, value)

    def _unknown(self, key: Scalar, value: Node, free: list[str], strict: bool) -> None:
        findings, path = self._reader.findings, self.path(key.text)
        self._reader.unknown[path] = plain(value)
        meant = nearest(key.text, free, _TYPO_STRICT if strict else _TYPO)
        if meant and strict:
            findings.error(key, "spec.unknown_key", f"unknown key {quoted(path)}", f"did you mean {quoted(meant)}?")
        elif meant:
            message = f"unknown key {quoted(path)} has no effect"
            findings.warning(key, "spec.unknown_key", message, f"did you mean {quoted(meant)}?")
        elif self.name:
            findings.warning(key, "spec.unknown_key", f"unknown key {quoted(path)} has no effect", "it is kept")
