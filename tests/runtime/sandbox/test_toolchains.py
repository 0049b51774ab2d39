"""What of the operator's machine a program brings with it: its installation, and never a home or a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from toka_runtime.policy.catalogue import load_catalogue
from toka_runtime.protocol.capability import ExecuteRule, NetworkRule, Rights
from toka_runtime.sandbox.toolchains import tool_environment, toolchains

AT = NetworkRule(id="n", capability="c", host="example.org", port=443)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CARGO_HOME", "RUSTUP_HOME", "JAVA_HOME", "GOROOT", "GOMODCACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def program(path: Path, *, part: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    if part:
        (path.parent.parent / part).mkdir(parents=True)
    return path


def found(*programs: Path, names: tuple[str, ...] = ()) -> set[str]:
    rights = runs(*(names or [path.name for path in programs]))
    return set(toolchains(rights, ":".join(str(path.parent) for path in programs)))


def runs(*programs: str, network: bool = False) -> Rights:
    return Rights(
        execute=tuple(ExecuteRule(id=name, capability="c", argv_prefix=(name,)) for name in programs),
        network=(AT,) if network else (),
        toolchains=load_catalogue().toolchains,
    )


def test_a_program_of_a_package_comes_with_its_package(tmp_path: Path) -> None:
    tool = program(tmp_path / "opt/tool-1.2/bin/tool")
    assert found(tool, names=("tool", "absent")) == {str(tmp_path / "opt/tool-1.2")}


@pytest.mark.parametrize("place", ["bin/mine", ".local/bin/mine", "project/bin/mine", "work/deep/bin/mine"])
def test_a_program_in_a_home_comes_with_nothing_but_its_folder(home: Path, place: str) -> None:
    assert found(program(home / place, part="lib")) == {str((home / place).parent)}


@pytest.mark.parametrize(
    ("place", "mark"),
    [
        (".nvm/versions/node/v22/bin/node", "lib"),
        (".pyenv/versions/3.12/bin/python3", "lib"),
        (".local/share/uv/python/cpython-3.12/bin/python3", "lib"),
        ("miniconda3/bin/python3", "conda-meta"),
    ],
)
def test_an_installation_in_a_home_comes_whole(home: Path, place: str, mark: str) -> None:
    path = program(home / place, part=mark)
    assert found(path) == {str(path.parent.parent)}


def test_a_virtual_environment_comes_with_its_python_by_every_name(home: Path) -> None:
    pythons = home / ".local/share/uv/python"
    program(pythons / "cpython-3.12.4/bin/python3", part="lib")
    (pythons / "cpython-3.12").symlink_to("cpython-3.12.4")
    venv = home / "project/.venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python3").symlink_to(pythons / "cpython-3.12/bin/python3")
    (venv / "pyvenv.cfg").write_text(f"home = {pythons}/cpython-3.12/bin\nversion = 3.12\n")
    assert found(venv / "bin/python3") == {str(venv), str(pythons / "cpython-3.12"), str(pythons / "cpython-3.12.4")}


def test_the_home_of_an_environments_python_is_not_taken_at_its_word(home: Path) -> None:
    venv = home / "project/.venv"
    program(venv / "bin/python3")
    (venv / "pyvenv.cfg").write_text(f"home = {home}/bin\nhome = /bin\nhome = //bin\n")
    assert found(venv / "bin/python3") == {str(venv)}


def test_a_version_managers_stand_in_is_of_no_use(home: Path) -> None:
    assert found(program(home / ".manager/shims/managed")) == set()


def rust(home: Path) -> Path:
    cargo = program(home / ".cargo/bin/cargo")
    for name in ("credentials.toml", "credentials", "config.toml"):
        (home / ".cargo" / name).write_text("secret")
    program(home / ".rustup/toolchains/stable/bin/cargo", part="lib")
    (home / ".rustup/settings.toml").write_text("")
    (home / ".rustup/tmp").mkdir()
    return cargo


def test_of_cargos_home_only_what_the_table_names(home: Path) -> None:
    assert found(rust(home)) == {
        str(home / path) for path in (".cargo/bin", ".rustup/toolchains", ".rustup/settings.toml")
    }


def test_programs_are_told_where_their_parts_are_and_load_into_a_home_of_their_own(home: Path) -> None:
    rust(home)
    own = {"HOME": "/scratch/home", "PATH": "/bin"}
    there = {"RUSTUP_HOME": str(home / ".rustup")}
    added = tool_environment(runs("cargo"), own)
    added.pop("PATH", None)
    assert added == there | {"CARGO_HOME": str(home / ".cargo")}
    loading = tool_environment(runs("cargo", network=True), own)
    loading.pop("PATH", None)
    assert loading == there | {"CARGO_HOME": "/scratch/home/.cargo"}
    assert "CARGO_HOME" not in tool_environment(runs("git"), own)


def test_a_variable_that_leads_to_a_whole_home_gives_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMODCACHE", str(home))
    monkeypatch.setenv("CARGO_HOME", "relative")
    assert toolchains(runs("go", "cargo"), "/nowhere") == []
