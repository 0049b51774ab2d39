"""Budgets of a runtime: which accounts a call is charged to, what it may cost at worst, and the words for operators."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from toka_runtime.clock import Clock
from toka_runtime.errors import BudgetReached
from toka_runtime.llm.base import ModelGateway, ModelRequest
from toka_runtime.llm.budget import Amount, Ledger, Reservation
from toka_runtime.protocol.budget import Account, BudgetFigure, BudgetScope
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.spec import AgentSpec, Priority
from toka_runtime.protocol.spending import abandoned, accounts_of
from toka_runtime.protocol.usage import Budget, TokenUsage

LEAST_OUTPUT = 1024
"""Tokens. A call that has no room for so much of an answer is not made shorter but held back."""


@dataclass(frozen=True, slots=True)
class Admitted:
    request: ModelRequest
    """Perhaps with a smaller `max_tokens` than asked for, so that it fits."""
    reservation: Reservation


class Budgets:
    """One for a runtime."""

    def __init__(
        self, gateway: ModelGateway, clock: Clock, state: FleetState, caps: Mapping[Account, Budget], *, free: bool
    ) -> None:
        """`state`: what was spent and set before. `caps`: options of this start. `free`: nothing is ever charged (a
        rehearsal)."""
        self._gateway = gateway
        self._clock = clock
        self._free = free
        self._operators = {_account(key): cap for key, cap in state.books.caps.items()} | dict(caps)
        books = abandoned(state.books, clock.now())
        spent = {_account(key): each for key, each in books.spent.items()}
        self.ledger = Ledger(self._operators, spent)

    def load(self, spec: AgentSpec, tasks: int) -> None:
        """The caps of a spec; what an operator has set wins."""
        mine = [(Account(BudgetScope.AGENT, spec.name), spec.budget)]
        mine += [(Account(BudgetScope.TASK, f"{spec.name}/{index}"), spec.task_budget) for index in range(tasks)]
        for account, cap in mine:
            if account not in self._operators and cap != Budget():
                self.ledger.set_cap(account, cap)

    def begin(self, agent: str, tasks: int) -> None:
        """A new run, with accounts of its own; not a restart of one that failed."""
        self.ledger.forget(Account(BudgetScope.AGENT, agent))
        for index in range(tasks):
            self.ledger.forget(Account(BudgetScope.TASK, f"{agent}/{index}"))

    def set_cap(self, account: Account, cap: Budget) -> None:
        self._operators[account] = cap
        self.ledger.set_cap(account, cap)

    async def admit(self, request: ModelRequest, input_tokens: int, priority: Priority) -> Admitted:
        """Reserve the worst case of a call; waits while it depends on calls that still run. `input_tokens`: at most so
        many. Raises BudgetReached when there is no room for it, ModelError when the gateway is gone."""
        context = request.context
        accounts = accounts_of(context.agent, context.task, self._clock.now().date().isoformat())
        try:
            return await self._reserve(request, accounts, input_tokens, priority)
        except BudgetReached as error:
            left = int(error.figure.cap - error.figure.used) - input_tokens if error.figure.what == "tokens" else 0
            if not LEAST_OUTPUT <= left < request.max_tokens:
                raise
            # What is left is enough for a shorter answer.
            shorter = request.model_copy(update={"max_tokens": left})
            return await self._reserve(shorter, accounts, input_tokens, priority)

    async def another_try(self, admitted: Admitted, input_tokens: int) -> None:
        """Reserve for one more try of a call whose last try was charged. Raises BudgetReached."""
        accounts = admitted.reservation.accounts
        self.ledger.extend(admitted.reservation, await self._worst(admitted.request, accounts, input_tokens))

    def settle(self, admitted: Admitted, usage: TokenUsage, cost_usd: float | None) -> list[BudgetFigure]:
        """Count what the call has cost. Returns what is worth a warning."""
        return self.ledger.settle(admitted.reservation, Amount(usage.total_tokens, cost_usd))

    async def _reserve(
        self, request: ModelRequest, accounts: tuple[Account, ...], input_tokens: int, priority: Priority
    ) -> Admitted:
        worst = await self._worst(request, accounts, input_tokens)
        return Admitted(request, await self.ledger.reserve(accounts, worst, priority=-priority.rank))

    async def _worst(self, request: ModelRequest, accounts: tuple[Account, ...], input_tokens: int) -> Amount:
        if self._free:
            return Amount(0, 0.0)
        # Writing the cache is the dearest that can become of an input token.
        worst = TokenUsage(cache_write_tokens=input_tokens, output_tokens=request.max_tokens)
        cost = await self._gateway.quote(request.model, worst) if self.ledger.has_price(accounts) else None
        return Amount(worst.total_tokens, cost)


def bytes_of(*parts: object) -> int:
    """An upper bound of the tokens of a request's parts: no tokenizer makes more than one of a byte."""
    return sum(len(json.dumps(part, ensure_ascii=False, default=str).encode(errors="replace")) for part in parts)


def _account(key: str) -> Account:
    scope, _, name = key.partition(":")
    return Account(BudgetScope(scope), name)
