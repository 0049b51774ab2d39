"""The hosts of this console: each has a bridge of its own, opened beside the others, and what it says is said here.

A host that cannot be attached is a row with the reason. It never keeps the others, or the console, from starting.
"""

from __future__ import annotations

import asyncio
import importlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

from toka_console.asking_hosts import Waiting
from toka_console.clean import clean, clean_text
from toka_console.host_names import Wanted, wanted
from toka_runtime import aio
from toka_runtime.errors import LinkDown, TokaError

if TYPE_CHECKING:
    from datetime import datetime

    from toka_console.bridge import Bridge
    from toka_console.host_client import HostClient
    from toka_console.identity import AgentKey
    from toka_console.session import Session
    from toka_runtime.client.base import RuntimeClient
    from toka_runtime.protocol.ids import HostId

Open = Callable[[], "Awaitable[RuntimeClient]"]
RETRY_S, RETRY_MOST_S = 0.5, 15.0
EMBEDDED = "in this console"
"""Address of the runtime that ends with the console."""


class Step(StrEnum):
    CONNECTING = "connecting"
    ATTACHED = "attached"
    WAITING = "waiting"
    """Nobody answered; it is tried again."""
    REFUSED = "refused"
    """For a reason that stays; tried again when the operator says so."""
    DETACHED = "detached"


