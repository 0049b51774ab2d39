"""Runs from request to end: order, failure policy, retries, proof, timeouts, death. Real processes throughout."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from fakes.events import host_protections
from fakes.gateway import Answer, finish, say, tool_results, tool_turn
from fakes.processes import alive
from fakes.scene import scene, spec
from toka_runtime.errors import ModelUnavailable, ProcessError
from toka_runtime.llm.base import ModelRequest
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.capability import Layer
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.limits import Strength
from toka_runtime.protocol.protections import Area, HostProtections, Tier
from toka_runtime.protocol.spec import SandboxMode
from toka_runtime.protocol.states import AgentState, StopReason, TaskState, Verdict
from toka_runtime.supervisor import supervisor
from toka_runtime.supervisor.endings import MOST_LOSSES

S = AgentState


def obedient(request: ModelRequest) -> Answer:
    return finish()


def failing(*names: str):
    """A brain that fails the named agents' tasks and finishes everyone else's."""

    def brain(request: ModelRequest) -> Answer:
        return finish("blocked", "cannot") if request.context.agent in names else finish()

    return brain


async def test_dependants_start_after_and_say_why_they_waited(tmp_path: Path) -> None:
    needy = spec("b", body="dependencies: {required: {a: order}}\n")
    async with scene(tmp_path, obedient, needy, spec("a")) as stage:
        await stage.run()
        assert stage.final() == {"a": S.COMPLETED, "b": S.COMPLETED}
        assert any("a to be completed" in why for e in stage.of(ev.AgentBlocked, "b") for why in e.blockers)
        order = [(e.agent, e.event.after) for e in stage.log if isinstance(e.event, ev.AgentStateChanged)]
        assert order.index(("a", S.COMPLETED)) < order.index(("b", S.STARTING))


async def test_required_failure_skips_dependants_optional_ones_go_on(tmp_path: Path) -> None:
    required = spec("needs", body="dependencies: {required: {bad: r}}\n")
    optional = spec("likes", body="dependencies: {optional: {bad: r}}\n")
    async with scene(tmp_path, failing("bad"), spec("bad"), required, optional) as stage:
        await stage.run()
        assert stage.final() == {"bad": S.FAILED, "needs": S.SKIPPED, "likes": S.COMPLETED}
        skipped = stage.of(ev.AgentStateChanged, "needs")[-1]
        assert skipped.reason is StopReason.DEPENDENCY_FAILED
        assert "bad" in skipped.detail
        assert not stage.of(ev.ProcessStarted, "needs")


async def test_results_of_earlier_tasks_are_in_the_next_prompt(tmp_path: Path) -> None:
    def brain(request: ModelRequest) -> Answer:
        return finish(summary=f"outcome of {request.context.task_description}")

    two = spec("a", tasks="[{description: alpha}, {description: beta}]")
    async with scene(tmp_path, brain, two) as stage:
        await stage.run()
        assert "outcome of alpha" in str(stage.gateway.requests[-1].messages[0])


async def test_verify_fails_then_passes_after_a_retry_that_knows_why(tmp_path: Path) -> None:
    def brain(request: ModelRequest) -> Answer:
        if request.context.attempt == 2 and tool_results(request) == 0:
            assert "grep" in str(request.messages[0])
            return tool_turn(("write_file", {"path": "proof.txt", "content": "yes\n"}))
        return finish()

    task = "[{description: prove it, verify: 'grep -q yes proof.txt'}]"
    async with scene(tmp_path, brain, spec("a", tasks=task)) as stage:
        await stage.run()
        assert stage.final() == {"a": S.COMPLETED}
        assert [e.verdict for e in stage.of(ev.Verified)] == [Verdict.FAILED, Verdict.VERIFIED]
        states = [e.after for e in stage.of(ev.TaskStateChanged)]
        assert TaskState.RETRYING in states
        assert stage.of(ev.TaskStateChanged)[-1].verdict is Verdict.VERIFIED


async def test_a_claim_is_a_claim_and_a_check_that_cannot_run_is_inconclusive(tmp_path: Path) -> None:
    tasks = "[{description: say so}, {description: check, verify: [no-such-program-here]}]"
    async with scene(tmp_path, obedient, spec("a", tasks=tasks)) as stage:
        await stage.run()
        done = [e.verdict for e in stage.of(ev.TaskStateChanged) if e.after is TaskState.DONE]
        assert done == [Verdict.CLAIMED, Verdict.INCONCLUSIVE]
        assert not stage.agent("a").verified


async def test_only_proof_satisfies_a_verified_dependency(tmp_path: Path) -> None:
    wants = "dependencies: {required: [{agent: a, condition: verified}]}\n"
    proven = spec("a", tasks="[{description: t, verify: 'true'}]")
    async with scene(tmp_path, obedient, proven, spec("b", body=wants)) as stage:
        await stage.run()
        assert stage.final() == {"a": S.COMPLETED, "b": S.COMPLETED}


async def test_a_mere_claim_does_not_satisfy_it(tmp_path: Path) -> None:
    wants = "dependencies: {required: [{agent: a, condition: verified}]}\n"
    async with scene(tmp_path, obedient, spec("a"), spec("b", body=wants)) as stage:
        await stage.run()
        assert stage.final() == {"a": S.COMPLETED, "b": S.SKIPPED}


async def test_failed_objective_check_fails_the_agent(tmp_path: Path) -> None:
    body = "objectives: [{description: o, deliverable: d, validation: v, verify: 'false'}]\n"
    async with scene(tmp_path, obedient, spec("a", body=body)) as stage:
        await stage.run()
        assert stage.final() == {"a": S.FAILED}
        assert stage.of(ev.Verified)[-1].objective == 0


async def test_words_are_not_judged(tmp_path: Path) -> None:
    def brain(request: ModelRequest) -> Answer:
        return say("All tasks done, verified, success, completed!")

    async with scene(tmp_path, brain, spec("a")) as stage:
        await stage.run()
        assert stage.final() == {"a": S.FAILED}
        assert "without calling finish" in stage.of(ev.AgentStateChanged)[-1].detail


async def test_after_a_failed_task_the_rest_is_skipped_with_the_reason(tmp_path: Path) -> None:
    two = spec("a", tasks="[{description: one}, {description: two}]")
    async with scene(tmp_path, failing("a"), two) as stage:
        await stage.run()
        last = stage.of(ev.TaskStateChanged)[-1]
        assert (last.task, last.after, last.detail) == (1, TaskState.SKIPPED, "task 1 failed")


async def test_model_failure_is_retried_and_then_fails_the_agent(tmp_path: Path) -> None:
    def brain(request: ModelRequest) -> Answer:
        return ModelUnavailable("overloaded for good")

    async with scene(tmp_path, brain, spec("a")) as stage:
        await stage.run()
        assert stage.agent("a").reason is StopReason.LLM_FAILED
        assert len({r.context.attempt for r in stage.gateway.requests}) == 2
        assert {e.outcome for e in stage.of(ev.ModelCallEnded)} == {"error"}


async def test_task_timeout_is_an_attempt_and_the_next_may_succeed(tmp_path: Path) -> None:
    hang = asyncio.Event()

    def brain(request: ModelRequest) -> Answer:
        return hang if request.context.attempt == 1 else finish()

    slow = spec("a", tasks="[{description: slow, timeout: 1}]")
    async with scene(tmp_path, brain, slow) as stage:
        await stage.run()
        assert stage.final() == {"a": S.COMPLETED}
        assert stage.gateway.cancelled == 1
        ended = stage.of(ev.ModelCallEnded)
        assert ended[0].outcome == "cancelled"
        assert ended[0].usage.estimated


async def test_agent_timeout_ends_the_run_and_its_processes(tmp_path: Path) -> None:
    hang = asyncio.Event()
    limits = "  resource_limits: {timeout: 1}\n"
    async with scene(tmp_path, lambda request: hang, spec("a", security=limits)) as stage:
        await stage.run()
        assert stage.agent("a").reason is StopReason.TIMEOUT
        started = stage.of(ev.ProcessStarted)[-1]
        assert not alive({started.process.pid})
        assert stage.of(ev.ProcessEnded)[-1].survivors == ()


async def test_a_worker_that_is_killed_again_and_again_fails_the_run(tmp_path: Path) -> None:
    hang = asyncio.Event()
    async with scene(tmp_path, lambda request: hang, spec("a")) as stage:
        await stage.start()
        for killed in range(MOST_LOSSES + 1):
            await stage.until(lambda killed=killed: len(stage.of(ev.ModelCallStarted)) > killed)
            os.kill(stage.of(ev.ProcessStarted)[-1].worker_pid, signal.SIGKILL)
        await stage.until(lambda: stage.of(ev.AgentStateChanged)[-1].after is S.FAILED)
        assert stage.agent("a").reason is StopReason.WORKER_DIED
        states = [e.after for e in stage.of(ev.AgentStateChanged)]
        assert states == [S.STARTING, S.RUNNING, S.PENDING] * MOST_LOSSES + [S.STARTING, S.RUNNING, S.FAILED]


async def test_conditional_tasks_run_only_when_switched_on(tmp_path: Path) -> None:
    text = spec("a").replace("tasks:\n", "tasks:\n  conditional: {deep: [{description: dig}]}\n")
    async with scene(tmp_path, obedient, text) as stage:
        await stage.run()
        assert len({r.context.task for r in stage.gateway.requests}) == 1
    async with scene(tmp_path / "again", obedient, text, enable=frozenset({"deep"})) as stage:
        await stage.run()
        assert [r.context.task_description for r in stage.gateway.requests] == ["the work", "dig"]


async def test_tools_and_denials_of_a_real_tool_child(tmp_path: Path) -> None:
    def brain(request: ModelRequest) -> Answer:
        steps = [
            tool_turn(("read_file", {"path": "hello.txt"}), ("read_file", {"path": "/etc/shadow"})),
            tool_turn(("run_command", {"command": "echo out; echo err >&2; exit 3"})),
            finish(),
        ]
        return steps[{0: 0, 2: 1, 3: 2}[tool_results(request)]]

    async with scene(tmp_path, brain, spec("a")) as stage:
        await stage.run()
        assert stage.final() == {"a": S.COMPLETED}
        (denied,) = stage.of(ev.OperationDenied)
        assert denied.denial.operation.target == "/etc/shadow"
        outcomes = [(e.tool, e.outcome) for e in stage.of(ev.ToolCallEnded)]
        assert outcomes == [("read_file", "ok"), ("read_file", "denied"), ("run_command", "error"), ("finish", "ok")]
        streams = {e.stream: e.text for e in stage.of(ev.OutputAppended) if e.stream in {"stdout", "stderr"}}
        assert streams == {ev.Stream.STDOUT: "out\n", ev.Stream.STDERR: "err\n"}


@pytest.mark.slow
async def test_thirty_agents_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path, obedient, *(spec(f"a{n}") for n in range(30)), max_agents=30) as stage:
        await stage.run()
        assert set(stage.final().values()) == {S.COMPLETED}
        assert len({e.process.pid for e in stage.of(ev.ProcessStarted)}) == 30


async def test_unconfined_is_the_operators_decision(tmp_path: Path) -> None:
    text = spec("a").replace("sandbox: true", "sandbox: false")
    async with scene(tmp_path, obedient, text) as stage:
        await stage.run()
        assert (stage.agent("a").state, stage.agent("a").reason) == (S.FAILED, StopReason.SANDBOX_UNAVAILABLE)
        assert "--allow-unconfined" in stage.of(ev.AgentStateChanged)[-1].detail
        assert not stage.of(ev.ProcessStarted)
    async with scene(tmp_path / "again", obedient, text, allow_unconfined=True) as stage:
        await stage.run()
        assert stage.final() == {"a": S.COMPLETED}
        assert any(e.code == "sandbox.unconfined" for e in stage.of(ev.Noticed))
        assert not any("namespaces" in line for line in stage.of(ev.ProcessStarted)[-1].protections)


async def test_confined_is_the_default_and_is_told(tmp_path: Path) -> None:
    async with scene(tmp_path, obedient, spec("a")) as stage:
        await stage.run()
        assert any("namespaces" in line for line in stage.of(ev.ProcessStarted)[-1].protections)


async def test_each_run_says_what_is_around_it_and_no_run_waits_for_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = asyncio.Event()

    async def probe() -> HostProtections:
        await probed.wait()
        return host_protections()

    monkeypatch.setattr(supervisor, "probe_apart", probe)
    monkeypatch.setattr(supervisor, "PROBE_AFTER_S", 0.0)
    free = spec("free").replace("sandbox: true", "sandbox: false")
    held = asyncio.Event()

    def brain(request: ModelRequest) -> Answer:
        return held if request.context.agent == "late" and not held.is_set() else finish()

    async with scene(tmp_path, brain, spec("early"), spec("late"), free, allow_unconfined=True) as stage:
        await stage.run("early", "free")
        (early,) = (e.protections for e in stage.of(ev.ProtectionsInForce, "early"))
        assert (early.asked, early.unconfined, early.tier, early.badges) == (SandboxMode.REQUIRED, "", None, ())
        await stage.start("late")
        await stage.until_state("late", S.RUNNING)
        assert not stage.of(ev.ProtectionsInForce, "late")
        probed.set()
        await stage.until(lambda: stage.of(ev.ProtectionsInForce, "late"))
        held.set()
        assert stage.of(ev.HostProbed) == [ev.HostProbed(protections=host_protections())]
        (late,) = (e.protections for e in stage.of(ev.ProtectionsInForce, "late"))
        assert (late.tier, late.badges) == (Tier.B, host_protections().badges)
        await stage.start("free")
        await stage.until(lambda: len(stage.of(ev.ProtectionsInForce, "free")) == 2)
        first, second = (e.protections for e in stage.of(ev.ProtectionsInForce, "free"))
        assert first.tier is None
        assert second.unconfined == "its spec says `sandbox: false`"
        assert {badge.area for badge in second.badges if badge.strength is not Strength.NONE} == {Area.KILL}
        await stage.until_state("late", S.COMPLETED)
        fleet = stage.supervisor.snapshot()
        assert fleet.protections == host_protections()
        assert fleet.agents[AgentName("late")].in_force == late


async def test_a_host_that_cannot_be_probed_is_told_and_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def probe() -> HostProtections:
        raise ProcessError("the host could not be probed: no process left")

    monkeypatch.setattr(supervisor, "probe_apart", probe)
    async with scene(tmp_path, obedient, spec("a")) as stage:
        await stage.run()
        assert stage.final() == {"a": S.COMPLETED}
        await stage.until(lambda: [e for e in stage.of(ev.Noticed) if e.code == "process.error"])
        await stage.until(lambda: stage.of(ev.ProtectionsInForce))
        assert [e.message for e in stage.of(ev.Noticed) if e.code == "process.error"] == [
            "the host could not be probed: no process left"
        ]
        assert [e.protections.tier for e in stage.of(ev.ProtectionsInForce)] == [None]


async def test_a_host_that_is_granted_is_reached_through_the_proxy_alone(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nfound\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def brain(request: ModelRequest) -> Answer:
        around = f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo AROUND"
        first = tool_turn(
            ("fetch_url", {"url": f"http://127.0.0.1:{port}/"}),
            ("fetch_url", {"url": f"http://127.0.0.1:{port + 1}/"}),
            ("run_command", {"command": around}),
        )
        return finish() if tool_results(request) else first

    grant = f"grants: {{network-access: ['127.0.0.1:{port}']}}\n"
    text = spec("a", body=grant).replace("script-execution]", "script-execution, network-access]")
    async with server, scene(tmp_path, brain, text) as stage:
        await stage.run()
        ended = {(e.tool, e.outcome) for e in stage.of(ev.ToolCallEnded)}
        assert ("fetch_url", "ok") in ended
        assert ("fetch_url", "denied") in ended
        assert ("run_command", "error") in ended
        assert all("AROUND" not in e.text for e in stage.of(ev.OutputAppended))
        told = {(e.denial.layer, e.denial.operation.target) for e in stage.of(ev.OperationDenied)}
        # Around the proxy there is nothing of the granted address: the kernel's refusal is seen, too.
        assert told == {(Layer.POLICY, f"127.0.0.1:{port + 1}"), (Layer.SANDBOX, f"127.0.0.1:{port}")}
