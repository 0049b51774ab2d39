"""Answering requests from a shell: what is listed, and that an answer reaches the call that waits."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from fakes.gateway import Answer, finish, tool_turn
from fakes.scene import Scene, scene, spec
from toka_runtime.cli.main import main
from toka_runtime.client.local import LocalClient
from toka_runtime.llm.base import ModelRequest
from toka_runtime.protocol import events as ev
from toka_runtime.server.daemon import Daemon

SPEC = spec("a", security="  approvals: ask\n").replace(", filesystem-write, script-execution", "")


async def shell(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = await asyncio.to_thread(main, list(words))
    told = capsys.readouterr()
    return code, told.out + told.err


async def test_a_request_is_listed_approved_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = asyncio.Event()
    turns: list[Answer] = [tool_turn(("write_file", {"path": "docs/a.md", "content": "x"})), held]

    def brain(request: ModelRequest) -> Answer:
        return turns.pop(0) if turns else finish()

    def failed(name: str, error: BaseException) -> None:
        raise AssertionError(name) from error

    async with scene(tmp_path, brain, SPEC) as stage:
        place = tmp_path / "s"
        daemon = Daemon(LocalClient(stage.supervisor), place, failed)
        await daemon.open()
        try:
            await _answered(stage, capsys, "--socket", str(place))
        finally:
            held.set()
            await daemon.aclose()


async def _answered(stage: Scene, capsys: pytest.CaptureFixture[str], *where: str) -> None:
    await stage.start()
    await stage.until(lambda: stage.of(ev.ApprovalRequested))
    request = stage.of(ev.ApprovalRequested)[0].request
    code, text = await shell(capsys, "approvals", *where)
    assert code == 0
    assert request.id in text
    assert "missing capability: filesystem-write" in text
    assert "--scope once: write docs/a.md: this one call only" in text
    assert "nothing is granted" in (await shell(capsys, "grants", *where))[1]
    assert (await shell(capsys, "approve", "a0", *where))[0] == 2
    code, text = await shell(capsys, "approve", request.id, "--scope", "ttl", "--for", "120", *where)
    assert code == 0, text
    assert "write docs/a.md: for 2 min" in text
    await stage.until(lambda: stage.of(ev.ToolCallEnded))
    code, text = await shell(capsys, "grants", "--json", *where)
    (line,) = text.splitlines()
    identity = json.loads(line)["grant"]["grant"]["id"]
    assert (await shell(capsys, "revoke", identity, *where))[0] == 0
    assert " (cli) " in stage.of(ev.GrantIssued)[0].grant.actor
    assert (await shell(capsys, "revoke", identity, *where))[0] == 2
