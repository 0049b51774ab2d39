"""Toolchains work inside where they are declared, on the whole way from the broker to the kernel; what lies beside them
in a home does not exist there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.cell import CANARY, Cell, cell
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.toolchains import own_python, tool_environment

DECLARED = ("filesystem-read", "filesystem-write", "git-access", "build-execution")
CARGO = """#!/bin/sh
# As rustup's stand-ins do: by the program's name, in the toolchain that the settings name.
home=${RUSTUP_HOME:-$HOME/.rustup}
read -r toolchain < "$home/settings.toml" || exit 9
exec "$home/toolchains/$toolchain/bin/${0##*/}" "$@"
"""
TOOL = """#!/bin/sh
echo "cargo 1.95.0 (faithful)"
if [ "$1" = test ]; then
    cat "$CARGO_HOME/credentials.toml" "$CARGO_HOME/credentials" "$CARGO_HOME/config.toml" "$HOME/../../.ssh/id_rsa"
    ls "$CARGO_HOME/registry/cache" && touch "$CARGO_HOME/registry/planted" && echo WENT-THROUGH
    mkdir -p target && echo built > target/out
fi
"""


@asynccontextmanager
async def tooled(server: ForkServer, base: Path, path: str) -> AsyncGenerator[Cell]:
    """An agent that may build, test and use git, with this search path and the variables that a run has."""
    async with cell(server, base, capabilities=DECLARED) as first:
        own = {**first.plan.environment, "PATH": path, "GIT_CONFIG_GLOBAL": "/dev/null"}
        found = tool_environment(first.plan.rights, own)
        plan = first.plan.model_copy(update={"run": "r-tools", "environment": own | found})
        agent = await server.launch(plan)
        try:
            yield Cell(agent, plan)
        finally:
            assert (await agent.kill()).confirmed


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


async def said(agent: Cell, command: str) -> str:
    reply = await agent.ask("run_command", command=command)
    assert not reply.is_error, f"{command}: {reply.content}"
    return reply.content


@pytest.fixture
def rust(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with cargo and rustup as their installer leaves them, and what else lies in homes."""
    home = base / "home"
    shim = program(home / ".cargo/bin/rustup", CARGO)
    (shim.parent / "cargo").symlink_to("rustup")
    program(home / ".rustup/toolchains/stable/bin/cargo", TOOL)
    (home / ".rustup/settings.toml").write_text("stable\n")
    for secret in (".cargo/credentials.toml", ".cargo/credentials", ".cargo/config.toml", ".ssh/id_rsa", ".netrc"):
        (home / secret).parent.mkdir(exist_ok=True)
        (home / secret).write_text(CANARY)
    (home / ".cargo/registry/cache").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for name in ("CARGO_HOME", "RUSTUP_HOME"):
        monkeypatch.delenv(name, raising=False)
    return home


async def test_cargo_under_rustup(server: ForkServer, base: Path, rust: Path) -> None:
    async with tooled(server, base, f"{rust}/.cargo/bin:/usr/bin:/bin") as agent:
        assert "cargo 1.95.0" in await said(agent, "cargo --version")
        tested = await said(agent, "cargo test")
        assert CANARY not in tested
        assert "WENT-THROUGH" not in tested
        assert (agent.folder / "target/out").read_text() == "built\n"
        shown = await agent.sh(f"cd {rust}; cat .netrc .ssh/id_rsa .cargo/c*; find . -name 'cred*'; ls .cargo .rustup")
        assert CANARY not in shown.content
        assert "credentials.toml" not in shown.content.replace("cat: .cargo/c", "")


async def test_git_make_and_pytest(server: ForkServer, base: Path) -> None:
    if shutil.which("make", path="/usr/bin:/bin") is None or shutil.which("git", path="/usr/bin:/bin") is None:
        pytest.skip("no make or git here")
    python = own_python() or "/usr"
    folder = base / "a"
    folder.mkdir()
    (folder / "Makefile").write_text("check:\n\t@echo made > out.txt && cat out.txt\n")
    (folder / "test_one.py").write_text("def test_one(tmp_path):\n    (tmp_path / 'x').write_text('x')\n")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    async with tooled(server, base, f"{python}/bin:/usr/bin:/bin") as agent:
        assert await said(agent, "make check") == "made"
        assert "test_one.py" in await said(agent, "git status --short")
        if any((Path(python) / "lib").glob(f"python3.{sys.version_info.minor}/site-packages/pytest")):
            assert "1 passed" in await said(agent, "python3 -m pytest -q")
