"""`constraints.txt`: every machine gets the versions that the suite was last run with."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def pins(repo_root: Path) -> dict[str, Version]:
    lines = [line for line in (repo_root / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line)] == []
    return {canonicalize_name(name): Version(version) for name, _, version in (line.partition("==") for line in lines)}


def declared(repo_root: Path) -> list[Requirement]:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["dev"]]


def test_every_declared_package_is_pinned_to_a_version_that_its_declaration_allows(repo_root: Path) -> None:
    pinned = pins(repo_root)
    wrong = {
        str(requirement): str(pinned.get(canonicalize_name(requirement.name)))
        for requirement in declared(repo_root)
        if (version := pinned.get(canonicalize_name(requirement.name))) is None or version not in requirement.specifier
    }
    assert not wrong


def test_what_those_packages_need_is_pinned_too(repo_root: Path) -> None:
    pinned = pins(repo_root)
    todo = declared(repo_root)
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is missing: make pins"
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                needs = [Requirement(line) for line in importlib.metadata.requires(name) or ()]
                todo += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    assert len(seen) > 50


def test_the_program_says_the_version_of_its_distribution(repo_root: Path) -> None:
    import toka_runtime

    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    assert toka_runtime.__version__ == project["version"]
