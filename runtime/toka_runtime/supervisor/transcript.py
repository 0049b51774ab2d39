"""A run's journal for those who look on: page by page, and no secret leaves with it."""

from __future__ import annotations

import asyncio
from typing import Any

from toka_runtime.protocol.commands import ReadTranscript
from toka_runtime.supervisor.services import Services


async def transcript_page(services: Services, read: ReadTranscript) -> dict[str, Any]:
    """The answer to `ReadTranscript`."""
    page = await services.transcripts.page(read.run, read.part, read.after, read.limit)
    # Off the loop: a page may be a megabyte, and agents must not wait for its reader.
    records, redactions = await asyncio.to_thread(services.redactor.redact_value, page.records)
    return {"records": records, "next": page.next, "redactions": redactions}
