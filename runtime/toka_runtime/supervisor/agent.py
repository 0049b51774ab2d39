"""One agent: the only writer of its state. A run goes workspace → process → tasks → proof, and ends exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from toka_runtime.aio import see_through, spawn
from toka_runtime.broker.approvals import ApprovalDesk
from toka_runtime.errors import (
    BudgetReached,
    CommandRefused,
    ForkServerLost,
    ModelError,
    ProcessError,
    StoreError,
    TokaError,
)
from toka_runtime.limits.meter import TreeMeter
from toka_runtime.limits.tree_watch import TreeWatch
from toka_runtime.protocol.approval import ApprovalMode
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.commands import PauseKind
from toka_runtime.protocol.events import (
    AgentStateChanged,
    BudgetExhausted,
    Event,
    HealthChanged,
    Level,
    Noticed,
    ProcessEnded,
    ProcessStarted,
)
from toka_runtime.protocol.health import Health, HealthLevel, HealthReason, OnStuck
from toka_runtime.protocol.ids import AgentName, RunId, new_run_id
from toka_runtime.protocol.limits import OnLimit
from toka_runtime.protocol.snapshot import AgentView
from toka_runtime.protocol.spec import AgentSpec, RestartPolicy
from toka_runtime.protocol.states import LIVE, TERMINAL, AgentState, StopReason, check_transition
from toka_runtime.sandbox.plan import AgentProcess, StopProof
from toka_runtime.supervisor.crash_loop import CRASHES, Breaker, death_text, restart_delay_s
from toka_runtime.supervisor.deadline import DeadlineExceeded, PauseGate, within
from toka_runtime.supervisor.endings import FINAL, JITTER, Ending, Losses, reason_of
from toka_runtime.supervisor.health import HealthReactions
from toka_runtime.supervisor.journal import FRESH, Beginning, beginning, run_on_record
from toka_runtime.supervisor.limits_watch import Reactions, ends_run
from toka_runtime.supervisor.pausing import SoftPause, at_rest, pause_text
from toka_runtime.supervisor.run import Narrow, RunOutcome, all_verified, perform
from toka_runtime.supervisor.services import RunVoice, Services
from toka_runtime.supervisor.starting import launch, prepare, tell_protections
from toka_runtime.supervisor.steps import Steps

_AT_WORK = frozenset({AgentState.RUNNING, AgentState.PAUSED})


class Agent:
    """Its states, its current run, and what an operator may do to it.

    `state` and `reason` are what the last `agent.state_changed` event said; nothing else writes them.
    """

    def __init__(self, services: Services, spec: AgentSpec, rights: Rights) -> None:
        self.spec = spec
        self.rights = rights
        """From the next run on; `narrow` changes those of the run that goes on."""
        self.state = AgentState.PENDING
        self.reason = StopReason.NONE
        self.detail = ""
        self.requested = False
        self.holding = ""
        self.blockers: tuple[str, ...] = ()
        self.verified = False
        self.run: RunId | None = None
        self.attempt = 0
        self.process: AgentProcess | None = None
        self.meter: TreeMeter | None = None
        self._watch: TreeWatch | None = None
        self._reactions = Reactions(self._record, self._stands, self._limit_reached)
        self.gate = PauseGate()
        self.approvals: ApprovalDesk | None = None
        """Of the current run, when what lies beyond its rights is put before an operator."""
        self._narrow: Narrow | None = None
        self._services = services
        self._life: asyncio.Task[None] | None = None
        self._ending: Ending | None = None
        self._goes_on = False
        """The next run goes on where the newest one was cut off."""
        self._held: asyncio.Event | None = None
        """Set by `resume`, while a run that goes on waits for an operator's word."""
        self._soft: SoftPause | None = None
        """Asked for, and until it is resumed."""
        self._frozen = False
        """Its processes are, whatever else it waits for."""
        self._steps: Steps | None = None
        self._losses = Losses()
        self._breaker = Breaker(spec.restart)
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def starting(self) -> bool:
        """A life has begun, even when its first state change is not written yet: it holds a slot."""
        return (
            self._life is not None and not self._life.done() and self.state is AgentState.PENDING and not self.holding
        )

    @property
    def asks(self) -> bool:
        return self._services.options.ask or self.spec.security.approvals is ApprovalMode.ASK

    @property
    def name(self) -> AgentName:
        return self.spec.name

    async def narrow(self, rights: Rights, why: str) -> None:
        """Have less rights from now on. `why`: what was taken away."""
        self.rights = rights
        if self._narrow is not None:
            await self._narrow(rights, why)

    # -- what the scheduler does ----------------------------------------------------------------------------------

    async def request(self) -> None:
        """It is to start as soon as the scheduler allows. A finished agent begins a new run."""
        if self.state in LIVE:
            raise CommandRefused(f"agent {self.name} is {self.state} already")
        if self.requested and self.state is AgentState.PENDING:
            return
        self.requested = True
        self._settled.clear()
        if self.state in TERMINAL:
            self.attempt, self._losses = 0, Losses()
            self._breaker.close()
            await self._change(AgentState.PENDING, detail="asked to start again")

    async def take_up(self, left: AgentView) -> None:
        """Be where a runtime that was killed left this agent. Call before anything else. Raises StoreError."""
        self.requested = True
        self.state, self.reason, self.detail = left.state, left.reason, left.detail
        self.run, self.attempt = left.run, left.attempt
        if left.state in TERMINAL:
            proven = all_verified((task.verdict for task in left.tasks), left.objectives)
            self.verified = left.state is AgentState.COMPLETED and proven
            return
        self._settled.clear()
        self._goes_on = left.resumes is not None or left.state in LIVE
        if left.state is AgentState.PENDING:
            # Without a reason it waits for its first run, not for a restart.
            self.attempt = left.attempt if left.resumes is not None or left.reason is not StopReason.NONE else 0
            return
        held = left.held or self._paused_by_operator
        detail = "the runtime that ran it died; it goes on where it was"
        resumes = await run_on_record(left, self._services.transcripts)
        await self._change(AgentState.PENDING, StopReason.HOST_LOST, detail, resumes=resumes, held=held)

    def start(self) -> None:
        """Begin a run. Only for a requested PENDING agent."""
        self.blockers = ()
        self._life = spawn(self._live(), name=f"agent {self.name}")

    async def skip(self, why: str) -> None:
        await self._change(AgentState.SKIPPED, StopReason.DEPENDENCY_FAILED, why)
        self._settle()

    async def settled(self) -> None:
        """Wait until it is terminal and nothing of it runs."""
        await self._settled.wait()

    # -- what an operator does ------------------------------------------------------------------------------------

    @property
    def can_pause(self) -> bool:
        """Not yet at rest: running, about to start, or waiting with its processes awake."""
        waiting = self.state is AgentState.PAUSED and not self._frozen
        return (self._begins and self._soft is None) or self.state is AgentState.RUNNING or waiting

    @property
    def can_resume(self) -> bool:
        return self.state is AgentState.PAUSED or self._frozen or self._soft is not None

    @property
    def _begins(self) -> bool:
        return self.state is AgentState.STARTING or (self.requested and self.state is AgentState.PENDING)

    async def pause(
        self, reason: StopReason = StopReason.OPERATOR, why: str = "", *, kind: PauseKind = PauseKind.HARD
    ) -> StopProof:
        """Of an agent that is about to start: it is held before it runs anything. Raises CommandRefused,
        ProcessError."""
        if not self.can_pause:
            raise CommandRefused(f"agent {self.name} is {self.state}, there is nothing to pause")
        if self._begins:
            self._soft = SoftPause(reason, why or "held before it ran anything")
            return at_rest("held at its start")
        if kind is PauseKind.HARD:
            return await self._pause_hard(reason, why)
        return await self._pause_softly(kind, reason, why)

    async def _pause_hard(self, reason: StopReason, why: str) -> StopProof:
        """Freeze the whole tree. The gate closes first: no model request starts after this begins."""
        process, run = self.process, self.run
        if process is None or run is None:
            raise CommandRefused(f"agent {self.name} is ending")
        self.gate.close()
        try:
            frozen, held = await asyncio.gather(process.pause(), self._gateway_holds(run))
        except ProcessError:
            self._services.gateway.release(run)
            self.gate.open()
            raise
        proof = frozen if held else frozen.model_copy(update={"confirmed": False})
        self._frozen = self.process is process
        detail = pause_text(proof, why, gateway_holds=held)
        if self.state is AgentState.RUNNING:
            frozen_ms = frozen.duration_ms if proof.confirmed else None
            await self._change(AgentState.PAUSED, reason, detail, frozen_ms=frozen_ms)
        elif self._frozen:
            await self._record(Noticed(level=Level.INFO, code="agent.frozen", message=detail))
        return proof

    async def _gateway_holds(self, run: RunId) -> bool:
        """False: it has not confirmed that it begins no request."""
        try:
            await self._services.gateway.hold(run)
        except ModelError:
            return False
        return True

    async def _pause_softly(self, kind: PauseKind, reason: StopReason, why: str) -> StopProof:
        if self.state is not AgentState.RUNNING:
            raise CommandRefused(f"agent {self.name} is {self.state} and takes no step")
        soft = self._soft = SoftPause(reason, why or f"{kind}: nothing is frozen")
        if kind is PauseKind.INTERRUPT and self._steps is not None:
            self._steps.interrupt()
        return await soft.proof()

    async def _before_step(self) -> None:
        """A soft pause is taken here, a hard one waited for."""
        await self.gate.until_open()
        if (soft := self._soft) is not None:
            await self._stand(soft.reason, soft.detail)

    async def resume(self) -> StopProof:
        """Thaw it, and let it take its next step. Raises CommandRefused, ProcessError."""
        if not self.can_resume:
            raise CommandRefused(f"agent {self.name} is {self.state}, not paused")
        if self.reason is StopReason.BUDGET and self.state is AgentState.PAUSED and not self._frozen:
            raise CommandRefused(f"{self.name} waits for a higher cap: {self.detail}")
        proof = await self._thaw() if self._frozen else at_rest("word of an operator")
        self._soft = None
        if self._held is not None:
            self._held.set()
        return proof

    async def _thaw(self) -> StopProof:
        if self.process is None or self.run is None:
            raise CommandRefused(f"agent {self.name} is ending")
        proof = await self.process.resume()
        self._frozen = False
        if self.state is AgentState.PAUSED and self._held is None and self.reason is not StopReason.BUDGET:
            await self._change(AgentState.RUNNING, detail="resumed")
        self._services.gateway.release(self.run)
        self.gate.open()
        return proof

    async def kill(self, reason: StopReason = StopReason.OPERATOR, detail: str = "killed") -> StopProof | None:
        """The whole tree, now; or forget a waiting start. Returns the proof (None when there was no process)."""
        return await self._end(Ending(AgentState.KILLED, reason, detail), None)

    async def stop(
        self, grace_s: float, reason: StopReason = StopReason.OPERATOR, detail: str = "stopped"
    ) -> StopProof | None:
        """TERM, then kill after the grace."""
        return await self._end(Ending(AgentState.KILLED, reason, detail), grace_s)

    async def _end(self, ending: Ending, grace_s: float | None) -> StopProof | None:
        if self.state in TERMINAL:
            raise CommandRefused(f"agent {self.name} is {self.state} already")
        if not self.requested:
            raise CommandRefused(f"agent {self.name} was not started")
        if self._life is None or self._life.done():
            await self._change(ending.state, ending.reason, f"{ending.detail} before it started")
            self._soft = None
            self._settle()
            return None
        self._ending = ending
        process = self.process
        proof: StopProof | None = None
        if process is not None:
            if grace_s is not None and self.state is not AgentState.STOPPING:
                await self._change(AgentState.STOPPING, ending.reason, f"{ending.detail}, {grace_s:g} s grace")
            proof = await (process.kill() if grace_s is None else process.terminate(grace_s))
            if not proof.confirmed:
                self._ending = Ending(
                    ending.state, ending.reason, f"{ending.detail}; UNCONFIRMED, still there: {list(proof.survivors)}"
                )
        self._life.cancel()
        await asyncio.wait([self._life])
        if self.state not in TERMINAL:
            # Between two runs of one life.
            await self._change(ending.state, ending.reason, ending.detail)
        return proof

    # -- what its limits do -----------------------------------------------------------------------------------------

    def _stands(self) -> bool:
        return self._ending is not None or self.state in (AgentState.PAUSED, AgentState.STOPPING)

    async def _limit_reached(self, reason: StopReason, detail: str) -> None:
        """It cannot stay within that limit: it ends or pauses, as its spec says."""
        await self._break_off(reason, detail, pause=self.spec.security.on_limit is OnLimit.PAUSE)

    async def _stuck(self, policy: OnStuck, detail: str) -> None:
        """It goes round in circles, also after it was told so."""
        await self._break_off(StopReason.STUCK, detail, pause=policy is OnStuck.PAUSE)

    async def _break_off(self, reason: StopReason, detail: str, *, pause: bool) -> None:
        process = self.process
        if process is None or self._ending is not None:
            return
        if pause:
            # Not running any more, or ending by itself: then there is nothing to pause.
            with suppress(CommandRefused, ProcessError):
                await self.pause(reason, detail)
            return
        self._ending = ending = Ending(AgentState.FAILED, reason, detail)
        await process.kill()
        if self._ending is ending and self.process is process and self._life is not None:
            self._life.cancel()

    async def _until_told(self, begin: Beginning, *, held: bool) -> None:
        """Paused, softly, until an operator has looked at what was cut off: nothing is frozen, clocks stand still."""
        unknown = begin.cut_off.unknown if begin.cut_off is not None else ()
        if unknown and not self._services.options.go_on_unknown:
            reason, why = StopReason.UNKNOWN_OUTCOME, f"nobody knows whether this was done: {'; '.join(unknown)}"
        elif held:
            reason, why = StopReason.OPERATOR, "it was paused when the runtime died"
        else:
            return
        await self._stand(reason, f"{why}; look, then resume or kill it")

    async def _stand(self, reason: StopReason, detail: str) -> None:
        """Paused, softly, until an operator resumes it."""
        self._held = asyncio.Event()
        try:
            with self.gate.hold():
                await self._change(AgentState.PAUSED, reason, detail)
                if self._soft is not None:
                    self._soft.reached.set()
                await self._held.wait()
                await self.gate.until_open()
                await self._change(AgentState.RUNNING, detail="resumed")
        finally:
            self._held = None

    @asynccontextmanager
    async def _out_of_budget(self, shortage: BudgetReached) -> AsyncGenerator[None]:
        """Paused, softly, while no cap leaves room for the next model call: nothing is frozen, clocks stand still."""
        with self.gate.hold():
            await self._record(BudgetExhausted(figure=shortage.figure, wanted=shortage.wanted))
            await self._change(AgentState.PAUSED, StopReason.BUDGET, shortage.message)
            yield
            await self._change(AgentState.RUNNING, detail="there is room in its budget again")

    # -- a life: one request, perhaps several runs ----------------------------------------------------------------

    async def _live(self) -> None:
        try:
            while True:
                self._ending = None
                ending = await self._one_run()
                if ending.state is AgentState.PENDING:
                    self._goes_on = True
                    again = await self._waited(self._losses.delay_s(self.spec.restart), "it goes on")
                else:
                    again = await self._again(ending)
                if not again:
                    return
        finally:
            self._settle()

    async def _again(self, ending: Ending) -> bool:
        restart = self.spec.restart
        wanted = restart.policy is RestartPolicy.ON_FAILURE and ending.state is AgentState.FAILED
        if not wanted or ending.reason in FINAL or self._failures > restart.max_restarts:
            return False
        delay = restart_delay_s(restart, self._failures, JITTER)
        what = f"restart {self._failures} of {restart.max_restarts}"
        await self._change(AgentState.PENDING, ending.reason, f"{what} in {delay:.1f} s")
        return await self._waited(delay, what)

    async def _waited(self, seconds: float, what: str) -> bool:
        """Held back before its next run. False: it was ended meanwhile."""
        if not seconds:
            return True
        try:
            self.holding = f"{what} in {seconds:.1f} s"
            self._services.wake()
            await self._services.clock.sleep(seconds)
            self.holding = ""
        except asyncio.CancelledError:
            ended = self._ending or Ending(AgentState.KILLED, StopReason.SHUTDOWN, "the runtime stops")
            self.holding = ""
            await self._change(ended.state, ended.reason, f"{ended.detail} while it waited for a restart")
            return False
        return True

    async def _one_run(self) -> Ending:
        self.run = new_run_id()
        self.attempt += 1
        if self.attempt == 1:
            self._services.budgets.begin(self.name, len(self.spec.enabled_tasks(self._services.options.enable)))
        self.verified = False
        self.gate.open()
        voice = RunVoice(self._services, self.name, self.run)
        self._services.health.begin(self.name, self.run, self.spec.health, HealthReactions(self._record, self._stuck))
        ending = Ending(AgentState.FAILED, StopReason.INTERNAL, "the run ended without a result")
        try:
            outcome = await within(
                self._start_and_perform(voice), self.spec.security.limits.timeout_s, self.gate, self._services.clock
            )
            self.verified = outcome.verified
            ending = Ending(AgentState.COMPLETED if outcome.ok else AgentState.FAILED, outcome.reason, outcome.detail)
        except asyncio.CancelledError:
            ending = Ending(AgentState.KILLED, StopReason.SHUTDOWN, "the runtime stops")
        except DeadlineExceeded as error:
            ending = Ending(AgentState.FAILED, StopReason.TIMEOUT, f"its time limit of {error} is over")
        except ProcessError as error:
            ending = self._cut_off(error)
        except TokaError as error:
            ending = Ending(AgentState.FAILED, reason_of(error), f"{error.code}: {error}")
        except Exception as error:  # noqa: BLE001  # a defect in one run must not take the fleet down; it is reported whole
            ending = Ending(AgentState.FAILED, StopReason.INTERNAL, f"internal error: {error!r}")
        finally:
            # From here on a cancellation must not leave processes or a state behind.
            ending = await see_through(self._clean_up(ending), name=f"clean up {self.name}")
        return ending

    @property
    def _paused_by_operator(self) -> bool:
        """Or by a limit: it does not go on without an operator's word."""
        return self.state is AgentState.PAUSED and self.reason is not StopReason.BUDGET

    @property
    def _failures(self) -> int:
        """Runs of this life that failed; those that were cut off went on."""
        return self.attempt - self._losses.total

    def _cut_off(self, error: ProcessError) -> Ending:
        """A run whose processes were taken away goes on from its journal, unless that happens again and again."""
        detail = f"{error.code}: {error}"
        taken = isinstance(error, ForkServerLost) or (self.process is not None and self.state in _AT_WORK)
        if taken and self._losses.bearable(self._services.state().agents[self.name].tasks_done):
            return Ending(AgentState.PENDING, reason_of(error), f"{detail}; it goes on where it was")
        return Ending(AgentState.FAILED, reason_of(error), detail)

    async def _start_and_perform(self, voice: RunVoice) -> RunOutcome:
        begin, held = FRESH, False
        if self._goes_on:
            view = self._services.state().agents[self.name]
            begin, held = await beginning(view, self._services.transcripts), view.held
        self._goes_on = False
        await self._change(AgentState.STARTING)
        workspace, plan = await prepare(voice, self.spec, self.rights, asks=self.asks)
        process, unconfined = await launch(voice, self.spec, plan)
        self.process = process
        self._watch = self._services.guard.watch(process, plan, self._reactions)
        self.meter = TreeMeter(process.process)
        await voice.emit(
            ProcessStarted(process=process.process, worker_pid=process.worker_pid, protections=process.protections)
        )

        async def ready(desk: ApprovalDesk | None, narrow: Narrow) -> None:
            self.approvals, self._narrow = desk, narrow
            await self._change(AgentState.RUNNING)
            await self._until_told(begin, held=held)
            await self._before_step()

        self._steps = Steps(self._before_step)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        telling = spawn(
            tell_protections(voice.services, self.spec, unconfined, over, self._record),
            name=f"protections of {self.name}",
        )
        try:
            return await perform(
                voice,
                self.spec,
                self.rights,
                process,
                workspace,
                self.gate,
                asks=self.asks,
                on_ready=ready,
                on_budget=self._out_of_budget,
                steps=self._steps,
                begin=begin,
            )
        finally:
            over.set_result(None)
            await see_through(_joined(telling))

    async def _clean_up(self, ending: Ending) -> Ending:
        process, self.process, self.meter, self.approvals = self.process, None, None, None
        self._narrow = None
        self._frozen, self._soft, self._steps = False, None, None
        if self.run is not None:
            self._services.gateway.release(self.run)
        watch, self._watch = self._watch, None
        if watch is not None:
            reached = await self._services.guard.finish(watch, self._reactions)
            if reached is not None and ending.state in (AgentState.FAILED, AgentState.PENDING):
                ending = Ending(
                    AgentState.FAILED, ends_run(reached) or ending.reason, f"{reached.text}; {ending.detail}"
                )
        if self._ending is not None:
            ending = self._ending
        code: int | None = None
        if process is not None:
            proof = await process.kill()
            if not proof.confirmed:
                ending = Ending(
                    ending.state, ending.reason, f"{ending.detail}; UNCONFIRMED: {list(proof.survivors)} live"
                )
            code = await process.wait() if proof.confirmed else None
            await self._record(ProcessEnded(process=process.process, exit_code=code, survivors=proof.survivors))
        ending = await self._counted(ending, code)
        if self._ending is not None:
            ending = self._ending
        self.gate.open()
        cut_off = ending.state is AgentState.PENDING
        await self._change(
            ending.state,
            ending.reason,
            ending.detail,
            resumes=await self._on_record() if cut_off else None,
            held=cut_off and self._paused_by_operator,
        )
        return ending

    async def _on_record(self) -> RunId | None:
        """The run whose journal the next one goes on with."""
        with suppress(StoreError):
            return await run_on_record(self._services.state().agents[self.name], self._services.transcripts)
        return self.run

    async def _counted(self, ending: Ending, exit_code: int | None) -> Ending:
        """With so many deaths so close to each other it stays down until an operator starts it."""
        clock = self._services.clock
        last_words = self._services.health.end(self.run) if self.run is not None else ""
        if ending.reason not in CRASHES:
            return ending
        self._breaker.died(clock.monotonic(), death_text(exit_code, last_words, ending.detail))
        if not self._breaker.open:
            return ending
        seen = self._breaker.seen
        health = Health(
            level=HealthLevel.CRASH_LOOP,
            reason=HealthReason.DEATHS,
            since=clock.now(),
            count=len(seen),
            evidence=seen,
        )
        await self._record(HealthChanged(health=health))
        return Ending(AgentState.FAILED, StopReason.CRASH_LOOP, health.text(clock.now()))

    # -- the one writer -------------------------------------------------------------------------------------------

    async def _change(
        self,
        after: AgentState,
        reason: StopReason = StopReason.NONE,
        detail: str = "",
        *,
        resumes: RunId | None = None,
        held: bool = False,
        frozen_ms: float | None = None,
    ) -> None:
        before = self.state
        check_transition(before, after)
        self.state, self.reason, self.detail = after, reason, detail
        event = AgentStateChanged(
            before=before,
            after=after,
            reason=reason,
            detail=detail,
            attempt=max(1, self.attempt),
            resumes=resumes,
            held=held,
            frozen_ms=frozen_ms,
        )
        await self._record(event)
        self._services.wake()

    async def _record(self, event: Event) -> None:
        """What has happened has happened: when the store is full the event is kept and written as soon as it can be.
        (A side effect, by contrast, is refused then: see `RunVoice.emit`.)"""
        store = self._services.store
        self._services.output.flush(self.name)
        try:
            await store.append(event, agent=self.name, run=self.run)
        except StoreError:
            store.post(event, agent=self.name, run=self.run)

    def _settle(self) -> None:
        self._settled.set()
        self._services.wake()


async def _joined(task: asyncio.Task[None]) -> None:
    await task
