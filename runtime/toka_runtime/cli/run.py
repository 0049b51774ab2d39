"""`toka-runtime run`: the fleet to its end, without a console."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import aclosing, suppress

from toka_runtime.aio import TaskOwner, cancel_and_wait, spawn
from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.narration import Narrator, choose_narrator
from toka_runtime.cli.validate import print_problems
from toka_runtime.client.arguments import add_local_arguments, local_arguments, wrong_argument
from toka_runtime.client.base import Resync
from toka_runtime.client.local import LocalClient, LocalOptions, load_specs, open_local
from toka_runtime.errors import UsageError
from toka_runtime.protocol.commands import CommandRequest, StartFleet
from toka_runtime.protocol.ids import new_command_id
from toka_runtime.protocol.states import AgentState


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_local_arguments(parser)
    parser.set_defaults(approve_timeout=0.0)
    parser.add_argument(
        "--rehearsal-delay", type=_seconds, default=0.02, metavar="S", help="pause between pieces of a rehearsal's text"
    )
    parser.add_argument("--json", action="store_true", help="event envelopes as JSON lines on stdout")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 60:
        raise argparse.ArgumentTypeError("from 0 to 60 seconds")
    return value


def execute(args: argparse.Namespace) -> int:
    if wrong := wrong_argument(args):
        raise UsageError(wrong)
    if args.approve_timeout:
        raise UsageError(
            "nobody can answer a request for approval in `run`", hint="use toka-runtime serve, or toka-console"
        )
    options = LocalOptions(**local_arguments(args), rehearsal_delay_s=args.rehearsal_delay)
    report = load_specs(options)
    if not report.ok:
        print_problems(report, sys.stderr)
        print("nothing was started", file=sys.stderr)
        return ExitCode.USAGE
    return asyncio.run(_run(options, report, choose_narrator(as_json=args.json)))


async def _run(options: LocalOptions, report: object, narrator: Narrator) -> int:
    client = await open_local(options, report)  # type: ignore[arg-type]
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    failures: list[BaseException] = []
    tasks = TaskOwner(lambda _name, error: failures.append(error))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _interrupt, number, interrupted, narrator)
    watching = tasks.spawn(_narrate(client, narrator), name="narrate")
    try:
        answer = await client.send(CommandRequest(id=new_command_id("run"), actor="cli", command=StartFleet()))
        if not answer.ok:
            narrator.say(answer.message)
            return ExitCode.FAILED
        settled = spawn(client.supervisor.settled(), name="settled")
        stopping = spawn(interrupted.wait(), name="interrupted")
        await asyncio.wait({settled, stopping, watching}, return_when=asyncio.FIRST_COMPLETED)
        for task in (settled, stopping):
            await cancel_and_wait(task)
        return _exit_code(client, interrupted=interrupted.is_set(), failures=failures)
    finally:
        # Closing ends the event stream after its last event, and so the narration.
        try:
            await client.aclose("interrupted" if interrupted.is_set() else "every agent has ended")
        finally:
            with suppress(asyncio.CancelledError):
                await asyncio.wait([watching])
            await tasks.aclose()
            narrator.close()


def _interrupt(number: int, interrupted: asyncio.Event, narrator: Narrator) -> None:
    if not interrupted.is_set():
        narrator.say(f"{signal.Signals(number).name}: stopping the fleet")
    interrupted.set()


async def _narrate(client: LocalClient, narrator: Narrator) -> None:
    seq = client.supervisor.began_at_seq - 1
    async with aclosing(client.events(seq)) as batches:
        async for batch in batches:
            if isinstance(batch, Resync):
                # The reader of our output was slow. The log has everything, so no line is left out.
                while seq < batch.state.seq and (page := await client.supervisor.store.read(after_seq=seq)):
                    await asyncio.to_thread(narrator.events, page)
                    seq = page[-1].seq
            elif fresh := [envelope for envelope in batch if not envelope.durable or envelope.seq > seq]:
                await asyncio.to_thread(narrator.events, fresh)
                seq = max(seq, *(envelope.seq for envelope in fresh if envelope.durable), seq)


def _exit_code(client: LocalClient, *, interrupted: bool, failures: list[BaseException]) -> int:
    if failures:
        raise failures[0]
    if interrupted:
        return ExitCode.INTERRUPTED
    agents = client.supervisor.agents.values()
    return ExitCode.OK if all(agent.state is AgentState.COMPLETED for agent in agents) else ExitCode.FAILED
