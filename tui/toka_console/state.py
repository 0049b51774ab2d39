"""What the console knows: the protocol's fold, and bounded windows beside it (output, denials, activity, commands).

No Textual, no I/O, no clock of its own: the same envelopes and the same times give the same state. Everything that
comes in has passed `clean`. Counters named `*_version` tell a pane whether it has anything to draw.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from toka_console import record
from toka_console.entries import Activity, AgentEntry, DenialEntry, FoldKey, HostEntry, Pending, fold_key
from toka_console.history import scale_for
from toka_console.identity import AgentKey
from toka_console.ring import OutputRing
from toka_console.tally import Tally
from toka_runtime.client.base import Link, LinkState
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.commands import CommandResult
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import AgentName, CommandId, HostId
from toka_runtime.protocol.snapshot import AgentView, ApprovalView, FleetState
from toka_runtime.protocol.states import LIVE

MAX_DENIALS = 1_000
MAX_ACTIVITY = 2_000
OUTPUT_TOTAL = 24 * 2**20
"""Characters of output held for all agents together; shared out, within the two limits below."""
OUTPUT_LEAST, OUTPUT_MOST = 32 * 2**10, 512 * 2**10
TOKEN_WINDOW = timedelta(seconds=30)


def _key_of(envelope: ev.Envelope) -> AgentKey | None:
    name = envelope.event.spec.name if isinstance(envelope.event, ev.SpecLoaded) else envelope.agent
    return None if name is None else AgentKey(envelope.host, name)


@dataclass
class ConsoleState:
    hosts: dict[HostId, HostEntry] = field(default_factory=dict[HostId, HostEntry])
    agents: dict[AgentKey, AgentEntry] = field(default_factory=dict[AgentKey, AgentEntry])
    denials: deque[DenialEntry] = field(default_factory=deque[DenialEntry])
    activity: deque[Activity] = field(default_factory=lambda: deque[Activity](maxlen=MAX_ACTIVITY))
    pending: dict[CommandId, Pending] = field(default_factory=dict[CommandId, Pending])
    tally: Tally = field(default_factory=Tally)
    """What the agents add up to."""
    version: int = 0
    order_version: int = 0
    """Grows when the set of rows or their order may have changed."""
    denials_version: int = 0
    totals_version: int = 0
    """Grows when a sum over the fleet may have changed: tokens, money, calls, denials."""
    recent_version: int = 0
    """Grows with each line of the activity that is worth a look."""
    approvals_version: int = 0
    """Grows with each change of a request or a grant."""
    requested: int = 0
    """Requests for approval seen so far."""
    asking: set[AgentKey] = field(default_factory=set[AgentKey])
    """Agents with a request that waits for an operator."""
    granted: set[AgentKey] = field(default_factory=set[AgentKey])
    """Agents with a grant that holds."""
    limits_reached: dict[AgentKey, Activity] = field(default_factory=dict[AgentKey, Activity])
    """The newest breach of a limit of each agent."""
    denied: int = 0
    """All denials seen in the streams and snapshots, folded or not."""
    events: int = 0
    dropped_bytes: int = 0
    unknown_kinds: dict[str, int] = field(default_factory=dict[str, int])
    _denial_index: dict[FoldKey, DenialEntry] = field(default_factory=lambda: dict[FoldKey, DenialEntry]())
    _tokens: deque[tuple[datetime, int]] = field(default_factory=deque[tuple[datetime, int]])

    # -- what comes in --------------------------------------------------------------------------------------------

    def adopt(self, fleet: FleetState, link: Link, missed: int = 0) -> None:
        """Take a whole host state: at first, and whenever the stream could not go on."""
        host = self.hosts.get(fleet.host)
        if host is None:
            host = self.hosts[fleet.host] = HostEntry(fleet, link)
        host.fleet, host.link = fleet, link
        host.trail.adopt(fleet.seq)
        host.log.adopt(fleet.seq, fleet.at)
        host.missed += missed
        for name, view in fleet.agents.items():
            key = AgentKey(fleet.host, name)
            entry = self.agents.get(key)
            if entry is None:
                entry = self._new_agent(key, view)
                if view.requested:
                    entry.output.history_seq = fleet.seq
            elif missed and fleet.at is not None:
                entry.output.mark(fleet.at, "gap", f"{missed:,} events of this host not shown (they are in the log)")
            self._update(entry, view)
        for key in [key for key in self.agents if key.host == fleet.host and key.name not in fleet.agents]:
            self._forget(key)
        self._settle(fleet.host)
        self.version += 1
        self.order_version += 1
        self.totals_version += 1

    def drop(self, host: HostId) -> None:
        """Forget a host that was left, with all that is its."""
        self.hosts.pop(host, None)
        for key in [key for key in self.agents if key.host == host]:
            self._forget(key)
        self.denials = deque(each for each in self.denials if each.key.host != host)
        self._denial_index = {same: each for same, each in self._denial_index.items() if each.key.host != host}
        kept = (each for each in self.activity if each.key is None or each.key.host != host)
        self.activity = deque(kept, maxlen=MAX_ACTIVITY)
        self.pending = {each: sent for each, sent in self.pending.items() if all(k.host != host for k in sent.keys)}
        for version in ("version", "order_version", "denials_version", "totals_version", "recent_version",
                        "approvals_version"):  # fmt: skip
            setattr(self, version, getattr(self, version) + 1)

    def _forget(self, key: AgentKey) -> None:
        self.tally.carry(key, self.agents.pop(key).view, None)
        self.limits_reached.pop(key, None)
        self.asking.discard(key)
        self.granted.discard(key)

    def apply(self, envelopes: Sequence[ev.Envelope]) -> None:
        """Carry the state forward by clean envelopes of hosts already adopted, in stream order."""
        by_host: dict[HostId, list[ev.Envelope]] = {}
        for envelope in envelopes:
            by_host.setdefault(envelope.host, []).append(envelope)
        for name, batch in by_host.items():
            if (host := self.hosts.get(name)) is not None:
                self._apply(host, batch)
        self.version += 1

    def set_link(self, link: Link) -> None:
        if (host := self.hosts.get(link.host)) is not None and host.link != link:
            host.link = link
            self.version += 1
            for entry in self.agents.values():
                if entry.key.host == link.host:
                    entry.version += 1

    def _apply(self, host: HostEntry, batch: list[ev.Envelope]) -> None:
        seq = host.fleet.seq
        new: list[ev.Envelope] = []
        for envelope in batch:
            if envelope.durable:
                if envelope.seq <= seq:
                    continue
                seq = envelope.seq
            new.append(envelope)
        if not new:
            return
        host.fleet = fold(host.fleet, new)
        host.last_event_at = new[-1].at
        touched: set[AgentKey] = set()
        sampled: set[AgentKey] = set()
        for envelope in new:
            key = _key_of(envelope)
            if isinstance(envelope.event, ev.SpecRejected):
                self.order_version += 1
            if key is not None:
                (sampled if isinstance(envelope.event, ev.AgentSampled) else touched).add(key)
                if key not in self.agents and (view := host.fleet.agents.get(key.name)) is not None:
                    self._new_agent(key, view)
            self._note(host, key, envelope)
        views = host.fleet.agents
        for key in touched:
            if (view := views.get(key.name)) is not None:
                self._update(self.agents[key], view)
        for key in sampled - touched:
            if (view := views.get(key.name)) is not None:
                self.agents[key].view = view
        self.events += len(new)
        self._settle(host.fleet.host)

    def _note(self, host: HostEntry, key: AgentKey | None, envelope: ev.Envelope) -> None:
        """Everything that the fold does not keep."""
        host.trail.add(envelope)
        host.log.add(envelope)
        event = envelope.event
        entry = None if key is None else self.agents.get(key)
        match event:
            case ev.HostSampled():
                host.sampled(envelope.at, event.usage)
                return
            case ev.AgentSampled():
                if entry is not None:
                    entry.sampled(envelope.at, event.usage, scale_for(len(self.agents)))
                return
            case ev.OperationDenied():
                if key is not None:
                    self._deny(key, envelope, event)
            case ev.ModelCallEnded():
                self._tokens.append((envelope.at, event.usage.output_tokens))
                for spender in (host, entry):
                    if spender is not None:
                        spender.history.spend(event.usage.total_tokens, event.cost_usd or 0.0)
                self.totals_version += 1
            case ev.LimitReached():
                if key is not None:
                    reached = Activity(envelope.at, envelope.seq, key, event.kind, event.text, "warn")
                    self.limits_reached[key] = reached
                    self.order_version += 1
            case ev.BudgetSet() | ev.HealthChanged():
                self.totals_version += 1
            case ev.OutputAppended():
                self.dropped_bytes += event.dropped_bytes
            case ev.CommandHandled():
                self.pending.pop(event.command, None)
            case ev.UnknownEvent():
                self.unknown_kinds[event.kind] = self.unknown_kinds.get(event.kind, 0) + 1
            case _:
                pass
        if entry is not None:
            record.append(entry.output, envelope)
            entry.version += 1
        if (line := record.activity(envelope)) is not None:
            self.activity.append(Activity(envelope.at, envelope.seq, key, event.kind, line.text, line.role))
            self.recent_version += line.role != "muted"

    def _deny(self, key: AgentKey, envelope: ev.Envelope, event: ev.OperationDenied) -> None:
        self.denied += event.count
        self.denials_version += 1
        self.totals_version += 1
        denial = event.denial
        same = fold_key(key, envelope.run, denial)
        if (known := self._denial_index.get(same)) is not None:
            known.count += event.count
            known.at, known.seq, known.denial = envelope.at, envelope.seq, denial
            known.version += 1
            return
        serial = self.denials[-1].serial + 1 if self.denials else 1
        new = DenialEntry(
            serial, key, envelope.run, envelope.at, envelope.at, envelope.seq, denial, event.task, event.count
        )
        self.denials.append(new)
        self._denial_index[same] = new
        self._trim_denials()

    def _trim_denials(self) -> None:
        while len(self.denials) > MAX_DENIALS:
            gone = self.denials.popleft()
            self._denial_index.pop(fold_key(gone.key, gone.run, gone.denial), None)

    def _new_agent(self, key: AgentKey, view: AgentView) -> AgentEntry:
        entry = self.agents[key] = AgentEntry(key, view, OutputRing(OUTPUT_MOST))
        share = max(OUTPUT_LEAST, min(OUTPUT_MOST, OUTPUT_TOTAL // len(self.agents)))
        for other in self.agents.values():
            other.output.capacity = share
        self.order_version += 1
        self.tally.carry(key, None, view)
        self._approvals_changed(key, (), view)
        return entry

    def _update(self, entry: AgentEntry, view: AgentView) -> None:
        before = entry.view
        if view is before:
            return
        if (view.state, view.requested, view.reason, view.survivors) != (
            before.state, before.requested, before.reason, before.survivors,
        ) or view.spec is not before.spec:  # fmt: skip
            self.order_version += 1
        if view.approvals != before.approvals or view.grants != before.grants:
            self._approvals_changed(entry.key, before.approvals, view)
        self.tally.carry(entry.key, before, view)
        entry.view = view
        entry.version += 1

    def _approvals_changed(self, key: AgentKey, before: tuple[ApprovalView, ...], view: AgentView) -> None:
        known = {asked.request.id for asked in before}
        self.requested += sum(asked.request.id not in known for asked in view.approvals)
        for keys, has_some in ((self.asking, view.approvals), (self.granted, view.grants)):
            (keys.add if has_some else keys.discard)(key)
        self.approvals_version += 1
        self.order_version += 1

    # -- history that was paged in --------------------------------------------------------------------------------

    def add_history(self, key: AgentKey, envelopes: Iterable[ev.Envelope]) -> None:
        """Older durable events of one agent, oldest first, put before what its window holds."""
        entry = self.agents.get(key)
        if entry is None:
            return
        older = OutputRing(entry.output.capacity)
        for envelope in envelopes:
            record.append(older, envelope)
        entry.output.prepend(older.entries)
        entry.output.history_seq = None
        entry.version += 1
        self.version += 1

    def add_earlier(self, envelopes: Sequence[ev.Envelope]) -> None:
        """Denials and activity from before this console was attached, oldest first."""
        lines = [(envelope, record.activity(envelope)) for envelope in envelopes]
        earlier = [
            Activity(envelope.at, envelope.seq, _key_of(envelope), envelope.event.kind, line.text, line.role)
            for envelope, line in lines
            if line is not None
        ]
        self.activity = deque([*earlier, *self.activity], maxlen=MAX_ACTIVITY)
        live, self.denials, self._denial_index = self.denials, deque(), {}
        for envelope in envelopes:
            if isinstance(envelope.event, ev.OperationDenied) and envelope.agent is not None:
                self._deny(AgentKey(envelope.host, envelope.agent), envelope, envelope.event)
        start = self.denials[-1].serial if self.denials else 0
        for offset, known in enumerate(live, 1):
            known.serial = start + offset
            self.denials.append(known)
            self._denial_index[fold_key(known.key, known.run, known.denial)] = known
        self._trim_denials()
        self.denials_version += 1
        self.recent_version += 1
        self.version += 1

    # -- commands -------------------------------------------------------------------------------------------------

    def sent(self, pending: Pending) -> None:
        self.pending[pending.id] = pending
        self._touch(pending)

    def answered(self, result: CommandResult) -> Pending | None:
        """The runtime's answer. Refused: no longer pending. Done: pending until its events are here."""
        pending = self.pending.get(result.id)
        if pending is None:
            return None
        if not result.ok:
            del self.pending[result.id]
        else:
            pending.answered_seq = result.seq
            for host in self.hosts:
                self._settle(host)
        self._touch(pending)
        return pending

    def lost(self, command: CommandId, why: str) -> None:
        """No answer: the outcome is unknown until events tell."""
        if (pending := self.pending.get(command)) is not None:
            pending.unknown = why
            self._touch(pending)

    def forget(self, command: CommandId) -> None:
        if (pending := self.pending.pop(command, None)) is not None:
            self._touch(pending)

    def pending_of(self, key: AgentKey) -> Pending | None:
        """A command to the agent itself."""
        return next((sent for sent in self.pending.values() if key in sent.keys and not sent.subject), None)

    def pending_on(self, subject: str) -> Pending | None:
        """An answer to a request, or the revocation of a grant."""
        return next((sent for sent in self.pending.values() if sent.subject == subject), None)

    def _settle(self, host: HostId) -> None:
        """Drop commands whose effect is in the state already."""
        seq = self.hosts[host].fleet.seq
        done = [
            pending
            for pending in self.pending.values()
            if pending.answered_seq is not None
            and seq >= pending.answered_seq
            and any(key.host == host for key in pending.keys or (AgentKey(host, AgentName("")),))
        ]
        for pending in done:
            del self.pending[pending.id]
            self._touch(pending)

    def _touch(self, pending: Pending) -> None:
        self.version += 1
        self.approvals_version += bool(pending.subject)
        for key in pending.keys:
            if (entry := self.agents.get(key)) is not None:
                entry.version += 1

    # -- figures --------------------------------------------------------------------------------------------------

    def live(self) -> list[AgentEntry]:
        """Agents whose processes may exist."""
        return [entry for entry in self.agents.values() if entry.view.state in LIVE or entry.view.survivors]

    def tokens_per_s(self, now: datetime) -> float:
        """Output tokens of model calls that ended in the last half minute."""
        while self._tokens and now - self._tokens[0][0] > TOKEN_WINDOW:
            self._tokens.popleft()
        return sum(count for _, count in self._tokens) / TOKEN_WINDOW.total_seconds()

    def banner(self) -> str:
        """What must be said loudly all the time: agents without walls, and that no model is used."""
        notes = [host.fleet.runtime.provider_note for host in self.hosts.values() if host.fleet.runtime is not None]
        if unconfined := sorted(self.tally.unconfined):
            names = ", ".join(key.name for key in unconfined)
            notes.insert(0, f"UNCONFINED, with all rights of their user: {names}")
        return "  ".join(note for note in notes if note)

    def link_of(self, key: AgentKey) -> Link | None:
        host = self.hosts.get(key.host)
        return None if host is None else host.link

    def is_up(self, host: HostId) -> bool:
        return host in self.hosts and self.hosts[host].link.state in (LinkState.UP, LinkState.STALE)
