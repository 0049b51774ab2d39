"""Attacks on approvals: replayed, changed underneath, or made to look like another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.approving import Script, answer, asked, asking, folder, write
from fakes.gateway import tool_turn
from fakes.scene import scene
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.approval import GrantScope


async def test_an_approval_is_not_good_for_the_same_call_again(tmp_path: Path) -> None:
    async with scene(tmp_path, Script(write(), write()), asking()) as stage:
        await stage.start()
        first = await asked(stage)
        assert (await stage.send(answer(stage, first))).ok
        second = await asked(stage, 2)
        replayed = await stage.send(answer(stage, first))
        assert not replayed.ok
        assert second.id != first.id
        assert (await stage.send(answer(stage, second, allow=False))).ok
        await stage.supervisor.settled()
        assert [event.grant.scope for event in stage.of(ev.GrantIssued)] == [GrantScope.ONCE]


async def test_an_approval_for_other_arguments_opens_nothing(tmp_path: Path) -> None:
    """The operator saw one content, the agent wants another: the digest differs, so the answer is refused."""
    async with scene(tmp_path, Script(write(content="harmless"), write(content="harmful")), asking()) as stage:
        await stage.start()
        harmless = await asked(stage)
        assert (await stage.send(answer(stage, harmless, allow=False))).ok
        harmful = await asked(stage, 2)
        assert harmful.digest != harmless.digest
        wrong = answer(stage, harmful).model_copy(update={"digest": harmless.digest})
        assert not (await stage.send(wrong)).ok
        assert (await stage.send(answer(stage, harmful, allow=False))).ok
        await stage.supervisor.settled()
        assert not stage.of(ev.GrantIssued)
        assert not (folder(stage) / "docs").exists()


@pytest.mark.parametrize("at", [".git/hooks", "/tmp"])
async def test_a_link_put_there_after_the_question_leads_nowhere(tmp_path: Path, at: str) -> None:
    async with scene(tmp_path, Script(write("docs/post-commit")), asking()) as stage:
        await stage.start()
        request = await asked(stage)
        place = folder(stage)
        target = place / at if not at.startswith("/") else tmp_path / "elsewhere"
        target.mkdir(parents=True, exist_ok=True)
        (place / "docs").symlink_to(target)
        await stage.send(answer(stage, request))
        await stage.supervisor.settled()
        assert not (target / "post-commit").exists()
        (ended,) = [event for event in stage.of(ev.ToolCallEnded) if event.tool == "write_file"]
        assert ended.outcome in ("error", "denied")


async def test_a_name_that_looks_alike_is_written_out_and_is_another_one(tmp_path: Path) -> None:
    alike = "docs/n\u0435w.md"
    brain = Script(write(alike), write("docs/new.md"))
    async with scene(tmp_path, brain, asking()) as stage:
        await stage.start()
        first = await asked(stage)
        assert alike not in first.denials[0].operation.target, "not shown as what it looks like"
        assert (await stage.send(answer(stage, first, scope=GrantScope.RUN))).ok
        second = await asked(stage, 2)
        assert second.denials[0].operation.target == "docs/new.md"
        assert (await stage.send(answer(stage, second, allow=False))).ok
        await stage.supervisor.settled()
        assert not (folder(stage) / "docs/new.md").exists()


async def test_what_is_protected_is_never_put_before_an_operator(tmp_path: Path) -> None:
    calls = [
        ("write_file", {"path": ".git/hooks/post-commit", "content": "#!/bin/sh"}),
        ("write_file", {"path": "../outside.txt", "content": "x"}),
        ("read_file", {"path": "/etc/shadow"}),
        ("read_file", {"path": "../state/events.sqlite3"}),
    ]
    async with scene(tmp_path, Script(*(tool_turn(call) for call in calls)), asking()) as stage:
        await stage.run()
        assert not stage.of(ev.ApprovalRequested)
        assert {event.outcome for event in stage.of(ev.ToolCallEnded)} == {"denied", "ok"}
        assert len(stage.of(ev.OperationDenied)) == len(calls)
