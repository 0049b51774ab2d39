"""What an agent's view holds, from its rights alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from toka_runtime.protocol.capability import ExecuteRule, NetworkRule, PathRule, Rights
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.sandbox.plan import SandboxPlan
from toka_runtime.sandbox.view import agent_view, folder_walls, read_folders, tool_access, write_folders


def paths(*globs: str) -> tuple[PathRule, ...]:
    return tuple(PathRule(id=glob, capability="c", glob=glob) for glob in globs)


def runs(*programs: str) -> tuple[ExecuteRule, ...]:
    return tuple(ExecuteRule(id=name, capability="c", argv_prefix=(name,)) for name in programs)


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


def test_of_rules_for_files_a_program_has_the_files_and_a_tool_the_folder() -> None:
    rights = Rights(read=paths("**"), write=paths("docs/*.md", "out/**"), execute=runs("*"))
    assert tool_access("write_file", plan(rights), None)["write"] == ["/w/docs", "/w/out"]
    run = tool_access("run_command", plan(rights), None)
    assert run["write"] == ["/w/out", "/s"]
    assert (run["scattered"]["write"], run["scattered"]["read"]) == ([["docs/*.md", ""]], [])
    assert tool_access("run_command", plan(Rights(write=paths("out/**"))), None)["scattered"] is None


@pytest.mark.parametrize(
    ("rights", "writable", "read_only", "hidden"),
    [
        (Rights(), [], [], [".SSH", "a/id_rsa"]),
        (Rights(write=paths("a/**", ".github/**")), [".github", "a"], [".git", "a/.git"], [".SSH", "a/id_rsa"]),
        (Rights(write=paths("**")), [""], [".git", "a/.git"], [".SSH", "a/id_rsa"]),
    ],
)
def test_walls_of_its_folder(
    tmp_path: Path, rights: Rights, writable: list[str], read_only: list[str], hidden: list[str]
) -> None:
    for path in (".git/config", "a/.git", "a/id_rsa", ".SSH/key/id_rsa", "b/id_rsa.pub"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
    (tmp_path / "id_rsa").symlink_to("b/id_rsa.pub")
    protected = {
        "deny_read": paths("**/.git/**", "**/.ssh/**", "**/id_rsa"),
        "programs_read": paths("**/.git/**"),
        "deny_write": paths("**/.git/**"),
    }
    walls = folder_walls(rights.model_copy(update=protected), str(tmp_path))
    assert (walls["writable"], sorted(walls["read_only"]), sorted(walls["hidden"])) == (writable, read_only, hidden)


def test_without_a_host_nothing_reaches_the_proxy() -> None:
    assert tool_access("run_command", plan(Rights(execute=runs("*"))), 4000)["port"] is None
