"""What OpenSSH's own configuration says of a host: `ssh -G` is asked, so that every rule of its files holds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from toka_runtime.errors import LinkRefused

RESOLVE_S = 10.0


@dataclass(frozen=True, slots=True)
class SshHost:
    """One hop. Paths are expanded."""

    name: str
    """As the operator wrote it."""
    hostname: str
    port: int
    user: str
    known_as: str
    """The name that known_hosts is searched for: HostKeyAlias, or the host's name."""
    identities: tuple[Path, ...]
    agent: str
    """Socket of an agent, "" for the environment's, "none" for none."""
    known_hosts: tuple[Path, ...]
    jumps: tuple[str, ...]
    """ProxyJump, nearest first."""

    @property
    def known_name(self) -> str:
        """As known_hosts writes it (sshd(8)): with the port where it is not 22."""
        return self.known_as if self.port == 22 else f"[{self.known_as}]:{self.port}"


async def randomart(line: str) -> str:
    """Of a line for known_hosts, as `ssh-keygen -lv` draws it; "" when it can't."""
    try:
        process = await asyncio.create_subprocess_exec(
            *("ssh-keygen", "-l", "-v", "-f", "-"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except FileNotFoundError:
        return ""
    out, _ = await process.communicate(f"{line}\n".encode())
    return "\n".join(out.decode(errors="replace").splitlines()[1:])


async def resolve(name: str, config: Path | None = None) -> SshHost:
    """`config`: instead of the operator's own and the system's. Raises LinkRefused when the name or the file is bad."""
    if not name or name.startswith("-") or any(each.isspace() or not each.isprintable() for each in name):
        raise LinkRefused(f"{name!r} is no host", hint="as you would write it for ssh: HOST or USER@HOST")
    words = ["-F", str(config)] if config is not None else []
    try:
        process = await asyncio.create_subprocess_exec(
            "ssh", "-G", *words, "--", name, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError:
        raise LinkRefused("ssh is not installed here", hint="apt-get install openssh-client") from None
    try:
        async with asyncio.timeout(RESOLVE_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise LinkRefused(f"ssh -G {name} does not end", hint="look for `Match exec` in ~/.ssh/config") from None
    if process.returncode:
        said = err.decode(errors="replace").strip().splitlines() or ["ssh -G fails"]
        raise LinkRefused(f"{name}: {said[-1]}", hint="see ~/.ssh/config")
    return parse(name, out.decode(errors="replace"))


def parse(name: str, text: str) -> SshHost:
    """From what `ssh -G` prints: a keyword and its value a line, lower case."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key, []).append(value)

    def first(key: str, otherwise: str = "") -> str:
        return values.get(key, [otherwise])[0]

    hostname = first("hostname", name)
    files = [
        Path(each).expanduser() for key in ("userknownhostsfile", "globalknownhostsfile") for each in first(key).split()
    ]
    # `UserKnownHostsFile none` is no way to switch the check off: nothing is known then, and nothing is trusted.
    agent = first("identityagent")
    jump = first("proxyjump")
    return SshHost(
        name=name,
        hostname=hostname,
        port=int(first("port", "22")),
        user=first("user"),
        known_as=first("hostkeyalias") or hostname.lower(),
        identities=tuple(Path(each).expanduser() for each in values.get("identityfile", [])),
        agent="" if agent in ("", "SSH_AUTH_SOCK") else agent,
        known_hosts=tuple(each for each in files if each.name != "none"),
        jumps=tuple(jump.split(",")) if jump and jump != "none" else (),
    )
