"""The handler that sets caps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toka_console import budgets
from toka_console.actions import Context
from toka_console.dialogs.confirm import Question
from toka_console.format import budget_text
from toka_console.handling import handles

if TYPE_CHECKING:
    from toka_console.app import ConsoleApp
    from toka_console.dialogs.base import Fact
    from toka_runtime.protocol.budget import Account
    from toka_runtime.protocol.usage import Budget

_FORM = ":budget fleet|day|agent:NAME|task:NAME/0 2000000|500k|$5|2M,$9|none"


@handles("budget.set")
def set_budget(app: ConsoleApp, context: Context, argument: str) -> None:
    """Without a cap: the line, begun for the focused agent."""
    if not argument:
        focus = context.focus
        app.current.open_line("command", f"budget agent:{focus.name} " if focus is not None else "budget fleet ")
        return
    try:
        account, cap = parse(argument)
    except ValueError as error:
        app.say(f"{error}; {_FORM}", "warn")
        return
    known = {key.name for key in app.session.known.agents}
    if account.scope.value in ("agent", "task") and account.name and account.name.partition("/")[0] not in known:
        app.say(f"no agent {account.name.partition('/')[0]}; nothing was done", "warn")
        return
    _ask(app, account, cap)


def parse(text: str) -> tuple[Account, Budget]:
    """`agent:docs 500k,$5` → the account and its cap. Raises ValueError."""
    from argparse import ArgumentTypeError

    from toka_runtime.client.arguments import caps
    from toka_runtime.protocol.usage import Budget

    account, _, cap = text.strip().partition(" ")
    if not cap.strip():
        raise ValueError("which cap?")
    try:
        return budget_text.parse_account(account), Budget(**caps(cap.replace(" ", "")))
    except ArgumentTypeError as error:
        raise ValueError(str(error)) from None


def _ask(app: ConsoleApp, account: Account, cap: Budget) -> None:
    from toka_runtime.protocol.commands import SetBudget

    whose = budget_text.account(account.scope, account.name)
    # The host that is looked at now; the cursor may be elsewhere when it is answered.
    bridge = app.bridge
    if bridge is None:
        app.say("no host is attached; nothing was done", "warn")
        return

    def facts() -> list[Fact]:
        found: list[Fact] = [("budget of", whose), ("on", bridge.host)]
        if (host := app.session.known.hosts.get(bridge.host)) is not None:
            now = budgets.standing(host, account)
            spent = f"{now.spent.tokens:,} tokens, ${now.spent.cost_usd:,.2f}"
            found += [("spent", spent if account.name or account.scope.value == "fleet" else "each its own")]
            found += [("cap now", budget_text.cap(now.cap))]
        return [*found, ("new cap", budget_text.cap(cap))]

    question = Question(
        title="Set a cap", facts=facts, accept="Set", note="Agents that wait for room under it go on when it is enough."
    )

    def answered(accepted: bool | None) -> None:
        if accepted:
            command = SetBudget(scope=account.scope, name=account.name, budget=cap)
            bridge.send(command, f"setting the budget of {whose}")

    app.ask(question, answered)
