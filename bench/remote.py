"""What attaching over SSH costs, on a real OpenSSH server on loopback.

    python bench/remote.py [HOSTS…]          (default: 10 50 100)

The far side is one process that serves as many runtimes as hosts are asked for, each at a socket of its own: the
runtimes are played, sockets, daemons, bridges, sshd, sessions and clients are real. The near side is this process.
Attach times stand beside `ssh far true`, throughput beside a bare channel of the same library. Quote the ratios.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

TOP = Path(__file__).parents[1]
sys.path[:0] = [str(TOP / "tests")]

import asyncssh  # noqa: E402
import psutil  # noqa: E402

from fakes.client import FakeRuntimeClient  # noqa: E402
from fakes.sshd import NAME, OpenSsh, openssh  # noqa: E402
from toka_runtime.aio import cancel_and_wait, spawn  # noqa: E402
from toka_runtime.cli.main import main as toka  # noqa: E402
from toka_runtime.client import ssh  # noqa: E402
from toka_runtime.client.attached import AttachedClient  # noqa: E402
from toka_runtime.client.base import LinkState  # noqa: E402
from toka_runtime.protocol.commands import CommandRequest, ReadEvents  # noqa: E402
from toka_runtime.protocol.events import Level, Noticed  # noqa: E402
from toka_runtime.protocol.ids import HostId, new_command_id  # noqa: E402
from toka_runtime.server.daemon import Daemon  # noqa: E402

ROUNDS = 15
TEXT = "x" * 120
FLOOD, FULL = 10_000, 1_000_000
AHEAD = 4
"""Batches that wait for a reader, at full speed."""
RAW_BYTES = 200_000_000


# -- the far side -----------------------------------------------------------------------------------------------------


async def far(folder: Path, hosts: int) -> None:
    """Serve; each line on stdin is a number of events a second for each host from then on."""
    clients = [FakeRuntimeClient() for _ in range(hosts)]
    failures: list[BaseException] = []
    for number, client in enumerate(clients):
        client.host = HostId(f"host{number}")
        client.embedded = False
        daemon = Daemon(client, folder / f"{number}.sock", lambda _name, error: failures.append(error))
        await daemon.open()
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print("ready", flush=True)
    emitting = None
    while line := await lines.readline():
        if emitting is not None:
            await cancel_and_wait(emitting)
        emitting = spawn(_emit(clients, float(line)), name="emit")
    if failures:
        raise failures[0]


async def _emit(clients: list[FakeRuntimeClient], rate: float) -> None:
    step = 0.02
    loop = asyncio.get_running_loop()
    began, given = loop.time(), 0
    while rate:
        if rate >= FULL and any(queue.qsize() >= AHEAD for client in clients for queue in client._queues):
            # As fast as it is taken, not faster: what nobody takes would be most of what is measured.
            await asyncio.sleep(0.001)
            continue
        due = int((loop.time() - began) * rate) - given if rate < FULL else 500
        given += due
        for client in clients:
            if due and client.listening:
                client.log.clear()
                client.deliver(_events(client, due))
        await asyncio.sleep(step if rate < FULL else 0)


def _events(client: FakeRuntimeClient, count: int):
    first = client.envelope(Noticed(level=Level.INFO, code="bench", message=TEXT))
    return [first.model_copy(update={"seq": first.seq + number}) for number in range(count)]


# -- the near side ----------------------------------------------------------------------------------------------------


class Far:
    def __init__(self, folder: Path, process: asyncio.subprocess.Process, server: OpenSsh) -> None:
        self.folder, self.process, self.server = folder, process, server

    def rate(self, events_s: float) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{events_s}\n".encode())

    def command(self, number: int) -> str:
        return (
            f"PYTHONPATH={TOP}/runtime {sys.executable} -m toka_runtime.server.bridge "
            f"--socket {self.folder}/{number}.sock"
        )

    async def attach(self, number: int = 0) -> AttachedClient:
        return await ssh.attach_ssh(NAME, config=self.server.config, command=self.command(number))


@asynccontextmanager
async def far_side(hosts: int):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--far", str(folder), str(hosts)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        await process.stdout.readline()
        try:
            async with openssh(folder / "ssh") as server:
                yield Far(folder, process, server)
        finally:
            process.kill()
            await process.wait()


class Counter:
    """Reads a stream and counts."""

    def __init__(self, client: AttachedClient) -> None:
        self.client, self.events = client, 0
        self.grew = asyncio.Event()

    async def run(self) -> None:
        state = await self.client.snapshot()
        self.grew.set()
        async with aclosing(self.client.events(state.seq)) as batches:
            async for batch in batches:
                self.events += len(batch) if isinstance(batch, list) else 0
                self.grew.set()


def row(what: str, *cells: str) -> None:
    print(f"{what:<44}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


def ms(values: list[float]) -> tuple[str, str]:
    ordered = sorted(values)
    return f"{statistics.median(ordered) * 1e3:.1f} ms", f"{ordered[int(len(ordered) * 0.99)] * 1e3:.1f} ms"


async def attaching(there: Far) -> None:
    plain: list[float] = []
    ours: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec("ssh", "-F", str(there.server.config), NAME, "true")
        assert await process.wait() == 0
        plain.append(time.perf_counter() - began)
        began = time.perf_counter()
        client = await there.attach()
        await client.snapshot()
        ours.append(time.perf_counter() - began)
        await client.aclose()
    row("", "p50", "p99", "ratio")
    row("ssh far true", *ms(plain), "1.0")
    ratio = statistics.median(ours) / statistics.median(plain)
    row("attach and first snapshot", *ms(ours), f"{ratio:.2f}")


async def round_trips(there: Far) -> None:
    client = await there.attach()
    counter = Counter(client)
    reading = spawn(counter.run(), name="reading")
    await counter.grew.wait()
    for title, rate in (("command and answer, idle", 0), (f"command and answer, {FLOOD:,} events/s", FLOOD)):
        there.rate(rate)
        if rate:
            while counter.events < FLOOD // 4:
                counter.grew.clear()
                await counter.grew.wait()
        took: list[float] = []
        for _ in range(200):
            request = CommandRequest(id=new_command_id("bench"), actor="bench", command=ReadEvents(limit=1))
            began = time.perf_counter()
            assert (await client.send(request)).ok
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.005)
        row(title, *ms(took), "")
    there.rate(0)
    await cancel_and_wait(reading)
    await client.aclose()


async def throughput(there: Far) -> None:
    done = asyncio.Event()

    class Raw(asyncssh.SSHClientSession[bytes]):
        size = 0

        def data_received(self, data: bytes, datatype: int | None) -> None:
            self.size += len(data)

        def connection_lost(self, exc: Exception | None) -> None:
            done.set()

    connection = await asyncssh.connect(
        "127.0.0.1", there.server.port, config=None, known_hosts=str(there.server.known_hosts),
        client_keys=[str(there.server.user_key)], agent_path=None,
    )  # fmt: skip
    began = time.perf_counter()
    _, raw = await connection.create_session(Raw, f"head -c {RAW_BYTES} /dev/zero", encoding=None, window=256 * 1024)
    await done.wait()
    floor = raw.size / (time.perf_counter() - began) / 1e6
    connection.close()
    client = await there.attach()
    counter = Counter(client)
    reading = spawn(counter.run(), name="reading")
    await counter.grew.wait()
    there.rate(FULL)
    await asyncio.sleep(1)
    before, began = counter.events, time.perf_counter()
    await asyncio.sleep(5)
    events_s = (counter.events - before) / (time.perf_counter() - began)
    there.rate(0)
    size = len(_events(FakeRuntimeClient(), 1)[0].model_dump_json()) + 1
    mb_s = events_s * size / 1e6
    row("", "events/s", "MB/s", "of the raw")
    row("a bare channel of the same library", "–", f"{floor:.0f}", "100 %")
    row("events, decoded", f"{events_s:,.0f}", f"{mb_s:.1f}", f"{mb_s / floor:.0%}")
    await cancel_and_wait(reading)
    await client.aclose()


async def many(count: int) -> None:
    async with far_side(count) as there:
        began = time.perf_counter()
        clients = await asyncio.gather(*(there.attach(number) for number in range(count)))
        counters = [Counter(client) for client in clients]
        reading = [spawn(counter.run(), name="reading") for counter in counters]
        await asyncio.gather(*(counter.grew.wait() for counter in counters))
        attached = time.perf_counter() - began
        there.rate(50)
        await asyncio.sleep(2)
        before, cpu, began = sum(c.events for c in counters), time.process_time(), time.perf_counter()
        await asyncio.sleep(5)
        took = time.perf_counter() - began
        events_s = (sum(c.events for c in counters) - before) / took
        busy = (time.process_time() - cpu) / took
        rss = psutil.Process().memory_info().rss / 2**20
        row(
            f"{count} hosts, 50 events/s each",
            f"{attached:.2f} s",
            f"{events_s:,.0f}/s",
            f"{busy:.0%}",
            f"{rss:.0f} MiB",
        )
        for each in reading:
            await cancel_and_wait(each)
        await asyncio.gather(*(client.aclose() for client in clients))


async def faults(there: Far) -> None:
    row("", "found after", "back after")
    for title, act in (
        ("sshd and its sessions killed", _kill_sessions),
        ("the bridge stopped (SIGSTOP)", _stop_bridge),
    ):
        client = await there.attach()
        counter = Counter(client)
        reading = spawn(counter.run(), name="reading")
        await counter.grew.wait()
        changes: list[tuple[float, LinkState]] = []
        changed = asyncio.Event()

        client.on_link = partial(_note, client, changes, changed)
        began = time.perf_counter()
        stopped = act(there)
        async with asyncio.timeout(60):
            while not changes or changes[-1][1] is not LinkState.UP:
                changed.clear()
                await changed.wait()
        down = next(at for at, state in changes if state is LinkState.DOWN)
        row(title, f"{down - began:.2f} s", f"{changes[-1][0] - began:.2f} s")
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await cancel_and_wait(reading)
        await client.aclose()


def _note(client: AttachedClient, changes: list[tuple[float, LinkState]], changed: asyncio.Event) -> None:
    changes.append((time.perf_counter(), client.link.state))
    changed.set()


def _bridges(there: Far) -> list[psutil.Process]:
    server = psutil.Process(there.server.pid)
    return [
        each for each in server.children(recursive=True) if "toka_runtime.server.bridge" in " ".join(each.cmdline())
    ]


def _kill_sessions(there: Far) -> list[int]:
    for each in psutil.Process(there.server.pid).children():
        each.kill()
    return []


def _stop_bridge(there: Far) -> list[int]:
    found = [each.pid for each in _bridges(there) if each.name().startswith("python")]
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    return found


async def freeze_all(count: int = 10) -> None:
    async with far_side(count) as there:
        names = [f"h{number}" for number in range(count)]
        text = there.server.config.read_text()
        there.server.config.write_text(text.replace(f"Host {NAME}\n", f"Host {NAME} {' '.join(names)}\n"))
        original = ssh.attach_ssh

        async def attach(name: str, **_options: object) -> AttachedClient:
            return await original(name, config=there.server.config, command=there.command(int(name[1:])))

        ssh.attach_ssh = attach  # type: ignore[assignment]
        try:
            began = time.perf_counter()
            code = await asyncio.to_thread(toka, ["freeze-all", "--host", ",".join(names), "--json"])
            row(f"freeze-all on {count} hosts, confirmed", f"{time.perf_counter() - began:.2f} s", f"exit {code}")
        finally:
            ssh.attach_ssh = original


async def near(counts: list[int]) -> None:
    async with far_side(1) as there:
        await attaching(there)
        await round_trips(there)
        print()
        await throughput(there)
        print()
        row("", "all attached", "events", "CPU, near side", "memory")
    for count in counts:
        await many(count)
    print()
    await freeze_all()
    print()
    async with far_side(1) as there:
        await faults(there)


def main() -> None:
    if sys.argv[1:2] == ["--far"]:
        asyncio.run(far(Path(sys.argv[2]), int(sys.argv[3])))
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    print(f"{os.cpu_count()} cores, {subprocess.run(['ssh', '-V'], capture_output=True, text=True).stderr.strip()}\n")
    asyncio.run(near([int(word) for word in sys.argv[1:]] or [10, 50, 100]))


if __name__ == "__main__":
    main()
