"""Reading: any filter gives what a plain filter over the whole log gives."""

import random

import pytest

from fakes import events as fake
from toka_runtime.errors import StoreError
from toka_runtime.protocol.events import Envelope, OperationDenied, UnknownEvent
from toka_runtime.store import reader
from toka_runtime.store.events import EventStore
from toka_runtime.store.rows import kind_of

KINDS = ["output.appended", "tool.call_started", "operation.denied", "later.kind", "no.such"]


async def fill(store: EventStore, count: int, seed: int = 1) -> None:
    chance = random.Random(seed)
    for n in range(count):
        event = chance.choices(
            [
                fake.output(str(n)),
                fake.tool_started(str(n)),
                OperationDenied(denial=fake.denial()),
                UnknownEvent(kind="later.kind"),
            ],
            [20, 5, 1, 1],
        )[0]
        store.post(event, agent=chance.choice([*fake.AGENTS, None]))
    await store.append(fake.tool_started("end"), agent=fake.AGENTS[0])


async def test_every_filter_against_a_plain_one(store: EventStore, seen: list[Envelope]) -> None:
    await fill(store, 6000)
    chance = random.Random(2)
    for _ in range(80):
        after, before = sorted(chance.sample(range(6200), 2))
        kinds = chance.sample(KINDS, chance.randint(0, 3))
        agent = chance.choice([None, *fake.AGENTS, "nobody"])
        limit = chance.choice([0, 1, 7, 300, 1200, 5000])
        newest_first = chance.random() < 0.5
        expected = [
            envelope
            for envelope in seen
            if after < envelope.seq < before
            and (agent is None or envelope.agent == agent)
            and (not kinds or kind_of(envelope.event) in kinds)
        ]
        if newest_first:
            expected.reverse()
        read = await store.read(
            after_seq=after, before_seq=before, agent=agent, kinds=kinds, limit=limit, newest_first=newest_first
        )
        assert read == expected[:limit]


async def test_defaults_read_from_the_beginning(store: EventStore, seen: list[Envelope]) -> None:
    await fill(store, 1500)
    assert await store.read() == seen[:1000]
    assert await store.read(after_seq=1000) == seen[1000:]
    assert await store.read(newest_first=True, limit=2) == seen[:-3:-1]


async def test_one_read_is_bounded(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "READ_LIMIT", 50)
    await fill(store, 100)
    assert len(await store.read(limit=10**9)) == 50


async def test_rare_kinds_and_agents_are_found_without_reading_the_log(store: EventStore) -> None:
    """The plans, since a slow one gives the same answer."""
    await fill(store, 100)
    plans = await store.query(
        lambda connection: [
            connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()[0][3]
            for statement in (
                "SELECT seq FROM events INDEXED BY events_kind WHERE seq BETWEEN 1 AND 9 AND kind = 'a' ORDER BY seq",
                "SELECT block FROM agent_blocks WHERE agent = 'a' AND block BETWEEN 1 AND 9 ORDER BY block DESC",
                "SELECT seq FROM events NOT INDEXED WHERE seq BETWEEN 1 AND 9 AND agent = 'a' ORDER BY seq DESC",
            )
        ]
    )
    assert [plan.split(" USING ")[1].split(" (")[0] for plan in plans] == [
        "COVERING INDEX events_kind",
        "PRIMARY KEY",
        "INTEGER PRIMARY KEY",
    ]


async def test_readers_cannot_write(store: EventStore) -> None:
    with pytest.raises(StoreError):
        await store.query(lambda connection: connection.execute("DELETE FROM events"))


async def test_a_row_that_is_no_longer_understood_is_shown_raw(store: EventStore) -> None:
    rows = [
        (1, 0, "h", None, None, "agent.blocked", '{"kind":"agent.blocked","blockers":7}'),
        (2, 0, "h", None, None, "agent.blocked", "not even json"),
        (3, 0, "h", None, None, "runtime.stopped", '{"reason":"kind left out"}'),
    ]
    insert = "INSERT INTO events VALUES (?,?,?,?,?,?,?,NULL)"
    await store.transact(lambda connection: connection.executemany(insert, rows))
    read = await store.read()
    assert [kind_of(envelope.event) for envelope in read] == ["agent.blocked", "agent.blocked", "runtime.stopped"]
    assert read[0].event == UnknownEvent(kind="agent.blocked", body={"kind": "agent.blocked", "blockers": 7})
    assert read[1].event == UnknownEvent(kind="agent.blocked", body={"raw": "not even json"})
    assert read[2].event == fake.ev.RuntimeStopped(reason="kind left out")
