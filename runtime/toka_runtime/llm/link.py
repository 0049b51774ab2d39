"""The runtime's side of one gateway process: starts it, routes its frames to the calls they belong to, ends it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from toka_runtime.aio import TaskOwner
from toka_runtime.errors import GatewayLost, ModelError
from toka_runtime.llm.base import GatewaySettings
from toka_runtime.llm.channel import FrameChannel
from toka_runtime.llm.credentials import PREFIX, secrets_from_environment
from toka_runtime.llm.redact import Redactor
from toka_runtime.llm.wire import read_error
from toka_runtime.protocol.ids import RunId
from toka_runtime.protocol.usage import TokenUsage
from toka_runtime.worker.frames import Frame

READY_TIMEOUT_S = 60.0
"""From start to `ready`: the SDK's import takes a second on an idle machine and many on a busy one."""
END_TIMEOUT_S = 5.0
HOLD_S = 2.0
"""A gateway that has not confirmed a hold by then is taken for stuck."""
_TAIL_BYTES = 4096

_PASSED_ON = frozenset(
    (
        *("PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CONFIG_HOME"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    )
)
"""What the process' own environment holds. No credential: that comes over the socket."""


class GatewayLink:
    """One process, from `open` to `close`. `ended` is true when it can carry no further call."""

    def __init__(self, settings: GatewaySettings, environ: Mapping[str, str]) -> None:
        """`environ`: where the credential and the values of `settings.secret_environment` are taken from."""
        self._settings = settings
        self._environ = environ
        self._secrets = secrets_from_environment(environ, settings.secret_environment)
        self._channel = FrameChannel(self._on_frame, self._on_lost)
        self._process: asyncio.subprocess.Process | None = None
        self._tasks = TaskOwner(lambda _name, _error: self._on_lost())
        self._calls: dict[int, asyncio.Queue[Frame | None]] = {}
        self._numbers = 0
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tail = bytearray()
        self._closing = False
        self.ended = False
        self.protections: tuple[str, ...] = ()

    async def open(self) -> None:
        """Start the process and wait until it is ready. Raises ModelError: GatewayLost, or what the process found wrong
        with the settings. Nothing is left behind then, nor when this is cancelled."""
        try:
            await self._start()
            self._channel.send(
                {
                    "t": "hello",
                    "settings": self._settings.model_dump(mode="json"),
                    "environ": {n: v for n, v in self._environ.items() if n.startswith(PREFIX) or n == "TOKA_MODEL"},
                    "secrets": self._secrets,
                }
            )
            async with asyncio.timeout(READY_TIMEOUT_S):
                await self._ready
        except TimeoutError:
            await self.close()
            raise GatewayLost(f"the gateway process was not ready within {READY_TIMEOUT_S:.0f} s") from None
        except GatewayLost as error:
            told = self._process is None or self._closing
            failure = error if told else await self.death("while it was starting")
            await self.close()
            raise failure from None
        except BaseException:
            await self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def begin(self) -> tuple[int, asyncio.Queue[Frame | None]]:
        """(number of a new call, where its frames arrive; None: the process is gone). Bounded by what one answer can
        hold, so that a slow reader never holds up another call."""
        self._numbers += 1
        queue: asyncio.Queue[Frame | None] = asyncio.Queue()
        self._calls[self._numbers] = queue
        if self.ended:
            queue.put_nowait(None)
        return self._numbers, queue

    async def send_call(self, data: bytes) -> None:
        self._channel.send_bytes(data)
        if self._channel.congested:
            await self._channel.drained()

    async def quote(self, model: str, usage: TokenUsage) -> float | None:
        """Raises GatewayLost."""
        number, frames = self.begin()
        try:
            self._channel.send({"t": "quote", "id": number, "model": model, "usage": usage.model_dump(mode="json")})
            if (frame := await frames.get()) is None:
                raise await self.death("while it was asked for a price")
            return frame["cost_usd"]
        finally:
            self.end(number, cancel=False)

    @property
    def ready(self) -> bool:
        """It can carry calls."""
        return not self.ended and self._ready.done()

    async def hold(self, run: RunId) -> None:
        """Raises GatewayLost when it is not confirmed. A process that has ended begins nothing."""
        number, frames = self.begin()
        try:
            self.announce_hold(run, number)
            async with asyncio.timeout(HOLD_S):
                await frames.get()
        except TimeoutError:
            raise GatewayLost(f"the gateway process has not confirmed a pause within {HOLD_S:g} s") from None
        finally:
            self.end(number, cancel=False)

    def announce_hold(self, run: RunId, number: int = 0) -> None:
        """Whatever is sent after this finds the run held."""
        self._channel.send({"t": "hold", "id": number, "run": run})

    def release(self, run: RunId) -> None:
        self._channel.send({"t": "release", "run": run})

    def end(self, number: int, *, cancel: bool) -> None:
        """The call is over on our side; with `cancel` also upstream, at once."""
        del self._calls[number]
        if cancel and not self.ended:
            self._channel.send({"t": "cancel", "id": number})

    async def death(self, when: str = "during the call") -> GatewayLost:
        """What is known of the process' end, as an error."""
        code = None
        if self._process is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    code = await self._process.wait()
        how = (
            "was ended"
            if code is None
            else f"ended with signal {-code}"
            if code < 0
            else f"ended with exit code {code}"
        )
        lines = Redactor(self._secrets).text(self._tail.decode(errors="replace")).strip().splitlines()
        last = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "")
        said = f": {last}" if last else ""
        return GatewayLost(f"the gateway process {how} {when}{said}", hint="the next call starts a new one")

    def abort(self) -> None:
        """Take no more part in anything: calls fail, a start that is under way too. `close` must follow."""
        self._closing = True
        self._on_lost()
        self._channel.close()

    async def close(self) -> None:
        """End the process: it closes its streams when its socket closes, and is killed when it takes too long."""
        self.abort()
        process = self._process
        if process is not None and process.returncode is None:
            try:
                async with asyncio.timeout(END_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            except asyncio.CancelledError:
                # No process is left behind, and the caller's end is not held up for it.
                process.kill()
                await process.wait()
                raise
        await self._tasks.aclose()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                # -P and /: nothing in the folder that the runtime was started in can pose as one of our modules.
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "toka_runtime.llm.process",
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.PIPE,
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                    env={n: v for n, v in self._environ.items() if n in _PASSED_ON or n.startswith("LC_")},
                    # Ctrl-C in the terminal is for the runtime, which ends us in order.
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise GatewayLost(f"the gateway process cannot be started: {os.strerror(error.errno or 0)}") from None
        if self._process.stderr is not None:
            self._tasks.spawn(self._keep_tail(self._process.stderr), name="gateway stderr")
        ours.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self._channel, sock=ours)

    async def _keep_tail(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(_TAIL_BYTES):
            self._tail += data
            del self._tail[:-_TAIL_BYTES]

    def _on_frame(self, frame: dict[str, Any]) -> None:
        match frame.get("t"):
            case "ready":
                self.protections = tuple(frame.get("protections", ()))
                if not self._ready.done():
                    self._ready.set_result(None)
            case "failed":
                self._fail(read_error(frame))
            case _:
                if (queue := self._calls.get(int(frame.get("id", 0)))) is not None:
                    queue.put_nowait(frame)

    def _on_lost(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._fail(GatewayLost("the gateway was closed"))
        for queue in self._calls.values():
            queue.put_nowait(None)

    def _fail(self, error: ModelError) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
            # Nobody may be waiting any more; that is no unhandled failure.
            self._ready.exception()
