"""A log as a runtime leaves it: every kind of event, text of all sorts, checkpoints, and holes that retention made."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

from fakes import events as fake
from fakes.clock import FakeClock
from toka_runtime.store import chained
from toka_runtime.store.events import EventStore
from toka_runtime.store.retention import DAY_S, Retention

OUTPUT_GOES = Retention(
    max_bytes=None, output_max_age_s=DAY_S, detail_max_age_s=None, record_max_age_s=None, keep_events=5
)


async def record_log(folder: Path, *, rounds: int = 2, retention: bool = True) -> None:
    """Some 50 events a round, with a signed checkpoint every 20."""
    clock = FakeClock()
    with mock.patch.object(chained, "SIGN_RECORDS", 20):
        for round_ in range(rounds):
            store = await EventStore.open(folder, host=fake.HOST, clock=clock, retention=OUTPUT_GOES)
            for number, event in enumerate(fake.every_kind()):
                if type(event).durable:
                    await store.append(event, agent=fake.AGENTS[number % 3] if number % 4 else None, run=None)
                if number % 5 == 0:
                    await store.append(
                        fake.output(f'Ümlaut 😀 {round_}\x1b[31m "q" \\ {number}\n' * 2), agent=fake.AGENTS[0]
                    )
            if retention and round_ < rounds - 1:
                await clock.advance(2 * DAY_S)
                await store.apply_retention()
            await store.aclose()
