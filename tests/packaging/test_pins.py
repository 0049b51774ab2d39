"""`constraints.txt`: every machine gets the versions that the suite was last run with."""

from __future__ import annotations

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


def test_every_declared_package_is_pinned_to_a_version_that_its_declaration_allows(repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    declared = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["dev"]]
    pinned = pins(repo_root)
    wrong = {
        str(requirement): str(pinned.get(canonicalize_name(requirement.name)))
        for requirement in declared
        if (version := pinned.get(canonicalize_name(requirement.name))) is None or version not in requirement.specifier
    }
    assert not wrong


def test_the_program_says_the_version_of_its_distribution(repo_root: Path) -> None:
    import toka_runtime

    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    assert toka_runtime.__version__ == project["version"]
