"""What is said of pauses, and one that begins only with the next step."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from toka_runtime.protocol.states import StopReason
from toka_runtime.sandbox.plan import StopProof

SOFT_ANSWER_S = 2.0
"""A step that takes longer is not waited for by who asks for a soft pause: it comes with the next event."""


@dataclass(slots=True)
class SoftPause:
    reason: StopReason
    detail: str
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """It stands."""

    async def proof(self) -> StopProof:
        """Unconfirmed while its step goes on."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(SOFT_ANSWER_S):
                await self.reached.wait()
        except TimeoutError:
            return at_rest("soft pause, as soon as its step is over").model_copy(update={"confirmed": False})
        waited_ms = (time.monotonic() - began) * 1000
        return at_rest("soft pause before its next step").model_copy(update={"duration_ms": waited_ms})


def at_rest(how: str) -> StopProof:
    """Of an agent none of whose processes had to be stopped or continued."""
    return StopProof(confirmed=True, mechanism=how, processes=0, duration_ms=0.0)


def pause_text(proof: StopProof, why: str, *, gateway_holds: bool) -> str:
    text = f"{proof.processes} processes stopped by {proof.mechanism} in {proof.duration_ms:.1f} ms"
    problems = [f"not stopped: {list(proof.survivors)}"] if proof.survivors else []
    if not gateway_holds:
        problems.append("the gateway has not confirmed that no model request begins")
    said = f"{text}, {'confirmed' if proof.confirmed else 'UNCONFIRMED, ' + '; '.join(problems)}"
    return f"{why}; {said}" if why else said
