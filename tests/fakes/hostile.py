"""`python -m fakes.hostile`: the console on a fleet in which every text tries to drive the terminal."""

from __future__ import annotations

import asyncio
import sys
from enum import Enum
from typing import Any

from pydantic import BaseModel

from fakes import fleet
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from toka_console import cli, launch, plain, skeleton
from toka_runtime.client.base import RuntimeClient
from toka_runtime.errors import TokaError
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev

PAYLOAD = (
    "\x1b]52;c;aGFja2Vk\x07"  # the clipboard
    "\x1b[2J\x1b[6n\x1b[777m"  # clear, ask where the cursor is, a colour nobody else uses
    "\x9b777m\x9d52;c;aGFja2Vk\x9c"  # the same in C1
    "\x1bc"  # reset
    "\x1b]0;title\x1b\\\x1b]8;;http://evil\x1b\\"  # title, hyperlink
    "\x1bPq#0\x1b\\\x1b_G\x1b\\"  # sixel, kitty graphics
    "\u202e\u2066\u200b\u200d\ufeff\xad\u2028\x85\x07\x08\x0b\x0c\r\x7f\x00"
    "[@click=app.bell]x[/][bold"  # Textual's own markup
)


def poison(value: Any) -> Any:
    """`value` with the payload before every text in it, however deep; enums and discriminators stay."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        kept = {"kind", "op", "outcome", "mode"}
        return value.model_copy(
            update={
                name: poison(getattr(value, name))
                for name in fields
                if not (name in kept and not isinstance(value, ev.UnknownEvent))
            }
        )
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return PAYLOAD + value
    if isinstance(value, dict):
        return {poison(key): poison(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(poison(item) for item in value)
    return value


async def open_client() -> RuntimeClient:
    clock = FakeClock()
    clean = FakeRuntimeClient(clock)
    await fleet.work(clean, clock)
    clean.emit(ev.UnknownEvent(kind="agent.dreamt", body={"of": ["sheep"]}), fleet.NAMES[0][0])
    clean.emit(ev.ReportWritten(channel="c", path="p"), fleet.NAMES[0][0])
    clean.emit(
        ev.Verified(
            subject="task 1", task=0, command="pytest", exit_code=1, verdict="failed", duration_s=1, output_tail="no"
        ),  # type: ignore[arg-type] # pydantic makes the enum
        fleet.NAMES[0][0],
    )
    clean.emit(
        ev.CommandHandled(
            command=cmd.CommandId("x"), actor="op", name="agent.pause", ok=False, message="no", reason="r"
        ),
        fleet.NAMES[0][0],
    )
    client = FakeRuntimeClient(clock)
    client.host = poison(client.host)
    client.state = client.state.model_copy(update={"host": client.host})
    client.answer = refuse
    log = [poison(envelope) for envelope in clean.log]
    half = len(log) // 2
    # One half is there when the console comes (a snapshot, and history to page in), the other arrives live.
    client.deliver(log[:half])

    def more() -> None:
        client.deliver(log[half:])
        client.end_stream(OSError(PAYLOAD + "the link broke"))

    asyncio.get_running_loop().call_later(0.3, more)
    return client


def refuse(request: cmd.CommandRequest) -> cmd.CommandResult | None:
    if request.command.op in cmd.QUERIES:
        return None
    return cmd.CommandResult(id=request.id, ok=False, code=PAYLOAD, message=PAYLOAD + "refused")


async def refuse_to_open() -> RuntimeClient:
    raise TokaError(PAYLOAD + "no runtime", hint=PAYLOAD + "a hint")


def main() -> int:
    """As `cli.main`, with the fake's client; `fail` as an argument: opening fails."""
    how = refuse_to_open if sys.argv[1:] == ["fail"] else open_client
    plain.fit(sys.stdout)
    with skeleton.Terminal() as terminal:
        code, failure = launch.run(how, start_fleet=False)
        terminal.give_back()
    if failure is not None:
        cli._report(failure)
    return code


if __name__ == "__main__":
    sys.exit(main())
