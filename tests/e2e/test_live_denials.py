"""From a tool call of a real agent to the operator's eyes: a denial is on screen within a second, whole and counted."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from fakes.console import Console, make_app
from fakes.gateway import Answer, tool_turn
from fakes.scene import scene, spec
from toka_runtime.client.local import LocalClient
from toka_runtime.clock import SystemClock
from toka_runtime.llm.base import ModelRequest
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.states import AgentState


async def test_a_denial_is_on_screen_within_a_second(tmp_path: Path) -> None:
    go, never = asyncio.Event(), asyncio.Event()
    turns = 0

    def brain(request: ModelRequest) -> Answer:
        nonlocal turns
        turns += 1
        if turns == 1:
            return go
        return tool_turn(*[("read_file", {"path": "/etc/shadow"})] * 3) if turns == 2 else never

    async with scene(tmp_path, brain, spec("prying")) as stage:
        client, clock = LocalClient(stage.supervisor), SystemClock()
        app = make_app(client, clock)  # type: ignore[arg-type]  # a real clock
        async with app.run_test(size=(200, 50)) as pilot:
            made = Console(app, pilot, client, clock)  # type: ignore[arg-type]  # a real client
            await made.until(lambda: app.bridge is not None and not app.session.phase, "the start")
            await stage.start("prying")
            await stage.until_state("prying", AgentState.RUNNING)
            await made.press("5")
            go.set()
            await stage.until(lambda: stage.of(ev.OperationDenied))
            told_at = time.monotonic()
            await made.until(lambda: "/etc/shadow" in made.text(), "the denial on screen")
            assert time.monotonic() - told_at < 1
            await made.until(lambda: "×3" in made.text(), "the count")
            text = made.text()
            await app.finish()
    (*_, last), run = stage.of(ev.OperationDenied), stage.agent("prying").run
    denial = last.denial
    expected = (
        "TIME", "prying on ", f"run {run}", "task 1", "fs.read", "/etc/shadow", denial.layer.value,
        f"rule {denial.rule}", denial.reason, f"read_file  {denial.operation.call}", "×3",
        denial.capability or "no capability would allow it",
    )  # fmt: skip
    assert [words for words in expected if words not in text] == []
