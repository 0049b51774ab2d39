"""Channels to the runtimes of other hosts over SSH. The only place that imports asyncssh.

Host keys are always verified against known_hosts, by name and port as OpenSSH does; there is no switch for that.
Nothing is forwarded: no agent, no display, no port.
"""

# asyncssh leaves the parameters of its generic classes open.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pyright: reportUnknownVariableType=false

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import asyncssh

from toka_runtime.client.attached import HELLO_S, AttachedClient, attached_by
from toka_runtime.client.questions import NobodyToAsk, OfferedKey, Patient, Questions
from toka_runtime.client.ssh_config import SshHost, randomart, resolve
from toka_runtime.errors import LinkRefused
from toka_runtime.protocol import wire

BRIDGE = "toka-runtime-bridge"
WINDOW_BYTES = 256 * 1024
"""More than this is never on its way: an answer would wait behind it on a thin link."""
KEEPALIVE_S, KEEPALIVES = 5, 2
STDERR_BYTES = 4096
CONNECT_S = 10.0
"""Without the time in which a person is asked."""
START_S = 45.0
"""For the hello of a runtime that is served again first."""
SECRET_TRIES = 3
PROMPT_CHARS = 300
AT_ONCE = 8
"""Connections to one server in the making: more meet its MaxStartups (10 by default) and are turned away."""

_doors: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, int], asyncio.Semaphore]] = WeakKeyDictionary()


def _door(host: SshHost) -> asyncio.Semaphore:
    """Of each server its own: one that doesn't answer keeps nobody from another."""
    of_loop = _doors.setdefault(asyncio.get_running_loop(), {})
    return of_loop.setdefault((host.hostname, host.port), asyncio.Semaphore(AT_ONCE))


async def attach_ssh(
    name: str,
    *,
    questions: Questions | None = None,
    config: Path | None = None,
    command: str = BRIDGE,
    start: bool = False,
) -> AttachedClient:
    """Attached to the runtime that serves on a host. `config` instead of the operator's ssh_config. `start`: when none
    serves there it is served again as it was last; once, not after a link that broke. Raises LinkDown
    when nobody answers, LinkRefused for what stays so: host key, authentication, version, no runtime."""
    connector = SshConnector(name, questions or NobodyToAsk(), config, command, start=start)
    return await attached_by(connector.connect, name, hello_s=START_S if start else HELLO_S)


