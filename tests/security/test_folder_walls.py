"""Inside of its own folder: scopes, patterns and protected files hold for programs too, not only for the file tools."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fakes.cell import Cell, cell, system_python
from toka_runtime.protocol.spec import ScopedGrant
from toka_runtime.sandbox.launcher import ForkServer


def writes(*scopes: str) -> tuple[ScopedGrant, ...]:
    return (ScopedGrant(capability="filesystem-write", scopes=scopes),)


def reads(*scopes: str) -> tuple[ScopedGrant, ...]:
    return (ScopedGrant(capability="filesystem-read", scopes=scopes),)


def tree(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(f"old {path}\n")


async def refused(agent: Cell, *commands: str) -> None:
    for command in commands:
        outcome = await agent.sh(f"( {command} ) && echo WENT-THROUGH")
        assert "WENT-THROUGH" not in outcome.content, command


async def done(agent: Cell, *commands: str) -> None:
    for command in commands:
        outcome = await agent.sh(command)
        assert outcome.ok, f"{command}: {outcome.content}"


async def test_nothing_changes_outside_of_a_scope(server: ForkServer, base: Path) -> None:
    folder = base / "a"
    tree(folder, "src/main.rs", "docs/a.md")
    async with cell(server, base, grants=writes("docs/**")) as agent:
        before = {path: path.stat() for path in (folder / "src", folder / "src/main.rs", folder)}
        await refused(
            agent,
            "echo x >> src/main.rs",
            "chmod 777 src/main.rs",
            "chmod 777 src",
            "touch -d 2001-01-01 src/main.rs",
            "python3 -c \"import os; os.setxattr('src/main.rs', 'user.x', b'y')\"",
            "mv docs/a.md src/a.md",
            "ln docs/a.md src/a.md",
            "mv docs other",
            "rmdir docs",
            "mkdir new",
        )
        for path, old in before.items():
            assert (path.stat().st_mode, path.stat().st_mtime_ns) == (old.st_mode, old.st_mtime_ns), path
        await done(
            agent,
            "chmod 600 docs/a.md",
            "touch docs/b.md",
            "mkdir -p docs/x/y",
            "mv docs/b.md docs/x/y",
            "rm docs/a.md",
        )


async def test_a_scope_that_is_not_there_yet_is_made_for_the_agent(server: ForkServer, base: Path) -> None:
    async with cell(server, base, grants=writes("out/deep/**")) as agent:
        await done(agent, "echo x > out/deep/a")
        await refused(agent, "echo x > out/a", "chmod 777 out")
        assert (base / "a/out/deep/a").read_text() == "x\n"


@pytest.mark.parametrize("target", ["../outside", "src"])
async def test_a_link_in_the_place_of_a_scope_gives_nothing(server: ForkServer, base: Path, target: str) -> None:
    folder = base / "a"
    tree(folder, "src/main.rs")
    (base / "outside").mkdir()
    (folder / "docs").symlink_to(target)
    async with cell(server, base, grants=writes("docs/**")) as agent:
        await refused(agent, "echo x > docs/planted", "echo x > src/planted")
    assert not (base / "outside/planted").exists()


async def test_a_pattern_for_files_is_also_the_kernels(server: ForkServer, base: Path) -> None:
    folder = base / "a"
    tree(folder, "docs/a.md", "docs/secret.env", "docs/deep/b.md", "src/main.rs")
    (folder / "docs/planted.md").symlink_to("../src/main.rs")
    async with cell(server, base, grants=writes("docs/*.md")) as agent:
        await refused(
            agent,
            "echo x > docs/secret.env",
            "echo x > docs/new.env",
            "rm docs/secret.env",
            "mv docs/a.md docs/secret.env",
            "ln docs/secret.env docs/new.md",
            "echo x > docs/deep/b.md",
            "echo x > docs/planted.md",
            "echo x > src/main.rs",
        )
        await done(agent, "echo new > docs/a.md")
        assert (await agent.tool("write_file", path="docs/b.md", content="made by a tool")).ok
        await done(agent, "echo changed > docs/b.md")
        assert (folder / "docs/b.md").read_text() == "changed\n"
        assert (folder / "docs/secret.env").read_text() == "old docs/secret.env\n"
        assert (folder / "src/main.rs").read_text() == "old src/main.rs\n"


async def test_a_pattern_for_folders_covers_what_is_in_them(server: ForkServer, base: Path) -> None:
    tree(base / "a", "crates/my-kernel/src/lib.rs", "crates/other/src/lib.rs")
    async with cell(server, base, grants=writes("**/*kernel*/**")) as agent:
        await done(agent, "echo x > crates/my-kernel/src/new.rs", "mkdir crates/my-kernel/tests")
        await refused(agent, "echo x > crates/other/src/new.rs", "echo x > crates/other/src/lib.rs")


async def test_a_scope_of_reading_holds_for_programs(server: ForkServer, base: Path) -> None:
    tree(base / "a", "docs/a.md", "docs/key.env", "src/main.rs")
    grants = (*reads("docs/*.md"), *writes("out/**"))
    async with cell(server, base, grants=grants) as agent:
        assert (await agent.sh("cat docs/a.md")).content.startswith("old docs/a.md")
        await refused(agent, "cat docs/key.env", "cat src/main.rs", "cp docs/key.env out/x", "ln docs/key.env out/x")


async def test_protected_files_are_hidden_from_programs(server: ForkServer, base: Path) -> None:
    folder = base / "a"
    tree(folder, "keys/id_rsa", ".ssh/config", "deep/down/.netrc", "keys/id_rsa.pub")
    async with cell(server, base) as agent:
        await refused(
            agent,
            "cat keys/id_rsa",
            "cat .ssh/config",
            "ls -A .ssh | grep .",
            "cat deep/down/.netrc",
            "chmod 777 keys/id_rsa && cat keys/id_rsa",
            "rm -f keys/id_rsa",
            "mv keys/id_rsa keys/mine && cat keys/mine",
            "mv keys other && cat other/id_rsa",
            "cp keys/id_rsa x",
            "ln keys/id_rsa x",
            "umount keys/id_rsa",
            "echo x > keys/id_rsa",
        )
        await done(agent, "cat */id_rsa.pub")
    assert [path.read_text() for path in folder.rglob("id_rsa")] == ["old keys/id_rsa\n"]


async def test_what_may_not_be_written_is_read_by_programs_and_not_changed(server: ForkServer, base: Path) -> None:
    folder = base / "a"
    tree(folder, ".git/config", ".git/hooks/x", ".toka/state", "sub/.git")
    async with cell(server, base) as agent:
        await done(agent, "cat .git/config", "cat sub/.git")
        await refused(
            agent,
            "echo x > .git/hooks/pre-commit",
            "echo x >> .git/config",
            "chmod 777 .git/config",
            "rm -rf .git",
            "mv .git git",
            "echo x > .toka/state",
            "echo x > sub/.git",
            "rm sub/.git",
        )
        assert (folder / ".git/config").read_text() == "old .git/config\n"


async def test_calls_that_race_with_links_win_nothing(server: ForkServer, base: Path) -> None:
    """While one call makes its rules, another puts a link in the place of a file that it may change."""
    folder = base / "a"
    tree(folder, "own/a.md", "src/main.rs")
    async with cell(server, base, grants=writes("own/**", "**/*.md")) as agent:
        swap = "import os\nfor _ in range(4000):\n os.symlink('../src/main.rs', 'x'); os.rename('x', 'a.md')\n"
        swap += " open('x', 'w').close(); os.rename('x', 'a.md')\n"
        (folder / "own/swap.py").write_text(swap)
        (folder / "own/swap.py").chmod(0o644)
        async with asyncio.TaskGroup() as group:
            racing = group.create_task(agent.sh(f"cd own && {system_python()} swap.py"))
            while not racing.done():
                await agent.sh("echo x >> own/a.md; echo x >> src/main.rs")
        assert racing.result().ok, racing.result().content
    assert (folder / "src/main.rs").read_text() == "old src/main.rs\n"
