"""`toka-runtime denials`: everything about each, from the log of a runtime that goes on writing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fakes import events as fake
from fakes.clock import FakeClock
from toka_runtime.cli.denials import KIND
from toka_runtime.cli.main import main
from toka_runtime.clock import SystemClock
from toka_runtime.protocol.capability import Denial, Layer, Operation, OperationKind
from toka_runtime.protocol.events import OperationDenied
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.store.events import EventStore

WRITE = Operation(kind=OperationKind.WRITE, target="/etc/café\u2028\x1b[2J", tool="write_file", call=CallId("t7"))


def refused(operation: Operation = WRITE, layer: Layer = Layer.POLICY, **more: Any) -> OperationDenied:
    denial = Denial(operation=operation, capability="filesystem-write", layer=layer, rule="baseline", reason="no")
    return OperationDenied(denial=denial, **more)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EventStore]:
    """Open while the verb reads: what a runtime in another process does."""
    store = await EventStore.open(tmp_path / "state", host=fake.HOST, clock=SystemClock())
    yield store
    await store.aclose()


async def append(store: EventStore, event: OperationDenied, agent: str = "writer", run: str = "r1") -> None:
    await store.append(event, agent=AgentName(agent), run=RunId(run))


async def denials(store: EventStore, *words: str) -> int:
    return await asyncio.to_thread(main, ["denials", "--state-dir", str(store.state_dir), *words])


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_kind_is_the_events() -> None:
    assert refused().kind == KIND


async def test_json_has_every_field_in_ascii(store: EventStore, capsys: pytest.CaptureFixture[str]) -> None:
    await append(store, refused(task=1, count=3))
    assert await denials(store, "--json") == 0
    shown = capsys.readouterr().out
    assert shown.isascii()
    [one] = lines(shown)
    assert one.pop("at") < "9999"
    assert one == {
        "seq": 1, "host": fake.HOST, "agent": "writer", "run": "r1", "task": 1, "operation": "fs.write",
        "target": WRITE.target, "argv": [], "capability": "filesystem-write", "layer": "policy", "rule": "baseline",
        "reason": "no", "hint": "", "tool": "write_file", "call": "t7", "count": 3,
    }  # fmt: skip


async def test_the_table_shows_each_whole_and_safe_for_a_terminal(
    store: EventStore, capsys: pytest.CaptureFixture[str]
) -> None:
    await append(store, refused(task=1, count=3))
    long = Operation(kind=OperationKind.CONNECT, target=f"{'a' * 300}.example:443")
    await append(store, refused(long, Layer.PROXY), agent="a-reader-with-a-long-name")
    assert await denials(store) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "TIME", "AGENT", "RUN", "TASK", "N", "LAYER", "OPERATION", "NEEDS", "RULE", "TOOL", "CALL", "TARGET"
    ]  # fmt: skip
    assert first.split()[2:] == [
        "writer", "r1", "2", "×3", "policy", "fs.write", "filesystem-write", "baseline", "write_file", "t7",
        "/etc/café\\u2028\\x1b[2J",
    ]  # fmt: skip
    assert second.endswith(long.target)
    assert first.index("policy") == second.index("proxy") == head.index("LAYER")


async def test_filters(store: EventStore, capsys: pytest.CaptureFixture[str]) -> None:
    await append(store, refused(count=1))
    await append(store, refused(layer=Layer.PROXY, count=2), agent="reader", run="r2")
    for words, counts in (
        (("--agent", "reader"), [2]),
        (("--run", "r1"), [1]),
        (("--layer", "proxy"), [2]),
        (("--layer", "proxy", "--agent", "writer"), []),
        (("--since", "10m"), [1, 2]),
        (("--since", "2999-01-01"), []),
    ):
        assert await denials(store, "--json", *words) == 0
        assert [one["count"] for one in lines(capsys.readouterr().out)] == counts, words


async def test_since_leaves_out_what_is_older(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = FakeClock()
    store = await EventStore.open(tmp_path, host=fake.HOST, clock=clock)
    await append(store, refused(count=1))
    noon = clock.now() + timedelta(minutes=5)
    await clock.advance(600)
    await append(store, refused(count=2))
    assert await denials(store, "--json", "--since", noon.isoformat()) == 0
    assert [one["count"] for one in lines(capsys.readouterr().out)] == [2]
    await store.aclose()


async def test_followed_ones_come_within_a_second(store: EventStore) -> None:
    await append(store, refused(count=1))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "toka_runtime.cli.main", "denials", "--state", str(store.state_dir), "--follow", "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert json.loads(await process.stdout.readline())["count"] == 1
        for count in (2, 3):
            await append(store, refused(count=count))
            async with asyncio.timeout(1):
                assert json.loads(await process.stdout.readline())["count"] == count
    finally:
        process.send_signal(2)
        _, errors = await process.communicate()
    assert process.returncode == 130, errors


def test_without_a_place_the_log_written_last_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["denials"]) == 3
    assert "no runtime has run yet" in capsys.readouterr().err

    async def written(name: str, written_at: int, count: int) -> None:
        store = await EventStore.open(tmp_path / "toka/fleets" / name, host=fake.HOST, clock=SystemClock())
        await append(store, refused(count=count))
        await store.aclose()
        for path in store.state_dir.iterdir():
            os.utime(path, (written_at, written_at))

    asyncio.run(written("newer", 2_000, count=5))
    asyncio.run(written("older", 1_000, count=4))
    assert main(["denials", "--json"]) == 0
    said = capsys.readouterr()
    assert [one["count"] for one in lines(said.out)] == [5]
    assert said.err == f"from {tmp_path}/toka/fleets/newer\n"


@pytest.mark.parametrize("content", [None, b"", b"no database at all, but long enough to look at" * 99])
def test_a_folder_without_a_readable_log(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "events.db").write_bytes(content)
    assert main(["denials", "--state-dir", str(tmp_path)]) == 3
    assert "error [store.error]" in capsys.readouterr().err
    assert content is None or (tmp_path / "events.db").read_bytes() == content, "reading changes nothing"


def test_wrong_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["denials", "--since", "yesterday-ish"]) == 2
    assert "a duration such as 10m" in capsys.readouterr().err
    assert main(["denials", "--layer", "wall"]) == 2
