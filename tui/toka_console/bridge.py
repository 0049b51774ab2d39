"""Owns the client of one host: reads its events into the state at a steady pace, sends commands, outlives a stream.

Intake and paint are apart: the reader fills an inbox, a drain empties it at most `hz` times a second in slices of a
few milliseconds, and only then is something drawn. Nothing runs while nothing happens.
"""

from __future__ import annotations

import asyncio
import getpass
import random
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

from toka_console.clean import clean, clean_text
from toka_console.entries import DenialEntry, Pending
from toka_console.identity import AgentKey
from toka_console.inbox import Inbox
from toka_console.session import Session
from toka_console.state import ConsoleState
from toka_runtime import aio
from toka_runtime.client.base import Link, LinkState, Resync, RuntimeClient
from toka_runtime.errors import LinkRefused, ProtocolError
from toka_runtime.protocol import codec
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.commands import Command, CommandRequest, CommandResult, ReadEvents
from toka_runtime.protocol.ids import AgentName, CommandId, HostId, new_command_id

SLICE = 128
"""Envelopes folded at once, at most: the fold is cheapest in batches, and a key must not wait for it."""
SLICE_S = 0.004
"""After this long the loop goes to others (keys above all) before the drain goes on."""
REST_S = 0.001
SAMPLE_S = 0.2
"""Between two folds of figures: nobody reads them faster."""
FIGURES_S = 10_000
"""Agents whose figures are folded in a second, at most: those of a bigger fleet are shown less often."""
INBOX_MOST = 20_000
"""Envelopes that wait at most; then the reader waits, and the client's own flow control takes over."""
ANSWER_S = 10.0
FORGET_S = 60.0
RETRY_S, RETRY_MOST_S = 0.25, 15.0
HISTORY_KINDS = (
    "output.appended", "tool.call_started", "tool.call_ended", "model.call_started", "task.state_changed",
    "task.verified", "operation.denied", "agent.state_changed", "agent.work_committed", "agent.limit_reached",
    "approval.requested", "approval.decided", "grant.issued", "grant.revoked", "grant.expired",
    "agent.health_changed",
)  # fmt: skip
ACTIVITY_KINDS = (
    "operation.denied", "agent.state_changed", "task.state_changed", "task.verified", "agent.work_committed",
    "command.handled", "runtime.noticed", "runtime.started", "runtime.stopped", "spec.rejected", "agent.limit_reached",
    "approval.requested", "approval.decided", "grant.issued", "grant.revoked", "grant.expired", "budget.set",
    "budget.warned", "budget.exhausted", "agent.health_changed",
)  # fmt: skip

Told = Callable[[CommandResult], None]


