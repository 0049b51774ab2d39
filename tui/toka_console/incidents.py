"""The incidents of the operator: the open one learns from the log what is done; all are kept as files. No Textual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from toka_console.clean import clean
from toka_runtime.client import incident as files
from toka_runtime.client.evidence.story import act_text, concerns
from toka_runtime.client.incident import Act, Incident, Kept, Note, Pinned, Step
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.approval import ApprovalOutcome
from toka_runtime.protocol.states import AgentState

if TYPE_CHECKING:
    from toka_console.bridge import Bridge
    from toka_console.identity import AgentKey
    from toka_console.session import Session
    from toka_runtime.aio import TaskOwner

KINDS = (
    "agent.state_changed", "command.handled", "approval.decided", "grant.issued", "grant.revoked",
    "capability.withdrawn", "capability.restored", "budget.set", "runtime.started", "runtime.stopped",
)  # fmt: skip
PAGE = 500
Change = Callable[[Incident], Incident]


class Incidents:
    """At most one is open. What is shown and read here is clean."""

    def __init__(self, session: Session, folder: Path | None, tasks: TaskOwner) -> None:
        """`folder` None: nothing is kept."""
        self.all: list[Incident] = []
        """The newest first."""
        self._session, self._folder, self._tasks = session, folder, tasks
        self._unsaved: set[str] = set()
        self._saving = False
        self._reading = False

    async def open(self) -> None:
        if self._folder is not None:
            found, problems = await asyncio.to_thread(files.read_incidents, self._folder)
            self.all = [clean(each) for each in found]
            if problems:
                more = f" (+{len(problems) - 1} more)" if len(problems) > 1 else ""
                self._session.say(clean(f"{problems[0]}{more}"), "warn")

    @property
    def current(self) -> Incident | None:
        return next((each for each in self.all if each.closed_at is None), None)

    # -- what the operator does -----------------------------------------------------------------------------------

    def begin(self, title: str, agents: Iterable[AgentKey], by: str) -> Incident:
        """Open one. It is found with this: the clock stands at that moment."""
        now, state = self._session.now(), self._session.known
        pins = tuple(Pinned(host=key.host, agent=key.name) for key in agents)
        read = {host: entry.fleet.seq for host, entry in state.hosts.items()}
        opened = Incident(
            id=files.new_incident_id(now), title=title, opened_at=now, opened_by=by, agents=pins, read=read
        ).done(Step.FIND, now)
        self.all.insert(0, opened)
        self._keep(opened.id)
        return opened

    def pin(self, agents: Iterable[AgentKey]) -> None:
        new = [Pinned(host=key.host, agent=key.name) for key in agents]
        self._change(lambda now: now.model_copy(update={"agents": tuple(dict.fromkeys((*now.agents, *new)))}))

    def note(self, text: str) -> None:
        line = Note(at=self._session.now(), text=text)
        self._change(lambda now: now.model_copy(update={"notes": (*now.notes, line)}))

    def preserved(self, agents: Iterable[AgentKey], path: Path, digest: str) -> None:
        """A bundle was written. It is the incident's when it is about one of its agents."""
        if self.has(agents):
            at = self._session.now()
            kept = Kept(at=at, file=str(path), sha256=digest)
            self._change(lambda now: now.model_copy(update={"evidence": (*now.evidence, kept)}).done(Step.PRESERVE, at))

    def close(self) -> None:
        at = self._session.now()
        self._change(lambda now: now.model_copy(update={"closed_at": at}))

    # -- what happens ---------------------------------------------------------------------------------------------

    def seen(self, agent: AgentKey) -> None:
        """The operator looks at a call of this agent."""
        if self.has((agent,)):
            at = self._session.now()
            self._change(lambda now: now.done(Step.SEE, at))

    def tick(self, bridges: Iterable[Bridge]) -> None:
        """Read on in the logs, if there is something new. Called once a second."""
        current, state = self.current, self._session.state
        if current is None or state is None or self._reading:
            return
        behind = {
            bridge: after
            for bridge in bridges
            if (after := current.read.get(bridge.host)) is not None
            and (entry := state.hosts.get(bridge.host)) is not None
            and entry.fleet.seq > after
        }
        if behind:
            self._reading = True
            self._tasks.spawn(self._read_on(current.id, behind), name="incident")

    async def _read_on(self, incident: str, behind: dict[Bridge, int]) -> None:
        from toka_runtime.errors import TokaError
        from toka_runtime.protocol.commands import ReadEvents

        try:
            for bridge, after in behind.items():
                head = bridge.state.hosts[bridge.host].fleet.seq
                read = ReadEvents(after_seq=after, before_seq=head + 1, kinds=KINDS, limit=PAGE)
                async with aclosing(bridge.pages(read)) as pages:
                    async for found in pages:
                        self._learn(incident, bridge.host, found, found[-1].seq)
                # What lies between is none of its kinds.
                self._learn(incident, bridge.host, [], head)
        except TokaError as error:
            # A lost link is shown by itself, and the log is read on when it is back.
            self._session.say(clean(f"what is done about the incident cannot be read: {error.message}"), "warn")
        finally:
            self._reading = False

    def _learn(self, incident: str, host: str, found: list[ev.Envelope], after: int) -> None:
        current = self.current
        if current is not None and current.id == incident:
            self._change(lambda now: learned(now, found).model_copy(update={"read": {**now.read, host: after}}))

    # -- keeping --------------------------------------------------------------------------------------------------

    def has(self, agents: Iterable[AgentKey]) -> bool:
        """Whether the open one is about one of them."""
        current = self.current
        pinned = {(pin.host, pin.agent) for pin in current.agents} if current is not None else set[tuple[str, str]]()
        return any((key.host, key.name) in pinned for key in agents)

    def _change(self, change: Change) -> None:
        current = self.current
        if current is not None and (changed := change(current)) != current:
            self.all[self.all.index(current)] = changed
            self._keep(changed.id)

    def _keep(self, incident: str) -> None:
        self._unsaved.add(incident)
        if self._folder is not None and not self._saving:
            self._saving = True
            self._tasks.spawn(self._save(self._folder), name="incident")

    async def _save(self, folder: Path) -> None:
        try:
            while self._unsaved:
                wanted = self._unsaved.pop()
                for each in [each for each in self.all if each.id == wanted]:
                    await asyncio.to_thread(files.save_incident, folder, each)
        except OSError as error:
            self._session.say(clean(f"THE INCIDENT IS NOT KEPT: {folder}: {error.strerror or error}"), "bad")
        finally:
            self._saving = False


