"""What the model gateway costs, beside the SDK used directly, in one run against one local server.

    python bench/gateway.py [--streams 1,10,100] [--tokens 200] [--rate 50] [--json]
    python bench/gateway.py --fairness [--json]

Each stream gets `--tokens` deltas at `--rate` a second. Measured for each way: CPU of this process (the runtime's or
the console's side) and of the gateway process, both as a share of one core while the streams run; the latency from the
request to the first text; and how late this process' event loop wakes up, which is what a key press feels. Quote
ratios: machines differ, and the server shares the cores.

`--fairness`: agents of all four priorities, equally many, ask for half as many starts again as there can be, in
simulated time. For each priority: its share of what was served over its share of what was asked (1 is fair, 0 is
starved), and how long its calls waited.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toka_runtime.aio import spawn
from toka_runtime.clock import SystemClock
from toka_runtime.llm.base import CallContext, Delta, GatewaySettings, ModelRequest
from toka_runtime.llm.gateway import Gateway
from toka_runtime.llm.pacing import RAMP_WIDTH, StartQueue, Turn
from toka_runtime.protocol.ids import AgentName, CallId, RunId
from toka_runtime.protocol.spec import Priority

TICK_S = 0.005
STARTS_PER_S = 40


@dataclass(frozen=True)
class Result:
    way: str
    streams: int
    own_cpu_percent: float
    gateway_cpu_percent: float
    first_text_p50_ms: float
    first_text_max_ms: float
    loop_late_p99_ms: float
    loop_late_max_ms: float
    events: int
    """Pieces of text that reached this process."""
    wall_s: float


# -- the server, a process of its own -----------------------------------------------------------------------------


def sse(event: dict[str, Any]) -> bytes:
    data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


async def serve(tokens: int, rate: float) -> None:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5", "content": []}
    usage = {"input_tokens": 100, "output_tokens": 1}
    start = sse({"type": "message_start", "message": {**message, "stop_reason": None, "usage": usage}})
    start += sse({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    delta = sse({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "some words "}})
    end = sse({"type": "content_block_stop", "index": 0})
    end += sse({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": tokens}})
    end += sse({"type": "message_stop"}) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in request.lower().splitlines() if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.split(b":")[1]))
                writer.write(head + start)
                began = loop.time()
                for number in range(tokens):
                    writer.write(delta)
                    await asyncio.sleep(began + (number + 1) / rate - loop.time())
                writer.write(end)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    os._exit(0)


@asynccontextmanager
async def server_process(tokens: int, rate: float) -> AsyncGenerator[str]:
    arguments = ["--serve", "--tokens", str(tokens), "--rate", str(rate)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.stdin.close()
        await process.wait()


# -- measuring ----------------------------------------------------------------------------------------------------


def cpu_s(pid: int | None) -> float:
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def lateness(late: list[float]) -> None:
    while True:
        due = time.perf_counter() + TICK_S
        await asyncio.sleep(TICK_S)
        late.append(time.perf_counter() - due)


Stream = Callable[[int], Awaitable[tuple[float, int]]]
"""One stream to its end: (seconds to the first text, how many pieces)."""


async def measure(way: str, streams: int, one: Stream, pid: int | None) -> Result:
    late: list[float] = []
    ticking = spawn(lateness(late), name="ticks")
    own, other, began = time.process_time(), cpu_s(pid), time.perf_counter()
    calls = [spawn(one(number), name=f"{number}") for number in range(streams)]
    outcomes = await asyncio.gather(*calls)
    wall = time.perf_counter() - began
    own, other = time.process_time() - own, cpu_s(pid) - other
    ticking.cancel()
    firsts = [first for first, _ in outcomes]
    return Result(
        way=way,
        streams=streams,
        own_cpu_percent=100 * own / wall,
        gateway_cpu_percent=100 * other / wall,
        first_text_p50_ms=1000 * statistics.median(firsts),
        first_text_max_ms=1000 * max(firsts),
        loop_late_p99_ms=1000 * sorted(late)[int(0.99 * len(late))],
        loop_late_max_ms=1000 * max(late),
        events=sum(pieces for _, pieces in outcomes),
        wall_s=wall,
    )


async def with_gateway(url: str, counts: list[int]) -> list[Result]:
    settings = GatewaySettings(provider="anthropic", base_url=url)
    gateway = Gateway(settings, SystemClock(), environ={**os.environ, "ANTHROPIC_API_KEY": "benchmark"})
    began = time.perf_counter()
    await gateway.start()
    print(f"gateway ready after {time.perf_counter() - began:.2f} s", file=sys.stderr)

    async def one(number: int) -> tuple[float, int]:
        context = CallContext(
            agent=AgentName("bench"),
            run=RunId("r"),
            call=CallId(f"m{number}"),
            task=0,
            task_total=1,
            task_description="",
        )
        request = ModelRequest(context=context, system=("s",), messages=({"role": "user", "content": "go"},))
        began, first, pieces = time.perf_counter(), 0.0, 0
        async with aclosing(gateway.stream(request)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    first = first or time.perf_counter() - began
                    pieces += 1
        return first, pieces

    try:
        await one(0)
        return [await measure("gateway", count, one, gateway.pid) for count in counts]
    finally:
        await gateway.aclose()


async def with_sdk(url: str, counts: list[int]) -> list[Result]:
    began = time.perf_counter()
    import anthropic

    client = anthropic.AsyncAnthropic(base_url=url, api_key="benchmark", max_retries=0)
    print(f"SDK ready after {time.perf_counter() - began:.2f} s", file=sys.stderr)
    ramp = asyncio.Semaphore(RAMP_WIDTH)

    async def one(_number: int) -> tuple[float, int]:
        began, first, pieces = time.perf_counter(), 0.0, 0
        async with ramp:
            stream = await client.messages.create(
                model="claude-sonnet-5-5",
                max_tokens=1000,
                system="s",
                messages=[{"role": "user", "content": "go"}],
                stream=True,
            )
        async for event in stream:
            if event.type == "content_block_delta":
                first = first or time.perf_counter() - began
                pieces += 1
        return first, pieces

    await one(0)
    results = [await measure("sdk", count, one, None) for count in counts]
    await client.close()
    return results


# -- who waits when there is not enough for all -------------------------------------------------------------------


class Simulated:
    """A clock that is moved by hand. Nothing sleeps on it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Share:
    priority: str
    asked: int
    served: int
    fairness: float
    wait_p50_s: float
    wait_max_s: float
    """Of those served; for those that still wait at the end see `fairness`."""


