"""The gateway as the runtime holds it: a real process on a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from typing import Any

import pytest

from fakes.engines import API_KEY, collect
from fakes.messages_server import Answer, FakeMessagesServer, error_body
from fakes.model_requests import hello_turn, model_request, text_block, turn
from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.clock import SystemClock
from toka_runtime.errors import (
    GatewayLost,
    ModelRefused,
    ModelUnavailable,
    PromptTooLong,
    RecordingBroken,
    RecordingMiss,
)
from toka_runtime.llm import gateway as gateway_module
from toka_runtime.llm.base import Delta, Finished, GatewaySettings, ModelGateway, Retrying
from toka_runtime.llm.gateway import Gateway
from toka_runtime.protocol.capability import PathRule, Rights
from toka_runtime.protocol.ids import CallId, RunId
from toka_runtime.protocol.usage import ModelPrice, TokenUsage

BASE = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "RESTART_PAUSE_S", 0.0)


class Make:
    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    def __call__(self, provider: str = "rehearsal", environ: dict[str, str] | None = None, **settings: Any) -> Gateway:
        chosen: dict[str, Any] = {"rehearsal_delay_s": 0.0, **settings}
        gateway = Gateway(
            GatewaySettings(provider=provider, **chosen),  # type: ignore[arg-type]
            SystemClock(),
            environ={**BASE, **(environ or {})},
        )
        self._stack.push_async_callback(gateway.aclose)
        return gateway


@pytest.fixture
async def make() -> AsyncGenerator[Make]:
    """`make(provider, environ, **settings)`: a gateway that is closed after the test."""
    async with AsyncExitStack() as stack:
        yield Make(stack)


def alive(pid: int | None) -> bool:
    if not pid:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


async def until(condition: Any) -> None:
    """For what another process does; a test that waits here for ever is stopped by its time limit."""
    while not condition():
        await asyncio.sleep(0.005)


async def first_text(events: Any) -> None:
    async for event in events:
        if isinstance(event, Delta):
            return


async def test_a_call(make: Make) -> None:
    gateway: ModelGateway = make()
    events = await collect(gateway)
    *early, finished = events
    assert isinstance(finished, Finished)
    text = "".join(event.text for event in early if isinstance(event, Delta) and event.kind == "text")
    assert text == finished.content[0]["text"]


async def test_nothing_is_started_before_it_is_needed_and_nothing_is_left(make: Make) -> None:
    gateway = make()
    assert gateway.pid is None
    await collect(gateway)
    pid = gateway.pid
    assert alive(pid)
    await gateway.aclose()
    assert not alive(pid)
    assert gateway.pid is None
    await gateway.aclose()
    with pytest.raises(GatewayLost, match="closed"):
        await collect(gateway)


async def test_a_hundred_streams_over_one_socket(make: Make) -> None:
    gateway = make(rehearsal_delay_s=0.005)
    calls = [spawn(collect(gateway, model_request(call=f"m{n}")), name=f"{n}") for n in range(100)]
    await asyncio.wait(calls)
    assert all(isinstance(call.result()[-1], Finished) for call in calls)


async def test_text_comes_as_it_is_made_but_not_in_crumbs(make: Make) -> None:
    gateway = make(rehearsal_delay_s=0.004)
    anywhere = Rights(read=(PathRule(id="r", capability="filesystem-read", glob="**"),))
    request = model_request(description="word " * 300, rights=anywhere)
    events = await collect(gateway, request)
    pieces = [event for event in events if isinstance(event, Delta) and event.kind == "text"]
    # A hundred crumbs, joined over 25 ms.
    assert 3 < len(pieces) < 60


async def test_calls_that_start_the_process_together_share_one(make: Make) -> None:
    gateway = make()
    calls = [spawn(collect(gateway, model_request(call=f"m{n}")), name=f"{n}") for n in range(5)]
    await asyncio.wait(calls)
    assert len({gateway.pid}) == 1
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert [int(child) for child in children if int(child) == gateway.pid] == [gateway.pid]


# -- what protects the credential ---------------------------------------------------------------------------------


async def test_the_credential_is_nowhere_to_be_read(make: Make) -> None:
    secret = "a-secret-of-the-operator"
    environ = {"ANTHROPIC_API_KEY": API_KEY, "GITHUB_TOKEN": secret, "OTHER": "x"}
    gateway = make(environ=environ, secret_environment=("GITHUB_TOKEN",))
    await gateway.start()
    process = Path(f"/proc/{gateway.pid}")
    try:
        seen = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
    except PermissionError:
        seen = b""  # what an ordinary user gets
    for hidden in (API_KEY, secret, "OTHER"):
        assert hidden.encode() not in seen
    assert set(gateway.protections) == {"not dumpable", "no core dumps", "no new privileges"}
    # What is not dumpable belongs to root in /proc, whoever runs it.
    assert (process / "environ").stat().st_uid == 0


async def test_it_holds_no_descriptor_but_its_own(make: Make, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        gateway = make()
        await gateway.start()
        try:
            links = [os.readlink(entry) for entry in Path(f"/proc/{gateway.pid}/fd").iterdir()]
        except PermissionError:
            pytest.skip("only root may look into a process that is not dumpable")
        assert not [link for link in links if str(tmp_path) in link]
        assert len(links) < 10


async def test_it_is_out_of_reach_of_the_terminal(make: Make) -> None:
    gateway = make()
    await gateway.start()
    assert gateway.pid is not None
    assert os.getsid(gateway.pid) == gateway.pid


async def test_modules_in_the_working_folder_are_not_loaded(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("asyncio.py", "anthropic.py", "toka_runtime.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'loaded')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    await collect(make())
    assert not (tmp_path / "loaded").exists()


def test_the_runtime_s_side_loads_no_sdk() -> None:
    code = (
        "import sys, toka_runtime.llm.gateway, toka_runtime.llm.credentials, toka_runtime.llm.redact;"
        "print(*[m for m in sys.modules if m.split('.')[0] in ('anthropic', 'httpx', 'httpx2', 'genai_prices')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


async def test_the_process_loads_the_sdk_for_its_own_provider_only(make: Make) -> None:
    gateway = make()
    await collect(gateway)
    maps = ""
    with suppress(PermissionError):
        maps = Path(f"/proc/{gateway.pid}/maps").read_text()
    # jiter is the SDK's compiled part.
    assert "jiter" not in maps


# -- ends ---------------------------------------------------------------------------------------------------------


async def test_a_process_that_dies_takes_its_calls_along_and_the_next_call_starts_another(make: Make) -> None:
    gateway = make(rehearsal_delay_s=0.5)
    async with aclosing(gateway.stream(model_request())) as events:
        await first_text(events)
        before = gateway.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        with pytest.raises(GatewayLost, match="signal 9") as lost:
            async for _ in events:
                pass
    assert lost.value.code == "model.gateway_lost"
    assert isinstance(lost.value, ModelUnavailable)
    async with aclosing(gateway.stream(model_request(call="m2"))) as events:
        await first_text(events)
        assert gateway.pid not in (None, before)


async def test_closing_the_gateway_ends_its_calls(make: Make) -> None:
    gateway = make(rehearsal_delay_s=0.5)
    async with aclosing(gateway.stream(model_request())) as events:
        await first_text(events)
        closing = spawn(gateway.aclose(), name="close")
        with pytest.raises(GatewayLost, match="closed"):
            async for _ in events:
                pass
        await closing


async def test_closing_while_it_starts(make: Make) -> None:
    gateway = make()
    call = spawn(collect(gateway), name="call")
    await until(lambda: gateway.pid)
    pid = gateway.pid
    await gateway.aclose()
    await asyncio.wait([call])
    assert isinstance(call.exception(), GatewayLost)
    assert not alive(pid)


async def test_a_call_cancelled_while_it_starts_the_process_leaves_nothing(make: Make) -> None:
    gateway = make()
    call = spawn(collect(gateway), name="call")
    await until(lambda: gateway.pid)
    pid = gateway.pid
    await cancel_and_wait(call)
    assert not alive(pid)
    assert isinstance((await collect(gateway))[-1], Finished)


async def test_it_dies_with_a_runtime_that_is_killed() -> None:
    code = (
        "import asyncio\n"
        "from toka_runtime.clock import SystemClock\n"
        "from toka_runtime.llm.base import GatewaySettings\n"
        "from toka_runtime.llm.gateway import Gateway\n"
        "async def main():\n"
        "    gateway = Gateway(GatewaySettings(provider='rehearsal'), SystemClock())\n"
        "    await gateway.start()\n"
        "    print(gateway.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    runtime = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert runtime.stdout is not None
    pid = int(await runtime.stdout.readline())
    assert alive(pid)
    runtime.kill()
    await runtime.wait()
    await until(lambda: not alive(pid))


async def test_a_process_that_cannot_start_says_why(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = make(environ={"PYTHONHOME": "/nowhere"})
    with pytest.raises(GatewayLost) as lost:
        await gateway.start()
    assert "while it was starting" in lost.value.message
    assert "encodings" in lost.value.message
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(GatewayLost, match="cannot be started"):
        await make().start()


async def test_a_process_that_keeps_dying_is_not_started_all_the_time(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "RESTART_PAUSE_S", 0.3)
    gateway = make()
    await gateway.start()
    assert gateway.pid is not None
    os.kill(gateway.pid, signal.SIGKILL)
    await until(lambda: gateway.pid is None)
    began = SystemClock().monotonic()
    await collect(gateway)
    assert SystemClock().monotonic() - began > 0.05


# -- the SDK behind it --------------------------------------------------------------------------------------------


async def test_the_sdk_in_the_process(make: Make) -> None:
    """One process for all of this: the SDK takes its time to load."""
    silent = Answer(events=turn(text_block(0, *["word "] * 7), cache_read_input_tokens=50)[:9], end="stall")
    async with FakeMessagesServer(
        Answer(events=hello_turn("Hello you")),
        Answer(status=529, body=error_body("overloaded_error", "busy")),
        Answer(events=hello_turn("Hello again")),
        Answer(status=400, body=error_body("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum")),
        Answer(status=401, body=error_body("authentication_error", f"bad key {API_KEY}")),
        silent,
    ) as server:
        own = ModelPrice(model="our-model", input=3.0, output=15.0, cache_read=0.3)
        gateway = make(
            "anthropic", {"ANTHROPIC_API_KEY": API_KEY}, base_url=server.url, max_retry_delay_s=0.05, prices=(own,)
        )
        million = TokenUsage(input_tokens=1_000_000, output_tokens=1_000_000, cache_read_tokens=1_000_000)
        assert await gateway.quote("our-model", million) == 18.3
        assert await gateway.quote("nobody-knows-it", million) is None
        assert (await gateway.quote("", million) or 0) > 1
        finished = (await collect(gateway, model_request(messages=({"role": "user", "content": f"my {API_KEY}"},))))[-1]
        assert finished.content[0]["text"] == "Hello you "
        assert finished.redactions == 1
        assert (finished.usage.input_tokens, finished.cost_usd) == (100, None)
        assert API_KEY not in str(server.received[0].body)
        assert server.received[0].headers["authorization"] == f"Bearer {API_KEY}"
        assert gateway.last_usage(CallId("m1"), RunId("r1")) == finished.usage

        retried = await collect(gateway)
        assert any(isinstance(event, Retrying) and event.attempt == 1 for event in retried)

        with pytest.raises(PromptTooLong):
            await collect(gateway)
        with pytest.raises(ModelRefused) as refused:
            await collect(gateway)
        assert API_KEY not in refused.value.message

        # Cancelled in mid-stream: gone upstream at once, and what it cost is known.
        async with aclosing(gateway.stream(model_request(call="m9"))) as events:
            await first_text(events)
        async with asyncio.timeout(5):
            await server.closed_by_client.wait()
        usage = gateway.last_usage(CallId("m9"))
        assert (usage.input_tokens, usage.cache_read_tokens, usage.estimated) == (100, 50, True)
        assert usage.output_tokens > 0
        assert gateway.last_usage(CallId("never")).total_tokens == 0


# -- recordings ---------------------------------------------------------------------------------------------------


async def test_a_rehearsal_is_recorded_and_replayed(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recording = make(record_file="session.jsonl")
    before = (await collect(recording))[-1]
    assert recording.pid is not None
    os.kill(recording.pid, signal.SIGKILL)
    await until(lambda: recording.pid is None)
    await collect(recording, model_request(turn=2))
    await recording.aclose()
    assert stat.S_IMODE((tmp_path / "session.jsonl").stat().st_mode) == 0o600

    replay = make("replay", replay_file="session.jsonl", replay_speed=0)
    after = (await collect(replay))[-1]
    assert after.content == before.content
    assert isinstance((await collect(replay, model_request(turn=2)))[-1], Finished)
    with pytest.raises(RecordingMiss, match="turn 3"):
        await collect(replay, model_request(turn=3))

    with pytest.raises(RecordingBroken, match="exists already"):
        await collect(make(record_file="session.jsonl"))
    with pytest.raises(RecordingBroken, match="cannot be read"):
        await collect(make("replay", replay_file="absent.jsonl"))


# -- what does not fit --------------------------------------------------------------------------------------------


async def test_what_is_no_json_is_refused_and_hurts_no_other_call(make: Make) -> None:
    gateway = make()
    await gateway.start()
    pid = gateway.pid
    bad = model_request(messages=({"role": "user", "content": float("nan")},))
    with pytest.raises(ModelRefused, match="no JSON"):
        await collect(gateway, bad)
    surrogate = model_request(messages=({"role": "user", "content": "\ud800 broken name"},), description="\ud800")
    assert isinstance((await collect(gateway, surrogate))[-1], Finished)
    assert gateway.pid == pid


async def test_a_conversation_beyond_any_limit(make: Make) -> None:
    huge = model_request(messages=[{"role": "user", "content": "x" * 1_000_000}] * 17)
    with pytest.raises(PromptTooLong, match="MB"):
        await collect(make(), huge)


async def test_a_large_conversation_goes_through_while_others_run(make: Make) -> None:
    gateway = make()
    large = model_request(messages=[{"role": "user", "content": "word " * 40_000}] * 40, call="large")
    calls = [spawn(collect(gateway, large), name="large")]
    calls += [spawn(collect(gateway, model_request(call=f"m{n}")), name=f"{n}") for n in range(10)]
    await asyncio.wait(calls)
    assert all(isinstance(call.result()[-1], Finished) for call in calls)
