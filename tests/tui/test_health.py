"""An agent that stalls or goes round in circles is seen at once, and no longer than it does."""

from __future__ import annotations

from datetime import timedelta

from fakes.console import console
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.health import Health, HealthLevel, HealthReason


async def test_what_is_wrong_is_in_the_row_the_alert_and_the_output_until_it_is_over() -> None:
    async with console((200, 50)) as made:
        name = next(entry.key.name for entry in made.app.session.known.live())
        since = made.clock.now() - timedelta(minutes=4)
        stalled = Health(
            level=HealthLevel.STALLED, reason=HealthReason.TOOL_SILENT, since=since, subject="run\x1b[2J_command"
        )
        made.client.emit(ev.HealthChanged(health=stalled), name)
        await made.drained()
        assert f"{name} stalled 4m: run␛[2J_command silent" in made.text().splitlines()[2]
        assert made.text().count("stalled 4m") >= 3
        made.client.emit(ev.HealthChanged(health=Health(level=HealthLevel.OK, since=made.clock.now())), name)
        await made.drained()
        assert "stalled" not in made.text().splitlines()[2]
        assert "gets on again" in made.text().split("RECENT")[1]
