"""The queue between loop and writer: what is dropped is counted, and a row that was taken no longer changes."""

import threading

from fakes import events as fake
from toka_runtime.protocol.events import OutputAppended
from toka_runtime.store.pending import Item, Pending, Row, Sample
from toka_runtime.store.rows import encode_body

ALPHA, BETA, _ = fake.AGENTS


def row(event: fake.ev.Event, agent: str = ALPHA) -> Row:
    event, body = encode_body(event)
    return Row(event, body, agent, "r1", fake.START)  # type: ignore[arg-type]  a plain string


def say(pending: Pending, text: str, agent: str = ALPHA) -> bool:
    event = fake.output(text)
    return pending.put_output(row(event, agent), event)


def take(pending: Pending, rows: int = 1000) -> list[Item]:
    return pending.take(rows, 10**9, timeout=0, hold=False)


def dropped(items: list[Item]) -> list[int]:
    return [
        item.event.dropped_bytes for item in items if isinstance(item, Row) and isinstance(item.event, OutputAppended)
    ]


def test_above_the_bound_one_row_a_stream_counts_what_is_left_out() -> None:
    pending = Pending(max_rows=2, max_bytes=10**9)
    assert [say(pending, "kept", agent) for agent in (ALPHA, BETA)] == [True, True]
    assert [say(pending, "left out", agent) for agent in (ALPHA, BETA, ALPHA, BETA, ALPHA)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    pending.put(row(fake.tool_started("must")))
    items = take(pending)
    assert dropped(items) == [0, 0, 24, 16]
    assert [len(item.event.text) for item in items[2:4]] == [0, 0]  # type: ignore[union-attr]
    assert all(item.body for item in items if isinstance(item, Row))
    assert items[2].body == encode_body(items[2].event)[1]  # type: ignore[union-attr]


def test_a_row_that_was_taken_no_longer_grows() -> None:
    pending = Pending(max_rows=1, max_bytes=10**9)
    for _ in range(3):
        say(pending, "x")
    taken = take(pending)
    pending.put(row(fake.tool_started("wedge")))
    assert say(pending, "yy")
    assert dropped(taken) == [0, 2]
    assert dropped(take(pending)) == [2]


def test_the_bound_in_bytes() -> None:
    pending = Pending(max_rows=10**9, max_bytes=5000)
    for _ in range(100):
        say(pending, "x" * 1000)
    items = take(pending)
    assert sum(len(item.event.text) for item in items) <= 6000  # type: ignore[union-attr]
    assert sum(len(item.event.text) + item.event.dropped_bytes for item in items) == 100_000  # type: ignore[union-attr]
    assert say(pending, "room again")
    assert dropped(take(pending)) == [0]


def test_a_take_is_bounded_in_rows_and_bytes() -> None:
    pending = Pending(max_rows=10**9, max_bytes=10**9)
    for n in range(10):
        pending.put(row(fake.tool_started(str(n))))
    assert len(take(pending, rows=3)) == 3
    assert len(pending.take(100, 1, timeout=0, hold=False)) == 1
    assert len(take(pending)) == 6
    assert take(pending) == []


def test_what_comes_back_goes_first() -> None:
    pending = Pending(max_rows=10**9, max_bytes=10**9)
    for n in range(3):
        pending.put(row(fake.tool_started(str(n))))
    taken = take(pending, rows=2)
    pending.put(row(fake.tool_started("3")))
    pending.put_back(taken)
    assert [item.event.call for item in take(pending)] == ["0", "1", "2", "3"]  # type: ignore[union-attr]


def test_a_taker_wakes_for_what_comes_and_for_the_end() -> None:
    pending = Pending(max_rows=10, max_bytes=10**9)
    got: list[list[Item]] = []
    ready = threading.Semaphore(0)

    def run() -> None:
        while not pending.closing or pending:
            got.append(pending.take(10, 10**9, timeout=None, hold=False))
            ready.release()

    taker = threading.Thread(target=run)
    taker.start()
    pending.put(Sample(fake.tool_started("a"), None, None, fake.START))
    assert ready.acquire(timeout=10)
    pending.close()
    taker.join(timeout=10)
    assert not taker.is_alive()
    assert len(got[0]) == 1
