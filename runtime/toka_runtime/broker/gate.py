"""The gate: the only path from what an agent asks for to a side effect.

Checked, told, decided, told, carried out in a child of its own, told. Each event is durable before the next step, so a
store that cannot be written stops the next side effect. Nothing here is executed without an `Allowed` for every one of
its operations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from toka_runtime.aio import cancel_and_wait, see_through, spawn
from toka_runtime.broker.approvals import ApprovalDesk, Asked, Cover
from toka_runtime.broker.denials import DenialLog, Emit
from toka_runtime.broker.grants import LiveGrant, TakenBack
from toka_runtime.broker.kernel_refusals import kernel_denial
from toka_runtime.broker.live_text import LiveText
from toka_runtime.broker.operations import Prepared, prepare
from toka_runtime.broker.shown import (
    Redact,
    arguments_digest,
    shown_arguments,
    shown_operation,
    shown_text,
    summary_of,
    valid,
)
from toka_runtime.broker.validation import InvalidArguments
from toka_runtime.clock import Clock
from toka_runtime.errors import ProcessError
from toka_runtime.policy.catalogue import Catalogue, load_catalogue
from toka_runtime.policy.engine import decide
from toka_runtime.protocol.capability import Allowed, Decision, Denial, Layer, Operation, OperationKind, Rights
from toka_runtime.protocol.events import OperationAllowed, Stream, ToolCallEnded, ToolCallStarted
from toka_runtime.protocol.ids import CallId
from toka_runtime.sandbox.plan import KernelRefusal, ToolOutcome, ToolRequest, ToolRunner

Output = Callable[[Stream, str, int, int, CallId], None]
"""(stream, text, task, turn, call)."""
FILE_TOOL_TIMEOUT_S = 60.0
CUT_S = 2.0
SANDBOX_RULE = "sandbox:refused"
TOLD_BY_PROXY = "tool.refused_by_proxy"
"""The proxy has recorded this refusal itself."""
_PLAIN_CODES = ("", "tool.exit_status", "tool.http_status", "tool.timeout")
"""Results that speak for themselves."""
_NAME_CHARS = 200


@dataclass(frozen=True, slots=True)
class Finish:
    """The agent's own word on its task. Nothing here is proof."""

    status: Literal["done", "blocked", "failed"]
    summary: str
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ToolReply:
    content: str
    is_error: bool
    finish: Finish | None = None


