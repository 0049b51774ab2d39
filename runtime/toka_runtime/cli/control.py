"""`start pause resume stop kill restart freeze-all`: what an operator does to agents of a runtime that serves."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from toka_runtime.cli.attach import add_attach_arguments, attached, request_of
from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.fanout import on_hosts
from toka_runtime.cli.render import clean
from toka_runtime.client.attached import AttachedClient
from toka_runtime.errors import UsageError
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol.ids import AgentName, RunRef
from toka_runtime.protocol.snapshot import AgentView, FleetState
from toka_runtime.protocol.states import LIVE, AgentState

_MADE: dict[str, Callable[[argparse.Namespace, RunRef], cmd.Command]] = {
    "start": lambda _args, ref: cmd.StartAgent(agent=ref.agent),
    "pause": lambda args, ref: cmd.PauseAgent(target=ref, kind=args.kind),
    "resume": lambda _args, ref: cmd.ResumeAgent(target=ref),
    "stop": lambda args, ref: cmd.StopAgent(target=ref, grace_s=args.grace),
    "kill": lambda _args, ref: cmd.KillAgent(target=ref),
    "restart": lambda _args, ref: cmd.RestartAgent(target=ref),
}
_ALL: dict[str, Callable[[AgentView], bool]] = {
    "start": lambda view: view.state not in LIVE and not (view.requested and view.state is AgentState.PENDING),
    "pause": lambda view: (
        view.state in (AgentState.RUNNING, AgentState.STARTING) or (view.requested and view.state is AgentState.PENDING)
    ),
    "resume": lambda view: view.state is AgentState.PAUSED,
    "stop": lambda view: view.state in LIVE,
    "kill": lambda view: view.state in LIVE,
    "restart": lambda view: view.requested,
}
"""Which agents `--all` means: those in a state to which the verb applies."""


_KINDS = {
    cmd.PauseKind.SOFT: "wait before the next step; nothing is frozen (default: the whole tree is frozen, now)",
    cmd.PauseKind.INTERRUPT: "break off what it does, then wait softly",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verb = str(parser.get_default("verb"))
    if verb == "freeze-all":
        parser.add_argument("agents", nargs="*", metavar="AGENT", help="only these (default: every agent)")
    else:
        parser.add_argument("agents", nargs="*", metavar="AGENT", help="names as ps lists them")
        parser.add_argument("--all", action="store_true", help="every agent to which it applies")
    if verb in {"pause", "freeze-all"}:
        parser.set_defaults(kind=cmd.PauseKind.HARD)
        kinds = parser.add_mutually_exclusive_group()
        for kind, text in _KINDS.items():
            kinds.add_argument(f"--{kind}", dest="kind", action="store_const", const=kind, help=text)
    if verb == "stop":
        parser.add_argument("--grace", type=float, default=5.0, metavar="S", help="seconds from TERM to kill (5)")
    parser.add_argument("--reason", default="", metavar="TEXT", help="kept with the record of the command")
    add_attach_arguments(parser)
    parser.epilog = (
        "exit code 0: done for all, proven; 1: refused for some; 2: wrong words, or no such agent (nothing was sent); "
        "3: no runtime there; 4: an outcome is unknown or unconfirmed"
    )


def execute(args: argparse.Namespace) -> int:
    return on_hosts(args, _execute)


async def _execute(args: argparse.Namespace) -> int:
    async with attached(args) as client:
        if args.verb == "freeze-all":
            return await _freeze(args, client)
        views = _targets(args, await client.snapshot())
        if not views:
            print(f"no agent to {args.verb}", file=sys.stderr)
            return ExitCode.OK

        async def one(view: AgentView) -> dict[str, Any]:
            ref = RunRef(host=client.host, agent=view.name, run=view.run, process=view.process)
            result = await client.send(request_of(_MADE[args.verb](args, ref), args.reason))
            return {"agent": view.name} | result.model_dump(mode="json")

        return _report(await asyncio.gather(*(one(view) for view in views)), as_json=args.json)


async def _freeze(args: argparse.Namespace, client: AttachedClient) -> int:
    state = await client.snapshot()
    names = tuple(view.name for view in _named(args.agents, state))
    result = await client.send(request_of(cmd.PauseFleet(agents=names, kind=args.kind), args.reason))
    answers = [
        {"agent": name, "id": result.id, "seq": result.seq, "data": {"proof": answer.get("proof")}} | answer
        for name, answer in result.data.get("agents", {}).items()
    ]
    if not answers and not result.ok:
        answers = [{"agent": "", **result.model_dump(mode="json")}]
    if not answers:
        print("no agent is running", file=sys.stderr)
    return _report(answers, as_json=args.json)


def _targets(args: argparse.Namespace, state: FleetState) -> list[AgentView]:
    if args.all == bool(args.agents):
        raise UsageError(f"{args.verb} whom?", hint=f"toka-runtime {args.verb} AGENT…, or --all")
    if args.all:
        return [view for view in state.agents.values() if _ALL[args.verb](view)]
    return _named(args.agents, state)


def _named(names: Sequence[str], state: FleetState) -> list[AgentView]:
    """Raises UsageError for a name that is not loaded: a slip of the pen must not act on half of what was meant."""
    if missing := [name for name in names if AgentName(name) not in state.agents]:
        raise UsageError(f"no agent {', '.join(missing)} here", hint=f"there are: {', '.join(state.agents)}")
    return [state.agents[AgentName(name)] for name in dict.fromkeys(names)]


def _report(answers: Sequence[dict[str, Any]], *, as_json: bool) -> int:
    for answer in answers:
        if as_json:
            print(json.dumps(answer))
        else:
            text = answer.get("message") or _proof_text(answer) or answer.get("code") or "done"
            print(
                clean(f"{answer['agent']}: {text}".removeprefix(": ")), file=sys.stdout if answer["ok"] else sys.stderr
            )
    if any(answer.get("code") == "link.unknown" or _proof(answer).get("confirmed") is False for answer in answers):
        return ExitCode.UNKNOWN
    return ExitCode.OK if all(answer["ok"] for answer in answers) else ExitCode.FAILED


def _proof(answer: dict[str, Any]) -> dict[str, Any]:
    return answer.get("proof") or answer.get("data", {}).get("proof") or {}


def _proof_text(answer: dict[str, Any]) -> str:
    proof = _proof(answer)
    if not proof:
        return ""
    word = "confirmed" if proof["confirmed"] else f"UNCONFIRMED, left: {proof['survivors']}"
    return f"{proof['processes']} processes by {proof['mechanism']} in {proof['duration_ms']:.1f} ms, {word}"
