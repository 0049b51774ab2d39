"""`approvals grants approve deny revoke`: what waits for an operator in a serving runtime, and what was granted."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime

from toka_runtime.cli.attach import add_attach_arguments, attached, request_of
from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.fanout import on_hosts
from toka_runtime.cli.render import clean
from toka_runtime.client.attached import AttachedClient
from toka_runtime.errors import UsageError
from toka_runtime.protocol.approval import GrantScope
from toka_runtime.protocol.commands import (
    Command,
    DecideApproval,
    RestoreCapability,
    RevokeGrant,
    WithdrawCapability,
)
from toka_runtime.protocol.ids import RunRef
from toka_runtime.protocol.snapshot import AgentView, ApprovalView, FleetState, GrantView


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verb = str(parser.get_default("verb"))
    if verb in ("approve", "deny"):
        parser.add_argument("identity", metavar="REQUEST", help="as `approvals` lists it")
    if verb == "revoke":
        parser.add_argument("identity", metavar="GRANT", help="as `grants` lists it, or an agent with --capability")
        parser.add_argument(
            "--capability", default="", metavar="NAME", help="take this one away, whatever its spec says"
        )
        parser.add_argument("--restore", action="store_true", help="with --capability: its next run has it again")
    if verb == "approve":
        parser.add_argument("--scope", choices=[str(scope) for scope in GrantScope], default=str(GrantScope.ONCE))
        parser.add_argument("--folder", action="store_true", help="the folder around the file, where that is offered")
        parser.add_argument("--for", dest="ttl_s", type=float, metavar="S", help="seconds, with --scope ttl")
    if verb not in ("approvals", "grants"):
        parser.add_argument("--reason", default="", metavar="TEXT", help="kept with the record of the command")
    add_attach_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    return on_hosts(args, _execute)


async def _execute(args: argparse.Namespace) -> int:
    async with attached(args) as client:
        state = await client.snapshot()
        if args.verb in ("approvals", "grants"):
            _list(state, requests=args.verb == "approvals", as_json=args.json)
            return ExitCode.OK
        result = await client.send(request_of(_command(args, client, state), args.reason))
        if args.json:
            print(result.model_dump_json())
        else:
            print(clean(result.message or result.code), file=sys.stdout if result.ok else sys.stderr)
        return ExitCode.OK if result.ok else ExitCode.FAILED


def _command(args: argparse.Namespace, client: AttachedClient, state: FleetState) -> Command:
    """Raises UsageError when there is no such thing: nothing is sent then."""
    if args.verb == "revoke" and (args.capability or args.restore):
        return _withdraw(args, client, state)
    for view in state.agents.values():
        ref = RunRef(host=client.host, agent=view.name, run=view.run, process=view.process)
        if args.verb == "revoke":
            if any(held.grant.id == args.identity for held in view.grants):
                return RevokeGrant(target=ref, grant=args.identity)
            continue
        for waiting in view.approvals:
            if waiting.request.id == args.identity:
                return _answer(args, ref, waiting)
    what = "grant" if args.verb == "revoke" else "request"
    raise UsageError(f"no {what} {args.identity} here", hint="toka-runtime approvals lists both")


def _withdraw(args: argparse.Namespace, client: AttachedClient, state: FleetState) -> Command:
    if not args.capability:
        raise UsageError("restore what?", hint="toka-runtime revoke AGENT --capability NAME --restore")
    view = state.agents.get(args.identity)
    if view is None:
        raise UsageError(f"no agent {args.identity} here", hint=f"there are: {', '.join(state.agents)}")
    ref = RunRef(host=client.host, agent=view.name, run=view.run, process=view.process)
    make = RestoreCapability if args.restore else WithdrawCapability
    return make(target=ref, capability=args.capability)


def _answer(args: argparse.Namespace, ref: RunRef, waiting: ApprovalView) -> DecideApproval:
    answer = DecideApproval(target=ref, approval=waiting.request.id, digest=waiting.request.digest, allow=False)
    if args.verb == "deny":
        return answer
    scope = GrantScope(args.scope)
    return answer.model_copy(update={"allow": True, "scope": scope, "wide": args.folder, "ttl_s": args.ttl_s})


def _list(state: FleetState, *, requests: bool, as_json: bool) -> None:
    now = datetime.now(UTC)
    found = False
    for view in state.agents.values():
        for waiting in view.approvals if requests else ():
            found = True
            left = waiting.countdown.left(now)
            _print_json("request", waiting, left) if as_json else _print_request(view, waiting, left)
        for held in view.grants:
            found = True
            remaining = held.countdown.left(now) if held.countdown else None
            _print_json("grant", held, remaining) if as_json else _print_grant(view, held, remaining)
    if not found and not as_json:
        waits = "nothing waits for an operator, and " if requests else ""
        print(f"{waits}nothing is granted beyond the specs", file=sys.stderr)


def _print_json(what: str, view: ApprovalView | GrantView, left_s: float | None) -> None:
    print(json.dumps({what: view.model_dump(mode="json"), "left_s": left_s}))


def _print_request(view: AgentView, waiting: ApprovalView, left_s: float) -> None:
    request = waiting.request
    frozen = ", frozen" if waiting.countdown.since is None else ""
    times = f", asked {request.count} times" if request.count > 1 else ""
    lines = [
        f"{request.id}  {view.name}, task {request.task + 1}: {request.tool}  ({left_s:.0f} s left{frozen}{times})"
    ]
    for denial in request.denials:
        need = f"; missing capability: {denial.capability}" if denial.capability else ""
        lines.append(f"    {denial.operation.kind} {denial.operation.target}: {denial.reason}{need}")
    lines += [f"    CAREFUL: {warning}" for warning in request.warnings]
    lines.append(f"    arguments: {json.dumps(request.arguments, ensure_ascii=False)}")
    for offer in request.offers:
        lines.append(f"    --scope {offer.scope}{' --folder' if offer.wide else ''}: {offer.text}")
    print("\n".join(clean(line) for line in lines))


def _print_grant(view: AgentView, held: GrantView, left_s: float | None) -> None:
    left = f", {left_s:.0f} s left" if left_s is not None else ""
    print(clean(f"{held.grant.id}  {view.name} may {held.grant.text} (used {held.uses}×{left}; by {held.grant.actor})"))
