"""Commands of operators: checked against the identity they froze, carried out once, recorded whatever comes of them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

from toka_runtime.broker.approvals import ApprovalDesk
from toka_runtime.errors import CommandRefused, NotAllowed, TokaError
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol.budget import Account
from toka_runtime.protocol.events import CommandHandled
from toka_runtime.protocol.ids import AgentName, CommandId, RunRef
from toka_runtime.protocol.states import LIVE, AgentState
from toka_runtime.sandbox.plan import StopProof
from toka_runtime.supervisor.agent import Agent
from toka_runtime.supervisor.supervisor import Supervisor
from toka_runtime.supervisor.transcript import transcript_page
from toka_runtime.supervisor.withdrawals import restore, withdraw

REMEMBERED = 10_000
DEDUPE_S = 600.0


class _PartlyDone(CommandRefused):
    """Done for some; the data say for whom."""

    def __init__(self, message: str, data: dict[str, Any]) -> None:
        super().__init__(message)
        self.data = data


class Dispatcher:
    """`handle` never raises for a refused command: the result says so. The same id is answered, not repeated."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._results: OrderedDict[CommandId, tuple[float, cmd.CommandRequest, asyncio.Future[cmd.CommandResult]]] = (
            OrderedDict()
        )

    async def handle(self, request: cmd.CommandRequest) -> cmd.CommandResult:
        clock = self._supervisor.services.clock
        now = clock.monotonic()
        self._forget(now)
        if (known := self._results.get(request.id)) is not None:
            if known[1].command != request.command:
                return cmd.CommandResult(
                    id=request.id, ok=False, code="command.reused_id", message="this id belongs to another command"
                )
            return await asyncio.shield(known[2])
        future: asyncio.Future[cmd.CommandResult] = asyncio.get_running_loop().create_future()
        if request.command.op not in cmd.QUERIES:
            self._results[request.id] = (now, request, future)
        try:
            result = await self._carry_out(request)
        except BaseException as error:
            result = cmd.CommandResult(id=request.id, ok=False, code="internal", message=repr(error))
            future.set_result(result)
            raise
        future.set_result(result)
        return result

    def _forget(self, now: float) -> None:
        while self._results:
            oldest = next(iter(self._results))
            if len(self._results) <= REMEMBERED and now - self._results[oldest][0] < DEDUPE_S:
                return
            del self._results[oldest]

    async def _carry_out(self, request: cmd.CommandRequest) -> cmd.CommandResult:
        supervisor = self._supervisor
        began = supervisor.services.clock.monotonic()
        data: dict[str, Any] = {}
        ok, code, message = True, "", ""
        try:
            if not cmd.may(request.role, request.command.op):
                raise NotAllowed(f"{request.command.op} takes another role than {request.role}, which this key has")
            message, data = await self._perform(request)
        except TokaError as error:
            ok, code, message = False, error.code, str(error)
            if isinstance(error, _PartlyDone):
                data = error.data
        if request.command.op not in cmd.QUERIES:
            await supervisor.record(
                CommandHandled(
                    command=request.id,
                    actor=request.actor,
                    name=request.command.op,
                    target=_target(request.command),
                    ok=ok,
                    message=message,
                    reason=request.reason,
                    duration_ms=(supervisor.services.clock.monotonic() - began) * 1000,
                )
            )
        return cmd.CommandResult(id=request.id, ok=ok, code=code, message=message, seq=supervisor.store.head, data=data)

    async def _perform(self, request: cmd.CommandRequest) -> tuple[str, dict[str, Any]]:
        supervisor = self._supervisor
        match command := request.command:
            case cmd.StartFleet():
                await supervisor.request()
                return "every loaded agent is asked to start", {}
            case cmd.StartAgent():
                await supervisor.request([command.agent])
                return f"{command.agent} is asked to start", {}
            case cmd.PauseAgent():
                return _say("paused", await self._run(command.target).pause(kind=command.kind))
            case cmd.ResumeAgent():
                return _say("resumed", await self._run(command.target).resume())
            case cmd.StopAgent():
                return _say("stopped", await self._run(command.target).stop(command.grace_s))
            case cmd.KillAgent():
                return _say("killed", await self._run(command.target).kill())
            case cmd.RestartAgent():
                agent = self._run(command.target)
                if agent.state in LIVE or (agent.requested and agent.state is AgentState.PENDING):
                    await agent.kill(detail="killed for a restart")
                await supervisor.request([agent.name])
                return f"{agent.name} starts again", {}
            case cmd.PauseFleet():
                kind = command.kind
                return await self._each(
                    command.agents, lambda agent: agent.can_pause, lambda agent: agent.pause(kind=kind), "paused"
                )
            case cmd.ResumeFleet():
                return await self._each(command.agents, lambda agent: agent.can_resume, Agent.resume, "resumed")
            case cmd.DecideApproval():
                return await self._desk(command.target).decide(command, request.actor), {}
            case cmd.RevokeGrant():
                return await self._desk(command.target).revoke(command.grant, request.actor), {}
            case cmd.WithdrawCapability():
                agent = self._run(command.target)
                return await withdraw(supervisor.services, agent, command.capability, request.actor), {}
            case cmd.RestoreCapability():
                agent = self._run(command.target)
                return await restore(supervisor.services, agent, command.capability, request.actor), {}
            case cmd.SetBudget():
                return await supervisor.set_budget(command.scope, command.name, command.budget, request.actor), {}
            case cmd.ReadEvents():
                limit = max(1, min(command.limit, 10_000))
                found = await supervisor.store.read(
                    after_seq=command.after_seq,
                    before_seq=command.before_seq,
                    agent=command.agent,
                    kinds=command.kinds,
                    limit=limit + 1,
                    newest_first=command.newest_first,
                )
                page = [envelope.model_dump(mode="json") for envelope in found[:limit]]
                return "", {"events": page, "more": len(found) > limit}
            case cmd.ReadDiff():
                agent = supervisor.agent(command.agent)
                diff, truncated = await supervisor.services.workspaces.diff(agent.name, command.max_bytes)
                return "", {
                    "diff": await asyncio.to_thread(supervisor.services.redactor.text, diff),
                    "truncated": truncated,
                }
            case cmd.ReadTranscript():
                return "", await transcript_page(supervisor.services, command)

    async def _each(
        self,
        names: tuple[AgentName, ...],
        applies: Callable[[Agent], bool],
        act: Callable[[Agent], Awaitable[StopProof]],
        done: str,
    ) -> tuple[str, dict[str, Any]]:
        """The same act on every agent in scope to which it applies, at once; each one's proof is in the data, also of
        the _PartlyDone that is raised when some fail."""
        agents = [
            agent for agent in self._supervisor.agents.values() if applies(agent) and (not names or agent.name in names)
        ]

        async def one(agent: Agent) -> dict[str, Any]:
            try:
                proof = await act(agent)
            except TokaError as error:
                return {"ok": False, "code": error.code, "message": str(error)}
            return {"ok": proof.confirmed, "proof": proof.model_dump()}

        answers = await asyncio.gather(*(one(agent) for agent in agents))
        data = {agent.name: answer for agent, answer in zip(agents, answers, strict=True)}
        bad = [name for name, answer in data.items() if not answer["ok"]]
        if bad:
            raise _PartlyDone(f"not {done}: {', '.join(bad)}; {len(agents) - len(bad)} {done}", {"agents": data})
        return f"{len(agents)} agents {done}", {"agents": data}

    def _desk(self, target: RunRef) -> ApprovalDesk:
        agent = self._run(target)
        if agent.approvals is None:
            raise CommandRefused(f"nothing of {agent.name} waits for an operator or rests on a grant")
        return agent.approvals

    def _run(self, target: RunRef) -> Agent:
        """The agent, if the run and process that the operator meant are still the current ones."""
        supervisor = self._supervisor
        if target.host != supervisor.options.host:
            raise CommandRefused(f"this is host {supervisor.options.host}, not {target.host}")
        agent = supervisor.agent(target.agent)
        if target.run is not None and target.run != agent.run:
            raise CommandRefused(f"run {target.run} of {target.agent} is over; now it is {agent.run or 'not running'}")
        current = agent.process.process if agent.process else None
        if target.process is not None and current is not None and target.process != current:
            raise CommandRefused(f"process {target.process.pid} of {target.agent} is gone; now it is {current.pid}")
        return agent


