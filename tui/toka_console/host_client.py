"""A client as the console takes it: its host under a name of the console's own, its times by the console's clock.

Two runtimes may call themselves the same, and a host's clock may be wrong. Both are put right here, where what a far
runtime tells enters; what is sent back names the host as it names itself, and holds no times.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Protocol, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel

from toka_console.bridge import envelope_of
from toka_runtime.client.base import Batch, Link, Resync, RuntimeClient
from toka_runtime.protocol.commands import CommandRequest, CommandResult
from toka_runtime.protocol.ids import HostId, RunRef
from toka_runtime.protocol.snapshot import FleetState

T = TypeVar("T")
LEAST_S = 1.0
"""A clock is taken to be right as long as it may be off by no more than this."""
MEASURE_S = 2.0
"""How long a first snapshot waits until the host's clock has been measured."""
NO_TIME = timedelta(0)


class Attached(RuntimeClient, Protocol):
    """A client that tells when its link has changed."""

    on_link: Callable[[], None] | None


class HostClient:
    """`RuntimeClient` around another one."""

    def __init__(self, client: RuntimeClient, name: HostId) -> None:
        self.host = name
        self.on_link: Callable[[], None] | None = None
        self.ahead = NO_TIME
        """How much the host's clock is ahead: taken off every time that it tells. 0 while it is right."""
        self._client = client
        self._measured = asyncio.Event()
        if hasattr(client, "on_link"):
            cast(Attached, client).on_link = self._link_changed
            self._measure()
        else:
            self._measured.set()

    @property
    def link(self) -> Link:
        """Its `since` is the console's own time."""
        return self._client.link.model_copy(update={"host": self.host})

    async def snapshot(self) -> FleetState:
        state = await self._client.snapshot()
        try:
            async with asyncio.timeout(MEASURE_S):
                await self._measured.wait()
        except TimeoutError:
            pass  # An older runtime, or a slow line: its times are taken as they are until they are measured.
        return self._ours(state)

    async def events(self, after_seq: int) -> AsyncGenerator[Batch]:
        async with aclosing(self._client.events(after_seq)) as batches:
            async for batch in batches:
                self._measure()
                if isinstance(batch, Resync):
                    yield batch.model_copy(update={"state": self._ours(batch.state)})
                else:
                    yield [self._ours(envelope) for envelope in batch]

    async def send(self, request: CommandRequest) -> CommandResult:
        target = getattr(request.command, "target", None)
        if isinstance(target, RunRef):
            theirs = target.model_copy(update={"host": self._client.host})
            command = request.command.model_copy(update={"target": theirs})
            request = request.model_copy(update={"command": command})
        result = await self._client.send(request)
        if "events" not in result.data:
            return result
        events = [self._ours(envelope_of(item)) for item in cast(list[Any], result.data["events"])]
        return result.model_copy(update={"data": {**result.data, "events": events}})

    async def aclose(self) -> None:
        await self._client.aclose()

    def _ours(self, value: T) -> T:
        return cast(T, _translated(value, self.host, self.ahead))

    def _link_changed(self) -> None:
        self._measure()
        if self.on_link is not None:
            self.on_link()

    def _measure(self) -> None:
        """The correction stays as it is while it is good enough: times must not tremble with each measurement."""
        link = self._client.link
        if link.skew_s is None:
            return
        self._measured.set()
        within = link.skew_error_s + LEAST_S
        if abs(link.skew_s) <= within:
            self.ahead = NO_TIME
        elif abs(link.skew_s - self.ahead.total_seconds()) > within:
            self.ahead = timedelta(seconds=link.skew_s)


def _translated(value: Any, host: HostId, ahead: timedelta) -> Any:
    """`value` with all its hosts called `host` and all its times earlier by `ahead`; the same object when it has
    neither."""
    if isinstance(value, datetime):
        return value - ahead if ahead else value
    if isinstance(value, BaseModel):
        update: dict[str, Any] = {}
        for name, is_host in _fields(type(value)):
            before = value.__dict__.get(name)
            after = host if is_host else _translated(before, host, ahead)
            if after is not before:
                update[name] = after
        return value.model_copy(update=update) if update else value
    if isinstance(value, dict):
        mapping = cast("dict[Any, Any]", value)
        return {key: _translated(item, host, ahead) for key, item in mapping.items()}
    if isinstance(value, tuple | list | frozenset | set):
        items, kind = cast("list[Any]", value), cast("type[Any]", type(cast(Any, value)))
        return kind(_translated(item, host, ahead) for item in items)
    return value


@lru_cache(None)
def _fields(kind: type[BaseModel]) -> tuple[tuple[str, bool], ...]:
    """(field, whether it names the host) of those that may hold a host's name or a time, however deep."""
    annotations: dict[str, Any] = {name: field.annotation for name, field in kind.model_fields.items()}
    return tuple((name, found is HostId) for name, found in annotations.items() if _concerns(found))


def _concerns(annotation: Any) -> bool:
    if annotation is HostId or annotation is datetime:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return bool(_fields(annotation))
    origin = get_origin(annotation)
    if origin is Annotated:
        return _concerns(get_args(annotation)[0])
    if origin in (Union, UnionType, tuple, list, frozenset, set, dict):
        return any(_concerns(each) for each in get_args(annotation))
    return False
