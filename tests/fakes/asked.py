"""Requests for approval and grants on screen: what the console is shown of an agent that asks."""

from __future__ import annotations

from fakes import fleet
from fakes.client import FakeRuntimeClient
from fakes.clock import FakeClock
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.approval import ApprovalRequest, Grant, GrantScope, Offer, request_digest
from toka_runtime.protocol.capability import Denial, Layer, Operation, OperationKind
from toka_runtime.protocol.ids import AgentName, ApprovalId, CallId, GrantId

WRITER, FETCHER = "build-system-stabilization", "security-extension"
_TIMES = {
    GrantScope.ONCE: "this one call only",
    GrantScope.TASK: "until task 2 or the run ends",
    GrantScope.TTL: "for 10 min of running time, at most until the run ends",
    GrantScope.RUN: "until the run ends",
}


def offers(what: str, wide: str = "") -> tuple[Offer, ...]:
    """As a runtime makes them, the narrowest first."""

    def offer(scope: GrantScope, opens: str, *, is_wide: bool) -> Offer:
        ttl_s = 600.0 if scope is GrantScope.TTL else None
        return Offer(scope=scope, wide=is_wide, ttl_s=ttl_s, text=f"{opens}: {_TIMES[scope]}")

    narrow = tuple(offer(scope, what, is_wide=False) for scope in _TIMES)
    return narrow + tuple(offer(scope, wide, is_wide=True) for scope in list(_TIMES)[1:] if wide)


def request(client: FakeRuntimeClient, agent: str = WRITER, identity: str = "a1", *, target: str = "docs/decisions.md",
            kind: OperationKind = OperationKind.WRITE, tool: str = "write_file", wait_s: float = 300.0, count: int = 1,
            warnings: tuple[str, ...] = (), **arguments: object) -> ApprovalRequest:  # fmt: skip
    """Emit a request of the agent's present run."""
    run = client.state.agents[AgentName(agent)].run
    assert run is not None
    operation = Operation(kind=kind, target=target, tool=tool, call=CallId("c11"))
    refused = Denial(
        operation=operation, capability="filesystem-write", layer=Layer.POLICY, rule="not-granted",
        reason="no declared capability allows it",
    )  # fmt: skip
    verb = "write" if kind is OperationKind.WRITE else "connect to"
    made = ApprovalRequest(
        id=ApprovalId(identity), agent=AgentName(agent), run=run, task=1, turn=3, call=CallId("c11"), tool=tool,
        arguments={"path": target, **arguments}, operations=(operation,), denials=(refused,), warnings=warnings,
        digest=request_digest(AgentName(agent), run, tool, {"path": target, **arguments}),
        offers=offers(f"{verb} {target}", "write everything below docs/" if kind is OperationKind.WRITE else ""),
        wait_s=wait_s, count=count,
    )  # fmt: skip
    client.emit(ev.ApprovalRequested(request=made), agent)
    return made


def grant(client: FakeRuntimeClient, agent: str = WRITER, identity: str = "g1",
          scope: GrantScope = GrantScope.TTL) -> Grant:  # fmt: skip
    run = client.state.agents[AgentName(agent)].run
    assert run is not None
    made = Grant(
        id=GrantId(identity), approval=ApprovalId("a0"), agent=AgentName(agent), run=run, task=1, tool="write_file",
        digest="d" * 64, scope=scope, opens=(Operation(kind=OperationKind.WRITE, target="docs/"),),
        text=f"write everything below docs/: {_TIMES[scope]}", ttl_s=600.0 if scope is GrantScope.TTL else None,
        actor="ann@desk (console)", issued_at=client.envelope(ev.RuntimeStopped()).at,
    )  # fmt: skip
    client.emit(ev.GrantIssued(grant=made), agent)
    return made


async def work(client: FakeRuntimeClient, clock: FakeClock) -> None:
    """The fleet in the middle of its work, with two requests and one grant, half a minute old."""
    await fleet.work(client, clock)
    request(client, content="# Decisions\n\n1. serde comes from the workspace\n", mode="create")
    await clock.advance(20)
    grant(client)
    client.emit(
        ev.GrantUsed(grant=GrantId("g1"), call=CallId("c10"), tool="write_file", targets=("docs/a.md",)), WRITER
    )
    request(
        client, FETCHER, "a2", target="crates.io:443", kind=OperationKind.CONNECT, tool="fetch_url", wait_s=120.0,
        count=3, url="https://crates.io/api",
    )  # fmt: skip
    await clock.advance(8)
