"""Attaching over SSH: a real OpenSSH server on loopback, real keys, a real runtime behind it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from e2e.fleet import RUNTIME as SERVE
from e2e.fleet import environment, make_repository
from fakes.scene import spec
from fakes.served import Reader, Served, ask, served
from fakes.sshd import NAME, OpenSsh, keygen, openssh
from toka_runtime.client.attached import AttachedClient
from toka_runtime.client.base import LinkState
from toka_runtime.client.questions import OfferedKey, Questions
from toka_runtime.client.ssh import attach_ssh
from toka_runtime.client.ssh_config import parse
from toka_runtime.errors import LinkDown, LinkRefused
from toka_runtime.protocol.commands import PauseFleet, StartFleet
from toka_runtime.protocol.events import CommandHandled

RUNTIME = Path(__file__).parents[3] / "runtime"


def bridge(made: Served, *words: str) -> str:
    """The command on the far side; a shell there has its own environment."""
    return f"PYTHONPATH={RUNTIME} {sys.executable} -m toka_runtime.server.bridge --socket {made.path} {' '.join(words)}"


@asynccontextmanager
async def both(tmp_path: Path) -> AsyncGenerator[tuple[Served, OpenSsh]]:
    async with served(tmp_path) as made, openssh(tmp_path / "ssh") as server:
        yield made, server


@asynccontextmanager
async def attached(
    made: Served, server: OpenSsh, *, command: str = "", questions: Questions | None = None
) -> AsyncGenerator[AttachedClient]:
    client = await attach_ssh(NAME, config=server.config, command=command or bridge(made), questions=questions)
    try:
        yield client
    finally:
        await client.aclose()


class Answers:
    """A person who answers as told."""

    def __init__(self, *, trust: bool = False, secret: str | None = None) -> None:
        self.asked: list[object] = []
        self._trust, self._secret = trust, secret

    async def trust(self, key: OfferedKey) -> bool:
        self.asked.append(key)
        return self._trust

    async def secret(self, what: str, *, shown: bool = False) -> str | None:
        self.asked.append(what)
        return self._secret


async def test_everything_goes_over_one_channel_and_who_it_was_is_recorded(tmp_path: Path) -> None:
    async with both(tmp_path) as (made, server), attached(made, server) as client:
        assert (client.host, client.link.state) == ("here", LinkState.UP)
        reader = Reader(client, await client.snapshot())
        assert (await client.send(ask(StartFleet()))).ok
        await made.stage.supervisor.settled()
        await reader.until(lambda: reader.state.seq == made.head)
        handled = next(e.event for e in reader.log if isinstance(e.event, CommandHandled))
        assert "ssh from 127.0.0.1 port" in handled.actor
        await reader.aclose()


async def test_a_host_that_goes_away_and_comes_back_loses_nothing(tmp_path: Path) -> None:
    async with both(tmp_path) as (made, server), attached(made, server) as client:
        reader = Reader(client, await client.snapshot())
        for number in range(3):
            await made.notice(f"before {number}")
            await server.stop()
            await made.notice(f"while it is down {number}")
            await server.start()
            await reader.until(lambda: reader.state.seq == made.head)
        assert reader.durable == list(range(reader.durable[0], made.head + 1))
        assert reader.resyncs == []
        await reader.aclose()


async def test_a_forced_command_binds_a_key_to_a_role(tmp_path: Path) -> None:
    async with both(tmp_path) as (made, server):
        server.authorize(f'restrict,command="{bridge(made, "--role", "viewer")}"')
        async with attached(made, server, command="toka-runtime-bridge --role admin; kill -9 -1") as client:
            answer = await client.send(ask(PauseFleet()))
            assert (answer.ok, answer.code) == (False, "command.not_allowed")
            assert client.link.read_only


async def test_a_host_that_is_not_known_is_asked_about_and_refused_by_default(tmp_path: Path) -> None:
    async with both(tmp_path) as (made, server):
        server.known_hosts.unlink()
        with pytest.raises(LinkRefused, match="is not known: it shows ssh-ed25519 SHA256:"):
            async with attached(made, server):
                pass
        assert not server.known_hosts.exists()
        yes = Answers(trust=True)
        async with attached(made, server, questions=yes) as client:
            assert client.link.state is LinkState.UP
        async with attached(made, server) as client:
            assert client.link.state is LinkState.UP
        (key,) = yes.asked
        assert isinstance(key, OfferedKey)
        assert key.art.startswith("+--[ED25519 256]--+\n|")


@pytest.mark.parametrize("yes", [False, True])
async def test_a_changed_key_is_refused_whatever_a_person_would_say(tmp_path: Path, yes: bool) -> None:
    async with both(tmp_path) as (made, server):
        other = tmp_path / "other"
        await keygen(other)
        server.know(other)
        answers = Answers(trust=yes)
        with pytest.raises(LinkRefused, match="HAS CHANGED"):
            async with attached(made, server, questions=answers):
                pass
        assert answers.asked == []


async def test_the_key_of_another_port_is_not_good_enough(tmp_path: Path) -> None:
    async with both(tmp_path) as (made, server):
        server.know(server.host_key, "127.0.0.1")
        with pytest.raises(LinkRefused, match="is not known"):
            async with attached(made, server):
                pass


async def test_no_setting_switches_the_check_off(tmp_path: Path) -> None:
    async with both(tmp_path) as (made, server):
        server.write_config("UserKnownHostsFile none", "StrictHostKeyChecking no")
        with pytest.raises(LinkRefused, match="is not known"):
            async with attached(made, server):
                pass


async def test_hashed_names_are_found(tmp_path: Path) -> None:
    async with both(tmp_path) as (made, server):
        process = await asyncio.create_subprocess_exec(
            "ssh-keygen", "-q", "-H", "-f", str(server.known_hosts), stderr=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0
        assert "127.0.0.1" not in server.known_hosts.read_text()
        async with attached(made, server) as client:
            assert client.link.state is LinkState.UP


async def test_a_revoked_key_is_refused(tmp_path: Path) -> None:
    async with both(tmp_path) as (made, server):
        server.known_hosts.write_text(f"@revoked {server.known_hosts.read_text()}")
        with pytest.raises(LinkRefused, match="is refused"):
            async with attached(made, server, questions=Answers(trust=True)):
                pass


async def test_a_key_that_is_not_let_in_is_said(tmp_path: Path) -> None:
    async with both(tmp_path) as (made, server):
        server.authorized.write_text("")
        with pytest.raises(LinkRefused, match="not in"):
            async with attached(made, server):
                pass


async def test_a_passphrase_is_asked_for_once(tmp_path: Path) -> None:
    async with both(tmp_path) as (made, server):
        words = ("-p", "-P", "", "-N", "open sesame", "-f", str(server.user_key))
        process = await asyncio.create_subprocess_exec("ssh-keygen", "-q", *words)
        assert await process.wait() == 0
        person = Answers(secret="open sesame")
        async with attached(made, server, questions=person) as client:
            assert client.link.state is LinkState.UP
        assert len(person.asked) == 1
        with pytest.raises(LinkRefused, match="passphrase"):
            async with attached(made, server, questions=Answers(secret="wrong")):
                pass


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("toka-runtime-bridge-that-is-not-there", "has no toka-runtime-bridge-that-is-not-there"),
        ("echo a login shell talks", "no toka-runtime answered"),
        ("yes", "no toka-runtime answered"),
        ("head -c 3000000 /dev/zero", "longer than"),
    ],
)
async def test_what_is_no_runtime_is_said(tmp_path: Path, command: str, message: str) -> None:
    async with both(tmp_path) as (made, server):
        with pytest.raises((LinkRefused, LinkDown), match=message):
            async with attached(made, server, command=command):
                pass


async def test_noise_before_the_bridge_and_on_its_error_output_does_not_matter(tmp_path: Path) -> None:
    async with both(tmp_path) as (made, server):
        noisy = f"echo Welcome; echo '{{\"motd\": 1}}'; head -c 3000000 /dev/zero >&2; {bridge(made)}"
        async with attached(made, server, command=noisy) as client:
            assert client.link.state is LinkState.UP


async def test_nobody_there_is_said(tmp_path: Path) -> None:
    async with both(tmp_path) as (made, server):
        await server.stop()
        with pytest.raises(LinkDown, match="cannot attach to far"):
            async with attached(made, server):
                pass


@pytest.mark.parametrize("name", ["", "-oProxyCommand=id", "a b", "a\nb"])
async def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(LinkRefused, match="is no host"):
        await attach_ssh(name)


def test_what_ssh_says_of_a_host() -> None:
    host = parse(
        "db",
        "hostname DB.example.org\nport 2222\nuser me\nidentityfile ~/.ssh/a\nidentityfile /k/b\nproxyjump one,two:22\n"
        "userknownhostsfile /x/known /y/known\nglobalknownhostsfile none\nidentityagent /run/agent\n",
    )
    assert host.known_name == "[db.example.org]:2222"
    assert host.jumps == ("one", "two:22")
    assert [str(path) for path in host.known_hosts] == ["/x/known", "/y/known"]
    assert host.identities == (Path("~/.ssh/a").expanduser(), Path("/k/b"))
    assert host.agent == "/run/agent"


class _Doorkeeper(asyncssh.SSHServer):
    """Lets in who knows the password, or answers two questions."""

    def __init__(self, way: str, connections: list[asyncssh.SSHServerConnection]) -> None:
        self._way = way
        self._connections = connections

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return self._way == "password"

    def validate_password(self, username: str, password: str) -> bool:
        return password == "open sesame"

    def kbdint_auth_supported(self) -> bool:
        return self._way == "questions"

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "Token", "Two questions.", "", [("Name:", True), ("Code:", False)]

    def validate_kbdint_response(self, username: str, responses: Any) -> bool:
        return list(responses) == ["open sesame", "open sesame"]


@asynccontextmanager
async def asks(made: Served, server: OpenSsh, way: str) -> AsyncGenerator[None]:
    """In the place of the OpenSSH server, on its port and with its host key: a server that asks for more than a key."""

    connections: list[asyncssh.SSHServerConnection] = []
    running: list[asyncio.Task[Any]] = []

    async def serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append(task)
        ours, theirs = os.pipe(), os.pipe()
        carried = await asyncio.create_subprocess_shell(bridge(made), stdin=ours[0], stdout=theirs[1])
        os.close(ours[0])
        os.close(theirs[1])
        await process.redirect(stdin=ours[1], stdout=theirs[0])
        await carried.wait()
        process.close()
        await process.wait_closed()

    await server.stop()
    acceptor = await asyncssh.create_server(
        lambda: _Doorkeeper(way, connections),
        "127.0.0.1",
        server.port,
        server_host_keys=[server.host_key],
        process_factory=serve,
        encoding=None,
    )
    try:
        yield
    finally:
        acceptor.close()
        for connection in connections:
            connection.abort()
            await connection.wait_closed()
        await asyncio.gather(*running, return_exceptions=True)
        await acceptor.wait_closed()


@pytest.mark.parametrize(("way", "questions"), [("password", 1), ("questions", 2)])
async def test_a_server_that_asks_is_answered_by_a_person(tmp_path: Path, way: str, questions: int) -> None:
    async with both(tmp_path) as (made, server), asks(made, server, way):
        with pytest.raises(LinkRefused, match="not in"):
            async with attached(made, server):
                pass
        person = Answers(secret="open sesame")
        async with attached(made, server, questions=person) as client:
            assert client.link.state is LinkState.UP
            assert (await client.send(ask(PauseFleet()))).code != "link.down"
        assert len(person.asked) == questions
        assert all(str(asked).find(f"on [127.0.0.1]:{server.port}") > 0 for asked in person.asked), person.asked
        wrong = Answers(secret="open barley")
        with pytest.raises(LinkRefused, match="not in"):
            async with attached(made, server, questions=wrong):
                pass
        assert 0 < len(wrong.asked) <= 6


async def test_a_runtime_that_was_served_before_is_served_again_on_request(tmp_path: Path) -> None:
    """`--start`: as it was last, and only then; with the provider it had, whatever credentials there are now."""
    home, workspace = tmp_path / "home", make_repository(tmp_path / "project")
    (home / "specs").mkdir(parents=True)
    (home / "specs" / "one.yaml").write_text(spec("alpha"))
    state_dir = home / ".local/state/toka/fleets/project"
    words = ("serve", "specs", "--workspace", str(workspace), "--state-dir", str(state_dir), "--provider", "rehearsal")
    environ = environment(home)
    command = f"env HOME={home} PYTHONPATH={RUNTIME} {sys.executable} -m toka_runtime.server.bridge"
    async with openssh(tmp_path / "ssh") as server:
        with pytest.raises(LinkRefused, match="was ever served there"):
            await attach_ssh(NAME, config=server.config, command=command, start=True)
        first = await asyncio.create_subprocess_exec(
            *SERVE, *words, "--json", cwd=home, env=environ, stdout=asyncio.subprocess.PIPE
        )
        assert first.stdout is not None
        assert json.loads(await first.stdout.readline())["agents"] == 1
        first.kill()
        await first.wait()
        with pytest.raises(LinkRefused, match="no runtime is serving"):
            await attach_ssh(NAME, config=server.config, command=command)
        client = await attach_ssh(NAME, config=server.config, command=command, start=True)
        state = await client.snapshot()
        await client.aclose()
        assert state.runtime is not None
        await ended(state.runtime.pid)
        assert list(state.agents) == ["alpha"]
        (state_dir / "served.json").chmod(0o666)
        with pytest.raises(LinkRefused, match="written by others"):
            await attach_ssh(NAME, config=server.config, command=command, start=True)


async def ended(pid: int) -> None:
    """Told to end, and waited for: it is no child of ours."""
    process, over = os.pidfd_open(pid), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(process, over.set)
    try:
        os.kill(pid, signal.SIGTERM)
        async with asyncio.timeout(30):
            await over.wait()
    finally:
        loop.remove_reader(process)
        os.close(process)