class SshConnector:
    """Opens a connection and the one channel on it, again and again."""

    def __init__(
        self, name: str, questions: Questions, config: Path | None, command: str, *, start: bool = False
    ) -> None:
        self._name = name
        self._questions = Patient(questions, CONNECT_S)
        self._config = config
        self._command = command
        self._start = start
        self._keys: dict[Path, asyncssh.SSHKey] = {}

    async def connect(self) -> tuple[asyncio.StreamReader, Sink]:
        """Raises OSError when nobody answers, LinkRefused for what stays so."""
        async with asyncio.timeout(CONNECT_S) as limit:
            self._questions.limit = limit
            return await self._open()

    async def _open(self) -> tuple[asyncio.StreamReader, Sink]:
        connections: list[asyncssh.SSHClientConnection] = []
        try:
            target = await resolve(self._name, self._config)
            for hop in target.jumps:
                connections.append(await self._hop(await resolve(hop, self._config), connections))
            connections.append(await self._hop(target, connections))
            session = _Session(self._name, self._command)
            command = f"{self._command} --start" if self._start else self._command
            channel, _ = await connections[-1].create_session(
                lambda: session, command, encoding=None, window=WINDOW_BYTES
            )
            self._start = False
        except asyncssh.ChannelOpenError as error:
            _close(connections)
            raise OSError(f"no channel on {self._name}: {error.reason}") from error
        except BaseException:
            _close(connections)
            raise
        return session.reader, Sink(channel, connections)

    async def _hop(self, host: SshHost, before: Sequence[asyncssh.SSHClientConnection]) -> asyncssh.SSHClientConnection:
        keys = await self._identities(host)
        known = _KnownHosts(host)
        for _ in range(2):
            owner = _Owner(host, self._questions)
            try:
                async with _door(host):
                    return await asyncssh.connect(
                        host.hostname,
                        host.port,
                        username=host.user,
                        client_factory=lambda owner=owner: owner,
                        known_hosts=known.match,
                        client_keys=keys or None,
                        agent_path=None if host.agent == "none" else host.agent or os.environ.get("SSH_AUTH_SOCK"),
                        agent_forwarding=False,
                        config=None,
                        tunnel=before[-1] if before else (),
                        keepalive_interval=KEEPALIVE_S,
                        keepalive_count_max=KEEPALIVES,
                        gss_auth=False,
                        gss_kex=False,
                    )
            except asyncssh.HostKeyNotVerifiable as error:
                await self._not_verified(host, known, owner.offered, error)
            except asyncssh.PermissionDenied as error:
                tried = ", ".join(str(path) for path in host.identities if path in self._keys) or "no key file"
                raise LinkRefused(
                    f"{host.name} lets {host.user} not in: {error.reason} (tried: {tried})",
                    hint=f"does `ssh {host.name} true` work?",
                ) from error
            except (asyncssh.KeyExchangeFailed, asyncssh.ProtocolError, asyncssh.ProtocolNotSupported) as error:
                raise LinkRefused(f"{host.name}: {error.reason}") from error
            except asyncssh.DisconnectError as error:
                raise OSError(f"{host.name}: {error.reason}") from error
        raise LinkRefused(f"the key of {host.known_name} changes from one connection to the next")

    async def _not_verified(
        self, host: SshHost, known: _KnownHosts, offered: asyncssh.SSHKey | None, error: asyncssh.HostKeyNotVerifiable
    ) -> None:
        """Returns when the key is trusted now. Raises LinkRefused."""
        if offered is None or known.revoked(offered):
            raise LinkRefused(f"the key of {host.known_name} is refused: {error.reason}") from error
        line = f"{host.known_name} {offered.export_public_key('openssh').decode().strip()}"
        art = await randomart(line)
        key = OfferedKey(host.known_name, offered.get_algorithm(), offered.get_fingerprint(), line, art)
        if known.names_it:
            raise LinkRefused(
                f"THE KEY OF {host.known_name} HAS CHANGED: it shows {key.kind} {key.fingerprint}. Somebody may be in "
                "between, or the host was set up anew",
                hint=f"make sure on another way, then: ssh-keygen -R '{host.known_name}'",
            ) from error
        if not await self._questions.trust(key):
            raise LinkRefused(
                f"{host.known_name} is not known: it shows {key.kind} {key.fingerprint}",
                hint=f"compare the fingerprint, then connect once: ssh {host.name}",
            ) from error
        await asyncio.to_thread(_remember, host.known_hosts[0] if host.known_hosts else None, line)
        known.reload()

    async def _identities(self, host: SshHost) -> list[asyncssh.SSHKey]:
        """Key files that are there; a passphrase is asked for once."""
        for path in host.identities:
            if path not in self._keys and path.is_file() and (key := await self._identity(path, host)) is not None:
                self._keys[path] = key
        return [self._keys[path] for path in host.identities if path in self._keys]

    async def _identity(self, path: Path, host: SshHost) -> asyncssh.SSHKey | None:
        """None when it is locked and nobody gives its passphrase. Raises LinkRefused."""
        try:
            return asyncssh.read_private_key(path)
        except asyncssh.KeyImportError as error:
            # asyncssh has no class of its own for a key that is locked.
            if "passphrase" not in str(error).lower():
                raise LinkRefused(f"{path} is no key that can be used: {error}") from error
        if (secret := await self._questions.secret(f"passphrase of {path} for {host.name}")) is None:
            return None
        try:
            return asyncssh.read_private_key(path, passphrase=secret)
        except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError):
            raise LinkRefused(f"the passphrase of {path} is another one", hint="attach again") from None