def _say(done: str, proof: StopProof | None) -> tuple[str, dict[str, Any]]:
    if proof is None:
        return f"{done}; it had no process", {}
    text = f"{done}: {proof.processes} processes by {proof.mechanism} in {proof.duration_ms:.1f} ms"
    if not proof.confirmed:
        left = f"{done} but for {list(proof.survivors)}" if proof.survivors else f"by {proof.mechanism}"
        text = f"UNCONFIRMED, {left}"
    return text, {"proof": proof.model_dump()}


def _target(command: cmd.Command) -> str:
    match command:
        case (
            cmd.PauseAgent(target=target)
            | cmd.ResumeAgent(target=target)
            | cmd.StopAgent(target=target)
            | cmd.KillAgent(target=target)
            | cmd.RestartAgent(target=target)
        ):
            return f"{target.host}/{target.agent}/{target.run or '-'}"
        case cmd.DecideApproval(target=target, approval=identity) | cmd.RevokeGrant(target=target, grant=identity):
            return f"{target.host}/{target.agent}/{target.run or '-'}/{identity}"
        case (
            cmd.WithdrawCapability(target=target, capability=name)
            | cmd.RestoreCapability(target=target, capability=name)
        ):
            return f"{target.host}/{target.agent}/{target.run or '-'}/{name}"
        case cmd.StartAgent(agent=agent):
            return agent
        case cmd.SetBudget(scope=scope, name=name):
            return Account(scope, name).key
        case cmd.PauseFleet(agents=agents) | cmd.ResumeFleet(agents=agents):
            return ",".join(agents) or "all"
        case _:
            return ""
