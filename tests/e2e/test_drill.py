"""The sixty-second drill: from the alert line to the evidence, by keys alone, on a real runtime with an agent that
misbehaves. Real confined processes, the real gateway, a model server on loopback; nothing waits for the clock."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from llmock.scenarios import Reply

from e2e.fleet import make_repository
from fakes.console import Console
from fakes.conversing_model import Body, ConversingModel, call, conversing_model, finish, first_words, results
from fakes.processes import alive
from fakes.scene import spec
from toka_console.app import ConsoleApp
from toka_console.identity import AgentKey
from toka_console.themes import depth_of
from toka_runtime.client.base import RuntimeClient
from toka_runtime.client.evidence.verify import verify_bundle
from toka_runtime.client.local import LocalOptions, open_local
from toka_runtime.clock import SystemClock
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.snapshot import AgentView
from toka_runtime.protocol.states import AgentState

pytestmark = pytest.mark.slow
GOOD, PRYING = "diligent", "prying"
MOST_KEYS = 12
SIZES = [(200, 50), (80, 24), (60, 15)]
WAIT = "while [ ! -e go ]; do sleep 0.05; done"
"""A tree of processes that goes on as soon as a file is there, if it can."""


def misbehaves(body: Body) -> Reply:
    """The one reads what is not its own, three times, then works on; the other only works."""
    done = len(results(body))
    if done == 0 and PRYING in first_words(body):
        targets = ("/etc/shadow", "/root/.ssh/id_rsa", "/etc/shadow")
        return call(*(("read_file", {"path": target}) for target in targets), text="I look for keys.")
    if done in (0, 3):
        return call(("run_command", {"command": WAIT}))
    return finish()


class Drill:
    def __init__(self, made: Console, model: ConversingModel) -> None:
        self.made, self.model = made, model
        self.keys = 0

    async def press(self, key: str) -> None:
        self.keys += 1
        await self.made.press(key)

    async def reads(self, pattern: str) -> None:
        await self.made.until(lambda: re.search(pattern, self.made.text()), f"{pattern} on screen")

    @property
    def view(self) -> AgentView:
        return self.view_of(PRYING)

    def view_of(self, name: str) -> AgentView:
        (host,) = self.made.app.session.known.hosts
        return self.made.app.session.known.agents[AgentKey(host, AgentName(name))].view

    def works(self, name: str) -> bool:
        """It is in the command that waits."""
        actions = self.view_of(name).actions
        return bool(actions) and actions[-1].tool == "run_command" and not actions[-1].outcome

    def asked(self) -> int:
        """Requests of the agent that the model server got."""
        return sum(PRYING in first_words(body) for body in self.model.requests)

    async def find(self) -> None:
        """Keys: 2."""
        await self.made.until(lambda: self.works(PRYING) and self.works(GOOD), "both at work")
        if self.made.app.size.height >= 18:
            await self.reads(rf"{PRYING}: 3 denials")
        await self.press(".")
        await self.press("enter")
        assert self.made.app.current.ID == "agent"
        assert self.made.app.session.focus is not None
        assert self.made.app.session.focus.name == PRYING

    async def contain(self) -> int:
        """Keys: 1. How many requests the model server had got."""
        assert "FROZEN" not in self.made.text()
        await self.press("p")
        await self.reads(r"FROZEN since \d+s")
        await self.reads(r"in \d+\.\d ms")
        assert self.view.frozen_ms is not None
        assert self.view_of(GOOD).state is AgentState.RUNNING, "only the one that misbehaves"
        (Path(self.view.workspace_path) / "go").touch()
        return self.asked()

    async def see(self) -> None:
        """Keys: 2."""
        await self.press(".")
        await self.made.until(lambda: "⊘ denied by policy" in self.made.text(), "the denial")
        await self.press("enter")
        assert self.made.app.current.ID == "call"
        for words in ("fs.read /etc/shadow", "refused by", "policy", "because"):
            assert words in self.made.text(), words
        await self.made.until(lambda: "reading the log" not in self.made.text(), "the call")

    async def evidence(self, folder: Path) -> None:
        """Keys: 1."""
        await self.press("E")
        await self.made.until(lambda: list(folder.glob("evidence-*.tar.gz")), "the bundle")
        await self.reads(r"wrote ")
        (bundle,) = folder.iterdir()
        verdict = verify_bundle(bundle)
        assert verdict.problems == []
        assert PRYING in bundle.name


@asynccontextmanager
async def drill(
    tmp_path: Path, size: tuple[int, int], environ: Mapping[str, str] | None = None
) -> AsyncGenerator[Drill]:
    folder = tmp_path / "specs"
    folder.mkdir()
    for name in (GOOD, PRYING):
        (folder / f"{name}.yaml").write_text(spec(name, tasks=f"[{{description: the {name} work}}]"))
    clock = SystemClock()
    with conversing_model(misbehaves) as model:
        options = LocalOptions(
            paths=(folder,), workspace=make_repository(tmp_path / "project"), state_dir=tmp_path / "fleet",
            provider="anthropic", base_url=model.base_url, max_agents=2,
        )  # fmt: skip

        async def open_client() -> RuntimeClient:
            return await open_local(options)

        app = ConsoleApp(open_client, clock=clock, depth=depth_of(environ or {"TERM": "xterm-256color"}))
        async with app.run_test(size=size) as pilot:
            made = Console(app, pilot, None, clock)  # type: ignore[arg-type]  # no fake: a real runtime and clock
            await made.until(lambda: app.bridge is not None and not app.session.phase, "the start")
            try:
                yield Drill(made, model)
            finally:
                await app.finish()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where evidence goes."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "dummy-credential")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home/toka/evidence"


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_found_frozen_seen_preserved_and_thawed(tmp_path: Path, folder: Path, size: tuple[int, int]) -> None:
    async with drill(tmp_path, size) as on:
        await on.find()
        before = await on.contain()
        await on.see()
        await on.evidence(folder)
        await on.press("escape")
        assert on.asked() == before, "no request while it is frozen, though its command could have ended"
        await on.press("p")
        await on.made.until(lambda: on.asked() > before, "its next request")
        assert on.keys <= MOST_KEYS


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}], ids=["no colour"])
async def test_found_frozen_seen_killed_and_preserved(tmp_path: Path, folder: Path, environ: Mapping[str, str]) -> None:
    async with drill(tmp_path, (80, 24), environ) as on:
        await on.find()
        before = await on.contain()
        tree = {on.view.process.pid, on.view.worker_pid} if on.view.process else set[int]()
        assert alive(tree) == tree
        await on.see()
        await on.press("escape")
        await on.press("K")
        for key in ("tab", "enter"):
            await on.press(key)
        await on.made.until(lambda: on.view.state is AgentState.KILLED, "its end")
        await on.made.until(lambda: on.view.ended_at is not None, "the proof")
        assert on.view.survivors == ()
        assert alive(tree) == set()
        assert on.asked() == before
        assert on.view_of(GOOD).state is AgentState.RUNNING
        await on.evidence(folder)
        assert on.keys <= MOST_KEYS
