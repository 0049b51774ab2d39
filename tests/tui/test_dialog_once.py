"""A dialog is answered once, however fast keys are typed."""

from __future__ import annotations

import pytest
from textual.events import Key

from fakes.console import console
from toka_console.dialogs.base import Dialog
from toka_runtime.protocol import commands as cmd

FIRST = "build-system-stabilization"


@pytest.mark.parametrize(("opening", "closing"), [("K", "escape"), ("!", "escape"), ("!", "enter")])
async def test_two_keys_that_close_a_dialog_close_it_once(opening: str, closing: str) -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press(opening)
        dialog = made.app.screen
        assert isinstance(dialog, Dialog)
        # Both are in the queue before either is handled, as when they are typed ahead.
        for _ in range(2):
            dialog.post_message(Key(closing, None))
        await made.until(lambda: made.app.screen is made.app.current, "the dialog's end")
        await made.pilot.pause()
        assert made.app.current.ID == "fleet"
        freezes = [command for command in made.client.commands if isinstance(command, cmd.PauseFleet)]
        assert len(freezes) == (closing == "enter")
