"""`logs` and `events`: what agents said and what happened, from a runtime that serves."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing

from toka_runtime.cli.attach import add_attach_arguments, answered, attached, follow_log, read_log
from toka_runtime.cli.exit_codes import ExitCode
from toka_runtime.cli.fanout import on_hosts
from toka_runtime.cli.narration import told
from toka_runtime.cli.render import clean
from toka_runtime.client.attached import AttachedClient
from toka_runtime.errors import UsageError
from toka_runtime.protocol.codec import encode, envelope_from
from toka_runtime.protocol.commands import ReadEvents
from toka_runtime.protocol.events import Envelope, OutputAppended
from toka_runtime.protocol.ids import AgentName

OUTPUT = "output.appended"
_MOST = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_attach_arguments(parser)
    verb = parser.get_default("verb")
    parser.add_argument("agents", nargs="*", metavar="AGENT", help="only of these")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what comes, until interrupted")
    parser.add_argument("--tail", type=_tail, default=1000, metavar="N", help="begin with the last N records (1000)")
    parser.add_argument("--after", type=int, metavar="SEQ", help="everything after this record instead")
    if verb == "events":
        parser.add_argument(
            "--kind", action="append", default=[], metavar="KIND", help="only of this kind (repeatable)"
        )
    parser.epilog = "exit code 0: told; 2: wrong words; 3: no runtime there; 130: interrupted (the usual end of -f)"


def _tail(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _MOST:
        raise argparse.ArgumentTypeError(f"from 0 to {_MOST}")
    return value


def execute(args: argparse.Namespace) -> int:
    return on_hosts(args, _execute)


async def _execute(args: argparse.Namespace) -> int:
    kinds = (OUTPUT,) if args.verb == "logs" else tuple(args.kind)
    output = OutputLines() if args.verb == "logs" and not args.json else None
    show = output.show if output is not None else _json if args.json else _lines
    async with attached(args) as client:
        state = await client.snapshot()
        if missing := [name for name in args.agents if AgentName(name) not in state.agents]:
            raise UsageError(f"no agent {', '.join(missing)} here", hint=f"there are: {', '.join(state.agents)}")
        wanted = _Wanted(frozenset(args.agents), kinds)
        await _past(client, wanted, show, args, state.seq)
        if args.follow:
            async with aclosing(follow_log(client, state.seq, kinds)) as live:
                async for batch in live:
                    show(wanted.of(batch))
    if output is not None:
        output.close()
    return ExitCode.OK


class _Wanted:
    def __init__(self, agents: frozenset[str], kinds: tuple[str, ...]) -> None:
        self.agents = agents
        self.kinds = kinds

    def of(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        return [
            each
            for each in envelopes
            if each.durable
            and (not self.agents or each.agent in self.agents)
            and (not self.kinds or each.event.kind in self.kinds)
        ]

    @property
    def only_agent(self) -> AgentName | None:
        return AgentName(next(iter(self.agents))) if len(self.agents) == 1 else None


Show = Callable[[Sequence[Envelope]], None]


async def _past(client: AttachedClient, wanted: _Wanted, show: Show, args: argparse.Namespace, head: int) -> None:
    read = ReadEvents(before_seq=head + 1, agent=wanted.only_agent, kinds=wanted.kinds)
    if args.after is not None:
        async with aclosing(read_log(client, read.model_copy(update={"after_seq": args.after}))) as pages:
            async for page in pages:
                show(wanted.of(page))
        return
    if args.tail == 0:
        return
    found: list[Envelope] = []
    while len(found) < args.tail:
        result = await answered(client, read.model_copy(update={"newest_first": True, "limit": _MOST // 10}))
        page = [envelope_from(item) for item in result.data["events"]]
        found += wanted.of(page)
        if not result.data["more"] or not page:
            break
        read = read.model_copy(update={"before_seq": page[-1].seq})
    show(found[: args.tail][::-1])


def _json(envelopes: Sequence[Envelope]) -> None:
    sys.stdout.write("".join(f"{encode(each).decode()}\n" for each in envelopes))
    sys.stdout.flush()


def _lines(envelopes: Sequence[Envelope]) -> None:
    for each in envelopes:
        if text := told(each):
            print(f"{each.seq} {each.at.astimezone():%H:%M:%S} {text}")
    sys.stdout.flush()


class OutputLines:
    """Pieces of output to whole lines, each under its agent's and stream's name, safe for a terminal."""

    def __init__(self) -> None:
        self._open: tuple[str, str] | None = None

    def show(self, envelopes: Sequence[Envelope]) -> None:
        for each in envelopes:
            if isinstance(each.event, OutputAppended):
                self._add(str(each.agent), each.event)
        sys.stdout.flush()

    def close(self) -> None:
        """End a line that its agent has not ended."""
        if self._open is not None:
            print(flush=True)
            self._open = None

    def _add(self, agent: str, event: OutputAppended) -> None:
        source = (agent, event.stream.value)
        lines = event.text.split("\n")
        for index, line in enumerate(lines):
            last = index == len(lines) - 1
            if last and not line:
                break
            if self._open is not None and (index > 0 or self._open != source):
                print()
                self._open = None
            if self._open is None:
                print(clean(f"{agent} {event.stream.value}│ "), end="")
            print(clean(line), end="")
            self._open = source
        if event.text.endswith("\n") and self._open is not None:
            print()
            self._open = None
