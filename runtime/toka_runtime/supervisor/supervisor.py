"""The engine of one host: owns the agents, lets the scheduler start them, carries out commands, ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from functools import partial
from typing import Literal

import toka_runtime
from toka_runtime.aio import TaskOwner, see_through
from toka_runtime.clock import Clock, SystemClock
from toka_runtime.errors import CommandRefused, ProcessError, StoreError, TokaError
from toka_runtime.limits.enforcer import Enforcer
from toka_runtime.limits.host import HostMeter
from toka_runtime.limits.meter import TreeMeter
from toka_runtime.llm.base import ModelGateway
from toka_runtime.llm.gateway import Gateway
from toka_runtime.llm.redact import Redactor
from toka_runtime.policy.catalogue import load_catalogue, operators_files
from toka_runtime.policy.rules import compile_rights
from toka_runtime.protocol.budget import Account, BudgetScope
from toka_runtime.protocol.events import (
    AgentBlocked,
    AgentSampled,
    BudgetSet,
    Envelope,
    Event,
    HostProbed,
    HostSampled,
    Level,
    Noticed,
    OutputAppended,
    ReportWritten,
    RuntimeStarted,
    RuntimeStopped,
    ServiceStarted,
    SpecLoaded,
    SpecRejected,
    Stream,
)
from toka_runtime.protocol.ids import AgentName, RunId
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.spec import Dependency, SandboxMode
from toka_runtime.protocol.states import TERMINAL, AgentState, StopReason
from toka_runtime.protocol.usage import Budget, Usage
from toka_runtime.sandbox.launcher import ForkServer
from toka_runtime.sandbox.plan import SandboxPlan
from toka_runtime.sandbox.probe_apart import probe_apart
from toka_runtime.sandbox.view import operators_user
from toka_runtime.specs.graph import build_graph
from toka_runtime.specs.loader import LoadReport
from toka_runtime.store.events import EventStore
from toka_runtime.store.transcripts import Transcripts
from toka_runtime.supervisor.agent import Agent
from toka_runtime.supervisor.budgets import Budgets
from toka_runtime.supervisor.bus import Bus
from toka_runtime.supervisor.health import HealthMonitor
from toka_runtime.supervisor.leftovers import boot_id, reference
from toka_runtime.supervisor.limits_watch import LimitGuard
from toka_runtime.supervisor.options import RuntimeOptions
from toka_runtime.supervisor.output import OutputMerger
from toka_runtime.supervisor.recovery import Recovery
from toka_runtime.supervisor.reports import Reporter
from toka_runtime.supervisor.scheduler import Candidate, schedule
from toka_runtime.supervisor.services import Services
from toka_runtime.supervisor.workspace import Workspaces

PROBE_AFTER_S = 0.5


class Supervisor:
    """Open it, load specs, request agents, close it. Everything it learns goes through the store to the bus."""

    def __init__(self, options: RuntimeOptions, services: Services, store: EventStore, bus: Bus) -> None:
        self.options = options
        self.bus = bus
        self.store = store
        self.services = services
        self.agents: dict[AgentName, Agent] = {}
        self._dependencies: dict[AgentName, tuple[Dependency, ...]] = {}
        self._reporters: dict[AgentName, Reporter] = {}
        self._slots = options.slots
        self._tasks = TaskOwner(services.on_failure)
        self._wake = asyncio.Event()
        self._host_meter = HostMeter()
        self._loaded = False
        self._closing = False
        self._recovery = Recovery(store, services.transcripts, options, bus.snapshot())
        self.began_at_seq = 0
        """Sequence number of this runtime's `runtime.started`: where its own tale begins."""

    @classmethod
    async def open(
        cls, options: RuntimeOptions, *, clock: Clock | None = None, gateway: ModelGateway | None = None
    ) -> Supervisor:
        """Check the workspace, lock the state folder, start nothing yet. Raises WorkspaceError, StoreError,
        PolicyError."""
        clock = clock or SystemClock()
        workspaces = Workspaces(options.workspace, options.state_dir, mode=options.workspace_mode)
        await workspaces.check()
        catalogue = load_catalogue(operators_files(options.catalogues, (options.workspace, options.state_dir)))
        store = await EventStore.open(options.state_dir, host=options.host, clock=clock)
        try:
            bus = Bus(store, await store.latest_state())
        except BaseException:
            await store.aclose()
            raise
        redactor = Redactor.from_environment(os.environ, options.gateway.secret_environment)

        def write_output(event: OutputAppended, agent: AgentName, run: RunId) -> None:
            store.post(event.model_copy(update={"text": redactor.text(event.text)}), agent=agent, run=run)

        output = OutputMerger(write_output)

        def write_errors(plan: SandboxPlan, data: bytes) -> None:
            # What a worker or its interpreter says on its error output is no tool's, and never usual.
            output.append(plan.agent, plan.run, Stream.STDERR, data)

        def defect(name: str, error: BaseException) -> None:
            store.post(_defect(name, error))

        wake = asyncio.Event()

        def service_started(service: Literal["fork server", "gateway"], pid: int) -> None:
            if (process := reference(pid)) is not None:
                store.post(ServiceStarted(service=service, process=process))

        # Before anything is started: what is started later follows this process into its control group.
        enforcer = await asyncio.to_thread(Enforcer.open)
        gateway = gateway or Gateway(options.gateway, clock, on_start=partial(service_started, "gateway"))
        services = Services(
            options=options,
            clock=clock,
            store=store,
            transcripts=Transcripts(store),
            output=output,
            launcher=ForkServer(
                on_stderr=write_errors,
                confine=True,
                enforcer=enforcer,
                on_start=partial(service_started, "fork server"),
            ),
            gateway=gateway,
            budgets=Budgets(
                gateway, clock, bus.snapshot(), _caps(options), free=options.gateway.provider == "rehearsal"
            ),
            workspaces=workspaces,
            redactor=redactor,
            catalogue=catalogue,
            guard=LimitGuard(enforcer, clock, redact=redactor.text, on_failure=defect),
            health=HealthMonitor(clock, bus.snapshot, defect),
            host=asyncio.get_running_loop().create_future(),
            state=bus.snapshot,
            on_failure=defect,
            wake=wake.set,
        )
        supervisor = cls(options, services, store, bus)
        supervisor._wake = wake
        store.on_commit = supervisor._committed
        store.on_failure = supervisor._store_failed
        store.on_recovery = supervisor._store_recovered
        await supervisor._begin()
        return supervisor

    async def _begin(self) -> None:
        options = self.options
        await self._recovery.begin()
        started = await self.store.append(
            RuntimeStarted(
                epoch=self.store.epoch,
                version=toka_runtime.__version__,
                pid=os.getpid(),
                workspace=str(options.workspace),
                provider=options.gateway.provider,
                provider_note=options.provider_note,
                state_dir=str(options.state_dir),
                boot_id=boot_id(),
            )
        )
        self.began_at_seq = started.seq
        for finding in self.store.findings:
            await self.record(finding)
        for account, cap in _caps(options).items():
            if self.bus.snapshot().books.caps.get(account.key) != cap:
                await self.record(BudgetSet(scope=account.scope, name=account.name, budget=cap, actor="option"))
        self._tasks.spawn(self._probe_host(), name="probe")
        self.services.guard.start()
        self.services.health.start()
        self._tasks.spawn(self._schedule_forever(), name="scheduler")
        self._tasks.spawn(self._sample_forever(), name="sampler")

    async def _probe_host(self) -> None:
        found = None
        try:
            # It takes a core for half a second: the first agent goes before.
            await self.services.clock.sleep(PROBE_AFTER_S)
            found = await probe_apart()
            await self.record(HostProbed(protections=found))
        except ProcessError as error:
            await self.notice(Level.WARNING, error.code, error.message, "`toka-runtime doctor` says more")
        finally:
            self.services.host.set_result(found)

    # -- specs ----------------------------------------------------------------------------------------------------

    async def load(self, report: LoadReport) -> None:
        """Make the good specs agents and the bad ones red rows; those that a killed runtime left go on. Call once,
        before `request`. Raises SandboxUnavailable
        when none of them could be confined."""
        specs = [file.spec for file in report.files if file.spec is not None and file.ok]
        in_place = self.options.workspace_mode == "in-place"
        if in_place and any(spec.security.sandbox is SandboxMode.REQUIRED for spec in specs):
            # Known before anything starts, and the same for all of them.
            operators_user(str(self.options.workspace))
        for file in report.files:
            if not file.ok:
                await self.store.append(SpecRejected(file=file.file, name=file.name, problems=file.errors))
        if report.fleet is not None and report.fleet.max_concurrent_agents and self.options.max_agents is None:
            self._slots = report.fleet.max_concurrent_agents
        catalogue = self.services.catalogue
        graph = build_graph(specs)
        for spec in specs:
            rights = compile_rights(spec, catalogue)
            tasks = spec.enabled_tasks(self.options.enable)
            self.services.budgets.load(spec, len(tasks))
            left = await self._recovery.take_up(spec, rights, tasks)
            self.agents[spec.name] = Agent(self.services, spec, rights)
            self._dependencies[spec.name] = graph.dependencies(spec.name)
            self._reporters[spec.name] = Reporter(spec, self.options.state_dir, self.services.clock)
            await self.store.append(
                SpecLoaded(
                    spec=spec, rights=rights, conditions=tuple(sorted(self.options.enable)), kept=left is not None
                ),
                agent=spec.name,
            )
            if withdrawn := self.services.state().agents[spec.name].withdrawn:
                self.agents[spec.name].rights = compile_rights(spec, catalogue, withdrawn)
            if left is not None:
                await self.agents[spec.name].take_up(left)
            for name in rights.unknown:
                await self.notice(
                    Level.WARNING,
                    "policy.unknown_capability",
                    f"{spec.name}: capability {name!r} is in no catalogue and grants nothing",
                )
        await self._recovery.finish()
        # Not before all are known: an agent whose dependency is not there is skipped.
        self._loaded = True
        self._wake.set()

    def agent(self, name: AgentName) -> Agent:
        """Raises CommandRefused when there is none."""
        if (agent := self.agents.get(name)) is None:
            raise CommandRefused(f"no agent {name!r} is loaded")
        return agent

    async def set_budget(self, scope: BudgetScope, name: str, cap: Budget, actor: str) -> str:
        """A new cap; agents that wait for it go on. Returns the words for it. Raises CommandRefused."""
        if scope in (BudgetScope.AGENT, BudgetScope.TASK) and name:
            self.agent(AgentName(name.partition("/")[0]))
        account = Account(scope, name)
        await self.record(BudgetSet(scope=scope, name=name, budget=cap, actor=actor))
        self.services.budgets.set_cap(account, cap)
        return f"budget of {account.key.replace(':', ' ')}: {_cap_text(cap)}"

    # -- running --------------------------------------------------------------------------------------------------

    async def request(self, names: Sequence[AgentName] | None = None) -> None:
        """Ask for these agents (None: all) and whatever they require."""
        wanted = list(self.agents if names is None else names)
        for name in wanted:
            for dependency in self._dependencies[self.agent(name).name]:
                other = self.agents.get(dependency.agent)
                idle = other is not None and other.state is AgentState.PENDING and not other.requested
                if dependency.required and idle and dependency.agent not in wanted:
                    wanted.append(dependency.agent)
        for name in wanted:
            agent = self.agent(name)
            if names is not None or agent.state is AgentState.PENDING:
                await agent.request()
        self._wake.set()

    async def settled(self) -> None:
        """Wait until every requested agent is terminal and its processes are gone."""
        for agent in list(self.agents.values()):
            await agent.settled()

    async def _schedule_forever(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._loaded and not self._closing:
                await self._schedule()
            await self._report()

    async def _schedule(self) -> None:
        plan = schedule(
            (self._candidate(agent) for agent in self.agents.values()),
            slots=self._slots,
            memory_bytes=int(self._host_meter.memory_total_bytes * 0.9),
        )
        for name, why in plan.skip.items():
            await self.agents[name].skip(why)
        for name in plan.start:
            self.agents[name].start()
        for name, blockers in plan.blockers.items():
            agent = self.agents[name]
            if blockers != agent.blockers:
                agent.blockers = blockers
                await self.record(AgentBlocked(blockers=blockers), agent)

    def _candidate(self, agent: Agent) -> Candidate:
        return Candidate(
            name=agent.name,
            state=AgentState.STARTING if agent.starting else agent.state,
            priority=agent.spec.priority,
            dependencies=self._dependencies[agent.name],
            memory_bytes=agent.spec.security.limits.memory_bytes,
            verified=agent.verified,
            requested=agent.requested,
            holding=agent.holding,
        )

    # -- watching -------------------------------------------------------------------------------------------------

    async def _sample_forever(self) -> None:
        clock = self.services.clock
        while True:
            await clock.sleep(self.options.sample_interval_s)
            metered = [(agent, meter) for agent in self.agents.values() if (meter := agent.meter) is not None]
            # Off the loop: scanning /proc of a hundred trees would be felt in the keys of an embedded console.
            usages = await asyncio.to_thread(_sample, [meter for _, meter in metered])
            for (agent, meter), usage in zip(metered, usages, strict=True):
                if agent.meter is meter:
                    self.store.sample(AgentSampled(usage=usage), agent=agent.name, run=agent.run)
            self.store.sample(HostSampled(usage=self._host_meter.sample()))
            await self._report()

    async def _report(self) -> None:
        state = self.bus.snapshot()
        for name, reporter in self._reporters.items():
            view = state.agents.get(name)
            if view is None or not self.agents[name].requested or not reporter.due(view):
                continue
            try:
                written: list[ReportWritten] = await reporter.write(view)
            except OSError as error:
                await self.notice(Level.ERROR, "report.failed", f"report of {name} could not be written: {error}")
                continue
            for event in written:
                await self.record(event, self.agents[name])

    # -- speaking -------------------------------------------------------------------------------------------------

    async def notice(self, level: Level, code: str, message: str, hint: str = "") -> None:
        await self.record(Noticed(level=level, code=code, message=message, hint=hint))

    async def record(self, event: Event, agent: Agent | None = None) -> None:
        """What must not be lost but is no side effect: kept by the store while it cannot write."""
        name, run = (agent.name, agent.run) if agent else (None, None)
        try:
            await self.store.append(event, agent=name, run=run)
        except StoreError:
            self.store.post(event, agent=name, run=run)

    def _committed(self, envelopes: list[Envelope]) -> None:
        self.bus.publish(envelopes)
        self.services.health.observe(envelopes)

    def _store_failed(self, error: StoreError) -> None:
        hint = "free some space; agents stop at their next side effect until the store can be written"
        self.store.sample(Noticed(level=Level.ERROR, code=error.code, message=error.message, hint=error.hint or hint))

    def _store_recovered(self) -> None:
        self.store.post(
            Noticed(level=Level.INFO, code="store.recovered", message="the event store can be written again")
        )

    # -- the end --------------------------------------------------------------------------------------------------

    async def stop_all(self, grace_s: float) -> None:
        """Stop every requested agent, all at once."""
        self._closing = True
        live = [agent for agent in self.agents.values() if agent.requested and agent.state not in TERMINAL]

        async def stop(agent: Agent) -> None:
            with contextlib.suppress(CommandRefused):
                await agent.stop(grace_s, StopReason.SHUTDOWN, "the runtime stops")

        await asyncio.gather(*(stop(agent) for agent in live))

    async def aclose(self, reason: str = "", grace_s: float = 2.0) -> None:
        """Stop what runs, prove that no process is left, close the store. Safe to call twice; not cut short by a
        cancellation."""
        if self.store.closed:
            return
        await see_through(self._aclose(reason, grace_s), name="close the runtime")

    async def _aclose(self, reason: str, grace_s: float) -> None:
        try:
            await self.stop_all(grace_s)
            await self._report()
        finally:
            await self._tasks.aclose()
            errors: list[TokaError] = []
            for close in (self.services.launcher.aclose, self.services.gateway.aclose):
                try:
                    await close()
                except TokaError as error:
                    errors.append(error)
            await self.services.health.aclose()
            await self.services.guard.aclose()
            self.services.output.close()
            for error in errors:
                await self.notice(Level.ERROR, error.code, str(error))
            await self.record(RuntimeStopped(reason=reason))
            try:
                await self.store.aclose()
            finally:
                # Also when the store closes full: nobody waits for events that never come.
                self.bus.close()

    def snapshot(self) -> FleetState:
        return self.bus.snapshot()


def _cap_text(cap: Budget) -> str:
    parts = [f"{cap.max_tokens:,} tokens"] if cap.max_tokens is not None else []
    parts += [f"${cap.max_cost_usd:,.2f}"] if cap.max_cost_usd is not None else []
    return " and ".join(parts) or "no cap"


def _caps(options: RuntimeOptions) -> dict[Account, Budget]:
    given = ((BudgetScope.FLEET, options.fleet_budget), (BudgetScope.DAY, options.day_budget))
    return {Account(scope, ""): cap for scope, cap in given if cap is not None}


def _defect(name: str, error: BaseException) -> Noticed:
    return Noticed(
        level=Level.ERROR,
        code="internal",
        message=f"{name} ended with {error!r}",
        hint="this is a defect of toka-runtime; agents that run go on, new ones may not start",
    )


def _sample(meters: Sequence[TreeMeter]) -> list[Usage]:
    return [meter.sample() for meter in meters]
