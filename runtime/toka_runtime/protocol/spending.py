"""Who has spent what: the fold of model calls into accounts."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from toka_runtime.protocol import events as ev
from toka_runtime.protocol.budget import Account, BudgetScope, Spending
from toka_runtime.protocol.model import Model
from toka_runtime.protocol.states import AgentState
from toka_runtime.protocol.usage import Budget

KEPT_DAYS = 32


class OpenCall(Model):
    """A call that has begun: its accounts, and what it may use at worst."""

    accounts: tuple[Account, ...]
    tokens: int
    cost_usd: float | None


class Ledgers(Model):
    """Keys are `Account.key`, e.g. `agent:docs`, `fleet`, `day:2026-01-31`."""

    spent: dict[str, Spending] = Field(default_factory=dict[str, Spending])
    caps: dict[str, Budget] = Field(default_factory=dict[str, Budget])
    """Set by an operator or an option; the caps of specs are in the specs."""
    open: dict[str, OpenCall] = Field(default_factory=dict[str, OpenCall])
    """By `run/call`."""


def accounts_of(agent: str, task: int, day: str) -> tuple[Account, ...]:
    """Every account that a model call is charged to. `day`: ISO date, UTC."""
    return (
        Account(BudgetScope.TASK, f"{agent}/{task}"),
        Account(BudgetScope.AGENT, agent),
        Account(BudgetScope.FLEET, ""),
        Account(BudgetScope.DAY, day),
    )


def fold_spending(books: Ledgers, envelope: ev.Envelope) -> Ledgers:
    """`books` carried forward by one event; the same object when it says nothing about money."""
    event, at = envelope.event, envelope.at
    match event:
        case ev.ModelCallStarted() if envelope.agent is not None:
            call = OpenCall(
                accounts=accounts_of(envelope.agent, event.task, at.date().isoformat()),
                tokens=event.reserved_tokens,
                cost_usd=event.reserved_cost_usd,
            )
            return books.model_copy(update={"open": books.open | {f"{envelope.run}/{event.call}": call}})
        case ev.ModelCallEnded() if envelope.agent is not None:
            key = f"{envelope.run}/{event.call}"
            begun = books.open.get(key)
            accounts = begun.accounts if begun else accounts_of(envelope.agent, event.task, at.date().isoformat())
            still = {name: call for name, call in books.open.items() if name != key}
            spent = _charged(books.spent, accounts, event.usage.total_tokens, event.cost_usd, at)
            return books.model_copy(update={"open": still, "spent": spent})
        case ev.RuntimeStarted():
            return abandoned(books, at)
        case ev.AgentStateChanged(after=AgentState.STARTING, attempt=1) if envelope.agent is not None:
            # Caps of an agent and its tasks hold for a run with its restarts; this is a new one.
            mine = (f"{BudgetScope.AGENT}:{envelope.agent}", f"{BudgetScope.TASK}:{envelope.agent}/")
            kept = {key: each for key, each in books.spent.items() if key != mine[0] and not key.startswith(mine[1])}
            return books if len(kept) == len(books.spent) else books.model_copy(update={"spent": kept})
        case ev.BudgetSet():
            key = Account(event.scope, event.name).key
            # "No cap" is kept, too: it wins over the cap of a spec.
            return books.model_copy(update={"caps": books.caps | {key: event.budget}})
        case _:
            return books


def abandoned(books: Ledgers, at: datetime) -> Ledgers:
    """With the calls of a runtime that died while they ran: what they cost is not known, so the worst is counted."""
    spent = books.spent
    for call in books.open.values():
        spent = _charged(spent, call.accounts, call.tokens, call.cost_usd, at)
    return books.model_copy(update={"open": {}, "spent": spent}) if books.open else books


def _charged(
    spent: dict[str, Spending],
    accounts: tuple[Account, ...],
    tokens: int,
    cost_usd: float | None,
    at: datetime,
) -> dict[str, Spending]:
    changed = {each.key: spent.get(each.key, Spending()).after(tokens, cost_usd, at) for each in accounts}
    days = sorted(key for key in spent | changed if key.startswith(f"{BudgetScope.DAY}:"))
    return {key: each for key, each in (spent | changed).items() if key not in days[:-KEPT_DAYS]}
