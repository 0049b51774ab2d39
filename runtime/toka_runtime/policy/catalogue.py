"""The capability catalogue: what each permission name means, as data.

The shipped catalogue is `configs/capabilities.toml`; operators add their own file. A name that no entry defines grants
nothing. Every rule's examples are tried when a file is loaded, so a rule that does not mean what it says never runs;
the shipped file alone, byte for byte as it was tested, is not tried again at each start.
"""

from __future__ import annotations

import difflib
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from toka_runtime.errors import PolicyError
from toka_runtime.paths import config_dir, shipped_configs
from toka_runtime.policy.catalogue_file import Capability, CatalogueText, Draft, check_examples, read_table
from toka_runtime.policy.remedies import Remedies
from toka_runtime.protocol.capability import OperationKind, PathRule, Toolchain
from toka_runtime.specs.findings import Findings
from toka_runtime.specs.source import read_source
from toka_runtime.specs.toml_reader import parse_toml

FILE_NAME = "capabilities.toml"
TRIED = "4cd51060341f485d586f82667a8b046e7dc9eb123c32e595f200d1db241107f5"
"""SHA-256 of the shipped file whose examples the tests have tried. Any other is tried when it is loaded."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    capabilities: Mapping[str, Capability]
    """By canonical name, in the order of the files: narrow ones first."""
    synonyms: Mapping[str, str]
    """Other spelling → canonical name."""
    baseline: tuple[str, ...]
    """Every agent has these."""
    with_execute: tuple[str, ...]
    """An agent that may run any program has these too."""
    deny_read: tuple[PathRule, ...]
    programs_read: tuple[PathRule, ...]
    deny_write: tuple[PathRule, ...]
    toolchains: tuple[Toolchain, ...]
    deny_environment: frozenset[str]
    broad_suffixes: frozenset[str]
    """A wildcard host directly below one of these would cover unrelated owners."""
    remedies: Remedies

    def canonical(self, name: str) -> str | None:
        """The name that the catalogue uses, None for one that it does not define."""
        return name if name in self.capabilities else self.synonyms.get(name)

    def defines(self, name: str) -> bool:
        return self.canonical(name) is not None

    def nearest(self, name: str) -> str:
        """The known name that an unknown one may have meant; "" when none is near."""
        return next(iter(difflib.get_close_matches(name, [*self.capabilities, *self.synonyms], 1, 0.75)), "")

    def closure(self, name: str) -> tuple[str, ...]:
        """A canonical name and everything that it includes."""
        found: dict[str, None] = {}
        waiting = [name]
        while waiting:
            current = waiting.pop()
            if current not in found:
                found[current] = None
                waiting += reversed(self.capabilities[current].includes)
        return tuple(found)


def load_catalogue(extra: Sequence[Path] = ()) -> Catalogue:
    """The shipped catalogue, extended by an operator's files in their order. Raises PolicyError: `file:line:column`,
    entry and rule."""
    return _build([shipped_configs() / FILE_NAME, *extra]) if extra else _shipped(shipped_configs() / FILE_NAME)


def operators_files(named: Sequence[Path], out_of: Sequence[Path] = ()) -> tuple[Path, ...]:
    """The files that an operator named, or else the one in the configuration folder when there is one. Raises
    PolicyError for a file that someone else could write: everybody, or agents, whose work lies in the folders `out_of`.
    """
    default = config_dir() / FILE_NAME
    files = tuple(file.absolute() for file in named or ([default] if default.exists() else []))
    for file in files:
        _check_owner(file, out_of)
    return files


def _check_owner(file: Path, out_of: Sequence[Path]) -> None:
    for folder in out_of:
        # The name as given too: a link in the folder could be turned to another file.
        if any(path.is_relative_to(folder.absolute()) or path.is_relative_to(folder.resolve()) for path in _both(file)):
            raise PolicyError(
                f"the capability catalogue {file} lies in {folder}, where agents may write",
                hint=f"keep it elsewhere, e.g. as {config_dir() / FILE_NAME}",
            )
    try:
        loose = [path for path in (file, *file.resolve().parents) if _anyones(path)]
    except OSError as error:
        raise PolicyError(f"the capability catalogue {file} cannot be read: {error.strerror}") from error
    if loose:
        raise PolicyError(f"everybody may write {loose[0]}, so it grants nothing", hint=f"chmod o-w {loose[0]}")


def _both(file: Path) -> tuple[Path, Path]:
    return file, file.resolve()


def _anyones(path: Path) -> bool:
    mode = path.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


@lru_cache(1)
def _shipped(file: Path) -> Catalogue:
    return _build([file])


def _build(files: list[Path]) -> Catalogue:
    draft = Draft()
    digests: list[str] = []
    for file in files:
        findings = Findings(str(file))
        source = read_source(file, findings)
        # Read as specs are: bounded, and with the place of what is wrong.
        document = None if source is None else parse_toml(source.text, findings)
        if source is None or document is None or findings.errors:
            problem = findings.errors[0]
            place = f"{file}:{problem.line}:{problem.column}" if problem.line else str(file)
            raise PolicyError(f"{place}: {problem.message}", hint=problem.hint)
        digests.append(source.digest)
        read_table(document, CatalogueText(file, source.text), draft)
    _check_names(draft)
    # What an operator adds can change what the shipped rules mean: then theirs are tried as well.
    if digests != [TRIED]:
        check_examples(draft)
    return Catalogue(
        capabilities=MappingProxyType(dict(draft.capabilities)),
        synonyms=MappingProxyType(dict(draft.synonyms)),
        baseline=tuple(draft.baseline),
        with_execute=tuple(draft.with_execute),
        deny_read=tuple(draft.deny_read),
        programs_read=tuple(draft.programs_read),
        deny_write=tuple(draft.deny_write),
        toolchains=tuple(draft.toolchains.values()),
        deny_environment=frozenset(draft.deny_environment),
        broad_suffixes=frozenset(draft.broad_suffixes),
        remedies=_remedies(draft),
    )


def _check_names(draft: Draft) -> None:
    known = draft.capabilities
    for capability in known.values():
        for name in capability.synonyms:
            other = name if name in known else draft.synonyms.get(name, capability.name)
            if other != capability.name:
                where = draft.where(capability.name)
                raise PolicyError(f"{where}: its synonym {name!r} already means {other}")
            draft.synonyms[name] = capability.name
        for name in capability.includes:
            if name not in known:
                raise PolicyError(f"{draft.where(capability.name)}: it includes {name!r}, which is not defined")
    for name in [*draft.baseline, *draft.with_execute]:
        if name not in known:
            raise PolicyError(f"{draft.where('baseline')}: names {name!r}, which is not defined")
    for name in known:
        _check_cycle(name, (), draft)


def _check_cycle(name: str, path: tuple[str, ...], draft: Draft) -> None:
    if name in path:
        raise PolicyError(f"{draft.where(name)}: capabilities include each other: {' → '.join((*path, name))}")
    for inner in draft.capabilities[name].includes:
        _check_cycle(inner, (*path, name), draft)


def _remedies(draft: Draft) -> Remedies:
    offered = [capability for capability in draft.capabilities.values() if capability.suggest]
    kinds = {"network": OperationKind.CONNECT}
    return Remedies(
        read=tuple(rule for capability in offered for rule in capability.rights.read),
        write=tuple(rule for capability in offered for rule in capability.rights.write),
        execute=tuple(rule for capability in offered for rule in capability.rights.execute),
        network=tuple(rule for capability in offered for rule in capability.rights.network),
        by_scope=tuple(
            (kinds[capability.scope], capability.name)
            for capability in offered
            if capability.scope_required and capability.scope in kinds
        ),
        model=next((capability.name for capability in offered if capability.rights.model), ""),
    )
