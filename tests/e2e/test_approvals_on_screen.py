"""A real agent asks, the operator answers by keys, the call is carried out: nothing between is a fake but the model."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fakes.console import Console, make_app
from fakes.gateway import Answer, finish, tool_turn
from fakes.scene import scene, spec
from toka_console.approvals import LEAST_SHOWN_S
from toka_runtime.client.local import LocalClient
from toka_runtime.clock import SystemClock
from toka_runtime.llm.base import ModelRequest
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.approval import GrantScope

ASKING = spec("asking", security="  approvals: ask\n").replace(
    "[filesystem-read, filesystem-write, script-execution]", "[filesystem-read]"
)


def write(path: str) -> Answer:
    return tool_turn(("write_file", {"path": path, "content": "granted\n"}))


async def test_asked_allowed_used_revoked_denied(tmp_path: Path) -> None:
    revoked = asyncio.Event()
    answers: list[Answer] = [write("docs/a.md"), write("docs/a.md"), revoked, write("docs/a.md")]

    def brain(request: ModelRequest) -> Answer:
        return answers.pop(0) if answers else finish()

    async with scene(tmp_path, brain, ASKING) as stage:
        client, clock = LocalClient(stage.supervisor), SystemClock()
        app = make_app(client, clock)  # type: ignore[arg-type]  # a real clock
        async with app.run_test(size=(160, 45)) as pilot:
            made = Console(app, pilot, client, clock)  # type: ignore[arg-type]  # a real client
            await made.until(lambda: app.bridge is not None and not app.session.phase, "the start")
            await stage.start("asking")
            await made.until(lambda: "1 approval pending" in made.text(), "the request in the header")
            assert "PENDING approval" in made.text()
            await made.press("6")
            await made.until(lambda: "fs.write docs/a.md" in made.text(), "the request")
            await settled(made)
            await made.press("A", "down", "down", "down", "down")
            assert "▸ run" in made.text()
            await made.press("enter")
            await made.until(lambda: "Grants 1" in made.text() and "×2" in made.text(), "the grant and its two uses")
            assert (Path(stage.of(ev.WorkspaceReady)[-1].path) / "docs/a.md").read_text() == "granted\n"
            await settled(made)
            await made.press("tab", "tab")
            await settled(made)
            await made.press("x")
            await made.until(lambda: "Grants" not in made.text(), "the end of the grant")
            revoked.set()
            await made.until(lambda: "Requests 1" in made.text(), "the next request")
            await settled(made)
            await made.press("x")
            await made.until(lambda: "Requests 0" in made.text(), "the end of the request")
            await stage.supervisor.settled()
            await app.finish()
    (issued,) = stage.of(ev.GrantIssued)
    assert issued.grant.scope is GrantScope.RUN
    assert issued.grant.actor.endswith("(console)")
    assert len(stage.of(ev.GrantRevoked)) == 1
    assert [event.outcome for event in stage.of(ev.ApprovalDecided)] == ["allowed", "denied"]


async def settled(made: Console) -> None:
    """Until what is under the cursor has been there long enough to take a key."""
    made.app.repaint()
    await made.pilot.pause(LEAST_SHOWN_S)
    await made.until(made.app.current.is_settled, "a settled screen")
