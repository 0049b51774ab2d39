"""Files and folders to agents: every problem of every file in one report. Nothing here raises for bad input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from toka_runtime.protocol.spec import AgentSpec
from toka_runtime.specs import tree
from toka_runtime.specs.crosscheck import check_fleet
from toka_runtime.specs.findings import Findings, Problem
from toka_runtime.specs.fleet_file import FleetSettings, read_fleet
from toka_runtime.specs.normalise import Draft, read_agent
from toka_runtime.specs.source import Place, Source, display, read_source, source_of
from toka_runtime.specs.toml_reader import read_toml
from toka_runtime.specs.yaml_reader import read_yaml

SUFFIXES = (".yaml", ".yml", ".toml")


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """One agent, or one file (or path) that could not become one."""

    file: str
    """Identity: the path as given, with `#name` after it for a member of a fleet file. Also `AgentSpec.file`."""
    path: str
    """The path alone."""
    name: str
    """The agent's name; the file's stem when it has none that can be read."""
    spec: AgentSpec | None
    """There exactly when `ok`."""
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    repairs: tuple[Problem, ...] = ()
    capability_places: Mapping[str, Place] = field(default_factory=dict[str, Place])
    """Name of a permission → where the file declares it: policy, which alone knows what names mean, reports there."""

    @property
    def ok(self) -> bool:
        return not self.errors


@dataclass(frozen=True, slots=True)
class LoadReport:
    files: tuple[LoadedFile, ...]
    """In the order of the paths given, within a folder by name, within a fleet file as written."""
    fleet: FleetSettings | None = None
    """Of the first fleet file."""

    @property
    def ok(self) -> bool:
        return all(file.ok for file in self.files)

    @property
    def specs(self) -> tuple[AgentSpec, ...]:
        """The good ones. One may still require an agent whose own file is bad."""
        return tuple(file.spec for file in self.files if file.spec is not None)

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(problem for file in self.files for problem in file.errors)


def load_paths(paths: Sequence[Path], *, alone: bool = False) -> LoadReport:
    """Load files, and the *.yaml, *.yml and *.toml directly in folders (not below them; no hidden files). A file that
    is reached twice counts once. Dependencies, names and branches are checked across all of them; with `alone` they are
    not checked."""
    loaded: list[_Loaded] = []
    fleets: list[FleetSettings] = []
    seen: set[tuple[int, int]] = set()
    for path in paths:
        for file, findings in _expand(path):
            if findings.errors:
                loaded.append(_Loaded(Draft(name=_stem(file), findings=findings), findings.file, ""))
            elif _first_time(file, seen):
                _read(findings.file, file.suffix, read_source(file, findings), findings, loaded, fleets)
    return _report(loaded, fleets, alone=alone)


def load_text(data: bytes, name: str = "spec.yaml") -> LoadReport:
    """One document that is not (yet) a file; `name` stands for its path in problems and chooses YAML or TOML."""
    loaded: list[_Loaded] = []
    fleets: list[FleetSettings] = []
    findings = Findings(name)
    _read(name, Path(name).suffix, source_of(data, findings), findings, loaded, fleets)
    return _report(loaded, fleets)


def _report(loaded: list[_Loaded], fleets: list[FleetSettings], *, alone: bool = False) -> LoadReport:
    for extra in fleets[1:]:
        owner = next(item.draft for item in loaded if item.path == extra.file)
        message = f"its [orchestration] has no effect: that of {fleets[0].file} is used"
        owner.findings.warning(None, "spec.second_fleet", message, "run one fleet file at a time")
    if not alone:
        check_fleet([item.draft for item in loaded])
    return LoadReport(tuple(item.finish() for item in loaded), fleets[0] if fleets else None)


def _read(
    file: str,
    suffix: str,
    source: Source | None,
    findings: Findings,
    loaded: list[_Loaded],
    fleets: list[FleetSettings],
) -> None:
    """Add what the file holds to `loaded` and `fleets`: at least one row, whatever it holds."""
    drafts: list[Draft] = []
    if source is not None and suffix.lower() == ".toml":
        root = read_toml(source.text, findings)
        settings, drafts = read_fleet(root, file, findings) if root is not None else (None, [])
        if settings is not None and not findings.errors:
            fleets.append(settings)
    elif source is not None:
        node = read_yaml(source.text, findings)
        if isinstance(node, tree.Mapping):
            drafts = [read_agent(node, findings, stem=_stem(Path(file)))]
        elif not findings.errors:
            if node is None or tree.is_null(node):
                what = "holds no value"
            else:
                what = f"is {tree.kind_of(node)} at the top, not a mapping"
            findings.error(node, "spec.not_a_mapping", what, "a spec begins with “metadata:”")
    digest = source.digest if source else ""
    members = [draft for draft in drafts if draft.findings is not findings]
    if findings.errors and members:
        first = findings.errors[0]
        for draft in members:
            message = "the settings of its fleet file are not good"
            draft.findings.error(first, "spec.fleet_settings", message, f"see line {first.line}")
    if members and not findings.errors:
        members[0].findings.warnings += findings.warnings
        members[0].findings.repairs += findings.repairs
    elif len(members) == len(drafts):
        loaded.append(_Loaded(Draft(name=_stem(Path(file)), findings=findings), file, digest))
    loaded.extend(_Loaded(draft, file, digest) for draft in drafts)


def _stem(path: Path) -> str:
    return display(path.stem) or display(path)


@dataclass(slots=True)
class _Loaded:
    draft: Draft
    path: str
    digest: str

    def finish(self) -> LoadedFile:
        draft, findings = self.draft, self.draft.findings
        file = f"{self.path}#{draft.name}" if draft.fleet_member else self.path
        spec = None
        if draft.spec is not None and not findings.errors:
            spec = draft.spec.model_copy(update={"file": file, "digest": self.digest})
        return LoadedFile(
            file=file,
            path=self.path,
            name=draft.name,
            spec=spec,
            errors=tuple(sorted(findings.errors, key=_by_place)),
            warnings=tuple(sorted(findings.warnings, key=_by_place)),
            repairs=tuple(sorted(findings.repairs, key=_by_place)),
            capability_places=draft.capability_places,
        )


def _by_place(problem: Problem) -> tuple[int, int]:
    return problem.line, problem.column


def _expand(path: Path) -> Iterable[tuple[Path, Findings]]:
    """The files that a path stands for, each with findings that hold an error when it stands for none."""
    findings = Findings(display(path))
    try:
        if not path.is_dir():
            return [(path, findings)]
        entries = sorted(path.iterdir())
        files = [entry for entry in entries if _is_spec_name(entry) and not entry.is_dir()]
        if files:
            return [(entry, Findings(display(entry))) for entry in files]
        below = [display(entry.name) for entry in entries if entry.is_dir() and _has_specs(entry)]
        hint = f"folders below are not searched: name {below[0]}/" if below else "put *.yaml, *.yml or *.toml in it"
        findings.error(None, "spec.no_specs", "holds no spec files", hint)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        findings.error(None, "spec.unreadable", f"cannot be read: {reason}")
    return [(path, findings)]


def _is_spec_name(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _has_specs(folder: Path) -> bool:
    try:
        return any(_is_spec_name(entry) for entry in folder.iterdir())
    except OSError:
        return False


def _first_time(file: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = file.stat()
    except (OSError, ValueError):
        return True  # reading it will say why
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return False
    seen.add(identity)
    return True
