"""Front ends on a runtime's socket: a real supervisor, real processes, real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import toka_runtime
from fakes.scene import spec
from fakes.served import Reader, Served, ask, reading, served
from toka_runtime.aio import spawn
from toka_runtime.client.attached import AttachedClient, attach_unix
from toka_runtime.client.base import LinkState
from toka_runtime.client.channel import StreamSink
from toka_runtime.client.endpoint import connected, listening
from toka_runtime.clock import SystemClock
from toka_runtime.errors import LinkDown, LinkRefused, StoreLocked
from toka_runtime.protocol import wire
from toka_runtime.protocol.commands import PauseFleet, ReadEvents, StartFleet
from toka_runtime.protocol.events import CommandHandled, Noticed
from toka_runtime.protocol.roles import Role
from toka_runtime.protocol.states import AgentState
from toka_runtime.server.connection import ANSWERS_MOST
from toka_runtime.server.daemon import Daemon
from toka_runtime.supervisor.bus import Bus


async def test_an_attached_front_end_sees_what_an_embedded_one_sees(tmp_path: Path) -> None:
    async with served(tmp_path, spec("alpha"), spec("beta")) as made, reading(await attach_unix(made.path)) as reader:
        client = reader._client  # pyright: ignore[reportPrivateUsage]
        assert client.host == "here"
        assert client.link.state is LinkState.UP
        answer = await client.send(ask(StartFleet()))
        assert answer.ok
        await made.stage.supervisor.settled()
        await reader.until(lambda: reader.state.seq == made.head)
        assert {view.state for view in reader.state.agents.values()} == {AgentState.COMPLETED}
        near = made.client.supervisor.bus.snapshot()
        assert reader.state.agents == near.agents
        assert reader.durable == list(range(reader.durable[0], made.head + 1))


async def test_several_at_once_see_the_same_and_who_commanded(tmp_path: Path) -> None:
    async with (
        served(tmp_path) as made,
        reading(await attach_unix(made.path)) as one,
        reading(await attach_unix(made.path)) as two,
    ):
        await one._client.send(ask(StartFleet()))  # pyright: ignore[reportPrivateUsage]
        await made.stage.supervisor.settled()
        for reader in (one, two):
            await reader.until(lambda reader=reader: reader.state.seq == made.head)
        assert one.durable[-10:] == two.durable[-10:] == list(range(made.head - 9, made.head + 1))
        handled = next(e.event for e in two.log if isinstance(e.event, CommandHandled))
        assert handled.actor.startswith("me (test) [")
        assert f"pid {os.getpid()}]" in handled.actor
        assert len(made.daemon.front_ends) == 2


async def test_the_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with served(tmp_path) as made:
            assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not made.path.exists()


async def test_a_broken_link_goes_on_where_it_was(tmp_path: Path) -> None:
    async with served(tmp_path) as made, reading(await attach_unix(made.path)) as reader:
        client = reader._client  # pyright: ignore[reportPrivateUsage]
        for number in range(20):
            await made.notice(f"{number}")
            if number % 5 == 4:
                channel = client._channel  # pyright: ignore[reportPrivateUsage]
                assert channel is not None
                channel.abort()
                await made.notice(f"{number} while it is down")
                await reader.until(lambda: reader.state.seq == made.head)
        texts = [e.event.message for e in reader.log if isinstance(e.event, Noticed)]
        assert len(texts) == len(set(texts)) == 24
        assert reader.durable == list(range(reader.durable[0], made.head + 1))
        assert reader.resyncs == []


async def test_a_reader_that_stops_holds_up_nobody_and_loses_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as made:
        stopped = await attach_unix(made.path)
        state = await stopped.snapshot()
        async with reading(await attach_unix(made.path)) as quick:
            for _ in range(50):
                await asyncio.gather(*(made.notice("x" * 2000) for _ in range(130)))
            await quick.until(lambda: quick.state.seq == made.head)
            answer = await stopped.send(ask(ReadEvents(limit=1)))
            assert answer.ok, "commands pass a stream that stands still"
        async with reading(stopped, state) as slow:
            await slow.until(lambda: slow.state.seq == made.head)
            assert slow.resyncs == []
            assert slow.durable == list(range(slow.durable[0], made.head + 1))
            assert slow.state.agents == quick.state.agents


async def test_a_reader_too_far_behind_begins_anew_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bus.subscribe, "__kwdefaults__", {"max_pending": 50})
    async with served(tmp_path) as made:
        client = await attach_unix(made.path)
        state = await client.snapshot()
        for _ in range(10):
            await asyncio.gather(*(made.notice("x" * 2000) for _ in range(100)))
        async with reading(client, state) as slow:
            await slow.until(lambda: slow.state.seq == made.head)
            assert {each.missed > 0 for each in slow.resyncs} == {True}


async def test_a_command_is_carried_out_once_however_often_it_arrives(tmp_path: Path) -> None:
    async with served(tmp_path) as made, reading(await attach_unix(made.path)) as reader:
        client = reader._client  # pyright: ignore[reportPrivateUsage]
        request = ask(StartFleet(), "test:once")
        answers = [await client.send(request) for _ in range(3)]
        assert {answer.seq for answer in answers} == {answers[0].seq}
        await made.stage.supervisor.settled()
        await reader.until(lambda: reader.state.seq == made.head)
        assert sum(isinstance(e.event, CommandHandled) for e in reader.log) == 1


async def test_a_command_whose_link_breaks_is_asked_again_by_its_id(tmp_path: Path) -> None:
    async with served(tmp_path) as made, reading(await attach_unix(made.path)) as reader:
        client = reader._client  # pyright: ignore[reportPrivateUsage]
        sending = spawn(client.send(ask(StartFleet())), name="send")
        await asyncio.sleep(0)
        channel = client._channel  # pyright: ignore[reportPrivateUsage]
        assert channel is not None
        channel.abort()
        assert (await sending).ok
        await made.stage.supervisor.settled()
        await reader.until(lambda: reader.state.seq == made.head)
        assert sum(isinstance(e.event, CommandHandled) for e in reader.log) == 1


async def test_a_runtime_that_closes_says_so_and_is_waited_for(tmp_path: Path) -> None:
    async with served(tmp_path) as made:
        client = await attach_unix(made.path)
        async with reading(client) as reader:
            await made.client.aclose("the end")
            await reader.until(lambda: reader.state.stopped)
            await made.daemon.aclose()
            async with asyncio.timeout(5):
                while client.link.state is not LinkState.DOWN:
                    await asyncio.sleep(0)
            answer = await client.send(ask(StartFleet()))
            assert (answer.ok, answer.code) == (False, "link.down")


async def test_nobody_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LinkDown, match="No such file"):
        await attach_unix(tmp_path / "runtime.sock")


async def test_a_version_that_nobody_shares_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path) as made:
        reader, writer = await asyncio.open_unix_connection(sock=connected(made.path))
        writer.write(wire.ClientHello(client="toka 99", proto=(98, 99)).model_dump_json().encode() + b"\n")
        answer = wire.server_hello(await reader.readline())
        assert (answer.error, await reader.read()) == ("protocol.mismatch", b"")
        assert "upgrade toka-runtime" in answer.hint
        writer.close()
        monkeypatch.setattr(wire, "VERSIONS", (98, 99))
        with pytest.raises(LinkRefused, match="refuses"):
            await attach_unix(made.path)


@pytest.mark.parametrize("noise", [b"{}\n", b"\xff\xfe\n", b"[1]\n", b"x" * 70_000 + b"\n", b"\n"])
async def test_noise_ends_only_its_own_connection(tmp_path: Path, noise: bytes) -> None:
    async with served(tmp_path) as made, reading(await attach_unix(made.path)) as neighbour:
        _reader, writer = await asyncio.open_unix_connection(sock=connected(made.path))
        writer.write(noise)
        writer.write_eof()
        await _reader.read()
        writer.close()
        reader, writer = await asyncio.open_unix_connection(sock=connected(made.path))
        writer.write(wire.ClientHello(client="noisy").model_dump_json().encode() + b"\n")
        await reader.readline()
        writer.write(b'{"t":"cmd","request":{"id":"x"}}\n' + noise + b"not json\n")
        said = await reader.read()
        assert b"command cannot be read" in said
        assert b'"bye"' in said
        writer.close()
        await made.notice("still here")
        await neighbour.until(lambda: neighbour.state.seq == made.head)


async def test_a_second_runtime_does_not_take_a_live_socket_but_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "runtime.sock"
    dead = listening(path)
    dead.close()
    async with served(tmp_path) as made:
        first = Daemon(made.client, path, lambda _name, error: made.failures.append(error))
        await first.open()
        second = Daemon(made.client, path, lambda _name, error: made.failures.append(error))
        with pytest.raises(StoreLocked, match="in use"):
            await second.open()
        await second.aclose()
        assert path.exists()
        await first.aclose()
        assert not path.exists()


async def test_a_folder_as_deep_as_one_likes(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 6)
    deep.mkdir(parents=True)
    with listening(deep / "runtime.sock") as server, connected(deep / "runtime.sock") as client:
        client.setblocking(True)
        server.setblocking(True)
        accepted, _ = server.accept()
        with accepted:
            client.send(b"hello")
            assert accepted.recv(10) == b"hello"


def test_long_frames_travel_in_parts_and_broken_ones_are_refused() -> None:
    text = json.dumps({"t": "snap", "state": "ü\n\u2028" * 200_000})
    joiner = wire.FrameJoiner()
    other = list(wire.lines_of(json.dumps({"t": "res", "x": "y" * 300_000}), 8))
    lines = list(wire.lines_of(text, 7))
    assert len(lines) > 3
    assert max(map(len, lines)) <= wire.LINE_BYTES
    mixed = [line for pair in zip(lines, other, strict=False) for line in pair] + lines[len(other) :]
    found = [frame for line in mixed if (frame := joiner.add(line)) is not None]
    assert [frame["t"] for frame in found] == ["res", "snap"]
    assert found[1] == json.loads(text)
    with pytest.raises(wire.ProtocolError):
        wire.FrameJoiner().add(lines[1])


# -- over a bridge ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def bridged(made: Served, *words: str, **environment: str) -> AsyncGenerator[AttachedClient]:
    """A client whose channel is the standard input and output of `toka-runtime-bridge`, as SSH has it."""
    running: list[asyncio.subprocess.Process] = []

    async def connect() -> tuple[asyncio.StreamReader, StreamSink]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "toka_runtime.server.bridge",
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=wire.LINE_BYTES,
            env=os.environ | environment,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdin is not None
        return process.stdout, StreamSink(process.stdin)

    client = AttachedClient(connect, "far")
    try:
        await client.attach()
        yield client
    finally:
        await client.aclose()
        async with asyncio.timeout(20):
            for process in running:
                await process.wait()
        assert made.daemon.front_ends == ()


async def test_a_bridge_carries_everything_and_says_where_it_comes_from(tmp_path: Path) -> None:
    async with (
        served(tmp_path) as made,
        bridged(made, "--socket", str(made.path), SSH_CONNECTION="10.0.0.7 4711 10.0.0.1 22") as client,
    ):
        reader = Reader(client, await client.snapshot())
        assert (await client.send(ask(StartFleet()))).ok
        await made.stage.supervisor.settled()
        await reader.until(lambda: reader.state.seq == made.head)
        handled = next(e.event for e in reader.log if isinstance(e.event, CommandHandled))
        assert "ssh from 10.0.0.7 port 4711" in handled.actor
        await reader.aclose()


@pytest.mark.parametrize(
    ("role", "command", "allowed"),
    [
        ("viewer", StartFleet(), False),
        ("viewer", PauseFleet(), False),
        ("viewer", ReadEvents(limit=1), True),
        ("operator", StartFleet(), False),
        ("operator", PauseFleet(), True),
        ("admin", StartFleet(), True),
    ],
)
async def test_a_role_is_enforced_by_the_runtime_and_recorded(
    tmp_path: Path, role: str, command: Any, allowed: bool
) -> None:
    async with served(tmp_path) as made, bridged(made, "--socket", str(made.path), "--role", role) as client:
        # What the front end itself says of its role counts for nothing.
        request = ask(command).model_copy(update={"role": Role.ADMIN})
        answer = await client.send(request)
        assert (answer.ok, answer.code) == ((True, "") if allowed else (False, "command.not_allowed"))
        assert (client.link.read_only != "") == (role == "viewer")
        if not allowed:
            await made.stage.until(lambda: made.stage.of(CommandHandled))
            (refused,) = made.stage.of(CommandHandled)
            assert (refused.ok, role in refused.actor) == (False, True)


async def test_a_role_cannot_be_taken_back_by_a_second_bridge_line(tmp_path: Path) -> None:
    async with served(tmp_path) as made:
        reader, writer = await asyncio.open_unix_connection(sock=connected(made.path))
        lines = [
            {"t": "bridge", "role": "viewer", "from": ""},
            {"t": "bridge", "role": "admin", "from": ""},
        ]
        writer.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        answer = wire.server_hello(await reader.readline())
        assert answer.error == "protocol.error"
        writer.close()


async def test_a_bridge_without_a_runtime_says_so(tmp_path: Path) -> None:
    async with served(tmp_path) as made:
        with pytest.raises(LinkRefused, match="no runtime to attach to") as refused:
            async with bridged(made, "--socket", str(tmp_path / "nothing.sock")):
                pass
        assert "toka-runtime serve" in refused.value.hint


class _AnHourAhead(SystemClock):
    def now(self) -> datetime:
        return super().now() + timedelta(hours=1)


async def test_how_far_a_host_is_and_how_much_its_clock_is_off(tmp_path: Path) -> None:
    async with served(tmp_path) as made:
        path = tmp_path / "ahead.sock"
        daemon = Daemon(made.client, path, lambda _name, error: made.failures.append(error), _AnHourAhead())
        await daemon.open()
        try:
            async with reading(await attach_unix(path)) as reader:
                client = reader._client  # pyright: ignore[reportPrivateUsage]
                assert (await client.send(ask(ReadEvents(limit=1)))).ok, "answers come in the order of the questions"
                link = client.link
                assert link.round_trip_s is not None
                assert link.skew_s is not None
                assert abs(link.skew_s - 3600) <= link.skew_error_s + 0.001
                assert link.version == toka_runtime.__version__
        finally:
            await daemon.aclose()


async def test_who_asks_and_does_not_read_is_not_read_either(tmp_path: Path) -> None:
    async with served(tmp_path) as made:
        reader, writer = await asyncio.open_unix_connection(sock=connected(made.path))
        writer.write(wire.ClientHello(client="greedy").model_dump_json().encode() + b"\n")
        await reader.readline()
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # pyright: ignore
        pings = b'{"t":"ping","c":1}\n' * 2000

        async def ask_on() -> None:
            for _ in range(1000):
                writer.write(pings)
                await asyncio.wait_for(writer.drain(), 1)

        # The runtime takes no more than its bounds: at some point nothing moves.
        with pytest.raises(TimeoutError):
            await ask_on()
        (connection,) = made.daemon._connections  # pyright: ignore[reportPrivateUsage]
        assert len(connection._answers) <= ANSWERS_MOST  # pyright: ignore[reportPrivateUsage]
        writer.transport.abort()
