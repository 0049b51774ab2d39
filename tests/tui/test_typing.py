"""The `:` and `/` lines under a pilot: completion, older lines, and settings that change while the console runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.console import Console, console


def line(made: Console) -> str:
    return made.text().splitlines()[-1].strip()


def settings(file: Path, text: str) -> None:
    """Write a settings file that is another one than before, whatever the clock of the disk."""
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


async def test_tab_completes_a_filter_of_the_screen() -> None:
    async with console((120, 30)) as made:
        await made.type("/sta")
        await made.press("tab")
        await made.type("pa")
        await made.press("tab")
        assert line(made).startswith("/state:paused")
        await made.press("enter")
        assert made.app.session.filter("fleet").source == "state:paused"


async def test_tab_completes_commands_agents_and_themes() -> None:
    async with console((120, 30)) as made:
        await made.type(":the")
        await made.press("tab")
        await made.type("toka-c")
        await made.press("tab")
        assert line(made).startswith(":theme toka-co")
        assert "toka-colour-blind  toka-contrast" in line(made)
        await made.press("escape")
        await made.type(":kill perf")
        await made.press("tab")
        assert line(made).startswith(":kill performance-observability")
        await made.press("escape")
        assert made.client.commands == []


async def test_older_lines_come_back_on_every_screen_and_what_was_begun_is_not_lost() -> None:
    async with console((120, 30)) as made:
        for text in (":theme nord", ":theme toka-light", ":denials"):
            await made.type(text)
            await made.press("enter")
        assert made.app.current.ID == "denials"
        await made.type(":the")
        await made.press("up", "up")
        assert line(made).startswith(":theme toka-light")
        await made.press("down", "down")
        assert line(made).startswith(":the ")
        await made.press("ctrl+r")
        assert line(made).startswith(":theme toka-light")
        await made.press("ctrl+r", "ctrl+r")
        assert line(made).startswith(":theme nord"), "there is none before"
        await made.press("enter")
        assert made.app.session.theme == "nord"


async def test_an_unknown_filter_key_changes_nothing() -> None:
    async with console((120, 30)) as made:
        await made.type("/stat:paused")
        await made.press("enter")
        assert not made.app.session.filter("fleet")
        assert "did you mean state:?" in made.text()


async def test_settings_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    file = tmp_path / "console.yaml"
    settings(file, "theme: toka-light\n")
    async with console((120, 30), settings_file=file) as made:
        app = made.app
        assert app.session.theme == "toka-light"
        settings(file, "theme: toka-light\nkeys:\n  screen.denials: z\n")
        await app.preferences.watch()
        await made.pilot.pause()
        assert line(made) == "settings reloaded"
        assert "z Denials" in made.text().splitlines()[0], "the tab shows its new key"
        await made.press("z")
        assert app.current.ID == "denials"
        keymap = app.keymap
        settings(file, "theme: toka-light\nkeys:\n  screen.denials: j\n")
        await app.preferences.watch()
        await made.pilot.pause()
        said = app.session.message.text  # type: ignore[union-attr] # it was said
        assert said.startswith(f"{file}:3: key j on every screen")
        assert said.endswith("the old settings stay")
        assert app.keymap is keymap, "what was good stays"
        file.unlink()
        await app.preferences.watch()
        await made.pilot.pause()
        assert "is gone; the old settings stay" in app.session.message.text  # type: ignore[union-attr] # it was said
        assert app.keymap is keymap


async def test_nothing_is_read_while_the_file_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "console.yaml"
    settings(file, "bell: true\n")
    async with console((120, 30), settings_file=file) as made:
        from toka_console import settings as module

        monkeypatch.setattr(module, "load", None)
        await made.app.preferences.watch()
        assert made.app.session.settings.bell


async def test_reload_on_demand_and_a_chosen_theme_stays(tmp_path: Path) -> None:
    file = tmp_path / "console.yaml"
    settings(file, "bell: false\n")
    async with console((120, 30), settings_file=file) as made:
        await made.type(":theme nord")
        await made.press("enter")
        settings(file, "bell: true\n")
        await made.type(":reload")
        await made.press("enter")
        await made.until(lambda: made.app.session.settings.bell, "the reload")
        assert made.app.session.theme == "nord"
        settings(file, "theme: toka-contrast\n")
        await made.app.preferences.reload()
        assert made.app.session.theme == "toka-contrast"


async def test_what_was_typed_is_written_and_found_again(tmp_path: Path) -> None:
    file = tmp_path / "typed.json"
    async with console((120, 30), typed_file=file) as made:
        await made.type(":theme nord")
        await made.press("enter")
        await made.until(file.exists, "the file")
    async with console((120, 30), typed_file=file) as made:
        await made.type(":")
        await made.press("up")
        assert line(made).startswith(":theme nord")


@pytest.mark.parametrize(
    ("size", "header"),
    [
        ((200, 50), " toka  1 Fleet  2 Agent  3 Output  5 Denials 16  6 Approvals"),
        ((60, 15), " toka  1 Fleet  2  3  5 16  6"),
    ],
)
async def test_tabs_name_the_current_screen_and_count_trouble(size: tuple[int, int], header: str) -> None:
    async with console(size) as made:
        first = made.text().splitlines()[0]
        for part in header.split():
            assert part in first.split()
        assert "local up" in first
        await made.press("5")
        assert "5 Denials 16" in made.text().splitlines()[0]


async def test_help_begins_with_the_screen_it_was_opened_from_and_is_searched() -> None:
    async with console((120, 40)) as made:
        await made.press("6", "?")
        text = made.text()
        assert text.index("On the approvals screen") < text.index("allow-once") < text.index("Contain")
        await made.type("/stall")
        await made.press("enter")
        assert "diagnostics" in made.text()
        assert "allow-once" not in made.text()
        await made.press("escape")
        assert "allow-once" in made.text(), "esc takes the filter away first"
        await made.press("escape")
        assert made.app.current.ID == "approvals"


async def test_the_palette_says_why_something_cannot_be_done() -> None:
    from toka_console.palette_provider import ActionProvider

    async with console((120, 40)) as made:
        await made.put_cursor_on("build-system-stabilization")
        provider = ActionProvider(made.app.screen)
        texts = [hit.text or "" async for hit in provider.discover()]
        can = next(at for at, text in enumerate(texts) if text.startswith("pause: "))
        cannot = next(at for at, text in enumerate(texts) if text.startswith("resume: "))
        assert can < cannot
        assert "(not now: only a paused agent can be resumed; it is running)" in texts[cannot]
        await made.press("ctrl+p")
        await made.type("resume")
        await made.until(lambda: "not now" in made.text(), "the reason")
