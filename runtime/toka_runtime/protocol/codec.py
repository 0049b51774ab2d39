"""Envelopes and commands to JSON bytes and back: one object a line, no newline inside. Unknown event kinds are kept."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, cast, get_args

from pydantic import TypeAdapter, ValidationError

from toka_runtime.errors import ProtocolError
from toka_runtime.protocol.commands import CommandRequest, CommandResult
from toka_runtime.protocol.events import Envelope, KnownEvent, UnknownEvent
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.snapshot import FleetState

_EVENTS_BEGIN = re.compile(rb'\{"n":\d+,"t":"evs","e":\[')


@lru_cache(1)
def known_kinds() -> frozenset[str]:
    union = get_args(KnownEvent)[0]
    return frozenset(cls.model_fields["kind"].default for cls in get_args(union))


@lru_cache(1)
def _event_adapter() -> TypeAdapter[Any]:
    return TypeAdapter(KnownEvent)


def encode(value: Model) -> bytes:
    """Compact JSON. Non-ASCII text stays UTF-8; newlines inside strings are escaped by JSON itself."""
    return value.model_dump_json(exclude_defaults=False).encode()


def encode_event(event: Model) -> bytes:
    return event.model_dump_json().encode()


def decode_event(kind: str, body: bytes | str) -> Any:
    """An event of a known kind, or `UnknownEvent` with the body whole."""
    try:
        if kind in known_kinds():
            return _event_adapter().validate_json(body)
        return UnknownEvent(kind=kind, body=json.loads(body))
    except (ValidationError, ValueError) as error:
        raise ProtocolError(f"event of kind {kind!r} cannot be read: {error}") from error


def decode_envelope(line: bytes | str) -> Envelope:
    try:
        raw: Any = json.loads(line)
    except ValueError as error:
        raise ProtocolError(f"envelope cannot be read: {error}") from error
    return envelope_from(raw)


class EventsFrame(Model):
    """A frame `evs` of the stream."""

    n: int
    e: list[Envelope]


def decode_events(line: bytes) -> EventsFrame | None:
    """A frame `evs` as this version writes it, read at once: that takes 40 % of the time of its JSON and then each of
    its events. None for everything else, and for a frame with something in it that needs a closer look."""
    if _EVENTS_BEGIN.match(line) is None:
        return None
    try:
        frame = EventsFrame.model_validate_json(line)
    except ValidationError:
        return None
    # An unknown kind may have fields of its own, which `envelope_from` keeps.
    return None if any(type(envelope.event) is UnknownEvent for envelope in frame.e) else frame


def envelope_from(raw: object) -> Envelope:
    """From decoded JSON; one that is decoded already is itself."""
    if isinstance(raw, Envelope):
        return raw
    try:
        if not isinstance(raw, dict):
            raise ProtocolError("envelope is not a JSON object")
        fields = cast(dict[str, Any], raw)
        event: Any = fields.get("event")
        if not isinstance(event, dict):
            raise ProtocolError("envelope has no event object")
        body = cast(dict[str, Any], event)
        kind = body.get("kind")
        if kind not in known_kinds():
            # An UnknownEvent that is passed on keeps its original body.
            inner = body["body"] if set(body) == {"kind", "body"} else body
            fields = fields | {"event": UnknownEvent(kind=str(kind), body=inner)}
        return Envelope.model_validate(fields)
    except (ValidationError, ValueError) as error:
        raise ProtocolError(f"envelope cannot be read: {error}") from error


def decode_state(raw: object) -> FleetState:
    """From decoded JSON."""
    try:
        return FleetState.model_validate(raw)
    except ValidationError as error:
        raise ProtocolError(f"state cannot be read: {error}") from error


def decode_request(line: bytes | str) -> CommandRequest:
    try:
        return CommandRequest.model_validate_json(line)
    except ValidationError as error:
        raise ProtocolError(f"command cannot be read: {error}") from error


def decode_result(line: bytes | str) -> CommandResult:
    try:
        return CommandResult.model_validate_json(line)
    except ValidationError as error:
        raise ProtocolError(f"command result cannot be read: {error}") from error
