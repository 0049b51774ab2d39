"""A fleet in the middle of its work, as events: every state, verdict and outcome that a screen has to show."""

from __future__ import annotations

from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from fakes.events import host_protections
from toka_runtime.protocol import capability as cap
from toka_runtime.protocol import events as ev
from toka_runtime.protocol import spec as sp
from toka_runtime.protocol.ids import AgentName, CallId, ProcessRef, RunId
from toka_runtime.protocol.limits import LimitInForce, LimitName, Strength
from toka_runtime.protocol.protections import Protections
from toka_runtime.protocol.states import AgentState, StopReason, TaskState, Verdict
from toka_runtime.protocol.usage import Budget, HostUsage, ResourceLimits, TokenUsage, Usage

MIB = 2**20
NAMES = (
    ("build-system-stabilization", "Build System", sp.Priority.CRITICAL),
    ("testing-infrastructure", "Testing", sp.Priority.HIGH),
    ("kernel-events-enhancement", "Kernel", sp.Priority.HIGH),
    ("storage-advancement", "Storage", sp.Priority.MEDIUM),
    ("security-extension", "Security", sp.Priority.HIGH),
    ("llm-credentials-setup", "Language Models", sp.Priority.MEDIUM),
    ("performance-observability", "Observability", sp.Priority.MEDIUM),
    ("document-organization", "Documentation", sp.Priority.LOW),
    ("github-cicd-issues-resolution", "Continuous Integration", sp.Priority.HIGH),
)
BANNER = "REHEARSAL: no model is used; every text is scripted, tokens and cost are zero"


def spec(
    name: str, domain: str = "Testing", priority: sp.Priority = sp.Priority.MEDIUM, tasks: int = 3
) -> sp.AgentSpec:
    texts = (
        "Audit the workspace manifests and list every version conflict",
        "Fix the conflicts and record each decision in docs/build-decisions.md",
        "Prove that the whole workspace builds and its tests pass",
        "Write the hand-over for the agents that wait for this one",
    )
    return sp.AgentSpec(
        name=AgentName(name),
        version="v0.3.0",
        title=name.replace("-", " ").title(),
        domain=domain,
        priority=priority,
        branch=f"feature/{name}",
        workstream=domain,
        tasks=tuple(sp.TaskSpec(description=texts[i % len(texts)]) for i in range(tasks)),
        objectives=(sp.Objective(description="The workspace builds without warnings"),),
        security=sp.Security(
            capabilities_required=("filesystem-read", "filesystem-write", "cargo-execution"),
            limits=ResourceLimits(memory_bytes=512 * MIB, cpu_fraction=0.75, timeout_s=7200, processes=64),
        ),
        budget=Budget(max_tokens=200_000),
        file=f"configs/agents/{name}.yaml",
    )


def limits() -> tuple[LimitInForce, ...]:
    """What holds them on a host without control groups: everything but the processor, memory only in part."""

    def held(limit: LimitName, figure: float, mechanism: str, strength: Strength, reason: str = "") -> LimitInForce:
        declared = limit not in (LimitName.DESCRIPTORS, LimitName.OUTPUT)
        return LimitInForce(
            limit=limit, figure=figure, declared=declared, strength=strength, mechanism=mechanism, reason=reason
        )

    return (
        held(LimitName.MEMORY, 512 * MIB, "RLIMIT_DATA", Strength.APPROXIMATE, "shared memory is not counted"),
        held(LimitName.CPU, 0.75, "", Strength.NONE, "no control group may be written"),
        held(LimitName.TIMEOUT, 7200, "the runtime's clock", Strength.ENFORCED),
        held(LimitName.PROCESSES, 64, "RLIMIT_NPROC", Strength.ENFORCED),
        held(LimitName.DESCRIPTORS, 1024, "RLIMIT_NOFILE", Strength.ENFORCED),
        held(LimitName.OUTPUT, 256 * 1024, "the runtime", Strength.ENFORCED),
    )


def rights() -> cap.Rights:
    return cap.Rights(
        text=("read files below the workspace", "write files below the workspace", "run cargo"),
        tools=("read_file", "write_file", "run_command", "finish"),
    )


def denial(target: str = "/etc/passwd", layer: cap.Layer = cap.Layer.POLICY, call: str = "c9") -> cap.Denial:
    return cap.Denial(
        operation=cap.Operation(kind=cap.OperationKind.READ, target=target, tool="read_file", call=CallId(call)),
        capability="filesystem-read",
        layer=layer,
        rule="outside-workspace",
        reason="the path lies outside the agent's folder",
        hint="grant filesystem-read for this path, or let the agent work without it",
    )


