"""`toka-runtime budget`: what was spent of which cap, and a new cap."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from typing import Any

from toka_runtime.cli.attach import add_attach_arguments, attached, request_of
from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.fanout import on_hosts
from toka_runtime.cli.render import Style, clean
from toka_runtime.client.arguments import caps
from toka_runtime.errors import CommandRefused, UsageError
from toka_runtime.protocol.budget import Account, BudgetScope, Spending
from toka_runtime.protocol.commands import SetBudget
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.usage import Budget

_HEAD = ("ACCOUNT", "TOKENS", "OF", "COST", "OF", "TOKENS/MIN", "REACHED IN")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("account", nargs="?", metavar="ACCOUNT", help="fleet, day, agent:NAME, task:NAME/0")
    parser.add_argument("cap", nargs="?", type=caps, metavar="CAP", help="2000000, $5, 500k,$2.50, or none")
    add_attach_arguments(parser)
    parser.epilog = (
        "Without words: every account with what it has spent. With ACCOUNT and CAP: a new cap; agents that wait for it "
        "go on. exit code 0: done; 1: refused; 2: wrong words; 3: no runtime there; 4: the outcome is unknown"
    )


def execute(args: argparse.Namespace) -> int:
    return on_hosts(args, _execute)


async def _execute(args: argparse.Namespace) -> int:
    account = _account(args.account) if args.account else None
    if account is not None and args.cap is None:
        raise UsageError(f"which cap for {args.account}?", hint="tokens, dollars or both: 2000000,$5; or none")
    async with attached(args) as client:
        if account is None:
            _show(await client.snapshot(), as_json=args.json)
            return ExitCode.OK
        command = SetBudget(scope=account.scope, name=account.name, budget=Budget(**args.cap))
        result = await client.send(request_of(command))
    if args.json:
        print(json.dumps(result.model_dump(mode="json")))
    elif result.ok:
        print(clean(result.message))
    else:
        raise CommandRefused(result.message or result.code)
    return ExitCode.OK if result.ok else ExitCode.UNKNOWN if result.code == "link.unknown" else ExitCode.FAILED


def _account(text: str) -> Account:
    scope, _, name = text.partition(":")
    try:
        return Account(BudgetScope(scope), name)
    except ValueError:
        raise UsageError(f"no account {text!r}", hint="fleet, day, agent:NAME or task:NAME/0") from None


def accounts(state: FleetState, now: datetime) -> list[dict[str, Any]]:
    """Each account that has spent something or has a cap, with the figures. `reached_in_s`: when the nearer cap is
    reached if it goes on like this, None when it is not."""
    books = state.books
    keys = set(books.caps) | set(books.spent)
    for view in state.agents.values():
        keys.add(Account(BudgetScope.AGENT, view.name).key)
        keys.update(Account(BudgetScope.TASK, f"{view.name}/{index}").key for index in range(len(view.tasks)))
    found: list[dict[str, Any]] = []
    for key in sorted(keys):
        account = _account(key)
        cap, spent = state.cap(account), books.spent.get(key, Spending())
        if cap == Budget() and key not in books.spent:
            continue
        found.append(
            {
                "account": key,
                "tokens": spent.tokens,
                "max_tokens": cap.max_tokens,
                "cost_usd": spent.cost_usd,
                "max_cost_usd": cap.max_cost_usd,
                "unpriced_tokens": spent.unpriced_tokens,
                "tokens_per_min": spent.burn(now)[0] * 60,
                "reached_in_s": spent.reached_in_s(cap, now),
            }
        )
    return found


def _show(state: FleetState, *, as_json: bool) -> None:
    found = accounts(state, datetime.now(UTC))
    if as_json:
        for each in found:
            print(json.dumps(each))
        return
    if not found:
        print("nothing was spent and no cap is set", file=sys.stderr)
        return
    rows = [_HEAD, *(_row(each) for each in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    style = Style(sys.stdout)
    for number, row in enumerate(rows):
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        line = "  ".join([row[0].ljust(widths[0]), *padded[1:]])
        print(style("bold", line) if number == 0 else line)


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    left = each["reached_in_s"]
    return (
        clean(each["account"]),
        f"{each['tokens']:,}",
        "–" if each["max_tokens"] is None else f"{each['max_tokens']:,}",
        f"${each['cost_usd']:,.2f}" + ("+?" if each["unpriced_tokens"] else ""),
        "–" if each["max_cost_usd"] is None else f"${each['max_cost_usd']:,.2f}",
        f"{each['tokens_per_min']:,.0f}",
        "–" if left is None else f"{left / 60:,.0f} min",
    )