class _Owner(asyncssh.SSHClient):
    """Notes the key of a host that known_hosts does not vouch for, and does not trust it; has a person answer what a
    server asks after the keys. Answers are kept nowhere: after a broken link a person is asked again."""

    def __init__(self, host: SshHost, questions: Questions) -> None:
        self.offered: asyncssh.SSHKey | None = None
        self._whose = f"{host.user} on {host.known_name}"
        self._questions = questions
        self._tries = SECRET_TRIES

    async def password_auth_requested(self) -> str | None:
        self._tries -= 1
        return await self._questions.secret(f"password of {self._whose}") if self._tries >= 0 else None

    async def kbdint_auth_requested(self) -> str | None:
        self._tries -= 1
        return "" if self._tries >= 0 else None

    async def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        """What the server writes is the server's: the host is named before it."""
        answers: list[str] = []
        for prompt, echo in prompts:
            text = " ".join(f"{self._whose}: {name} {instructions} {prompt}".split())
            answer = await self._questions.secret(text[:PROMPT_CHARS], shown=echo)
            if answer is None:
                return None
            answers.append(answer)
        return answers

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.offered = key
        return False


class _KnownHosts:
    """By name (and port) alone: asyncssh would also take the key of any host that had the same address."""

    def __init__(self, host: SshHost) -> None:
        self._host = host
        self.reload()

    def reload(self) -> None:
        files = [str(path) for path in self._host.known_hosts if path.is_file()]
        self._found = asyncssh.read_known_hosts(files).match(self._host.known_name, "", None) if files else ()

    def match(self, _host: str, _addr: str, _port: int | None) -> Any:
        return self._found or ((), (), (), (), (), (), ())

    @property
    def names_it(self) -> bool:
        return bool(self._found) and any(self._found[:2])

    def revoked(self, key: asyncssh.SSHKey) -> bool:
        return bool(self._found) and key in self._found[2]


class _Session(asyncssh.SSHClientSession[bytes]):
    """Feeds a stream reader; much cheaper than asyncssh's own streams for small pieces."""

    def __init__(self, host: str, command: str) -> None:
        self.reader = asyncio.StreamReader(limit=wire.LINE_BYTES)
        self._host = host
        self._command = command
        self._errors = bytearray()
        self._status: int | None = None

    def connection_made(self, chan: Any) -> None:
        self.reader.set_transport(chan)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is None:
            self.reader.feed_data(data)
        else:
            # Always drained: what nobody reads would stand in the way of the rest.
            self._errors += data
            del self._errors[:-STDERR_BYTES]

    def exit_status_received(self, status: int) -> None:
        self._status = status

    def connection_lost(self, exc: Exception | None) -> None:
        said = self._errors.decode(errors="replace").strip().splitlines()
        if self._status in (126, 127):
            reason = said[-1] if said else f"exit code {self._status}"
            self.reader.set_exception(
                LinkRefused(
                    f"{self._host} has no {self._command.split()[0]}: {reason}",
                    hint="install it there: pip install toka-console",
                )
            )
        elif exc is not None:
            self.reader.set_exception(OSError(f"{self._host}: {exc}"))
        else:
            self.reader.feed_eof()


class Sink:
    """Where frames for the other side go; closing it closes the connection, and the jumps below it."""

    def __init__(
        self, channel: asyncssh.SSHClientChannel[bytes], below: Sequence[asyncssh.SSHClientConnection]
    ) -> None:
        self._channel = channel
        self._below = tuple(below)

    def write(self, data: bytes) -> None:
        if not self._channel.is_closing():
            self._channel.write(data)

    def is_closing(self) -> bool:
        return self._channel.is_closing()

    def abort(self) -> None:
        _close(self._below)

    async def wait_closed(self) -> None:
        for connection in reversed(self._below):
            await connection.wait_closed()


def _close(connections: Sequence[asyncssh.SSHClientConnection]) -> None:
    for connection in reversed(connections):
        connection.abort()


def _remember(file: Path | None, line: str) -> None:
    """Add a line to known_hosts. Raises LinkRefused."""
    if file is None:
        raise LinkRefused("there is no known_hosts file to remember the key in", hint="see UserKnownHostsFile")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "w") as known:
            known.write(f"{line}\n")
    except OSError as error:
        raise LinkRefused(f"{file} cannot be written: {error.strerror}") from error
