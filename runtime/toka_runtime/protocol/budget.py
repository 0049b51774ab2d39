"""Budgets as data: whose they are, what was spent, and how fast."""

from __future__ import annotations

import math
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from toka_runtime.protocol.model import Model
from toka_runtime.protocol.usage import Budget

BURN_S = 300.0
"""Time constant of the burn rate: what was spent five minutes ago counts a third."""
WARN_AT = (0.5, 0.8)
_LEAST_RATE = 1e-9


class BudgetScope(StrEnum):
    TASK = "task"
    AGENT = "agent"
    FLEET = "fleet"
    DAY = "day"
    """A day in UTC."""


class Account(NamedTuple):
    """Whose spending: `(task, "agent/0")`, `(agent, "agent")`, `(fleet, "")`, `(day, "2026-01-31")`."""

    scope: BudgetScope
    name: str

    @property
    def key(self) -> str:
        """As it is written in records: `agent:docs`."""
        return f"{self.scope}:{self.name}" if self.name else str(self.scope)


class Spending(Model):
    """What an account has spent."""

    tokens: int = 0
    """Input, output, cache reads and cache writes."""
    cost_usd: float = 0.0
    unpriced_tokens: int = 0
    """Of models without a known price: they count as tokens, not as money."""
    tokens_per_s: float = 0.0
    """Burn rate at `at`, decaying since."""
    cost_usd_per_s: float = 0.0
    at: datetime | None = None

    def after(self, tokens: int, cost_usd: float | None, at: datetime) -> Spending:
        """With one more call."""
        decay = self._decay(at)
        return Spending(
            tokens=self.tokens + tokens,
            cost_usd=self.cost_usd + (cost_usd or 0.0),
            unpriced_tokens=self.unpriced_tokens + (tokens if cost_usd is None else 0),
            tokens_per_s=self.tokens_per_s * decay + tokens / BURN_S,
            cost_usd_per_s=self.cost_usd_per_s * decay + (cost_usd or 0.0) / BURN_S,
            at=at,
        )

    def burn(self, now: datetime) -> tuple[float, float]:
        """(tokens a second, dollars a second) now."""
        decay = self._decay(now)
        return self.tokens_per_s * decay, self.cost_usd_per_s * decay

    def reached_in_s(self, cap: Budget, now: datetime) -> float | None:
        """Seconds until the nearer part of `cap` is used up at this rate; None: never."""
        tokens_per_s, cost_usd_per_s = self.burn(now)
        parts = ((cap.max_tokens, self.tokens, tokens_per_s), (cap.max_cost_usd, self.cost_usd, cost_usd_per_s))
        return min(
            (
                max(0.0, most - used) / rate if rate >= _LEAST_RATE else 0.0
                for most, used, rate in parts
                if most is not None and (rate >= _LEAST_RATE or used >= most)
            ),
            default=None,
        )

    def figures(self, account: Account, cap: Budget) -> tuple[BudgetFigure, ...]:
        """One for each part of `cap`."""
        parts = (("tokens", self.tokens, cap.max_tokens), ("cost_usd", self.cost_usd, cap.max_cost_usd))
        return tuple(
            BudgetFigure(scope=account.scope, name=account.name, what=what, used=used, cap=most)
            for what, used, most in parts
            if most is not None
        )

    def _decay(self, now: datetime) -> float:
        return math.exp(-max(0.0, (now - self.at).total_seconds()) / BURN_S) if self.at is not None else 0.0


class BudgetFigure(Model):
    """One cap and how much of it is used: `what` is `tokens` or `cost_usd`."""

    scope: BudgetScope
    name: str = ""
    what: str
    used: float
    cap: float

    @property
    def fraction(self) -> float:
        return self.used / self.cap if self.cap else 1.0

    @property
    def text(self) -> str:
        """`budget of agent docs: 80,000 of 100,000 tokens`."""
        whose = f"{self.scope} {self.name}".rstrip()
        if self.what == "tokens":
            return f"budget of {whose}: {self.used:,.0f} of {self.cap:,.0f} tokens"
        return f"budget of {whose}: ${self.used:,.2f} of ${self.cap:,.2f}"
