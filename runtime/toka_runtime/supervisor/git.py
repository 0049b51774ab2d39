"""Runs git as a child process, trusting nothing that a work tree or its surroundings could say.

The environment is built from nothing, the operator's own settings are not read, and every setting that could start
another program (hooks, monitors, helpers, pagers, transports) is switched off for each call.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from toka_runtime.aio import see_through, spawn
from toka_runtime.errors import WorkspaceError

MINIMUM_VERSION = (2, 36)
"""`worktree list -z` is that old."""
_STDERR_BYTES = 16_000
_CHUNK = 65_536
_GRACE_S = 2.0

_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.splitIndex": "false",
    "core.pager": "cat",
    "core.editor": "false",
    "core.askPass": "false",
    "core.sshCommand": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "credential.helper": "",
    "commit.gpgSign": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "submodule.recurse": "false",
    # The operator named this folder; it may belong to another user all the same.
    "safe.directory": "*",
}

_RUNTIME_NAME = "Toka runtime"
_RUNTIME_EMAIL = "runtime@agents.toka.invalid"


@dataclass(frozen=True, slots=True)
class GitResult:
    exit_code: int
    stdout: bytes
    stderr: str
    truncated: bool = False
    """`stdout` was cut at the limit asked for, and git ended."""

    @property
    def text(self) -> str:
        return os.fsdecode(self.stdout).strip("\n")


class GitError(WorkspaceError):
    """Git ended with an exit code that means failure. `stderr` is what it said."""

    def __init__(self, message: str, *, stderr: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stderr = stderr


@dataclass(frozen=True, slots=True)
class Author:
    name: str
    email: str


class Git:
    """The git binary. At most `concurrency` calls run at a time; more wait."""

    def __init__(self, program: str, *, concurrency: int = 4) -> None:
        self.program = program
        self._slots = asyncio.Semaphore(concurrency)

    @classmethod
    def find(cls) -> Git | None:
        """None when this host has no git."""
        program = shutil.which("git")
        return cls(program) if program else None

    async def check_version(self) -> None:
        """Raises WorkspaceError when git is older than what is used here."""
        said = (await self.run("version")).text
        found = re.search(r"(\d+)\.(\d+)", said)
        if found is None or (int(found[1]), int(found[2])) < MINIMUM_VERSION:
            needed = ".".join(map(str, MINIMUM_VERSION))
            raise WorkspaceError(f"{said or self.program} is too old: {needed} or newer is needed", hint="update git")

    async def run(
        self,
        *arguments: str,
        at: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        author: Author | None = None,
        cwd: Path | None = None,
        stdin: bytes = b"",
        timeout_s: float = 60.0,
        max_bytes: int | None = None,
        check: bool = True,
    ) -> GitResult:
        """One git call, to its end. `at` holds GIT_DIR and its like; `max_bytes` cuts the output and ends git.

        Raises GitError on failure (only with `check`), on a timeout, and when git cannot be started. Cancelling ends
        git and whatever it started, and waits for that (two seconds at most, then they are killed).
        """
        environment = git_environment(settings or {}, author) | dict(at or {})
        async with self._slots:
            process = await self._start(arguments, environment, cwd or Path("/"), wants_input=bool(stdin))
            try:
                async with asyncio.timeout(timeout_s):
                    result = await _converse(process, stdin, max_bytes)
            except TimeoutError:
                raise GitError(f"git {arguments[0]} took more than {timeout_s:g} s and was ended") from None
            finally:
                if process.returncode is None:
                    await see_through(_end(process))
        if check and result.exit_code != 0 and not result.truncated:
            said = result.stderr.strip() or f"exit code {result.exit_code}"
            raise GitError(f"git {arguments[0]} failed: {said}", stderr=result.stderr)
        return result

    async def _start(
        self, arguments: tuple[str, ...], environment: dict[str, str], cwd: Path, *, wants_input: bool
    ) -> asyncio.subprocess.Process:
        starting = spawn(
            asyncio.create_subprocess_exec(
                self.program,
                *arguments,
                stdin=asyncio.subprocess.PIPE if wants_input else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
        )
        try:
            return await asyncio.shield(starting)
        except OSError as error:
            raise GitError(f"git cannot be started: {error}") from error
        except asyncio.CancelledError:
            # asyncio would kill a process that is half started, and git would leave its locks behind.
            with contextlib.suppress(OSError):
                await see_through(_end_when_started(starting))
            raise


def git_environment(settings: Mapping[str, str], author: Author | None = None) -> dict[str, str]:
    """The whole environment of one of the runtime's own git calls."""
    author = author or Author(_RUNTIME_NAME, _RUNTIME_EMAIL)
    merged = _SETTINGS | dict(settings)
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        # A missing object of a partial clone must not make git dial out, whatever the repository's settings say.
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_AUTHOR_NAME": author.name,
        "GIT_AUTHOR_EMAIL": author.email,
        "GIT_COMMITTER_NAME": _RUNTIME_NAME,
        "GIT_COMMITTER_EMAIL": _RUNTIME_EMAIL,
    }
    return environment | config_environment(merged)


def config_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """`settings` as the variables by which git takes them, stronger than any file."""
    environment = {"GIT_CONFIG_COUNT": str(len(settings))}
    for index, (key, value) in enumerate(settings.items()):
        environment[f"GIT_CONFIG_KEY_{index}"] = key
        environment[f"GIT_CONFIG_VALUE_{index}"] = value
    return environment


async def _converse(process: asyncio.subprocess.Process, stdin: bytes, max_bytes: int | None) -> GitResult:
    if process.stdout is None or process.stderr is None:
        raise GitError("git was started without pipes")
    async with asyncio.TaskGroup() as group:
        if process.stdin is not None:
            group.create_task(_feed(process.stdin, stdin))
        said = group.create_task(_read_keeping(process.stderr, _STDERR_BYTES))
        out, truncated = await _read_up_to(process.stdout, max_bytes)
        if truncated:
            _signal(process, signal.SIGTERM)
            await _read_keeping(process.stdout, 0)
    code = await process.wait()
    return GitResult(code, out, said.result().decode("utf-8", "replace"), truncated)


async def _feed(pipe: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # git says why it ended early
        pipe.write(data)
        await pipe.drain()
    pipe.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await pipe.wait_closed()


async def _read_up_to(pipe: asyncio.StreamReader, limit: int | None) -> tuple[bytes, bool]:
    """All there is, or the first `limit` bytes and True."""
    data = bytearray()
    while chunk := await pipe.read(_CHUNK):
        data += chunk
        if limit is not None and len(data) > limit:
            return bytes(data[:limit]), True
    return bytes(data), False


async def _read_keeping(pipe: asyncio.StreamReader, limit: int) -> bytes:
    """Read to the end, keep the first `limit` bytes."""
    kept = b""
    while chunk := await pipe.read(_CHUNK):
        kept += chunk[: limit - len(kept)]
    return kept


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


async def _end_when_started(starting: asyncio.Task[asyncio.subprocess.Process]) -> None:
    await _end(await starting)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nothing of it is left when this returns. Asked first: git then removes its lock files and half-made folders."""
    _signal(process, signal.SIGTERM)
    # Reading to the end lets the pipes close.
    ended = spawn(process.communicate())
    await asyncio.wait([ended], timeout=_GRACE_S)
    if not ended.done():
        _signal(process, signal.SIGKILL)
    await ended