@dataclass(frozen=True, slots=True)
class _Done:
    reply: ToolReply
    outcome: Literal["ok", "error", "denied"]
    result_bytes: int = 0
    result_digest: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in a run a call belongs."""

    call: CallId
    task: int
    turn: int


class Gate:
    """For one run of one agent. `rights` may be replaced between calls: the next operation is decided with the new."""

    def __init__(
        self,
        *,
        root: Path | str,
        rights: Rights,
        runner: ToolRunner,
        emit: Emit,
        output: Output,
        clock: Clock,
        environment: Mapping[str, str],
        redact: Redact | None = None,
        timeout_s: float = 120.0,
        catalogue: Catalogue | None = None,
        approvals: ApprovalDesk | None = None,
    ) -> None:
        """`emit` returns when an event is durable and raises StoreError when it cannot be. `timeout_s` is what a
        command gets that asks for no time of its own. Without `approvals` what is not covered is denied at once."""
        self.rights = self._started_with = rights
        self._cut = asyncio.Event()
        """Set when the calls that were begun before have to end."""
        self._why = ""
        self._open: set[asyncio.Task[_Done]] = set()
        self._root = str(Path(root).resolve())
        self._runner = runner
        self._emit = emit
        self._output = output
        self._clock = clock
        self._environment = dict(environment)
        self._redact_live = redact
        self._redact: Redact = redact or (lambda text: text)
        self._timeout_s = timeout_s
        self._remedies = (catalogue or load_catalogue()).remedies
        self._denials = DenialLog(emit, clock)
        self._approvals = approvals

    @property
    def rights_of_programs(self) -> Rights:
        """What programs may do now: with what operators have granted. For the proxy."""
        return self._approvals.grants.widened(self.rights) if self._approvals else self.rights

    async def call(self, name: str, arguments: object, *, call: CallId, task: int, turn: int) -> ToolReply:
        """Answer one tool call of the model; whatever it asked for, the answer is for the model to read. Raises
        StoreError (nothing was executed after it), ProcessError when the agent's process tree is gone."""
        name, place = valid(name[:_NAME_CHARS]), _Place(CallId(valid(call[:_NAME_CHARS])), task, turn)
        began = self._clock.monotonic()
        prepared: Prepared | None = None
        problem = ""
        try:
            prepared = prepare(name, arguments, self._root)
        except InvalidArguments as error:
            problem = str(error)
        started = ToolCallStarted(
            call=place.call,
            task=task,
            turn=turn,
            tool=name,
            arguments=shown_arguments(arguments, self._redact),
            arguments_digest=arguments_digest(arguments),
            target=shown_text(prepared.target if prepared else "", self._redact, 500),
        )
        try:
            await self._emit(started)
            done = await self._serve(name, prepared, problem, place)
        except asyncio.CancelledError:
            await see_through(self._ended(name, place, "cancelled", began), name="tool call cancelled")
            raise
        except ProcessError:
            await self._ended(name, place, "unknown", began)
            raise
        await self._ended(name, place, done.outcome, began, done)
        return done.reply

    def decide(self, operation: Operation) -> Decision:
        return decide(operation, self.rights, self._remedies)

    async def admit(self, operation: Operation, *, task: int = -1) -> Decision:
        """Decide and tell. For operations that are carried out elsewhere, such as model calls. Raises StoreError."""
        decision = self.decide(operation)
        await self._tell(operation, decision, task)
        return decision

    async def narrow(self, rights: Rights, why: str) -> None:
        """Less rights from now on: whatever begins is decided, and held by the kernel, by these; calls in progress are
        ended. Returns when they are, or after `CUT_S` (those of a frozen tree end when it goes on)."""
        self.rights = rights
        self._why, cut, self._cut = why, self._cut, asyncio.Event()
        cut.set()
        if self._open:
            await asyncio.wait(set(self._open), timeout=CUT_S)

    async def flush(self) -> None:
        """Tell the denials that are still counted. Call when the run ends. Raises StoreError."""
        await self._denials.flush()

    # -- one call -------------------------------------------------------------------------------------------------

    async def _serve(self, name: str, prepared: Prepared | None, problem: str, place: _Place) -> _Done:
        if name not in self.rights.tools:
            return await self._not_offered(name, prepared, place)
        if prepared is None:
            return _answer(f"Invalid call of {name}: {problem}. Nothing was done.", "error")
        if prepared.tool == "finish":
            return _finished(prepared.arguments)
        # Of the time of the decision: what is taken away after it ends the call, wherever it is by then.
        cut = self._cut
        refused, used = await self._decide_all(prepared, place)
        if refused:
            return _answer(refused, "denied")
        try:
            if self._approvals is None or not used:
                own = self.rights if self.rights is not self._started_with else None
                return await self._unless(cut, lambda: self._run(prepared, place, own))
            granted = self._approvals.grants.widened(self.rights, used)
            return await self._approvals.grants.carry_out(
                used, place.call, prepared.tool, lambda: self._unless(cut, lambda: self._run(prepared, place, granted))
            )
        except TakenBack as error:
            return _answer(f"The operator has revoked {error}; the call was ended before it was done.", "denied")

    async def _unless(self, cut: asyncio.Event, work: Callable[[], Coroutine[Any, Any, _Done]]) -> _Done:
        """Raises TakenBack when rights were taken away before the call's end; it has ended then, or never begun."""
        if cut.is_set():
            raise TakenBack(self._why)
        working, cutting = spawn(work(), name="tool call"), spawn(cut.wait(), name="cut")
        self._open.add(working)
        try:
            await asyncio.wait({working, cutting}, return_when=asyncio.FIRST_COMPLETED)
            if cut.is_set():
                raise TakenBack(self._why)
            return working.result()
        finally:
            await cancel_and_wait(cutting)
            await cancel_and_wait(working)
            self._open.discard(working)

    async def _not_offered(self, name: str, prepared: Prepared | None, place: _Place) -> _Done:
        """What a tool that is not offered would have done is told by its exact target where there is one."""
        if prepared is not None:
            refused, _ = await self._decide_all(prepared, place, carry_out=False)
            if refused:
                return _answer(refused, "denied")
        operation = Operation(kind=OperationKind.TOOL, target=name, tool=name, call=place.call)
        decision = self.decide(operation)
        await self._tell(operation, decision, place.task)
        return _answer(_refusal([decision]) if isinstance(decision, Denial) else "Denied.", "denied")

    async def _decide_all(
        self, prepared: Prepared, place: _Place, *, carry_out: bool = True
    ) -> tuple[str, dict[LiveGrant, tuple[str, ...]]]:
        """Decide every operation, tell the outcome, and return the refusal for the model ("" when all are allowed) and
        the grants that the call rests on."""
        operations = tuple(operation.model_copy(update={"call": place.call}) for operation in prepared.operations)
        cover = Cover(tuple(self._explained(self.decide(operation), prepared) for operation in operations), {})
        if self._approvals is not None and carry_out:
            asked = Asked(place.call, place.task, place.turn, prepared.tool, prepared.arguments)
            cover = await self._approvals.cover(asked, operations, cover.decisions, self.rights)
        decisions = cover.decisions
        denials = [decision for decision in decisions if isinstance(decision, Denial)]
        for operation, decision in zip(operations, decisions, strict=True):
            # What is allowed but not carried out has not happened.
            if isinstance(decision, Denial) or (carry_out and not denials):
                await self._tell(operation, decision, place.task)
        return (_refusal(denials), {}) if denials else ("", cover.used)

    @staticmethod
    def _explained(decision: Decision, prepared: Prepared) -> Decision:
        if isinstance(decision, Allowed) or not prepared.unreadable:
            return decision
        return decision.model_copy(update={"reason": f"{decision.reason}: here {prepared.unreadable}"})

    async def _tell(self, operation: Operation, decision: Decision, task: int, count: int = 1) -> None:
        shown = shown_operation(operation, self._redact)
        if isinstance(decision, Denial):
            reason = shown_text(decision.reason, self._redact)
            hint = shown_text(decision.hint, self._redact)
            update = {"operation": shown, "reason": reason, "hint": hint}
            await self._denials.tell(decision.model_copy(update=update), task, count)
        else:
            await self._emit(
                OperationAllowed(
                    operation=operation.kind,
                    target=shown.target,
                    tool=operation.tool,
                    call=operation.call,
                    rule=decision.rule,
                    capability=decision.capability,
                )
            )

    async def _run(self, prepared: Prepared, place: _Place, granted: Rights | None = None) -> _Done:
        """`granted`: the rights of this call, where they are not those that the agent's process was started with."""
        arguments = dict(prepared.arguments)
        timeout_s = FILE_TOOL_TIMEOUT_S
        if prepared.tool == "run_command":
            timeout_s = float(arguments.setdefault("timeout_s", self._timeout_s))
        elif prepared.tool in ("list_files", "search_text"):
            arguments["exclude"] = [rule.glob for rule in self.rights.deny_read]
        request = ToolRequest(
            call=place.call,
            tool=prepared.tool,
            arguments=arguments,
            root=self._root,
            environment=self._environment,
            timeout_s=timeout_s,
            granted=granted,
        )
        streams = {stream: self._live(stream, place) for stream in (Stream.STDOUT, Stream.STDERR)}
        try:
            outcome = await self._runner.run_tool(
                request,
                lambda stream, data: streams[Stream(stream)].add(data),
                lambda refusal: self._tell_kernel(refusal, prepared.tool, place),
            )
        finally:
            for text in streams.values():
                text.close()
        if outcome.refused_target and outcome.code != TOLD_BY_PROXY:
            await self._tell_refused(prepared, outcome, place)
        return self._answered(outcome)

    def _live(self, stream: Stream, place: _Place) -> LiveText:
        return LiveText(lambda text: self._output(stream, text, place.task, place.turn, place.call), self._redact_live)

    async def _tell_kernel(self, refusal: KernelRefusal, tool: str, place: _Place) -> None:
        operation = Operation(kind=refusal.kind, target=self._as_seen(refusal.target), tool=tool, call=place.call)
        denial = kernel_denial(operation, refusal.rule, self.decide)
        await self._tell(denial.operation, denial, place.task, refusal.count)

    def _as_seen(self, target: str) -> str:
        """Paths in the agent's folder are told relative to it, as policy does."""
        return target.removeprefix(f"{self._root}/") if target != self._root else "."

    async def _tell_refused(self, prepared: Prepared, outcome: ToolOutcome, place: _Place) -> None:
        first = prepared.operations[0]
        operation = first.model_copy(update={"target": outcome.refused_target, "call": place.call})
        denial = Denial(
            operation=operation,
            capability="",
            layer=Layer.SANDBOX,
            rule=SANDBOX_RULE,
            reason=outcome.content,
            hint="policy had allowed it; the kernel or the tool did not",
        )
        await self._tell(operation, denial, place.task)

    def _answered(self, outcome: ToolOutcome) -> _Done:
        content = self._redact(valid(outcome.content)) or "(no output)"
        if outcome.code not in _PLAIN_CODES:
            content = f"Error ({outcome.code}): {content}"
        word: Literal["ok", "error", "denied"] = "ok" if outcome.ok else "denied" if outcome.refused_target else "error"
        return _Done(ToolReply(content, not outcome.ok), word, outcome.result_bytes, outcome.digest)

    async def _ended(
        self,
        name: str,
        place: _Place,
        outcome: Literal["ok", "error", "denied", "cancelled", "unknown"],
        began: float,
        done: _Done | None = None,
    ) -> None:
        await self._emit(
            ToolCallEnded(
                call=place.call,
                tool=name,
                outcome=outcome,
                duration_s=max(self._clock.monotonic() - began, 0.0),
                summary=summary_of(self._redact(done.reply.content)) if done else "",
                result_bytes=done.result_bytes if done else 0,
                result_digest=done.result_digest if done else "",
            )
        )


def _answer(content: str, outcome: Literal["error", "denied"]) -> _Done:
    return _Done(ToolReply(content, is_error=True), outcome, len(content.encode()))


def _finished(arguments: dict[str, Any]) -> _Done:
    finish = Finish(arguments["status"], arguments["summary"], tuple(arguments["evidence"]))
    content = f"{finish.status}: {finish.summary}"
    return _Done(ToolReply(content, is_error=False, finish=finish), "ok", len(content.encode()))


def _refusal(denials: list[Denial]) -> str:
    lines = ["Denied by policy; nothing was done."]
    for denial in denials:
        missing = f"missing capability: {denial.capability}" if denial.capability else "no capability allows it"
        lines.append(
            f"- {denial.operation.kind} {shown_text(denial.operation.target, str, 500)}: {denial.reason} "
            f"[{missing}; rule: {denial.rule}]" + (f" Hint: {denial.hint}." if denial.hint else "")
        )
    lines.append("Go on without it, or finish with status blocked and say what is missing.")
    return "\n".join(lines)