def learned(incident: Incident, found: Iterable[ev.Envelope]) -> Incident:
    """With what these events of the log say was done about its agents."""
    acts = list(incident.acts)
    for envelope in found:
        names = {pin.agent for pin in incident.agents if pin.host == envelope.host}
        if not names or (envelope.agent not in names if envelope.agent else not concerns(envelope.event, names)):
            continue
        if step := step_of(envelope.event):
            incident = incident.done(step, envelope.at)
        if text := act_text(envelope.event):
            acts.append(Act(at=envelope.at, host=envelope.host, seq=envelope.seq, text=text))
    return incident.model_copy(update={"acts": tuple(acts[: files.ACTS_MOST])})


def step_of(event: ev.Event) -> Step | None:
    """The step that is done with an event of one of the agents."""
    match event:
        case ev.AgentStateChanged(after=AgentState.PAUSED):
            return Step.CONTAIN
        case ev.AgentStateChanged(before=AgentState.PAUSED, after=AgentState.RUNNING):
            return Step.DECIDE
        case ev.AgentStateChanged(after=AgentState.KILLED):
            return Step.DECIDE
        case ev.GrantRevoked() | ev.CapabilityWithdrawn() | ev.ApprovalDecided(outcome=ApprovalOutcome.DENIED):
            return Step.CUT
        case _:
            return None


def elapsed_since(incident: Incident, now: datetime) -> float:
    """Seconds from its opening to its end, or to now."""
    return ((incident.closed_at or now) - incident.opened_at).total_seconds()
