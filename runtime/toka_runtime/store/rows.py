"""An event as it is stored, there and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from pydantic_core import PydanticSerializationError

from toka_runtime.errors import ProtocolError, StoreError
from toka_runtime.protocol.codec import decode_event, known_kinds
from toka_runtime.protocol.events import Envelope, Event, OutputAppended, UnknownEvent
from toka_runtime.protocol.ids import AgentName, HostId, RunId

MAX_EVENT_BYTES = 1_000_000
"""Of one event's JSON: an envelope has to fit into a line of at most 1 MiB (REMOTE.md)."""

COLUMNS = "seq, at, host, agent, run, kind, body"
StoredRow = tuple[int, int, str, str | None, str | None, str, str]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_micros(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000)


def from_micros(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def kind_of(event: Event) -> str:
    kind: str = getattr(event, "kind", "")
    return kind


def clean_text(text: str) -> str:
    """Without lone surrogates, which no encoding of ours can carry; halves that belong together are joined."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def encode_body(event: Event) -> tuple[Event, str]:
    """The event and its JSON. Text that UTF-8 cannot hold is replaced, in both. Raises StoreError for one that cannot
    be written at all, before anything is queued."""
    try:
        body = _dump(event)
        if not body.isascii():
            body.encode()  # json.dumps lets lone surrogates pass
    except (PydanticSerializationError, UnicodeEncodeError, TypeError, ValueError):
        try:
            event = type(event).model_validate(_clean(event.model_dump()))
            body = _dump(event)
            body.encode()
        except (PydanticSerializationError, TypeError, ValueError) as error:
            raise StoreError(f"event {kind_of(event)} cannot be stored: {error}") from error
    if len(body) > MAX_EVENT_BYTES // 4 and (size := len(body.encode())) > MAX_EVENT_BYTES:
        if isinstance(event, OutputAppended):
            return encode_body(shorten(event, MAX_EVENT_BYTES // 8))
        raise StoreError(
            f"event {kind_of(event)} has {size} bytes, more than the {MAX_EVENT_BYTES} that one event may have"
        )
    return event, body


def shorten(event: OutputAppended, keep_bytes: int) -> OutputAppended:
    """Only the last `keep_bytes` of its text (UTF-8, never half a character); what is left out is counted."""
    raw = event.text.encode(errors="replace")
    if len(raw) <= keep_bytes:
        return event
    start = len(raw) - keep_bytes
    while start < len(raw) and raw[start] & 0xC0 == 0x80:
        start += 1
    return event.model_copy(
        update={"text": raw[start:].decode(errors="replace"), "dropped_bytes": event.dropped_bytes + start}
    )


def decode_row(row: StoredRow) -> Envelope:
    """Kinds that this version does not know, or no longer understands, are kept whole as `UnknownEvent`."""
    seq, at, host, agent, run, kind, body = row
    try:
        event: Event = decode_event(kind, body)
    except ProtocolError:
        event = _kept_whole(kind, body)
    return Envelope(
        seq=seq,
        at=from_micros(at),
        host=HostId(host),
        agent=None if agent is None else AgentName(agent),
        run=None if run is None else RunId(run),
        event=cast(Any, event),
    )


def _kept_whole(kind: str, body: str) -> Event:
    try:
        raw: Any = json.loads(body)
    except ValueError:
        raw = body
    if isinstance(raw, dict) and kind in known_kinds() and "kind" not in raw:
        # Stored by a version to which this kind was unknown, from a peer that left the kind out of the body.
        try:
            return decode_event(kind, json.dumps(raw | {"kind": kind}))
        except ProtocolError:
            pass
    return UnknownEvent(kind=kind, body=cast(dict[str, Any], raw) if isinstance(raw, dict) else {"raw": raw})


def _dump(event: Event) -> str:
    if isinstance(event, UnknownEvent):
        return json.dumps(event.body, ensure_ascii=False, separators=(",", ":"))
    return event.model_dump_json()


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in cast(dict[Any, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in cast(list[Any], value)]
    return value
