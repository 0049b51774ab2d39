"""Budgets in words. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toka_console.format import units
from toka_runtime.protocol.budget import Account, BudgetScope

if TYPE_CHECKING:
    from toka_runtime.protocol.budget import BudgetFigure
    from toka_runtime.protocol.usage import Budget


def account(scope: BudgetScope, name: str) -> str:
    """`agent docs`, `task 1 of docs`, `each agent`, `the fleet`, `each day`."""
    if scope is BudgetScope.FLEET:
        return "the fleet"
    if not name:
        return f"each {scope.value}"
    agent, _, task = name.rpartition("/")
    if scope is BudgetScope.TASK and task.isdigit():
        return f"task {int(task) + 1} of {agent}"
    return f"{scope.value} {name}"


def cap(budget: Budget) -> str:
    """`200.0k tokens, $5.00`, or `no cap`."""
    parts = [
        f"{budget.max_tokens:,} tokens" if budget.max_tokens is not None else "",
        f"${units.money(budget.max_cost_usd)}" if budget.max_cost_usd is not None else "",
    ]
    return ", ".join(part for part in parts if part) or "no cap"


def amount(what: str, value: float) -> str:
    return f"${units.money(value)}" if what == "cost_usd" else units.count(int(value))


def warning(figure: BudgetFigure) -> str:
    """`80 % of the budget of agent docs: 80,000 of 100,000 tokens`."""
    return f"{figure.fraction * 100:.0f} % of the {figure.text}"


def reached(seconds: float | None) -> str:
    """`cap reached in 12 min`; "" when it never is at this rate."""
    if seconds is None:
        return ""
    if seconds <= 0:
        return "cap reached"
    if seconds < 90:
        return f"cap reached in {seconds:.0f} s"
    minutes = seconds / 60
    return f"cap reached in {minutes:.0f} min" if minutes < 120 else f"cap reached in {minutes / 60:.0f} h"


def burn(tokens_per_s: float, cost_usd_per_s: float) -> str:
    """`1.2k tokens/min  $0.05/min`; "" when nothing is spent."""
    parts = [
        f"{units.count(round(tokens_per_s * 60))} tokens/min" if tokens_per_s * 60 >= 0.5 else "",
        f"${units.money(cost_usd_per_s * 60)}/min" if cost_usd_per_s * 60 >= 0.0001 else "",
    ]
    return "  ".join(part for part in parts if part)


def parse_account(text: str) -> Account:
    """`fleet`, `day`, `agent:NAME`, `task:NAME/0`, as in the log. Raises ValueError."""
    scope, _, name = text.partition(":")
    return Account(BudgetScope(scope), name)
