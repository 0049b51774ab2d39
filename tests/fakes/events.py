"""Events for tests: one example of every kind, and strategies for whole histories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from hypothesis import strategies as st

from toka_runtime.protocol import events as ev
from toka_runtime.protocol.approval import ApprovalOutcome, ApprovalRequest, Grant, GrantEnd, GrantScope, Offer
from toka_runtime.protocol.budget import BudgetFigure, BudgetScope
from toka_runtime.protocol.capability import Denial, Layer, Operation, OperationKind, Rights
from toka_runtime.protocol.health import Health, HealthLevel, HealthReason
from toka_runtime.protocol.ids import AgentName, ApprovalId, CallId, CommandId, GrantId, HostId, ProcessRef, RunId
from toka_runtime.protocol.limits import Culprit, LimitInForce, LimitName, LimitOutcome, Strength
from toka_runtime.protocol.protections import (
    TIER_MEANING,
    Area,
    Badge,
    HostProtections,
    Observation,
    Protections,
    Tier,
)
from toka_runtime.protocol.spec import AgentSpec, Objective, SandboxMode, TaskSpec
from toka_runtime.protocol.states import AgentState, StopReason, TaskState, Verdict
from toka_runtime.protocol.usage import Budget, HostUsage, TokenUsage, Usage

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
HOST = HostId("host-1")
AGENTS = (AgentName("alpha"), AgentName("beta"), AgentName("gamma"))


def spec_of(name: str) -> AgentSpec:
    return AgentSpec(
        name=AgentName(name),
        title="Ümlaut “quoted”",
        tasks=(
            TaskSpec(description="first"),
            TaskSpec(description="second"),
            TaskSpec(description="more", condition="x"),
        ),
        objectives=(Objective(description="goal"),),
        extensions={"custom": {"nested": [1, 2.5, None, True]}},
        file=f"{name}.yaml",
    )


def denial(target: str = "/etc/shadow") -> Denial:
    return Denial(
        operation=Operation(kind=OperationKind.READ, target=target, argv=("cat", target)),
        capability="filesystem-read",
        layer=Layer.POLICY,
        rule="default-deny",
        reason="not declared",
    )


def approval(identity: str = "a1", *, wait_s: float = 60.0, count: int = 1) -> ApprovalRequest:
    refused = denial("docs/a.md")
    return ApprovalRequest(
        id=ApprovalId(identity),
        agent=AGENTS[0],
        run=RunId("r1"),
        task=0,
        turn=2,
        call=CallId("c9"),
        tool="write_file",
        arguments={"path": "docs/a.md", "content": "x"},
        operations=(refused.operation,),
        denials=(refused,),
        warnings=("looks like another",),
        digest="d" * 64,
        offers=(Offer(scope=GrantScope.TTL, wide=True, ttl_s=600, text="write everything below docs/: for 10 min"),),
        wait_s=wait_s,
        count=count,
    )


def grant(identity: str = "g1", scope: GrantScope = GrantScope.TTL, ttl_s: float | None = 600.0) -> Grant:
    return Grant(
        id=GrantId(identity),
        approval=ApprovalId("a1"),
        agent=AGENTS[0],
        run=RunId("r1"),
        task=0,
        tool="write_file",
        digest="d" * 64,
        scope=scope,
        opens=(denial("docs/").operation,),
        text="write everything below docs/: for 10 min",
        ttl_s=ttl_s,
        actor="operator@desk (console)",
        issued_at=START,
    )


def host_protections() -> HostProtections:
    """Of a host of tier B: files, network, kill and processes held, memory in part, CPU not."""
    held = {Area.MEM: Strength.APPROXIMATE, Area.CPU: Strength.NONE}
    mechanisms = {
        Area.FS: "mount namespace with a root of its own, Landlock for each call",
        Area.NET: "network namespace, seccomp",
        Area.KILL: "PID namespace",
        Area.PROCS: "RLIMIT_NPROC, an agent's own user",
        Area.MEM: "RLIMIT_DATA",
        Area.CPU: "",
    }
    return HostProtections(
        sandbox=True,
        tier=Tier.B,
        tier_meaning=TIER_MEANING[Tier.B],
        badges=tuple(
            Badge(
                area=area,
                strength=held.get(area, Strength.ENFORCED),
                mechanism=mechanism,
                reason="this host allows no cgroup limits" if area in held else "",
                effect=f"{area.value} in one line",
                fix="limit the runtime as a whole" if area in held else "",
            )
            for area, mechanism in mechanisms.items()
        ),
    )


def output(text: str, *, stream: ev.Stream = ev.Stream.STDOUT, call: str = "", dropped: int = 0) -> ev.OutputAppended:
    return ev.OutputAppended(stream=stream, text=text, call=CallId(call), dropped_bytes=dropped)


def tool_started(call: str, target: str = "src/main.py") -> ev.ToolCallStarted:
    return ev.ToolCallStarted(call=CallId(call), task=0, turn=1, tool="read", arguments={"path": target}, target=target)


def every_kind() -> list[ev.Event]:
    """One example of each known kind, with no field at its default where that can be."""
    process = ProcessRef(pid=42, started_ticks=99)
    return [
        ev.RuntimeStarted(
            epoch="e1", version="0.1", pid=7, workspace="/w", provider="rehearsal", provider_note="no model"
        ),
        ev.ServiceStarted(service="gateway", process=process),
        ev.RuntimeStopped(reason="asked"),
        ev.Noticed(level=ev.Level.WARNING, code="store.full", message="line one\nline two", hint="free some"),
        ev.HostSampled(
            usage=HostUsage(cpu_fraction=0.5, cores=2, memory_total_bytes=8, memory_used_bytes=4, load_1m=1.5)
        ),
        ev.SpecLoaded(spec=spec_of("alpha"), rights=Rights(tools=("read",), text=("reads",)), conditions=("x",)),
        ev.SpecRejected(
            file="bad.yaml", name="bad", problems=(ev.ProblemView(file="bad.yaml", code="c", message="m"),)
        ),
        ev.AgentStateChanged(
            before=AgentState.RUNNING, after=AgentState.FAILED, reason=StopReason.TIMEOUT, detail="late", attempt=2
        ),
        ev.AgentBlocked(blockers=("waits for beta",)),
        ev.ProcessStarted(process=process, worker_pid=43, protections=("seccomp",)),
        ev.HostProbed(protections=host_protections()),
        ev.ProtectionsInForce(
            protections=Protections(
                asked=SandboxMode.BEST_EFFORT,
                unconfined="no namespaces",
                tier=Tier.B,
                badges=host_protections().badges,
                observation=Observation.KERNEL_OBSERVED,
            )
        ),
        ev.ProcessEnded(process=process, exit_code=-9, survivors=(44,)),
        ev.LimitsInForce(
            limits=(
                LimitInForce(
                    limit=LimitName.MEMORY,
                    figure=1024,
                    declared=True,
                    strength=Strength.APPROXIMATE,
                    mechanism="RLIMIT_DATA",
                    reason="no cgroup",
                ),
            )
        ),
        ev.HealthChanged(
            health=Health(
                level=HealthLevel.STUCK,
                reason=HealthReason.REPEATED_ACTION,
                since=START,
                count=4,
                evidence=("read_file README.md",),
            )
        ),
        ev.LimitReached(
            limit=LimitName.MEMORY,
            used=2048,
            allowed=1024,
            outcome=LimitOutcome.KILLED,
            mechanism="cgroup v1 memory",
            culprit=Culprit(pid=44, command="eat", memory_bytes=900, known_by="kernel"),
            count=2,
        ),
        ev.AgentSampled(usage=Usage(cpu_fraction=0.25, cpu_s=3.5, memory_bytes=100, processes=2)),
        ev.WorkspaceReady(mode="worktree", path="/w/a", branch="agent/a", base_commit="abc"),
        ev.WorkCommitted(task=0, commit="abc", files=1, insertions=2, deletions=3),
        ev.ReportWritten(channel="log", path="/r"),
        ev.TaskStateChanged(
            task=0, total=2, after=TaskState.DONE, verdict=Verdict.VERIFIED, attempt=1, detail="all done – really"
        ),
        ev.Verified(
            subject="objective 1",
            objective=0,
            command="make test",
            exit_code=0,
            verdict=Verdict.VERIFIED,
            duration_s=1.5,
        ),
        ev.ModelCallStarted(call=CallId("m1"), task=0, turn=1, provider="rehearsal", model="none"),
        ev.ModelCallRetried(call=CallId("m1"), attempt=1, delay_s=0.5, code="overloaded", message="busy"),
        ev.ModelCallEnded(
            call=CallId("m1"),
            task=0,
            turn=1,
            provider="p",
            model="m",
            outcome="ok",
            usage=TokenUsage(input_tokens=10, output_tokens=5),
            cost_usd=0.25,
            duration_s=2.0,
        ),
        ev.BudgetSet(scope=BudgetScope.DAY, budget=Budget(max_tokens=1000, max_cost_usd=1.0), actor="option"),
        ev.BudgetWarned(figure=BudgetFigure(scope=BudgetScope.FLEET, what="tokens", used=810, cap=1000)),
        ev.BudgetExhausted(
            figure=BudgetFigure(scope=BudgetScope.AGENT, name="a", what="cost_usd", used=0.9, cap=1.0), wanted=0.2
        ),
        output("text with \x00 and \x1b[31m and 日本語\n", call="t1", dropped=3),
        tool_started("t1"),
        ev.ToolCallEnded(
            call=CallId("t1"), tool="read", outcome="ok", duration_s=0.1, summary="3 lines", result_bytes=9
        ),
        ev.OperationDenied(denial=denial(), task=0, count=2),
        ev.OperationAllowed(operation="fs.read", target="a", rule="r", capability="c"),
        ev.ApprovalRequested(request=approval(count=2)),
        ev.ApprovalDecided(
            approval=ApprovalId("a1"),
            outcome=ApprovalOutcome.ALLOWED,
            actor="operator",
            waited_s=4.5,
            grant=GrantId("g1"),
            reason="asked",
        ),
        ev.GrantIssued(grant=grant()),
        ev.GrantUsed(grant=GrantId("g1"), call=CallId("c9"), tool="write_file", targets=("docs/a.md",)),
        ev.GrantRevoked(grant=GrantId("g1"), actor="operator"),
        ev.GrantExpired(grant=GrantId("g1"), why=GrantEnd.TIME),
        ev.CapabilityWithdrawn(capability="filesystem-write", actor="operator"),
        ev.CapabilityRestored(capability="filesystem-write", actor="operator"),
        ev.CommandHandled(command=CommandId("c:1"), actor="me", name="agent.kill", ok=True),
    ]


def envelope(seq: int, event: ev.Event, agent: str | None = None, run: str | None = "r1") -> ev.Envelope:
    fields: dict[str, Any] = {
        "seq": seq,
        "at": START + timedelta(seconds=seq),
        "host": HOST,
        "agent": agent,
        "run": RunId(run) if run else None,
        "durable": type(event).durable,
        "event": event,
    }
    return ev.Envelope(**fields)


def happenings() -> st.SearchStrategy[tuple[ev.Event, AgentName | None]]:
    """Any event that changes a state, of one of three agents, or of the runtime itself."""
    agents = st.sampled_from(AGENTS)
    states = st.sampled_from(AgentState)
    small = st.integers(0, 3)
    calls = small.map(lambda number: f"c{number}")
    of_agents: list[st.SearchStrategy[Any]] = [
        st.builds(lambda a, b, n: ev.AgentStateChanged(before=a, after=b, attempt=n), states, states, small),
        st.builds(lambda n: ev.AgentSampled(usage=Usage(cpu_s=n, memory_bytes=n)), st.integers(0, 99)),
        st.builds(lambda n: ev.ProcessStarted(process=ProcessRef(pid=n, started_ticks=1)), st.integers(1, 99)),
        st.builds(lambda n: ev.ProcessEnded(process=ProcessRef(pid=n, started_ticks=1)), st.integers(1, 99)),
        st.builds(
            lambda t, a, n: ev.TaskStateChanged(task=t, total=2, after=a, attempt=n),
            st.integers(-1, 3),
            st.sampled_from(TaskState),
            small,
        ),
        st.builds(lambda call: tool_started(call), calls),
        st.builds(lambda c: ev.ToolCallEnded(call=CallId(c), tool="read", outcome="ok", duration_s=1), calls),
        st.builds(lambda n: ev.OperationDenied(denial=denial(), count=n), st.integers(1, 3)),
        st.builds(lambda text, call: output(text, call=call), st.text(max_size=8), calls),
        st.builds(lambda text, call: output(text, call=call), st.text(max_size=8), calls),
        st.builds(
            lambda n: ev.ModelCallEnded(
                call=CallId("m"),
                task=0,
                turn=0,
                provider="p",
                model="m",
                outcome="ok",
                usage=TokenUsage(output_tokens=n),
                duration_s=0,
            ),
            small,
        ),
        st.just(ev.WorkCommitted(task=0, commit="c", files=1, insertions=1, deletions=1)),
        st.builds(lambda n: ev.UnknownEvent(kind="later.kind", body={"n": n}), small),
    ]
    of_runtime: list[st.SearchStrategy[Any]] = [
        st.builds(lambda n: ev.HostSampled(usage=HostUsage(cores=n)), st.integers(1, 9)),
        st.builds(lambda n: ev.Noticed(level=ev.Level.INFO, code="c", message=str(n)), small),
        st.just(ev.RuntimeStopped()),
    ]
    loaded = agents.map(lambda name: (ev.SpecLoaded(spec=spec_of(name), rights=Rights()), name))
    return st.one_of(
        st.tuples(st.one_of(of_agents), agents),
        st.tuples(st.one_of(of_agents), agents),
        st.tuples(st.one_of(of_agents), agents),
        st.tuples(st.one_of(of_runtime), st.none()),
        loaded,
    )


def number(happened: list[tuple[ev.Event, AgentName | None]], after_seq: int = 0) -> list[ev.Envelope]:
    """Envelopes as the store would number them: durable ones from `after_seq` + 1 on, samples in between."""
    seq = after_seq
    ticks = count()
    envelopes: list[ev.Envelope] = []
    for event, agent in happened:
        seq += type(event).durable
        made = envelope(seq, event, agent)
        envelopes.append(made.model_copy(update={"at": START + timedelta(milliseconds=next(ticks), seconds=after_seq)}))
    return envelopes


def histories(min_size: int = 0, max_size: int = 60) -> st.SearchStrategy[list[ev.Envelope]]:
    """A numbered history in which the three agents are known from the beginning."""
    known = [(ev.SpecLoaded(spec=spec_of(name), rights=Rights()), name) for name in AGENTS]
    return st.lists(happenings(), min_size=min_size, max_size=max_size).map(lambda rest: number([*known, *rest]))
