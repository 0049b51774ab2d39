"""A real OpenSSH server on a loopback port, with keys and a configuration of its own."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

NAME = "far"


def _program() -> str:
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip("no sshd here")
    return found


async def keygen(file: Path) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)]
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == 0


class OpenSsh:
    """`config` is an ssh_config in which `far` is this server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config"
        self.known_hosts = folder / "known_hosts"
        self.authorized = folder / "authorized_keys"
        self.host_key = folder / "host_key"
        self.user_key = folder / "user_key"
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None

    async def make(self) -> None:
        for key in (self.host_key, self.user_key):
            await keygen(key)
        self.authorize()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.know(self.host_key)
        self.write_config(f"UserKnownHostsFile {self.known_hosts}")
        (self.folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.host_key}\nPidFile none\n"
            f"AuthorizedKeysFile {self.authorized}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxSessions 10\nPrintMotd no\n"
        )

    def authorize(self, options: str = "") -> None:
        public = self.user_key.with_suffix(".pub").read_text()
        self.authorized.write_text(f"{options} {public}".lstrip())
        self.authorized.chmod(0o600)

    def know(self, key: Path, name: str = "") -> None:
        public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
        self.known_hosts.write_text(f"{name or f'[127.0.0.1]:{self.port}'} {public}\n")

    def write_config(self, *more: str) -> None:
        user = getpass.getuser()
        lines = [f"HostName 127.0.0.1\n  Port {self.port}\n  User {user}\n  IdentityFile {self.user_key}"]
        lines += ["IdentityAgent none", "GlobalKnownHostsFile none", *more]
        self.config.write_text(f"Host {NAME}\n" + "".join(f"  {line}\n" for line in lines))

    async def start(self) -> None:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            _program(),
            "-D",
            "-e",
            "-f",
            str(self.folder / "sshd_config"),
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stderr is not None
        said = b""
        async with asyncio.timeout(20):
            while b"Server listening" not in said:
                line = await self._process.stderr.readline()
                said += line
                assert line, said

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def stop(self) -> None:
        """The server and, as when a host goes away, every connection of it."""
        if self._process is None:
            return
        for pid in _children(self._process.pid):
            with suppress(ProcessLookupError):  # a session may end of itself meanwhile
                os.kill(pid, 9)
        self._process.kill()
        await self._process.communicate()
        self._process = None


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


@asynccontextmanager
async def openssh(folder: Path) -> AsyncGenerator[OpenSsh]:
    folder.mkdir(parents=True, exist_ok=True)
    server = OpenSsh(folder)
    await server.make()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
