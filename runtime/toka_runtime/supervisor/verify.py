"""Proof: a declared command, run by the runtime after the agent has stopped writing.

This is the only way to the verdict `verified`. No word in an answer is ever judged: what a model says about its work,
however sure it sounds, stays a claim, and what a command prints is shown to people but does not decide. Only its exit
code does, and only when the command could really be run to its end.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from toka_runtime.clock import Clock, SystemClock
from toka_runtime.errors import ProcessError
from toka_runtime.protocol.events import Verified
from toka_runtime.protocol.ids import CallId
from toka_runtime.protocol.spec import Verify
from toka_runtime.protocol.states import Verdict
from toka_runtime.sandbox.plan import OutputChunk, ToolOutcome, ToolRequest, ToolRunner

TAIL_CHARACTERS = 2_000
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127
_SIGNALS = range(129, 193)
"""By these exit codes a shell says that a signal ended the command."""


def _ignore(stream: str, chunk: bytes) -> None:
    """Nobody follows the output live."""


async def run_verification(
    verify: Verify,
    *,
    runner: ToolRunner,
    root: str | Path,
    environment: Mapping[str, str],
    subject: str,
    task: int | None = None,
    objective: int | None = None,
    call: CallId | None = None,
    clock: Clock | None = None,
    on_output: OutputChunk = _ignore,
) -> Verified:
    """Run the command in the agent's tree, with the agent's rights and environment; `subject` is for people.

    Exit 0 is VERIFIED, any other exit code of the command's own FAILED. INCONCLUSIVE: it says nothing about the work,
    for it could not be run to its end (missing program, timeout, ended by a signal, tree gone). Never raises for what
    a command can do. Cancelling kills its processes.
    """
    clock = clock or SystemClock()
    request = ToolRequest(
        call=call or CallId(f"verify {subject}"),
        tool="run_command",
        # `argv` is run as it is; the line says the same to those who read it.
        arguments={"command": shlex.join(verify.argv), "argv": list(verify.argv), "timeout_s": verify.timeout_s},
        root=str(root),
        environment=dict(environment),
        timeout_s=verify.timeout_s,
    )
    began = clock.monotonic()
    try:
        outcome = await runner.run_tool(request, on_output)
    except ProcessError as error:
        outcome = ToolOutcome(ok=False, content=str(error), code=error.code)
    return Verified(
        subject=subject,
        task=task,
        objective=objective,
        command=verify.text,
        exit_code=outcome.exit_code,
        verdict=verdict_of(outcome),
        duration_s=clock.monotonic() - began,
        output_tail=outcome.content[-TAIL_CHARACTERS:],
    )


def verdict_of(outcome: ToolOutcome) -> Verdict:
    """Fails closed: only an exit code of 0 that the tool itself calls good is a proof."""
    if outcome.code not in ("", "tool.exit_status") or outcome.exit_code is None:
        return Verdict.INCONCLUSIVE
    if outcome.exit_code == 0:
        return Verdict.VERIFIED if outcome.ok else Verdict.INCONCLUSIVE
    if outcome.exit_code in (_NOT_EXECUTABLE, _NOT_FOUND) or outcome.exit_code < 0 or outcome.exit_code in _SIGNALS:
        return Verdict.INCONCLUSIVE
    return Verdict.FAILED


@dataclass(frozen=True, slots=True)
class VerdictSummary:
    """Many verdicts in one. The kinds stay apart: a claim never counts as verified."""

    verdict: Verdict
    """The weakest of all: FAILED, else INCONCLUSIVE, else CLAIMED, else VERIFIED; NONE without any."""
    counts: Mapping[Verdict, int]
    text: str
    """`2 verified · 1 claimed`; "" without any."""


_WEAKEST_FIRST = (Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.CLAIMED, Verdict.VERIFIED)


def summarise(verdicts: Iterable[Verdict]) -> VerdictSummary:
    """Sum up verdicts; NONE (nothing is known yet) does not count."""
    counts = Counter(verdict for verdict in verdicts if verdict is not Verdict.NONE)
    weakest = next((verdict for verdict in _WEAKEST_FIRST if counts[verdict]), Verdict.NONE)
    shown = [verdict for verdict in reversed(_WEAKEST_FIRST) if counts[verdict]]
    text = " · ".join(f"{counts[verdict]} {verdict}" for verdict in shown)
    return VerdictSummary(weakest, {verdict: counts[verdict] for verdict in shown}, text)
