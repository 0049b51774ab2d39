"""Attacks run on real confined processes: one fork server for all of them, a fresh agent and a neighbour for each."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fakes.cell import Cell, can_confine, cell, place
from fakes.only_bwrap import fork_servers_command
from toka_runtime.limits.enforcer import Enforcer
from toka_runtime.sandbox import launcher
from toka_runtime.sandbox.launcher import ForkServer

ONLY_BWRAP = os.environ.get("TOKA_TESTS_ONLY_BWRAP", "")
"""The program that makes all namespaces; "" where the runtime does."""
if ONLY_BWRAP:
    launcher.COMMAND = fork_servers_command(more=f"bwrap.PLACES = ({ONLY_BWRAP!r},)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    possible = can_confine()
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            if not possible:
                item.add_marker(pytest.mark.skip(reason="no user namespaces or no Landlock here"))


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def server() -> AsyncIterator[ForkServer]:
    enforcer = Enforcer.open()
    server = ForkServer(confine=True, enforcer=enforcer)
    yield server
    await server.aclose()
    enforcer.close()


@pytest_asyncio.fixture(loop_scope="session")
async def base() -> AsyncIterator[Path]:
    async with place() as folder:
        yield folder


@pytest_asyncio.fixture(loop_scope="session")
async def agent(server: ForkServer, base: Path) -> AsyncIterator[Cell]:
    """The attacker. It must still answer afterwards (what has died on purpose is asserted in the test)."""
    async with cell(server, base) as found:
        assert any("made by bwrap" in text for text in found.agent.protections) is bool(ONLY_BWRAP)
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def neighbour(server: ForkServer, base: Path) -> AsyncIterator[Cell]:
    """Another agent, which must be unharmed."""
    async with cell(server, base, "b") as found:
        yield found
        assert await found.answers()