@dataclass(eq=False)
class HostLink:
    """One host, attached or not. Texts are clean."""

    wanted: Wanted
    open: Open
    step: Step
    since: datetime
    host: HostId | None = None
    """Its name in the console's state, once it was attached."""
    bridge: Bridge | None = None
    client: HostClient | None = None
    """None: the runtime is embedded, and nothing is put right."""
    up: bool = False
    """As of the last time its client told."""
    ahead_s: float = 0.0
    """How far its clock was ahead when the operator was told."""
    reason: str = ""
    hint: str = ""
    task: asyncio.Task[None] | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Of attaching and leaving: one after the other."""

    @property
    def name(self) -> str:
        return self.host or self.wanted.name


class Links:
    """`changed()` is called when there is something to draw."""

    def __init__(self, session: Session, changed: Callable[[], None], *, start: bool = False) -> None:
        """`start`: where no runtime serves, it is served again as it was last."""
        self.hosts: list[HostLink] = []
        self.waiting = Waiting(session, changed)
        self._session = session
        self._changed = changed
        self._start = start
        self._tasks = aio.TaskOwner(self._task_failed)

    # -- finding ------------------------------------------------------------------------------------------------------

    @property
    def bridges(self) -> list[Bridge]:
        return [each.bridge for each in self.hosts if each.bridge is not None]

    def bridge_of(self, host: str | None) -> Bridge | None:
        return next((each.bridge for each in self.hosts if each.bridge is not None and each.host == host), None)

    def near(self, focus: AgentKey | None) -> Bridge | None:
        """That of the host which is looked at; where nothing is, the first."""
        found = self.bridge_of(focus.host) if focus is not None else None
        return found or next(iter(self.bridges), None)

    def find(self, name: str) -> HostLink | None:
        """By the name it has here, or as the operator wrote it."""
        return next((each for each in self.hosts if name in (each.host, each.wanted.name)), None)

    # -- attaching ----------------------------------------------------------------------------------------------------

    async def open_first(self, open_client: Open) -> None:
        """The runtime that the console was started for. Raises what the client raises."""
        client = await open_client()
        address = EMBEDDED if client.link.embedded else "a socket here"
        link = HostLink(Wanted(clean(client.host), address), open_client, Step.CONNECTING, self._session.now())
        self.hosts.insert(0, link)
        await self._take(link, client)

    def start_first(self) -> None:
        """Start all agents of the runtime that the console was started for, and of no other."""
        from toka_runtime.protocol.commands import StartFleet

        bridge = self.hosts[0].bridge if self.hosts else None
        if bridge is not None:
            bridge.send(StartFleet(), "starting all")

    def begin(self, words: Iterable[str]) -> None:
        """Attach what the operator has named, as `host_names.wanted` reads it."""
        from toka_console.state import ConsoleState

        self._session.state = self._session.state or ConsoleState()
        self.attach(wanted(words, self._session.settings.hosts))

    def attach(self, hosts: Iterable[Wanted]) -> None:
        """Over SSH, in the background. One that is there already is attached anew if it is not attached."""
        for each in hosts:
            if (known := self.find(each.name)) is None:
                link = HostLink(each, self._over_ssh(each), Step.CONNECTING, self._session.now())
                self.hosts.append(link)
                self._begin(link)
            elif known.step is not Step.ATTACHED and known.step is not Step.CONNECTING:
                self.reconnect(known)
        self._changed()

    def detach(self, link: HostLink) -> None:
        """Leave it; its runtime and its agents go on."""

        async def leave() -> None:
            async with link.turn:
                await self._leave(link)

        self.spawn(leave(), f"detach {link.name}")

    def reconnect(self, link: HostLink) -> None:
        """Leave it, then attach it anew."""

        async def again() -> None:
            async with link.turn:
                await self._leave(link)
                self._begin(link)

        self.spawn(again(), f"reconnect {link.name}")

    def _begin(self, link: HostLink) -> None:
        link.task = self._tasks.spawn(self._attach(link), name=f"attach {link.name}")

    def _over_ssh(self, host: Wanted) -> Open:
        async def open_client() -> RuntimeClient:
            # Imported in a thread, and only where a host is attached: it takes a while.
            ssh = await asyncio.to_thread(importlib.import_module, "toka_runtime.client.ssh")
            questions = self.waiting.of(host.name)
            return await ssh.attach_ssh(host.address, questions=questions, start=self._start)

        return open_client

    async def _attach(self, link: HostLink) -> None:
        """Until it is attached, or refused for a reason that stays."""
        delay = RETRY_S
        while True:
            self._now(link, Step.CONNECTING)
            try:
                await self._take(link, await link.open())
                return
            except LinkDown as error:
                pause = delay * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not secrecy
                self._now(link, Step.WAITING, f"{error.message}; next try in {pause:.1f} s", error.hint)
            except TokaError as error:
                self._now(link, Step.REFUSED, error.message, error.hint)
                self._session.say(f"{link.name}: {link.reason}", "bad")
                return
            await self._session.clock.sleep(pause)
            delay = min(RETRY_MOST_S, delay * 2)

    async def _take(self, link: HostLink, client: RuntimeClient) -> None:
        """Read a client from now on; it is closed when that fails."""
        from toka_console.bridge import Bridge

        raw = client
        try:
            host = link.host or self._free_name(link, clean(client.host))
            if not client.link.embedded or host != client.host:
                from toka_console.host_client import HostClient

                client = link.client = HostClient(client, host)
            bridge = Bridge(self._session, client, self._changed, raw)
            link.host, link.bridge = host, bridge
            if link.client is not None:
                link.client.on_link = lambda: self._link_changed(link)
            await bridge.open()
            link.up = True
        except BaseException:
            link.bridge = link.client = None
            await client.aclose()
            raise
        self._now(link, Step.ATTACHED)
        self._tell_of_clock(link)

    def _tell_of_clock(self, link: HostLink) -> None:
        """Once for each correction of its times."""
        from toka_console.format.host_page import skew

        ahead_s = link.client.ahead.total_seconds() if link.client is not None else 0.0
        if ahead_s != link.ahead_s:
            link.ahead_s = ahead_s
            text = f"{link.name}: its clock is off by {skew(ahead_s)}; its times are shown corrected"
            self._session.say(text if ahead_s else f"{link.name}: its clock is right again", "warn")
            self._changed()

    def _free_name(self, link: HostLink, told: HostId) -> HostId:
        """As console.yaml calls it, else as its runtime does; with a number when that name is taken."""
        name = link.wanted.name if link.wanted.name in self._session.settings.hosts else told
        taken = {each.host for each in self.hosts if each is not link}
        free, number = name, 1
        while free in taken:
            number += 1
            free = f"{name}:{number}"
        return cast("HostId", free)

    async def _leave(self, link: HostLink) -> None:
        if link.task is not None:
            task, link.task = link.task, None
            await aio.cancel_and_wait(task)
        bridge, link.bridge, link.client = link.bridge, None, None
        if bridge is not None:
            await bridge.aclose()
        if link.host is not None and self._session.state is not None:
            self._session.state.drop(link.host)
        self._now(link, Step.DETACHED)

    # -- what comes back ----------------------------------------------------------------------------------------------

    def _now(self, link: HostLink, step: Step, reason: str = "", hint: str = "") -> None:
        link.step, link.since = step, self._session.now()
        link.reason, link.hint = clean_text(reason), clean_text(hint)
        self._changed()

    def _link_changed(self, link: HostLink) -> None:
        if link.bridge is None or link.client is None or link.step is not Step.ATTACHED:
            return
        up = link.client.link.state.value == "up"
        if up and not link.up and link.host is not None:
            self._session.diagnostics.reconnects[link.host] += 1
        link.up = up
        link.bridge.poll_link()
        self._changed()

    def poll(self) -> None:
        """Once a second."""
        for bridge in self.bridges:
            bridge.poll_link()
        for link in self.hosts:
            self._tell_of_clock(link)

    def _task_failed(self, name: str, error: BaseException) -> None:
        """Never silent, never the end of the console."""
        why = clean_text(str(error) or type(error).__name__)
        link = next((each for each in self.hosts if name == f"attach {each.name}"), None)
        if link is not None:
            self._now(link, Step.REFUSED, why)
        self._session.say(f"{name}: {why}", "bad")
        self._changed()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Work for no single host; what fails in it is said."""
        self._tasks.spawn(work, name=name)

    async def aclose(self) -> None:
        """Detach from all, each beside the others; an embedded runtime stops its agents. Safe to call twice."""
        await self._tasks.aclose()
        await asyncio.gather(*(bridge.aclose() for bridge in self.bridges))
