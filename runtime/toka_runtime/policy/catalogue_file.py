"""Reading one catalogue file: strict about keys, names and patterns, and trying every rule's examples."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, cast

from toka_runtime.errors import PolicyError
from toka_runtime.policy.engine import decide
from toka_runtime.policy.scopes import Unusable, check_host, check_path
from toka_runtime.protocol.capability import (
    Allowed,
    ExecuteRule,
    NetworkRule,
    Operation,
    OperationKind,
    PathRule,
    Rights,
    Toolchain,
    ToolchainFolder,
)
from toka_runtime.specs.toml_places import Places, find_places

SCHEMA = 1
SCOPE_KINDS = ("read", "write", "execute", "network", "environment")
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Capability:
    name: str
    text: str
    """What it allows, in a few words for the operator."""
    rights: Rights
    """Its own rules, without those of what it includes."""
    synonyms: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    scope: str = ""
    """What a scope in `grants` narrows: one of `SCOPE_KINDS`, "" when it cannot be scoped."""
    scope_required: bool = False
    """It grants nothing until a scope says what."""
    suggest: bool = True
    """A denial may name it as what is missing."""


@dataclass(frozen=True)
class CatalogueText:
    """A file and the places in it."""

    file: Path
    text: str

    @cached_property
    def places(self) -> Places:
        """Found when something is wrong: nobody else asks, and it takes as long as reading the file."""
        return find_places(self.text)

    def at(self, path: tuple[str | int, ...]) -> str:
        """`file:line:column` of the key or table at the path; the file alone where it has none."""
        place = self.places.keys.get(path) or self.places.values.get(path)
        return f"{self.file}:{place.line}:{place.column}" if place is not None else str(self.file)


@dataclass(frozen=True, slots=True)
class Example:
    rule: str
    operation: Operation
    capability: str
    covered: bool
    entry: _Table
    """The rule that it is an example of."""


@dataclass
class Draft:
    """What the files read so far amount to."""

    capabilities: dict[str, Capability] = field(default_factory=dict[str, Capability])
    tables: dict[str, _Table] = field(default_factory=dict[str, "_Table"])
    """The table of each capability, and of `baseline`, that was written last."""
    synonyms: dict[str, str] = field(default_factory=dict[str, str])
    baseline: list[str] = field(default_factory=list[str])
    with_execute: list[str] = field(default_factory=list[str])
    deny_read: list[PathRule] = field(default_factory=list[PathRule])
    programs_read: list[PathRule] = field(default_factory=list[PathRule])
    deny_write: list[PathRule] = field(default_factory=list[PathRule])
    deny_environment: list[str] = field(default_factory=list[str])
    broad_suffixes: list[str] = field(default_factory=list[str])
    toolchains: dict[str, Toolchain] = field(default_factory=dict[str, Toolchain])
    runs_anything: list[str] = field(default_factory=list[str])
    """Programs through which anything can be run: a rule for one has to say so."""
    examples: list[Example] = field(default_factory=list[Example])

    def where(self, name: str) -> str:
        """The place of a capability, or of `baseline`."""
        return self.tables[name].where


class _Table:
    """A TOML table that says where it is when something in it is wrong, and knows which keys were asked for."""

    def __init__(self, value: Any, file: CatalogueText, path: tuple[str | int, ...] = (), label: str = "") -> None:
        self._file, self._path, self._label = file, path, label
        if not isinstance(value, dict):
            raise PolicyError(f"{self.where}: a table is needed, not {type(value).__name__}")
        self._value = cast(dict[str, Any], value)
        self._asked: set[str] = set()

    @property
    def where(self) -> str:
        """`file:line:column` and what stands there."""
        return f"{self._file.at(self._path)}{self._label}"

    def at(self, key: str) -> str:
        """As `where`, of one key."""
        return f"{self._file.at((*self._path, key))}{self._label}"

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise PolicyError(f"{self.at(key)}: {key} has to be text")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise PolicyError(f"{self.at(key)}: {key} has to be true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._get(key, ())
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in cast(list[Any], value)):
            raise PolicyError(f"{self.at(key)}: {key} has to be a list of texts")
        return tuple(cast(list[str], value))

    def table(self, key: str) -> _Table:
        return _Table(self._get(key, {}), self._file, (*self._path, key), f"{self._label} [{key}]")

    def tables(self, key: str) -> list[_Table]:
        value = self._get(key, [])
        if not isinstance(value, list):
            raise PolicyError(f"{self.at(key)}: {key} has to be a list of tables")
        return [
            _Table(item, self._file, (*self._path, key, number), f"{self._label}, {key} rule {number + 1}")
            for number, item in enumerate(cast(list[Any], value))
        ]

    def raw(self, key: str) -> Any:
        return self._get(key, None)

    def named_tables(self) -> dict[str, _Table]:
        self._asked.update(self._value)
        return {
            key: _Table(value, self._file, (*self._path, key), f"{self._label}.{key}")
            for key, value in self._value.items()
        }

    def done(self) -> None:
        unknown = sorted(set(self._value) - self._asked)
        if unknown:
            known = ", ".join(sorted(self._asked))
            raise PolicyError(f"{self.at(unknown[0])}: unknown key {unknown[0]!r}", hint=f"known here: {known}")

    def _get(self, key: str, default: Any) -> Any:
        self._asked.add(key)
        if key in self._value:
            return self._value[key]
        if default is None and key != "argv":
            raise PolicyError(f"{self.where}: {key} is missing")
        return default


def read_table(raw: dict[str, Any], file: CatalogueText, draft: Draft) -> None:
    """Add one file to the draft. Raises PolicyError."""
    top = _Table(raw, file)
    if raw.get("schema") != SCHEMA:
        raise PolicyError(f"{top.at('schema')}: schema = {SCHEMA} is expected")
    top.raw("schema")
    base = top.table("baseline")
    draft.tables["baseline"] = base
    draft.baseline += base.texts("capabilities")
    draft.with_execute += base.texts("with_execute")
    base.done()
    protected = top.table("protected")
    draft.deny_read += _protected(protected, "read")
    draft.programs_read += _protected(protected, "programs_read")
    draft.deny_write += _protected(protected, "write")
    draft.deny_environment += protected.texts("environment")
    draft.broad_suffixes += protected.texts("broad_suffixes")
    draft.runs_anything += protected.texts("runs_anything")
    protected.done()
    for name, table in top.table("toolchain").named_tables().items():
        # One of the same name takes the other's place: the operator knows the machine.
        draft.toolchains[name] = _toolchain(name, table)
    for name, table in top.table("capability").named_tables().items():
        _capability(name, table, draft)
    top.done()


def _protected(table: _Table, key: str) -> list[PathRule]:
    return [PathRule(id=f"protected:{glob}", capability="", glob=_glob(glob, table)) for glob in table.texts(key)]


def _toolchain(name: str, table: _Table) -> Toolchain:
    programs = table.texts("programs")
    if not programs:
        raise PolicyError(f"{table.where}: programs has to name at least one")
    folders = tuple(_toolchain_folder(entry) for entry in table.tables("folder"))
    table.done()
    return Toolchain(name=name, programs=programs, folders=folders)


def _toolchain_folder(entry: _Table) -> ToolchainFolder:
    at, read, own = entry.texts("at"), entry.texts("read"), entry.text("own", "")
    if not at or any(not re.fullmatch(r"\$[A-Z_]+|(?:~/|/)[^$*?\[]*[^$*?\[/]", place) for place in at):
        raise PolicyError(f"{entry.where}: at is a list of `$VARIABLE`, `~/folder` or `/folder`, without wildcards")
    for part in (*read, *filter(None, (own,))):
        if part != "." and (_glob(part, entry) != part or any(char in part for char in "*?[")):
            raise PolicyError(
                f"{entry.where}: {part!r} is not the plain name of something in the folder",
                hint="name each part that is needed: all of a folder may hold credentials",
            )
    variable = entry.text("variable", "")
    if variable and not _ENVIRONMENT_NAME.fullmatch(variable):
        raise PolicyError(f"{entry.where}: {variable!r} is no name of an environment variable")
    entry.done()
    return ToolchainFolder(at=at, read=read, variable=variable, own=own)


def _capability(name: str, table: _Table, draft: Draft) -> None:
    if not _NAME.fullmatch(name):
        raise PolicyError(f"{table.where}: a capability's name is lower case words joined by hyphens")
    extends, replaces = table.flag("extends"), table.flag("replaces")
    draft.tables[name] = table
    before = draft.capabilities.get(name)
    if before is not None and not (extends or replaces):
        raise PolicyError(
            f"{table.where}: {name} is defined already",
            hint="say `extends = true` to add rules to it or `replaces = true` to put this in its place",
        )
    if before is None and (extends or replaces):
        raise PolicyError(f"{table.where}: there is no {name} to extend or replace")
    if replaces:
        draft.examples = [example for example in draft.examples if example.capability != name]
    rights = Rights(
        read=_paths(name, "read", table, draft),
        write=_paths(name, "write", table, draft),
        execute=_programs(name, table, draft),
        network=_hosts(name, table, draft),
        environment=_environment(table),
        model=table.flag("model"),
    )
    entry = Capability(
        name=name,
        text=table.text("text", before.text if before and extends else None),
        rights=rights,
        synonyms=table.texts("synonyms"),
        includes=table.texts("includes"),
        scope=_scope(table, rights),
        scope_required=table.flag("scope_required"),
        suggest=table.flag("suggest", True),
    )
    table.done()
    if entry.scope_required and not entry.scope:
        raise PolicyError(f"{table.where}: scope_required needs scope, one of {', '.join(SCOPE_KINDS)}")
    if before is not None and replaces:
        draft.examples = [
            example for example in draft.examples if example.capability != name or example in draft.examples
        ]
    draft.capabilities[name] = _extended(before, entry) if before is not None and extends else entry


def _extended(before: Capability, entry: Capability) -> Capability:
    old, new = before.rights, entry.rights
    return Capability(
        name=before.name,
        text=entry.text,
        rights=Rights(
            read=old.read + new.read,
            write=old.write + new.write,
            execute=old.execute + new.execute,
            network=old.network + new.network,
            environment=old.environment + new.environment,
            model=old.model or new.model,
        ),
        synonyms=before.synonyms + entry.synonyms,
        includes=before.includes + entry.includes,
        scope=before.scope or entry.scope,
        scope_required=before.scope_required or entry.scope_required,
        suggest=before.suggest,
    )


def _scope(table: _Table, rights: Rights) -> str:
    scope = table.text("scope", "")
    if scope and scope not in SCOPE_KINDS:
        raise PolicyError(f"{table.where}: scope is one of {', '.join(SCOPE_KINDS)}")
    kinds = [kind for kind in SCOPE_KINDS if getattr(rights, kind)]
    return scope or (kinds[0] if len(kinds) == 1 else "")


def _paths(name: str, kind: str, table: _Table, draft: Draft) -> tuple[PathRule, ...]:
    operation = OperationKind.READ if kind == "read" else OperationKind.WRITE
    rules: list[PathRule] = []
    for entry in table.tables(kind):
        glob = _glob(entry.text("glob"), entry)
        rule = PathRule(id=f"{name}:{glob}", capability=name, glob=glob)
        rules.append(rule)
        for example, covered in _examples(entry):
            draft.examples.append(Example(rule.id, Operation(kind=operation, target=example), name, covered, entry))
        entry.done()
    return tuple(rules)


def _programs(name: str, table: _Table, draft: Draft) -> tuple[ExecuteRule, ...]:
    rules: list[ExecuteRule] = []
    for entry in table.tables("execute"):
        open_ended = entry.flag("open_ended")
        conditions = {
            "refuse": entry.texts("refuse"),
            "inside_only": entry.flag("inside_only"),
            "options_only": entry.flag("options_only"),
            "open_ended": open_ended,
        }
        first = len(rules)
        for prefix in _prefixes(entry):
            if (prefix == ("*",) or (prefix[0] in draft.runs_anything and not conditions["refuse"])) and not open_ended:
                raise PolicyError(
                    f"{entry.where}: {prefix[0]} can run anything", hint="say `open_ended = true`, so that it is shown"
                )
            rules.append(
                ExecuteRule.model_validate(
                    {"id": f"{name}:{' '.join(prefix)}", "capability": name, "argv_prefix": prefix, **conditions}
                )
            )
        for example, covered in _examples(entry):
            argv = tuple(shlex.split(example))
            operation = Operation(kind=OperationKind.EXECUTE, target=example, argv=argv)
            draft.examples.append(Example(rules[first].id, operation, name, covered, entry))
        entry.done()
    return tuple(rules)


def _prefixes(entry: _Table) -> list[tuple[str, ...]]:
    """`argv = ["git", ["add", "mv"]]` is two prefixes: `git add` and `git mv`."""
    value = entry.raw("argv")
    if not isinstance(value, list) or not value:
        raise PolicyError(f"{entry.where}: argv has to be a list that begins with a program's name")
    choices: list[list[str]] = []
    for part in cast(list[Any], value):
        options = cast(list[Any], part) if isinstance(part, list) else [part]
        if not options or not all(isinstance(option, str) and option for option in options):
            raise PolicyError(f"{entry.where}: each part of argv is a text or a list of texts")
        choices.append(options)
    if any(char in word for words in choices for word in words for char in "*?[$`\\~{") and choices != [["*"]]:
        raise PolicyError(f"{entry.where}: argv is matched literally and has no wildcards (only ['*'] alone)")
    return [tuple(words) for words in product(*choices)]


def _hosts(name: str, table: _Table, draft: Draft) -> tuple[NetworkRule, ...]:
    rules: list[NetworkRule] = []
    for entry in table.tables("network"):
        try:
            host, port = check_host(entry.text("at"), frozenset(draft.broad_suffixes))
        except Unusable as error:
            raise PolicyError(f"{entry.where}: {error}") from error
        rule = NetworkRule(id=f"{name}:{host}:{port}", capability=name, host=host, port=port)
        rules.append(rule)
        for example, covered in _examples(entry):
            draft.examples.append(
                Example(rule.id, Operation(kind=OperationKind.CONNECT, target=example), name, covered, entry)
            )
        entry.done()
    return tuple(rules)


def _environment(table: _Table) -> tuple[str, ...]:
    names = table.texts("environment")
    for name in names:
        if not _ENVIRONMENT_NAME.fullmatch(name):
            raise PolicyError(f"{table.where}: {name!r} is no name of an environment variable")
    return names


def _examples(entry: _Table) -> list[tuple[str, bool]]:
    return [(text, True) for text in entry.texts("match")] + [(text, False) for text in entry.texts("no_match")]


def _glob(glob: str, entry: _Table) -> str:
    try:
        return check_path(glob)
    except Unusable as error:
        raise PolicyError(f"{entry.where}: {error}") from error


def check_examples(draft: Draft) -> None:
    """Try every example against its capability alone (with what is protected). Raises PolicyError naming the rule."""
    for example in draft.examples:
        capability = draft.capabilities[example.capability]
        rights = capability.rights.model_copy(
            update={"deny_read": tuple(draft.deny_read), "deny_write": tuple(draft.deny_write)}
        )
        decision = decide(example.operation, rights)
        if isinstance(decision, Allowed) != example.covered:
            has, should = ("covers", "not to") if isinstance(decision, Allowed) else ("does not cover", "to")
            target = repr(example.operation.target)
            raise PolicyError(
                f"{example.entry.where}: rule {example.rule}: it {has} {target}, which its example says {should}"
            )
