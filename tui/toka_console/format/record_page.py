"""One event of the log in full: its place, who acted, every field, and what proves it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console.format import trail_text
from toka_console.format.agent_sections import fact, heading
from toka_console.format.denial_page import arguments

if TYPE_CHECKING:
    from toka_console.session import Session
    from toka_console.trail import Record

PROOF = "unavailable"
"""Of a record: where it stands in the hash chain."""


def page(record: Record, session: Session, width: int) -> list[Strip]:
    palette, envelope = session.palette, record.envelope
    lines = fact("what", record.line.text, session, width, palette.role(record.line.role))
    lines += fact("kind", envelope.event.kind, session, width, palette.accent)
    lines += fact("actor", trail_text.actor(envelope), session, width)
    who = f"{envelope.agent or 'none'} on {envelope.host}  run {envelope.run or 'none'}"
    lines += fact("agent", who, session, width)
    lines += fact("at", f"{envelope.at.isoformat()}  seq {envelope.seq:,}", session, width)
    lines += fact("proof", PROOF, session, width, palette.muted)
    lines.append(heading("RECORD", session, width))
    body = envelope.event.model_dump(mode="json", exclude={"kind"})
    return lines + arguments(body, session, width)


def as_json(record: Record) -> str:
    """The record on one line of JSON, as it is exported."""
    return json.dumps(record.envelope.model_dump(mode="json") | {"proof": PROOF}, ensure_ascii=True)
