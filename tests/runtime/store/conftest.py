"""A store in a folder of its own, and what it has handed out."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from fakes import events as fake
from fakes.clock import FakeClock
from toka_runtime.protocol.events import Envelope
from toka_runtime.store.events import EventStore

Open = Callable[..., Awaitable[EventStore]]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def open_store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Open]:
    """Opens stores, by default in the same folder; those that the test left open are closed."""
    opened: list[EventStore] = []

    async def open_one(folder: Path = tmp_path / "state", **settings: object) -> EventStore:
        store = await EventStore.open(folder, host=fake.HOST, clock=clock, **settings)  # type: ignore[arg-type]  passed on
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.aclose()


@pytest.fixture
async def store(open_store: Open) -> EventStore:
    return await open_store()


@pytest.fixture
def seen(store: EventStore) -> list[Envelope]:
    """Everything that `store` gives to subscribers, in order."""
    envelopes: list[Envelope] = []
    store.on_commit = envelopes.extend
    return envelopes
