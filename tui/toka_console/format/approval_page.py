"""A request for approval, and a grant, in full. Their countdown is not part of the page: it changes each second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.strip import Strip

from toka_console.format import units
from toka_console.format.agent_sections import fact, heading
from toka_console.format.cells import Row, wrap
from toka_console.format.denial_page import arguments

if TYPE_CHECKING:
    from toka_console.identity import AgentKey
    from toka_console.session import Session
    from toka_runtime.protocol.snapshot import ApprovalView, GrantView


def request(key: AgentKey, asked: ApprovalView, session: Session, width: int) -> list[Strip]:
    palette, wanted = session.palette, asked.request
    lines: list[Strip] = []
    for warning in wanted.warnings:
        lines += fact("▲ warning", warning, session, width, palette.bad)
    for denial in wanted.denials:
        row = Row(width, palette.base).gap().add(f"◇ {denial.operation.kind.value} ", palette.warn)
        pieces = wrap(denial.operation.target.replace("\n", " ⏎ "), max(8, row.room - 1))
        lines.append(row.add(pieces[0], palette.strong).strip())
        lines += [Row(width, palette.base).gap(3).add(piece, palette.strong).strip() for piece in pieces[1:]]
        needs = denial.capability or "no capability would allow it"
        lines += fact("needs", f"{needs}: {denial.reason}", session, width, palette.warn)
    count = f"  ×{wanted.count}, equal calls wait for the same answer" if wanted.count > 1 else ""
    lines += fact("asks", f"{wanted.tool}, task {wanted.task + 1}, turn {wanted.turn}{count}", session, width)
    lines += fact("agent", f"{key.name} on {key.host}  run {wanted.run}", session, width)
    lines.append(heading("YOU MAY ALLOW", session, width))
    for offer in wanted.offers:
        name = f"{offer.scope.value}{' wide' if offer.wide else ''}"
        lines += fact(name, offer.text, session, width)
    lines.append(heading("THE CALL", session, width))
    lines += arguments(wanted.arguments, session, width)
    refused = [denial.operation for denial in wanted.denials]
    for operation in wanted.operations:
        if operation not in refused:
            lines += fact("does too", f"{operation.kind.value} {operation.target}", session, width, palette.muted)
    lines += fact("call", wanted.call, session, width, palette.muted)
    lines += fact(
        "request", f"{wanted.id}  asked {units.clock_time(asked.requested_at)}", session, width, palette.muted
    )
    return [*lines, *fact("digest", wanted.digest, session, width, palette.muted)]


def grant(key: AgentKey, held: GrantView, session: Session, width: int) -> list[Strip]:
    palette, given = session.palette, held.grant
    lines = fact("opens", given.text, session, width, palette.warn)
    for operation in given.opens:
        lines += fact("", f"{operation.kind.value} {operation.target}", session, width, palette.strong)
    used = f"×{held.uses}" + (f", last {units.clock_time(held.last_used_at)}" if held.last_used_at else "")
    lines += fact("used", used, session, width)
    lines += fact("scope", f"{given.scope.value}, for {given.tool}, task {given.task + 1}", session, width)
    lines += fact("agent", f"{key.name} on {key.host}  run {given.run}", session, width)
    lines += fact("given by", f"{given.actor}  {units.clock_time(given.issued_at)}", session, width)
    lines += fact("grant", f"{given.id}  answers {given.approval}", session, width, palette.muted)
    return [*lines, *fact("digest", given.digest, session, width, palette.muted)]
