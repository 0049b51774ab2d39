"""The ledger of tokens and money: the worst case of a call is reserved before it starts and settled when it has ended,
so no cap is ever passed, however many calls run at once. Pure but for waiting; only the loop that made it may use it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from toka_runtime.errors import BudgetReached
from toka_runtime.protocol.budget import WARN_AT, Account, BudgetFigure, Spending
from toka_runtime.protocol.usage import Budget


class Amount(NamedTuple):
    tokens: int
    cost_usd: float | None
    """None: the model has no known price; caps in tokens still hold."""

    def plus(self, other: Amount) -> Amount:
        cost = None if self.cost_usd is None or other.cost_usd is None else self.cost_usd + other.cost_usd
        return Amount(self.tokens + other.tokens, cost)


@dataclass(eq=False, slots=True)
class Reservation:
    accounts: tuple[Account, ...]
    amount: Amount


@dataclass(slots=True)
class _Sum:
    """Of one account."""

    tokens: int = 0
    cost_usd: float = 0.0
    reserved_tokens: int = 0
    reserved_cost_usd: float = 0.0
    warned: set[tuple[str, float]] = field(default_factory=set[tuple[str, float]])


@dataclass(order=True, slots=True)
class _Waiter:
    order: tuple[int, int]
    accounts: tuple[Account, ...] = field(compare=False)
    amount: Amount = field(compare=False)
    future: asyncio.Future[Reservation] = field(compare=False)


class Ledger:
    """`caps` may name a whole scope (`Account(scope, "")` holds for each account of that scope) or one account, which
    wins. An account without a cap is still counted."""

    def __init__(self, caps: Mapping[Account, Budget], spent: Mapping[Account, Spending]) -> None:
        self._caps = dict(caps)
        self._sums = {account: _Sum(each.tokens, each.cost_usd) for account, each in spent.items()}
        self._waiters: list[_Waiter] = []
        self._order = count()
        self.version = 0
        """Grows with each new cap."""
        self._changed = asyncio.Event()
        for account in self._sums:
            # A runtime that starts anew does not repeat the warnings of the one before.
            self._crossed(account)

    def cap(self, account: Account) -> Budget:
        return self._caps.get(account) or self._caps.get(Account(account.scope, "")) or Budget()

    def spent(self, account: Account) -> Amount:
        known = self._sums.get(account, _Sum())
        return Amount(known.tokens, known.cost_usd)

    def reserved(self, account: Account) -> Amount:
        known = self._sums.get(account, _Sum())
        return Amount(known.reserved_tokens, known.reserved_cost_usd)

    def room(self, accounts: Sequence[Account]) -> int | None:
        """Tokens that are left when every reservation is used up; None: no cap in tokens."""
        left: list[int] = []
        for account in accounts:
            cap, known = self.cap(account).max_tokens, self._sums.get(account, _Sum())
            if cap is not None:
                left.append(cap - known.tokens - known.reserved_tokens)
        return max(0, min(left)) if left else None

    async def reserve(self, accounts: Sequence[Account], amount: Amount, *, priority: int = 0) -> Reservation:
        """Waits while other calls' reservations alone stand in the way: higher `priority` first, then in order.
        Raises BudgetReached when the cap is too low whatever they turn out to cost."""
        accounts = tuple(accounts)
        self._check(accounts, amount, with_reserved=False)
        waiting = _Waiter((-priority, next(self._order)), accounts, amount, asyncio.get_running_loop().create_future())
        self._waiters.append(waiting)
        self._waiters.sort()
        self._serve()
        try:
            return await waiting.future
        except asyncio.CancelledError:
            if waiting.future.done() and not waiting.future.cancelled() and waiting.future.exception() is None:
                # It was given in the same moment.
                self.settle(waiting.future.result(), Amount(0, 0.0))
            raise
        finally:
            if waiting in self._waiters:
                self._waiters.remove(waiting)
                self._serve()

    def extend(self, reservation: Reservation, amount: Amount) -> None:
        """Reserve more for a call that runs, e.g. for another try. Raises BudgetReached; never waits."""
        self._check(reservation.accounts, amount, with_reserved=True)
        self._hold(reservation.accounts, amount, 1)
        reservation.amount = reservation.amount.plus(amount)

    def settle(self, reservation: Reservation, amount: Amount) -> list[BudgetFigure]:
        """Give the reservation back and count what the call has cost. Returns each figure that passed a warning line
        with it, the highest line of each alone."""
        self._hold(reservation.accounts, reservation.amount, -1)
        reservation.amount = Amount(0, 0.0)
        found: list[BudgetFigure] = []
        for account in reservation.accounts:
            known = self._sums.setdefault(account, _Sum())
            known.tokens += amount.tokens
            known.cost_usd += amount.cost_usd or 0.0
            found += self._crossed(account)
        self._serve()
        return found

    def forget(self, account: Account) -> None:
        """Begin the account anew: a new run of an agent. Reservations that are still open stay."""
        if (known := self._sums.get(account)) is not None:
            known.tokens, known.cost_usd = 0, 0.0
            known.warned.clear()
            self._serve()

    def set_cap(self, account: Account, cap: Budget) -> None:
        """A new cap, for one account or a whole scope. Who waits for it is served."""
        self._caps[account] = cap
        for known, each in self._sums.items():
            each.warned.clear()
            self._crossed(known)
        self._serve()
        self.version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def until_changed(self, version: int) -> None:
        """Wait until there is a cap that was not there in that `version`."""
        if version == self.version:
            await self._changed.wait()

    def has_price(self, accounts: Sequence[Account]) -> bool:
        """Whether any of them has a cap in money."""
        return any(self.cap(account).max_cost_usd is not None for account in accounts)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _shortage(self, accounts: Sequence[Account], amount: Amount, *, with_reserved: bool) -> BudgetFigure | None:
        for account in accounts:
            cap, known = self.cap(account), self._sums.get(account, _Sum())
            tokens = known.tokens + (known.reserved_tokens if with_reserved else 0)
            cost = known.cost_usd + (known.reserved_cost_usd if with_reserved else 0.0)
            if cap.max_tokens is not None and tokens + amount.tokens > cap.max_tokens:
                return BudgetFigure(
                    scope=account.scope, name=account.name, what="tokens", used=known.tokens, cap=cap.max_tokens
                )
            if cap.max_cost_usd is not None and amount.cost_usd and cost + amount.cost_usd > cap.max_cost_usd:
                return BudgetFigure(
                    scope=account.scope, name=account.name, what="cost_usd", used=known.cost_usd, cap=cap.max_cost_usd
                )
        return None

    def _check(self, accounts: Sequence[Account], amount: Amount, *, with_reserved: bool) -> None:
        if (short := self._shortage(accounts, amount, with_reserved=with_reserved)) is not None:
            raise BudgetReached(short, amount.tokens if short.what == "tokens" else amount.cost_usd or 0.0)

    def _hold(self, accounts: Sequence[Account], amount: Amount, sign: int) -> None:
        for account in accounts:
            known = self._sums.setdefault(account, _Sum())
            known.reserved_tokens += sign * amount.tokens
            # Sums of fractions drift: nothing reserved is exactly nothing.
            known.reserved_cost_usd = max(0.0, known.reserved_cost_usd + sign * (amount.cost_usd or 0.0))
            if not known.reserved_tokens:
                known.reserved_cost_usd = 0.0

    def _serve(self) -> None:
        """Give to those who wait, in order; who comes later never takes from an account that one before waits for."""
        blocked: set[Account] = set()
        for waiting in list(self._waiters):
            if waiting.future.done():
                continue
            if blocked.isdisjoint(waiting.accounts):
                final = self._shortage(waiting.accounts, waiting.amount, with_reserved=False)
                if final is not None:
                    wanted = waiting.amount.tokens if final.what == "tokens" else waiting.amount.cost_usd or 0.0
                    waiting.future.set_exception(BudgetReached(final, wanted))
                    continue
                if self._shortage(waiting.accounts, waiting.amount, with_reserved=True) is None:
                    self._hold(waiting.accounts, waiting.amount, 1)
                    waiting.future.set_result(Reservation(waiting.accounts, waiting.amount))
                    continue
            blocked.update(account for account in waiting.accounts if self.cap(account) != Budget())

    def _crossed(self, account: Account) -> list[BudgetFigure]:
        cap, known = self.cap(account), self._sums[account]
        found: list[BudgetFigure] = []
        figures = (("tokens", known.tokens, cap.max_tokens), ("cost_usd", known.cost_usd, cap.max_cost_usd))
        for what, used, limit in figures:
            lines = [line for line in WARN_AT if limit is not None and used >= line * limit]
            if lines and (what, lines[-1]) not in known.warned:
                known.warned.update((what, line) for line in lines)
                found.append(
                    BudgetFigure(scope=account.scope, name=account.name, what=what, used=used, cap=float(limit or 0))
                )
        return found
