"""How a verb finds and reaches a runtime that serves."""

from __future__ import annotations

import argparse
import getpass
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from toka_runtime.client.attached import AttachedClient, attach_unix
from toka_runtime.client.base import Resync
from toka_runtime.client.endpoint import SOCKET_NAME, the_runtime
from toka_runtime.errors import CommandRefused
from toka_runtime.protocol.codec import envelope_from
from toka_runtime.protocol.commands import Command, CommandRequest, CommandResult, ReadEvents
from toka_runtime.protocol.events import Envelope
from toka_runtime.protocol.ids import new_command_id


def add_attach_arguments(parser: argparse.ArgumentParser) -> None:
    place = parser.add_mutually_exclusive_group()
    add_host_argument(place)
    place.add_argument("--socket", type=Path, metavar="PATH", help="its socket (default: the only one there is)")
    place.add_argument("--state-dir", type=Path, metavar="DIR", help="the runtime with this state folder")
    place.add_argument("--workspace", type=Path, metavar="DIR", help="the runtime that works on this folder")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


class _Container(Protocol):
    """A parser, or a group of one."""

    def add_argument(self, name: str, /, **options: Any) -> argparse.Action: ...


def add_host_argument(container: _Container) -> None:
    container.add_argument(
        "--host",
        type=_hosts,
        action="extend",
        metavar="HOST[,HOST…]",
        help="the runtimes of other hosts, over SSH: as you write them for ssh; several are asked side by side",
    )


def _hosts(text: str) -> list[str]:
    hosts = [host.strip() for host in text.split(",")]
    if not all(hosts) or any(host.startswith("-") for host in hosts):
        raise argparse.ArgumentTypeError("names or addresses, with commas between them")
    return hosts


def socket_of(args: argparse.Namespace) -> Path:
    """Raises UsageError when it is not clear which runtime is meant."""
    if args.socket is not None:
        return args.socket
    if args.state_dir is not None:
        return args.state_dir / SOCKET_NAME
    if args.workspace is not None:
        # The engine behind it takes a while to import.
        from toka_runtime.client.local import default_state_dir

        return default_state_dir(args.workspace.absolute()) / SOCKET_NAME
    return the_runtime()


@asynccontextmanager
async def attached(args: argparse.Namespace) -> AsyncGenerator[AttachedClient]:
    """Raises LinkDown, LinkRefused, UsageError."""
    if args.host:
        # Imported where it is needed: it takes as long as all the rest.
        from toka_runtime.client.ssh import attach_ssh

        client = await attach_ssh(args.host[0])
    else:
        client = await attach_unix(socket_of(args))
    try:
        yield client
    finally:
        await client.aclose()


def operator() -> str:
    """Who acts here, as the log names them."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = "unknown"
    return f"{user}@{socket.gethostname()} (cli)"


def request_of(command: Command, reason: str = "") -> CommandRequest:
    return CommandRequest(id=new_command_id("cli"), actor=operator(), command=command, reason=reason)


async def answered(client: AttachedClient, command: Command) -> CommandResult:
    """The answer to a query. Raises CommandRefused."""
    result = await client.send(request_of(command))
    if not result.ok:
        raise CommandRefused(result.message or result.code)
    return result


async def read_log(client: AttachedClient, read: ReadEvents) -> AsyncGenerator[list[Envelope]]:
    """The log's envelopes that `read` asks for, oldest first, page by page."""
    while True:
        result = await answered(client, read)
        page = [envelope_from(item) for item in result.data["events"]]
        if page:
            yield page
        if not result.data["more"] or not page:
            return
        read = read.model_copy(update={"after_seq": page[-1].seq})


async def follow_log(client: AttachedClient, seq: int, kinds: tuple[str, ...] = ()) -> AsyncGenerator[list[Envelope]]:
    """What the log gets after `seq`, live and without a gap; samples are left out. Ends with the client's stream."""
    async with aclosing(client.events(seq)) as batches:
        async for batch in batches:
            if isinstance(batch, Resync):
                # What this stream leaves out is still in the log.
                read = ReadEvents(after_seq=seq, before_seq=batch.state.seq + 1, kinds=kinds)
                async with aclosing(read_log(client, read)) as pages:
                    async for page in pages:
                        yield page
                seq = batch.state.seq
            else:
                durable = [each for each in batch if each.durable]
                if found := [each for each in durable if not kinds or each.event.kind in kinds]:
                    yield found
                seq = max([seq, *(each.seq for each in durable)])
