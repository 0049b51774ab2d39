"""The shipped catalogue, operators' own files, and what is wrong in either."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from toka_runtime.errors import PolicyError
from toka_runtime.paths import shipped_configs
from toka_runtime.policy.catalogue import FILE_NAME, TRIED, load_catalogue, operators_files
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.spec import AgentSpec, Security

FROM_THE_FORMAT = (
    "filesystem-write",
    "file-system-write",
    "cargo-test-execution",
    "cargo-execution",
    "ci-cd-integration",
    "ci-integration",
    "network-access",
)


def extra(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "own.toml"
    file.write_text("schema = 1\n" + text)
    return file


def test_every_published_permission_is_defined(toka_specs: Path) -> None:
    catalogue = load_catalogue()
    names: set[str] = set()
    for file in toka_specs.glob("*.yaml"):
        block = file.read_text().partition("capabilities_required:")[2].partition("resource_limits:")[0]
        names.update(re.findall(r'- "([^"]+)"', block))
    assert len(names) > 25
    assert [name for name in names if not catalogue.defines(name)] == []


def test_names_of_the_format_are_defined() -> None:
    assert [name for name in FROM_THE_FORMAT if not load_catalogue().defines(name)] == []


def test_every_shipped_rule_has_an_example() -> None:
    table = tomllib.loads((shipped_configs() / FILE_NAME).read_text())
    bare = [
        f"{name}.{kind}: {rule}"
        for name, entry in table["capability"].items()
        for kind in ("read", "write", "execute", "network")
        for rule in entry.get(kind, [])
        if not rule.get("match")
    ]
    assert bare == []


def test_the_examples_of_the_shipped_one_hold_and_it_is_the_one_that_they_were_tried_in(tmp_path: Path) -> None:
    load_catalogue([extra(tmp_path, "")])  # all examples are tried as soon as an operator adds a file
    found = hashlib.sha256((shipped_configs() / FILE_NAME).read_bytes()).hexdigest()
    assert found == TRIED, "the examples hold: write this digest into policy/catalogue.py"


def test_a_shipped_file_that_was_changed_is_tried_when_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (shipped_configs() / FILE_NAME).read_text()
    assert '"uniq in out"' in text
    (tmp_path / FILE_NAME).write_text(text.replace('"uniq in out"', '"uniq -c"'))
    monkeypatch.setattr("toka_runtime.policy.catalogue.shipped_configs", lambda: tmp_path)
    with pytest.raises(PolicyError, match="it covers 'uniq -c', which its example says not to"):
        load_catalogue()


def test_the_shipped_one_is_read_once() -> None:
    assert load_catalogue() is load_catalogue()


def test_nearest() -> None:
    assert load_catalogue().nearest("filesystem-wirte") == "filesystem-write"
    assert load_catalogue().nearest("bake-bread") == ""


def test_operators_add_extend_and_replace(tmp_path: Path) -> None:
    file = extra(
        tmp_path,
        """
        [capability.bake-access]
        text = "bake"
        synonyms = ["baking"]
        includes = ["git-read"]
        [[capability.bake-access.execute]]
        argv = ["bake"]
        match = ["bake bread"]
        no_match = ["baker"]
        [capability.git-access]
        extends = true
        [[capability.git-access.execute]]
        argv = ["git", "lfs"]
        match = ["git lfs ls-files", "git commit"]
        [capability.link-validation]
        replaces = true
        text = "nothing at all"
        """,
    )
    catalogue = load_catalogue([file])
    spec = AgentSpec(
        name=AgentName("a"), security=Security(capabilities_required=("baking", "git-access", "link-validation"))
    )
    prefixes = {rule.argv_prefix for rule in compile_rights(spec, catalogue).execute}
    assert {("bake",), ("git", "lfs"), ("git", "commit"), ("git", "status")} <= prefixes
    assert ("lychee", "--offline") not in prefixes
    assert not load_catalogue().defines("bake-access"), "the shipped catalogue stays as it is"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[capability.git-access]\ntext='x'", "is defined already"),
        ("[capability.new]\nextends = true\ntext='x'", "no new to extend"),
        ("[capability.new]", "text is missing"),
        ("[capability.new]\ntext=3", "has to be text"),
        ("[capability.new]\ntext='x'\nwhat=1", "unknown key 'what'"),
        ("[capability.New_One]\ntext='x'", "lower case words"),
        ("[capability.new]\ntext='x'\nincludes=['gone']", "'gone', which is not defined"),
        ("[capability.a]\ntext='x'\nincludes=['b']\n[capability.b]\ntext='x'\nincludes=['a']", "a → b → a"),
        ("[capability.new]\ntext='x'\nsynonyms=['git']", "already means git-access"),
        ("[capability.new]\ntext='x'\nsynonyms=['git-read']", "already means git-read"),
        ("[capability.new]\ntext='x'\nscope='write'\nscope_required=true\nenvironment=['A B']", "no name of an env"),
        ("[capability.new]\ntext='x'\nscope_required=true", "needs scope"),
        ("[capability.new]\ntext='x'\nscope='everything'", "scope is one of"),
        ("[[capability.new.write]]\nglob='/etc/**'\n[capability.new]\ntext='x'", "lies outside"),
        ("[[capability.new.write]]\nglob='a/../b'\n[capability.new]\ntext='x'", "leads out"),
        ("[[capability.new.network]]\nat='*.com:443'\n[capability.new]\ntext='x'", "too broad"),
        ("[[capability.new.network]]\nat='*.co.uk:443'\n[capability.new]\ntext='x'", "too broad"),
        ("[[capability.new.network]]\nat='*:443'\n[capability.new]\ntext='x'", "no host:port"),
        ("[[capability.new.execute]]\nargv=['bash']\n[capability.new]\ntext='x'", "open_ended"),
        ("[[capability.new.execute]]\nargv=['git', 'log*']\n[capability.new]\ntext='x'", "matched literally"),
        ("[[capability.new.execute]]\nargv=[]\n[capability.new]\ntext='x'", "argv has to be a list"),
        (
            "[[capability.new.write]]\nglob='a/**'\nmatch=['b/c']\n[capability.new]\ntext='x'",
            "rule new:a/**: it does not cover 'b/c'",
        ),
        (
            "[[capability.new.execute]]\nargv=['x']\nno_match=['x y']\n[capability.new]\ntext='x'",
            "rule new:x: it covers 'x y'",
        ),
        ("[baseline]\ncapabilities=['gone']", "'gone', which is not defined"),
        ("[unheard-of]", "unknown key 'unheard-of'"),
        ("not toml", "own.toml:2:5: TOML: Expected"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(words)):
        load_catalogue([extra(tmp_path, text)])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="does not exist"):
        load_catalogue([tmp_path / "absent.toml"])
    (tmp_path / "old.toml").write_text("schema = 99")
    with pytest.raises(PolicyError, match="schema = 1 is expected"):
        load_catalogue([tmp_path / "old.toml"])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[capability.new]\ntext='x'\nwhat=1", "4:1"),
        ("[capability.new]\ntext=3", "3:1"),
        ("[capability.new]", "2:13"),
        ("[capability.git-access]\ntext='x'", "2:13"),
        ("[capability.new]\ntext='x'\nsynonyms=['git']", "2:13"),
        ("[capability.new]\ntext='x'\n[[capability.new.write]]\nglob='a'\nmatch=['b']", "4:1"),
        ("[capability.new]\ntext='x'\n[[capability.new.write]]\nglob='a'\n[[capability.new.write]]\nblob='b'", "6:1"),
        ("[baseline]\ncapabilities=['gone']", "2:2"),
        ("[capability.new]\ntext='\x1b[2J'", "3:7"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    file = extra(tmp_path, text)
    with pytest.raises(PolicyError) as raised:
        load_catalogue([file])
    assert raised.value.message.startswith(f"{file}:{place}")


def test_several_files_build_on_each_other(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text("schema = 1\n[capability.one]\ntext = 'one'\n")
    second.write_text("schema = 1\n[capability.two]\ntext = 'two'\nincludes = ['one']\n")
    assert load_catalogue([first, second]).closure("two") == ("two", "one")
    with pytest.raises(PolicyError, match="'one', which is not defined"):
        load_catalogue([second])


def test_the_default_is_in_the_configuration_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert operators_files([]) == ()
    default = tmp_path / "toka" / FILE_NAME
    default.parent.mkdir()
    default.write_text("schema = 1\n")
    assert operators_files([]) == (default,)
    named = extra(tmp_path, "")
    assert operators_files([named]) == (named,), "naming one is instead of it"


def test_a_file_that_agents_or_everybody_may_write_grants_nothing(tmp_path: Path) -> None:
    workspace, outside = tmp_path / "workspace", tmp_path / "outside"
    for folder in (workspace, outside):
        folder.mkdir()
    inside, safe = extra(workspace, ""), extra(outside, "")
    link_in, link_out = workspace / "link.toml", outside / "link.toml"
    link_in.symlink_to(safe)
    link_out.symlink_to(inside)
    for file in (inside, link_in, link_out, outside / ".." / "workspace" / "own.toml"):
        with pytest.raises(PolicyError, match="where agents may write"):
            operators_files([file], (workspace,))
    assert operators_files([safe], (workspace,)) == (safe,)
    safe.chmod(0o666)
    with pytest.raises(PolicyError, match="everybody may write"):
        operators_files([safe], (workspace,))
    safe.chmod(0o644)
    outside.chmod(0o777)
    with pytest.raises(PolicyError, match="everybody may write"):
        operators_files([safe], (workspace,))


def test_the_example_that_ships_is_good() -> None:
    catalogue = load_catalogue([shipped_configs() / "capabilities.example.toml"])
    assert catalogue.defines("terraform-plan")
