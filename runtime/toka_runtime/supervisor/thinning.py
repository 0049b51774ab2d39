"""What a slow reader is spared: superseded samples, and output beyond what anyone can read. Never a MUST event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toka_runtime.protocol.events import Delivery, Envelope, OutputAppended
from toka_runtime.store.rows import shorten

MERGE_ABOVE_EVENTS = 1000
"""A batch of fewer events keeps its segments apart, unless it has more text than this many characters:"""
MERGE_ABOVE_TEXT = 512 * 1024
BATCH_TEXT_BYTES = 512 * 1024
"""Of output in one batch of a slow reader; what is above is dropped, the oldest first, and counted."""
SEGMENT_BYTES = 128 * 1024
"""Of one merged segment."""

StreamKey = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Thinned:
    envelopes: list[Envelope]
    coalesced: int
    dropped_bytes: int


def count_must(entries: Sequence[Envelope]) -> int:
    return sum(entry.event.delivery is Delivery.MUST for entry in entries)


def thin(entries: Sequence[Envelope]) -> Thinned:
    """The same fold with less: of samples the newest per kind and agent, in its place; output merged into its newest
    segment per stream when there is much of it. The holes in the numbering are counted in `merged`."""
    text = sum(len(entry.event.text) for entry in entries if isinstance(entry.event, OutputAppended))
    merge = len(entries) > MERGE_ABOVE_EVENTS or text > MERGE_ABOVE_TEXT
    seen: set[tuple[str, object]] = set()
    streams: dict[StreamKey, list[OutputAppended]] = {}
    kept: list[Envelope] = []
    coalesced = 0
    for entry in reversed(entries):
        event = entry.event
        if isinstance(event, OutputAppended):
            if merge:
                key = (entry.agent, entry.run, event.stream, event.call, event.task, event.turn)
                if (segments := streams.get(key)) is not None:
                    segments.append(event)
                    coalesced += 1
                    continue
                streams[key] = [event]
        elif event.delivery is Delivery.LATEST and not entry.durable:
            if (place := (event.kind, entry.agent)) in seen:
                coalesced += 1
                continue
            seen.add(place)
        kept.append(entry)
    kept.reverse()
    if not streams:
        return Thinned(kept, coalesced, 0)
    dropped = 0
    room = BATCH_TEXT_BYTES
    # The newest segments get what room there is.
    for index in range(len(kept) - 1, -1, -1):
        entry = kept[index]
        event = entry.event
        if isinstance(event, OutputAppended):
            key = (entry.agent, entry.run, event.stream, event.call, event.task, event.turn)
            whole = _joined(streams[key])
            short = shorten(whole, min(room, SEGMENT_BYTES))
            room -= len(short.text.encode(errors="replace"))
            dropped += short.dropped_bytes - whole.dropped_bytes
            kept[index] = entry.model_copy(update={"event": short})
    return Thinned(kept, coalesced, dropped)


def _joined(segments: list[OutputAppended]) -> OutputAppended:
    """Newest first in, one segment out."""
    if len(segments) == 1:
        return segments[0]
    return segments[0].model_copy(
        update={
            "text": "".join(segment.text for segment in reversed(segments)),
            "dropped_bytes": sum(segment.dropped_bytes for segment in segments),
            "merged": len(segments) - 1 + sum(segment.merged for segment in segments),
        }
    )