def load(client: FakeRuntimeClient, provider: str = "rehearsal", note: str = BANNER) -> None:
    """The runtime and nine loaded specs, nothing started."""
    client.emit(
        ev.RuntimeStarted(
            epoch="e1", version="0.1.0", pid=4242, workspace="/home/op/work/sample", provider=provider,
            provider_note=note, state_dir="/home/op/.local/state/toka",
        )
    )  # fmt: skip
    client.emit(ev.HostProbed(protections=host_protections()))
    for name, domain, priority in NAMES:
        tasks = 4 if priority is sp.Priority.CRITICAL else 3
        client.emit(ev.SpecLoaded(spec=spec(name, domain, priority, tasks), rights=rights()))


def change(client: FakeRuntimeClient, agent: str, after: AgentState, reason: StopReason = StopReason.NONE,
           detail: str = "", run: str | None = None, frozen_ms: float | None = None) -> None:  # fmt: skip
    before = client.state.agents[AgentName(agent)].state
    client.emit(
        ev.AgentStateChanged(before=before, after=after, reason=reason, detail=detail, frozen_ms=frozen_ms), agent, run
    )


def start(client: FakeRuntimeClient, agent: str, number: int) -> RunId:
    """Bring an agent to RUNNING with a process, a worktree and its first task."""
    run = RunId(f"r{number:010x}")
    change(client, agent, AgentState.STARTING, run=run)
    client.emit(ev.LimitsInForce(limits=limits()), agent)
    client.emit(
        ev.WorkspaceReady(
            mode="worktree", path=f"/home/op/.local/state/toka/worktrees/{agent}", branch=f"feature/{agent}",
            base_commit="0f3c2a9d",
        ),
        agent,
    )  # fmt: skip
    client.emit(
        ev.ProcessStarted(
            process=ProcessRef(pid=5000 + number, started_ticks=880_000 + number), worker_pid=6000 + number,
            protections=("namespaces: user, mount, net, pid", "landlock: write below its folder", "seccomp: 61 calls"),
        ),
        agent,
    )  # fmt: skip
    found = host_protections()
    around = Protections(asked=sp.SandboxMode.REQUIRED, tier=found.tier, badges=found.badges)
    client.emit(ev.ProtectionsInForce(protections=around), agent)
    change(client, agent, AgentState.RUNNING)
    client.emit(ev.TaskStateChanged(task=0, total=3, after=TaskState.RUNNING), agent)
    return run


def sample(client: FakeRuntimeClient, agent: str, cpu: float, memory: int, processes: int = 3) -> None:
    usage = Usage(cpu_fraction=cpu, cpu_s=12.5, memory_bytes=memory, processes=processes, threads=7)
    client.emit(ev.AgentSampled(usage=usage), agent)


def tool(client: FakeRuntimeClient, agent: str, call: str, name: str, target: str, outcome: str = "ok",
         summary: str = "", **arguments: object) -> None:  # fmt: skip
    client.emit(
        ev.ToolCallStarted(call=CallId(call), task=0, turn=1, tool=name, target=target, arguments=dict(arguments)),
        agent,
    )
    if outcome:
        client.emit(
            ev.ToolCallEnded(
                call=CallId(call), tool=name, outcome=outcome, duration_s=0.42, summary=summary,  # type: ignore[arg-type] # a literal from the test
                result_bytes=len(summary),
            ),
            agent,
        )  # fmt: skip


def say(
    client: FakeRuntimeClient, agent: str, text: str, stream: ev.Stream = ev.Stream.MODEL, call: str = "m1"
) -> None:
    client.emit(ev.OutputAppended(stream=stream, text=text, task=0, turn=1, call=CallId(call)), agent)


