"""Each rule of the shipped catalogue carries its examples; toolchain tables that would show too much are refused."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from toka_runtime.errors import PolicyError
from toka_runtime.paths import shipped_configs
from toka_runtime.policy.catalogue import FILE_NAME, load_catalogue
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, ScopedGrant, Security

SHIPPED = tomllib.loads((shipped_configs() / FILE_NAME).read_text("utf-8"))


def shipped_rules() -> Iterator[Any]:
    for name, table in SHIPPED["capability"].items():
        for kind in ("read", "write", "execute", "network"):
            for number, rule in enumerate(table.get(kind, ())):
                yield pytest.param(rule, id=f"{name}-{kind}-{number}")


@pytest.mark.parametrize("rule", shipped_rules())
def test_every_rule_says_what_it_is_for(rule: dict[str, Any]) -> None:
    assert rule.get("match")
    if "refuse" in rule:
        assert rule.get("no_match"), "a refusal without an example of what it keeps out"


def test_an_example_that_does_not_hold_stops_the_load(tmp_path: Path) -> None:
    """Each of them is tried: turned around, one after the other, none passes."""
    text = (shipped_configs() / FILE_NAME).read_text("utf-8")
    turned = 0
    for found in re.finditer(r"^no_match = (\[[^]]+\])$", text, re.MULTILINE):
        own = tmp_path / "own.toml"
        head = text.rfind("[[capability.", 0, found.start())
        block = text[head : found.start()].split("]]")[1]
        name, kind = text[head + len("[[capability.") :].split("]]")[0].rsplit(".", 1)
        if "\nmatch" not in block:
            continue
        block = block[: block.index("\nmatch")]
        rule = f"[[capability.{name}.{kind}]]{block}\nmatch = {found[1]}\n"
        own.write_text(f"schema = 1\n[capability.{name}]\nextends = true\n{rule}")
        with pytest.raises(PolicyError, match=r"own\.toml:\d+:\d+.*does not cover"):
            load_catalogue([own])
        turned += 1
    assert turned > 30


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("programs = []", "at least one"),
        ("programs = ['x']\nfolder = [{at = [], read = ['a']}]", "at is a list"),
        ("programs = ['x']\nfolder = [{at = ['~'], read = ['a']}]", "at is a list"),
        ("programs = ['x']\nfolder = [{at = ['/home/*/x'], read = ['a']}]", "at is a list"),
        ("programs = ['x']\nfolder = [{at = ['~/.x'], read = ['*']}]", "plain name"),
        ("programs = ['x']\nfolder = [{at = ['~/.x'], read = ['../.ssh']}]", "leads out"),
        ("programs = ['x']\nfolder = [{at = ['~/.x'], read = ['/etc']}]", "lies outside"),
        ("programs = ['x']\nfolder = [{at = ['~/.x'], read = ['a'], own = '../x'}]", "leads out"),
        ("programs = ['x']\nfolder = [{at = ['~/.x'], read = ['a'], variable = 'A B'}]", "no name of an env"),
        ("programs = ['x']\nfolder = [{at = ['~/.x'], read = ['a'], hidden = true}]", "unknown key 'hidden'"),
    ],
)
def test_a_toolchain_table_that_shows_too_much(tmp_path: Path, table: str, words: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(f"schema = 1\n[toolchain.mine]\n{table}\n")
    with pytest.raises(PolicyError, match=rf"own\.toml:\d+:\d+.*{words}"):
        load_catalogue([own])


def test_operators_replace_a_toolchain(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text("schema = 1\n[toolchain.rust]\nprograms = ['cargo']\n")
    toolchains = {one.name: one for one in load_catalogue([own]).toolchains}
    assert toolchains["rust"].folders == ()
    assert toolchains.keys() == {one.name for one in load_catalogue().toolchains}


def test_the_operator_reads_what_holds_for_programs_and_not_for_tools() -> None:
    docs = ScopedGrant(capability="filesystem-write", scopes=("docs/*.md",))
    declared = ("filesystem-read", "filesystem-write", "git-access")
    spec = AgentSpec(name=AgentName("a"), security=Security(capabilities_required=declared), grants=(docs,))
    text = "\n".join(compile_rights(spec, load_catalogue()).text)
    assert "programs change files of docs/*.md in place only" in text
    assert "of these, programs still read .git/**" in text
    whole = spec.model_copy(update={"grants": ()})
    assert "in place only" not in "\n".join(compile_rights(whole, load_catalogue()).text)
