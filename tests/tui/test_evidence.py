"""`E`: a bundle of the agent that the row is about, or of all marked ones; loud when there is none."""

from __future__ import annotations

import stat
import tarfile
from pathlib import Path

import pytest

from fakes import fleet
from fakes.console import Console, console
from toka_runtime.client.evidence.verify import verify_bundle
from toka_runtime.protocol import commands as cmd

FIRST, SECOND = fleet.NAMES[0][0], fleet.NAMES[1][0]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "toka/evidence"


async def said(made: Console, start: str) -> str:
    def message() -> str:
        current = made.app.session.current_message()
        return current.text if current is not None else ""

    await made.until(lambda: message().startswith(start), start)
    return message()


def agents(bundle: Path) -> set[str]:
    with tarfile.open(bundle) as tar:
        return {name.split("/")[2] for name in tar.getnames() if name.startswith("agents/")}


@pytest.mark.parametrize("size", [(200, 50), (80, 24), (60, 15)], ids=str)
async def test_keeps_the_agent_under_the_cursor(folder: Path, size: tuple[int, int]) -> None:
    async with console(size) as made:
        await made.put_cursor_on(SECOND)
        await made.press("E")
        text = await said(made, "wrote ")
        (bundle,) = folder.iterdir()
        verdict = verify_bundle(bundle)
        assert verdict.problems == []
        assert str(bundle) in text
        assert verdict.digest[:16] in text
        assert f"{verdict.files + 1} files" in text
        assert agents(bundle) == {SECOND}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert made.client.commands == [], "nothing but queries"


async def test_keeps_all_marked_agents_in_one_file(folder: Path) -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("space")
        await made.put_cursor_on(SECOND)
        await made.press("space", "E")
        await said(made, "wrote ")
        (bundle,) = folder.iterdir()
        assert agents(bundle) == {FIRST, SECOND}


@pytest.mark.parametrize("keys", ["2", "3", "4", "7", "9"])
async def test_is_at_hand_on_other_screens(folder: Path, keys: str) -> None:
    async with console() as made:
        await made.put_cursor_on(SECOND)
        await made.press(*keys)
        await made.press("E")
        await said(made, "wrote ")
        assert len(list(folder.iterdir())) == 1


async def test_on_denials_it_is_about_the_row(folder: Path) -> None:
    async with console() as made:
        denied = made.app.session.known.denials
        assert denied
        await made.press("5")
        await made.press("E")
        await said(made, "wrote ")
        (bundle,) = folder.iterdir()
        first = agents(bundle)
        await made.press("enter")
        call = made.app.session.call
        assert call is not None
        assert first == {call.key.name}


async def test_says_loudly_that_there_is_none(folder: Path) -> None:
    async with console() as made:

        def cut(request: cmd.CommandRequest) -> cmd.CommandResult | None:
            if request.id.startswith("evidence:"):
                return cmd.CommandResult(id=request.id, ok=False, code="link.unknown", message="cut")
            return None

        await made.put_cursor_on(FIRST)
        made.client.answer = cut
        await made.press("E")
        text = await said(made, "NO EVIDENCE")
        assert "cut" in text
        assert list(folder.iterdir()) == []


async def test_a_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("in the way")
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("E")
        assert "evidence" in await said(made, "NO EVIDENCE")
