"""What an agent's view holds, from its rights alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from toka_runtime.protocol.capability import ExecuteRule, NetworkRule, PathRule, Rights
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.sandbox.plan import SandboxPlan
from toka_runtime.sandbox.view import agent_view, read_folders, tool_access, toolchains, write_folders


def paths(*globs: str) -> tuple[PathRule, ...]:
    return tuple(PathRule(id=glob, capability="c", glob=glob) for glob in globs)


def runs(*programs: str) -> tuple[ExecuteRule, ...]:
    return tuple(ExecuteRule(id=name, capability="c", argv_prefix=(name,)) for name in programs)


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("globs", "folders"),
    [
        (("**",), ("/w",)),
        (("docs/**",), ("/w/docs",)),
        (("docs/*.md", "docs/deep/**"), ("/w/docs",)),
        (("README.md",), ("/w",)),
        (("a/b/c.txt",), ("/w/a/b",)),
        (("src/**/*.py", "tests/**"), ("/w/src", "/w/tests")),
        ((), ()),
    ],
)
def test_a_glob_gives_the_kernel_its_fixed_part(globs: tuple[str, ...], folders: tuple[str, ...]) -> None:
    assert sorted(write_folders(Rights(write=paths(*globs)), "/w")) == sorted(folders)


def test_what_may_be_written_may_be_read() -> None:
    assert read_folders(Rights(read=paths("src/**"), write=paths("docs/**")), "/w") == ("/w/docs", "/w/src")


def test_homes_sockets_and_secrets_have_no_name_in_it(tmp_path: Path) -> None:
    view = agent_view(Rights(read=paths("**"), execute=runs("*")), str(tmp_path))
    seen = {mount.path for mount in view.mounts}
    assert not seen & {"/", "/etc", "/home", "/root", "/run", "/sys", "/tmp", "/var", str(Path.home())}
    assert "/etc/shadow" not in seen
    assert {"/etc/passwd", "/etc/hosts"} <= {path for path, _ in view.files}


def test_its_folder_is_writable_only_with_a_right_to_write(tmp_path: Path) -> None:
    for rights, writable in ((Rights(read=paths("**")), False), (Rights(write=paths("a/**")), True)):
        mounts = {mount.path: mount.writable for mount in agent_view(rights, str(tmp_path)).mounts}
        assert mounts.pop(str(tmp_path)) is writable
        assert not any(mounts.values())


def test_a_toolchain_comes_with_its_program_and_a_home_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    opt = program(tmp_path / "opt/tool-1.2/bin/tool")
    own = program(home / "bin/mine")
    shim = program(home / ".manager/shims/managed")
    cargo = program(home / ".cargo/bin/cargo")
    (home / ".rustup/toolchains").mkdir(parents=True)
    (home / ".cargo/credentials.toml").write_text("secret")
    search = ":".join(str(path.parent) for path in (opt, own, shim, cargo))
    found = toolchains(Rights(execute=runs("tool", "mine", "managed", "cargo", "absent")), search)
    assert str(tmp_path / "opt/tool-1.2") in found
    assert str(home / "bin") in found
    assert str(home / ".cargo/bin") in found
    assert str(home / ".rustup/toolchains") in found
    assert not {str(home), str(home / ".cargo"), str(shim), str(shim.parent)} & set(found)


def plan(rights: Rights) -> SandboxPlan:
    return SandboxPlan(agent=AgentName("a"), run=RunId("r"), root="/w", rights=rights, scratch=("/s",))


def test_each_call_has_the_rights_of_that_call_only() -> None:
    at = NetworkRule(id="n", capability="c", host="example.org", port=443)
    rights = Rights(read=paths("**"), write=paths("docs/**"), execute=runs("*"), network=(at,))
    read = tool_access("read_file", plan(rights), 4000)
    assert (read["write"], read["execute"], read["port"]) == ([], False, None)
    write = tool_access("write_file", plan(rights), 4000)
    assert (write["write"], write["execute"], write["port"]) == (["/w/docs"], False, None)
    run = tool_access("run_command", plan(rights), 4000)
    assert (run["write"], run["execute"], run["port"]) == (["/w/docs", "/s"], True, 4000)
    fetch = tool_access("fetch_url", plan(rights), 4000)
    assert (fetch["write"], fetch["execute"], fetch["port"]) == ([], False, 4000)


def test_without_a_host_nothing_reaches_the_proxy() -> None:
    assert tool_access("run_command", plan(Rights(execute=runs("*"))), 4000)["port"] is None