async def work(client: FakeRuntimeClient, clock: FakeClock) -> None:
    """Nine agents in nine situations, half an hour in."""
    load(client)
    client.emit(
        ev.SpecRejected(
            file="configs/agents/broken.yaml",
            name="",
            problems=(
                ev.ProblemView(file="configs/agents/broken.yaml", line=14, column=7, code="spec.type",
                               message="max_memory must be a size such as 512MB, not [1, 2]", hint="write 512MB"),
                ev.ProblemView(file="configs/agents/broken.yaml", line=22, column=3, code="spec.key",
                               message="no key 'capabilties'", hint="did you mean capabilities?"),
            ),
        )
    )  # fmt: skip
    first = NAMES[0][0]
    for number, (name, _, _) in enumerate(NAMES[:7]):
        start(client, name, number)
        await clock.advance(40)
    client.emit(ev.AgentBlocked(blockers=("security-extension to be completed", "a free slot")), NAMES[7][0])
    client.emit(ev.AgentBlocked(blockers=("kernel-events-enhancement to be completed",)), NAMES[8][0])
    await clock.advance(600)
    client.emit(ev.ModelCallStarted(call=CallId("m1"), task=0, turn=1, provider="rehearsal", model="none"), first)
    say(client, first, "[rehearsal: no model] I begin with the manifests.\n\n## Plan\n")
    say(
        client,
        first,
        "1. list every Cargo.toml\n2. compare the versions that they ask for\n3. write down what differs\n",
    )
    tool(client, first, "c1", "list_files", "crates/**/Cargo.toml", pattern="crates/**/Cargo.toml",
         summary="crates/kernel/Cargo.toml\ncrates/store/Cargo.toml", limit=200)  # fmt: skip
    client.emit(
        ev.ModelCallEnded(
            call=CallId("m1"), task=0, turn=1, provider="rehearsal", model="none", outcome="ok", duration_s=3.2,
            usage=TokenUsage(input_tokens=8_400, output_tokens=1_250), cost_usd=0.0213,
        ),
        first,
    )  # fmt: skip
    client.emit(ev.ModelCallStarted(call=CallId("m2"), task=0, turn=2, provider="rehearsal", model="none"), first)
    tool(client, first, "c2", "run_command", "cargo check --workspace", summary="Finished dev profile in 41.2 s",
         argv=["cargo", "check", "--workspace"], timeout_s=600)  # fmt: skip
    client.emit(ev.TaskStateChanged(task=0, total=4, after=TaskState.DONE, verdict=Verdict.VERIFIED), first)
    client.emit(ev.WorkCommitted(task=0, commit="4be1c0ffee12", files=3, insertions=48, deletions=7), first)
    client.emit(ev.TaskStateChanged(task=1, total=4, after=TaskState.RUNNING), first)
    tool(client, first, "c9", "read_file", "/etc/passwd", outcome="denied", summary="denied", path="/etc/passwd")
    client.emit(ev.OperationDenied(denial=denial(), task=1), first)
    client.emit(ev.OperationDenied(denial=denial(), task=1), first)
    tool(client, first, "c10", "edit_file", "crates/kernel/Cargo.toml", outcome="", path="crates/kernel/Cargo.toml",
         old='serde = "1.0.130"', new='serde = { workspace = true }')  # fmt: skip
    change(client, NAMES[1][0], AgentState.PAUSED, StopReason.OPERATOR, "3 processes stopped in 1.2 ms")
    await clock.advance(300)
    change(client, NAMES[2][0], AgentState.FAILED, StopReason.TIMEOUT, "ran for 30m, limit 30m")
    change(client, NAMES[3][0], AgentState.STOPPING, StopReason.OPERATOR)
    change(client, NAMES[3][0], AgentState.KILLED, StopReason.OPERATOR)
    for index, verdict in enumerate((Verdict.VERIFIED, Verdict.CLAIMED, Verdict.VERIFIED)):
        client.emit(ev.TaskStateChanged(task=index, total=3, after=TaskState.DONE, verdict=verdict), NAMES[5][0])
    change(client, NAMES[5][0], AgentState.COMPLETED)
    net = cap.Denial(
        operation=cap.Operation(
            kind=cap.OperationKind.CONNECT, target="crates.io:443", tool="run_command", call=CallId("s1")
        ),
        capability="network-access", layer=cap.Layer.PROXY, rule="network-access: none declared",
        reason="no declared capability allows crates.io:443",
    )  # fmt: skip
    client.emit(ev.OperationDenied(denial=net, task=0, count=14), NAMES[4][0])
    client.emit(ev.ModelCallStarted(call=CallId("m7"), task=0, turn=4, provider="rehearsal", model="none"), NAMES[6][0])
    await clock.advance(18)
    for step in range(40):
        wave = (step * 7 % 11) / 11
        sample(client, first, 0.2 + 0.5 * wave, (180 + 6 * step) * MIB, 5)
        sample(client, NAMES[4][0], 0.05 + 0.1 * wave, 44 * MIB)
        sample(client, NAMES[6][0], 0.01, 9 * MIB, 1)
        sample(client, NAMES[1][0], 0.0, 31 * MIB)
        client.emit(
            ev.HostSampled(
                usage=HostUsage(cpu_fraction=0.25 + 0.4 * wave, cores=2, memory_total_bytes=16 * 2**30,
                                memory_used_bytes=5 * 2**30, load_1m=1.4)
            )
        )  # fmt: skip
        await clock.advance(0.5)
    client.emit(ev.Noticed(level=ev.Level.WARNING, code="limits.approximate", message="memory limits are approximate",
                           hint="delegate a cgroup to this user"))  # fmt: skip