class Bridge:
    """One host. `changed()` is called when there is something to draw."""

    def __init__(
        self, session: Session, client: RuntimeClient, changed: Callable[[], None], raw: RuntimeClient | None = None
    ) -> None:
        """`raw`: the client below `client`, where that puts names and times right."""
        self._session = session
        self._client = client
        self._raw = raw or client
        self._host = clean(client.host)
        self._changed = changed
        self._tasks = aio.TaskOwner(self._task_failed)
        self._inbox = Inbox()
        self._room = asyncio.Event()
        self._room.set()
        self._drain_at: asyncio.TimerHandle | None = None
        self._last_paint = 0.0
        self._last_figures = 0.0
        self._retry_s = RETRY_S
        self._lost_link: Link | None = None
        self._closing = False
        self._loading: set[AgentKey] = set()
        self._told: dict[CommandId, Told] = {}
        self.actor = f"{_user()}@{socket.gethostname()} (console)"

    @property
    def state(self) -> ConsoleState:
        if self._session.state is None:
            self._session.state = ConsoleState()
        return self._session.state

    @property
    def host(self) -> HostId:
        """As the console names it."""
        return self._host

    @property
    def client(self) -> RuntimeClient:
        """For what goes to a file as it is. What is shown is read through this bridge, which cleans it."""
        return self._raw

    # -- opening and closing --------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take the fleet as it is and begin to read. Raises what the client raises."""
        await self._adopt(missed=0)
        self._tasks.spawn(self._stream(), name="events")
        self._tasks.spawn(self._earlier(), name="history")

    async def aclose(self) -> None:
        """Close the client (a local one stops its agents first), then everything here. Events are read until the
        end, so that the screen shows the stop. Safe to call twice."""
        self._closing = True
        try:
            await self._client.aclose()
        finally:
            if self._drain_at is not None:
                self._drain_at.cancel()
            await self._tasks.aclose()

    async def _adopt(self, missed: int) -> None:
        fleet = await self._client.snapshot()
        self.state.adopt(clean(fleet), clean(self._client.link), missed)
        self._changed()

    # -- the stream -----------------------------------------------------------------------------------------------

    async def _stream(self) -> None:
        """Read until the stream ends. Whatever ends it, `_lost` goes on from there."""
        async for batch in self._client.events(self.state.hosts[self._host].fleet.seq):
            self._retry_s = RETRY_S
            if isinstance(batch, Resync):
                self._inbox.resync(batch)
                self._schedule(urgent=True)
            else:
                self._schedule(urgent=self._inbox.add(batch))
            if len(self._inbox) >= INBOX_MOST:
                self._room.clear()
                await self._room.wait()
        self._lost("the event stream ended")

    def _lost(self, why: str) -> None:
        """The console stays, the rows say since when; the stream is asked for again, ever more slowly."""
        if self._closing:
            return
        delay = self._retry_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not secrecy
        self._retry_s = min(RETRY_MOST_S, self._retry_s * 2)
        now = self._session.now()
        since = self._lost_link.since if self._lost_link else now
        detail = f"{clean_text(why)}; next try in {delay:.1f} s"
        self._lost_link = Link(host=self._host, state=LinkState.DOWN, since=since, detail=detail)
        self.poll_link()
        self._tasks.spawn(self._again(delay), name="reconnect")

    def _given_up(self, why: str) -> None:
        self._lost_link = Link(host=self._host, state=LinkState.DOWN, since=self._session.now(), detail=why)
        self.poll_link()

    async def _again(self, delay: float) -> None:
        await self._session.clock.sleep(delay)
        self._session.diagnostics.reconnects[self._host] += 1
        self._drain_all()
        before = self.state.hosts[self._host].fleet
        fleet = clean(await self._client.snapshot())
        # The same runtime with nothing forgotten goes on where we are; a stream overlaps, the fold skips.
        same = fleet.runtime == before.runtime and fleet.seq >= before.seq
        self._lost_link = None
        if same:
            self.poll_link()
        else:
            self.state.adopt(fleet, clean(self._client.link), missed=0)
        self._changed()
        self._tasks.spawn(self._stream(), name="events")

    def _task_failed(self, name: str, error: BaseException) -> None:
        """A task ended by an exception: never silent, never the end of the console."""
        why = clean_text(str(error) or type(error).__name__)
        if isinstance(error, LinkRefused):
            self._given_up(f"{why}; not tried again: :reconnect {self._host}")
        elif name in ("events", "reconnect"):
            self._lost(why)
        elif name.startswith("command "):
            command = CommandId(name.removeprefix("command "))
            self.state.lost(command, "outcome unknown:")
            message = f"the command's outcome is unknown: {why}"
            if not self._tell(CommandResult(id=command, ok=False, code="command.unanswered", message=message)):
                self._session.say(message, "bad")
        else:
            self._session.say(f"{name}: {why}", "bad")
        self._changed()

    def poll_link(self) -> None:
        """Take over how the client says it is connected, and let go of commands nobody will answer any more.
        Called once a second and after each change."""
        now = self._session.now()
        for pending in list(self.state.pending.values()):
            if pending.unknown and (now - pending.sent_at).total_seconds() > FORGET_S:
                self.state.forget(pending.id)
        # While it closes, its agents are still shown as they end.
        if self._host in self.state.hosts and not self._closing:
            self.state.set_link(self._lost_link or clean(self._client.link))

    # -- draining -------------------------------------------------------------------------------------------------

    def _schedule(self, urgent: bool) -> None:
        """Drain when the next picture is due: soon after a fact, a little later after figures alone."""
        loop = asyncio.get_running_loop()
        due = max(self._last_paint + self._period(), loop.time())
        if not urgent:
            due = max(due, self._last_figures + self._figures_period())
        if self._drain_at is not None:
            if self._drain_at.when() <= due:
                return
            self._drain_at.cancel()
        self._drain_at = loop.call_at(due, self._drain)

    def _period(self) -> float:
        """Seconds between two paints: a terminal behind a slow link gets a rest three times as long as a frame takes,
        so that a key press never waits behind a queue of frames."""
        return max(1 / self._session.settings.refresh_hz, 3 * self._session.terminal_delay())

    def _figures_period(self) -> float:
        """Seconds between two folds of figures."""
        return max(SAMPLE_S, len(self.state.agents) / FIGURES_S)

    def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        self._drain_at = None
        if started - self._last_figures >= self._figures_period():
            self._inbox.release()
            self._last_figures = started
        count = self._inbox.passed_over()
        self._session.diagnostics.coalesced += count
        while self._inbox:
            count += self._slice()
            if loop.time() - started >= SLICE_S:
                break
        self._session.diagnostics.drained(count, loop.time() - started)
        if len(self._inbox) < INBOX_MOST:
            self._room.set()
        finished = not self._inbox
        if not finished:
            self._drain_at = loop.call_later(REST_S, self._drain)
        if finished or loop.time() - self._last_paint >= self._period():
            self._last_paint = loop.time()
            self._changed()
        if finished and self._inbox.holds_figures:
            self._schedule(urgent=False)

    def _drain_all(self) -> None:
        self._inbox.release()
        while self._inbox:
            self._slice()

    def _slice(self) -> int:
        """Fold up to `SLICE` envelopes, or one resync; how many."""
        batch = self._inbox.take(SLICE)
        if isinstance(batch, Resync):
            resync = clean(batch)
            self.state.adopt(resync.state, self._lost_link or clean(self._client.link), resync.missed)
            return 1
        started = asyncio.get_running_loop().time()
        self.state.apply([clean(envelope) for envelope in batch])
        self._session.diagnostics.folded(asyncio.get_running_loop().time() - started)
        return len(batch)

    # -- commands -------------------------------------------------------------------------------------------------

    def send(
        self, command: Command, text: str, keys: tuple[AgentKey, ...] = (), subject: str = "", told: Told | None = None
    ) -> CommandId:
        """Send a command; it is pending (`text`, e.g. `pausing`) on `keys`, or on the approval or grant `subject` of
        theirs, until its event has come back. `told` hears the answer, or that there is none, once, instead of the
        operator."""
        request = CommandRequest(id=new_command_id("console"), actor=self.actor, command=command)
        # What is for the whole host is pending there, and nowhere else.
        keys = keys or (AgentKey(self._host, AgentName("")),)
        self.state.sent(Pending(request.id, text, keys, self._session.now(), subject))
        if told is not None:
            self._told[request.id] = told
        self._tasks.spawn(self._send(request, text), name=f"command {request.id}")
        self._changed()
        return request.id

    async def _send(self, request: CommandRequest, text: str) -> None:
        late = asyncio.get_running_loop().call_later(ANSWER_S, self._no_answer, request.id)
        try:
            result = clean(await self._client.send(request))
        finally:
            late.cancel()
        self.state.answered(result)
        if not self._tell(result) and not result.ok:
            self._session.say(f"{text}: {result.message or result.code}", "bad")
        self._changed()

    def _tell(self, result: CommandResult) -> bool:
        """Whether somebody else than the operator wanted to hear it."""
        told = self._told.pop(result.id, None)
        if told is not None:
            told(result)
        return told is not None

    def _no_answer(self, command: CommandId) -> None:
        self.state.lost(command, "no answer to")
        self._tell(CommandResult(id=command, ok=False, code="command.unanswered", message="no answer"))
        self._changed()

    async def query(self, command: Command) -> CommandResult:
        """Ask without changing anything; not recorded, never pending."""
        request = CommandRequest(id=new_command_id("console"), actor=self.actor, command=command)
        return await self._client.send(request)

    # -- history --------------------------------------------------------------------------------------------------

    def load_history(self, key: AgentKey) -> None:
        """Page in what an agent said before this console looked, once, when its window begins too late."""
        entry = self.state.agents.get(key)
        if entry is None or entry.output.history_seq is None or key in self._loading:
            return
        self._loading.add(key)
        self._tasks.spawn(self._earlier_output(key, entry.output.history_seq), name="history")

    async def _earlier_output(self, key: AgentKey, before: int) -> None:
        try:
            read = ReadEvents(before_seq=before + 1, agent=key.name, kinds=HISTORY_KINDS, limit=1000, newest_first=True)
            self.state.add_history(key, reversed(await self._read(read)))
        finally:
            self._loading.discard(key)
        self._changed()

    async def _earlier(self) -> None:
        """What the log says happened before this console was here."""
        seq = self.state.hosts[self._host].fleet.seq
        read = ReadEvents(before_seq=seq + 1, kinds=ACTIVITY_KINDS, limit=1000, newest_first=True)
        self.state.add_earlier(list(reversed(await self._read(read))))
        self._changed()

    async def find_call(self, denial: DenialEntry) -> list[ev.Envelope]:
        """The tool call's start and end in the log, [] when it is not there."""
        call = denial.denial.operation.call
        kinds = ("tool.call_started", "tool.call_ended")
        read = ReadEvents(agent=denial.key.name, kinds=kinds, limit=500, newest_first=True,
                          before_seq=denial.seq + 500)  # fmt: skip
        return [found for found in await self._read(read) if call and getattr(found.event, "call", "") == call]

    async def _read(self, read: ReadEvents) -> list[ev.Envelope]:
        return (await self.read_page(read))[0]

    async def pages(self, read: ReadEvents) -> AsyncGenerator[list[ev.Envelope]]:
        """All that `read` asks for, oldest first, as `read_page` gives it."""
        more = True
        while more:
            page, more = await self.read_page(read)
            if not page:
                return
            yield page
            read = read.model_copy(update={"after_seq": page[-1].seq})

    async def read_page(self, read: ReadEvents) -> tuple[list[ev.Envelope], bool]:
        """Clean events of the log, and whether there are more. Raises ProtocolError when it cannot be read."""
        result = await self.query(read)
        if not result.ok:
            raise ProtocolError(f"the log cannot be read: {result.message}")
        found = cast(list[Any], result.data.get("events", []))
        return [clean(envelope_of(item)) for item in found], bool(result.data.get("more"))

    def spawn(self, work: Awaitable[None], name: str) -> None:
        """Run something of a screen's under this bridge: it ends with it."""

        async def run() -> None:
            await work

        self._tasks.spawn(run(), name=name)


def envelope_of(item: Any) -> ev.Envelope:
    """An envelope from an answer: the object itself from a local client, JSON from a far one."""
    if isinstance(item, ev.Envelope):
        return item
    import json

    return codec.decode_envelope(json.dumps(item, default=str))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
