"""Telling denials from many tasks at once: each is counted once, whatever is put out to make room."""

from __future__ import annotations

import asyncio
from collections import Counter

from fakes.clock import FakeClock
from toka_runtime.broker.denials import DenialLog
from toka_runtime.errors import StoreFull
from toka_runtime.protocol.capability import Denial, Layer, Operation, OperationKind
from toka_runtime.protocol.events import Event, OperationDenied


def denial(target: str) -> Denial:
    operation = Operation(kind=OperationKind.CONNECT, target=target)
    return Denial(operation=operation, capability="", layer=Layer.PROXY, rule="r", reason="")


async def test_nothing_is_lost_between_tasks() -> None:
    told: Counter[str] = Counter()
    emitted = 0

    async def emit(event: Event) -> None:
        nonlocal emitted
        await asyncio.sleep(0)
        emitted += 1
        if emitted % 7 == 0:
            raise StoreFull("the disk is full")
        assert isinstance(event, OperationDenied)
        told[event.denial.operation.target] += event.count

    log = DenialLog(emit, FakeClock())
    targets = [f"h{number % 300}.test:443" for number in range(1200)]
    found = await asyncio.gather(*(log.tell(denial(target), -1) for target in targets), return_exceptions=True)
    assert {type(result) for result in found} <= {type(None), StoreFull}
    while True:
        try:
            await log.flush()
            break
        except StoreFull:
            continue
    assert told == Counter(targets)