async def fairness(seconds: int = 120) -> list[Share]:
    clock = Simulated()
    queue = StartQueue(clock, hold_s=10.0 * seconds)
    waiting: list[tuple[Priority, float, Turn]] = []
    begun: deque[Turn] = deque()
    order = list(Priority)
    waits: dict[Priority, list[float]] = {priority: [] for priority in Priority}
    for step in range(seconds * STARTS_PER_S):
        clock.seconds = step / STARTS_PER_S
        if len(begun) == RAMP_WIDTH:
            begun.popleft().opened()
        wanted = (order[number % len(order)] for number in range(3 * step // 2, 3 * (step + 1) // 2))
        waiting += [(priority, clock.seconds, queue.join(priority, clock.seconds)) for priority in wanted]
        for priority, arrived, turn in waiting:
            if not turn.waits:
                waits[priority].append(clock.seconds - arrived)
                begun.append(turn)
        waiting = [call for call in waiting if call[2].waits]
    left = [priority for priority, _, _ in waiting]
    for turn in [*begun, *(turn for _, _, turn in waiting)]:
        turn.leave()
    total = sum(map(len, waits.values()))
    offered = total + len(left)
    return [
        Share(
            priority=priority.value,
            asked=len(served) + left.count(priority),
            served=len(served),
            fairness=(len(served) / total) / ((len(served) + left.count(priority)) / offered),
            wait_p50_s=statistics.median(served),
            wait_max_s=max(served),
        )
        for priority, served in waits.items()
    ]


def show_fairness(shares: list[Share]) -> None:
    print("{:9} {:>6} {:>7} {:>9} {:>9} {:>9}".format("", "asked", "served", "fairness", "wait p50", "wait max"))
    for s in shares:
        print(f"{s.priority:9} {s.asked:6} {s.served:7} {s.fairness:9.2f} {s.wait_p50_s:7.1f} s {s.wait_max_s:7.1f} s")


def show(results: list[Result]) -> None:
    heads = ("", "streams", "own CPU", "gateway CPU", "first text p50/max", "loop late p99/max", "pieces")
    print("{:8} {:>7} {:>9} {:>12} {:>20} {:>20} {:>7}".format(*heads))
    for r in results:
        first = f"{r.first_text_p50_ms:.1f} / {r.first_text_max_ms:.0f} ms"
        late = f"{r.loop_late_p99_ms:.1f} / {r.loop_late_max_ms:.1f} ms"
        own, other = f"{r.own_cpu_percent:.1f} %", f"{r.gateway_cpu_percent:.1f} %"
        print(f"{r.way:8} {r.streams:7} {own:>9} {other:>12} {first:>20} {late:>20} {r.events:7}")


async def run_fairness(args: argparse.Namespace) -> None:
    shares = await fairness()
    if args.json:
        print(json.dumps([asdict(share) for share in shares], indent=1))
    else:
        show_fairness(shares)


async def run(args: argparse.Namespace) -> None:
    counts = [int(count) for count in args.streams.split(",")]
    async with server_process(args.tokens, args.rate) as url:
        # The gateway first: the SDK's 3,300 modules would weigh on this process' garbage collector.
        results = [*await with_gateway(url, counts), *await with_sdk(url, counts)]
    if args.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        show(sorted(results, key=lambda result: result.streams))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="1,10,100")
    parser.add_argument("--tokens", type=int, default=200, help="deltas a stream")
    parser.add_argument("--rate", type=float, default=50.0, help="deltas a second and stream")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--fairness", action="store_true", help="only who waits when there is not enough for all")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(args.tokens, args.rate))
    else:
        asyncio.run(run_fairness(args) if args.fairness else run(args))


if __name__ == "__main__":
    main()
