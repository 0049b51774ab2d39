"""Budgets from the state: which accounts concern an agent or the fleet, and which are close to their cap. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from toka_runtime.protocol.budget import WARN_AT, Account, BudgetFigure, BudgetScope, Spending

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from toka_console.entries import HostEntry
    from toka_console.state import ConsoleState
    from toka_runtime.protocol.snapshot import AgentView
    from toka_runtime.protocol.usage import Budget

_NOTHING = Spending()


class Standing(NamedTuple):
    """One account: what it has spent, and what it may."""

    account: Account
    spent: Spending
    cap: Budget

    @property
    def figures(self) -> tuple[BudgetFigure, ...]:
        return self.spent.figures(self.account, self.cap)

    @property
    def fraction(self) -> float:
        """Of the part of its cap that is used most; 0 without a cap."""
        return max((figure.fraction for figure in self.figures), default=0.0)

    def is_past(self, line: float) -> bool:
        """Whether so much (0..1) of any part of its cap is used. Cheap: asked of every agent that lives."""
        spent, cap = self.spent, self.cap
        return (cap.max_tokens is not None and spent.tokens >= line * cap.max_tokens) or (
            cap.max_cost_usd is not None and spent.cost_usd >= line * cap.max_cost_usd
        )


def standing(host: HostEntry, account: Account) -> Standing:
    return Standing(account, host.fleet.books.spent.get(account.key, _NOTHING), host.fleet.cap(account))


def of_agent(host: HostEntry, view: AgentView) -> Iterator[Standing]:
    """Its own account, then that of its task in work."""
    yield standing(host, Account(BudgetScope.AGENT, view.name))
    if view.current_task is not None:
        yield standing(host, Account(BudgetScope.TASK, f"{view.name}/{view.current_task}"))


def of_fleet(host: HostEntry, now: datetime) -> Iterator[Standing]:
    """The fleet, then today (UTC)."""
    yield standing(host, Account(BudgetScope.FLEET, ""))
    yield standing(host, Account(BudgetScope.DAY, now.date().isoformat()))


def warnings(state: ConsoleState, now: datetime) -> list[BudgetFigure]:
    """What is past a warning line, the fullest first. Of agents: those that live."""
    found = [each for host in state.hosts.values() for each in of_fleet(host, now)]
    # Thousands of agents may be there: whoever has spent nothing is past no line.
    for key in sorted(state.tally.spenders):
        found += of_agent(state.hosts[key.host], state.agents[key].view)
    past = [each for each in found if each.is_past(WARN_AT[0])]
    figures = [figure for each in past for figure in each.figures if figure.fraction >= WARN_AT[0]]
    return sorted(figures, key=lambda figure: -figure.fraction)
