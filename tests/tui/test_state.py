"""The console's state: a pure fold with bounded windows. The same events give the same state, however they arrive."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import fleet
from fakes.client import HOST, FakeRuntimeClient
from fakes.clock import FakeClock
from toka_console.entries import Pending
from toka_console.identity import AgentKey
from toka_console.ring import Mark, Text, Tool
from toka_console.state import MAX_DENIALS, ConsoleState
from toka_runtime.client.base import Link, LinkState
from toka_runtime.protocol import capability as cap
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.commands import CommandResult
from toka_runtime.protocol.ids import AgentName, CallId, CommandId
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.states import AgentState, StopReason
from toka_runtime.protocol.usage import HostUsage, TokenUsage

FIRST = fleet.NAMES[0][0]
KEY = AgentKey(HOST, AgentName(FIRST))


def attached(client: FakeRuntimeClient) -> ConsoleState:
    """A console that was there from the first event on."""
    state = ConsoleState()
    state.adopt(FleetState(host=HOST), client.link)
    return state


@pytest.fixture
async def client() -> FakeRuntimeClient:
    clock = FakeClock()
    made = FakeRuntimeClient(clock)
    await fleet.work(made, clock)
    return made


def picture(state: ConsoleState) -> object:
    """Everything that a screen could show."""
    return (
        {key: (e.view, [_entry(item) for item in e.output.entries], list(e.cpu)) for key, e in state.agents.items()},
        [(d.serial, d.key, d.count, d.at, d.denial) for d in state.denials],
        list(state.activity),
        state.hosts[HOST].fleet,
        list(state.hosts[HOST].cpu),
    )


def _entry(item: Text | Tool | Mark) -> tuple[object, ...]:
    if isinstance(item, Text):
        return (item.serial, item.text, item.cut)
    return (item.serial, item.summary, item.outcome) if isinstance(item, Tool) else (item.serial, item.kind, item.text)


@settings(max_examples=20)
@given(st.data())
async def test_however_events_are_batched_the_state_is_the_same(data: st.DataObject) -> None:
    clock = FakeClock()
    client = FakeRuntimeClient(clock)
    await fleet.work(client, clock)
    whole, split = attached(client), attached(client)
    whole.apply(client.log)
    rest = list(client.log)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        split.apply(rest[:size])
        rest = rest[size:]
    assert picture(split) == picture(whole)


async def test_an_overlapping_stream_changes_nothing(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log)
    before = picture(state)
    state.apply(client.log[10:])
    assert picture(state) == before


async def test_the_fold_of_the_protocol_is_what_rows_show(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log)
    shown = {key.name: entry.view for key, entry in state.agents.items()}
    assert shown == {
        name: view.model_copy(update={"usage": shown[name].usage}) for name, view in client.state.agents.items()
    }
    assert shown[AgentName("security-extension")].denials == 14


async def test_samples_make_history(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log)
    before = state.agents[KEY].version
    usage = client.state.agents[KEY.name].usage.model_copy(update={"processes": 77})
    state.apply([client.envelope(ev.AgentSampled(usage=usage), FIRST)])
    entry = state.agents[KEY]
    assert (len(entry.cpu), entry.samples, entry.view.usage.processes) == (1, 1, 77)
    assert entry.version == before, "a row that shows figures alone is drawn less often"
    state.apply([client.envelope(ev.HostSampled(usage=HostUsage(cpu_fraction=0.5, memory_used_bytes=7)))])
    assert (list(state.hosts[HOST].cpu), list(state.hosts[HOST].memory)) == ([0.5], [7.0])


async def test_samples_do_not_change_the_order_but_states_do(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log)
    before = state.order_version
    fleet.sample(client, FIRST, 0.4, 10)
    fleet.say(client, FIRST, "text")
    state.apply(client.log[-1:])
    assert state.order_version == before
    fleet.change(client, FIRST, AgentState.PAUSED, StopReason.OPERATOR)
    state.apply(client.log[-1:])
    assert state.order_version > before


async def test_equal_denials_fold_into_one_row_with_a_count(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log)
    rows = {(row.key.name, row.denial.operation.target): row.count for row in state.denials}
    assert rows == {(FIRST, "/etc/passwd"): 2, ("security-extension", "crates.io:443"): 14}
    assert state.denied == 16
    client.emit(ev.OperationDenied(denial=fleet.denial(layer=cap.Layer.SANDBOX)), FIRST)
    state.apply(client.log[-1:])
    assert len(state.denials) == 3, "another layer is another row"


async def test_the_list_of_denials_is_bounded(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log)
    for number in range(MAX_DENIALS + 50):
        client.emit(ev.OperationDenied(denial=fleet.denial(f"/x/{number}")), FIRST)
    state.apply(client.log)
    assert len(state.denials) == MAX_DENIALS
    assert state.denials[-1].denial.operation.target == f"/x/{MAX_DENIALS + 49}"
    assert state.denied == 16 + MAX_DENIALS + 50


async def test_earlier_denials_and_activity_come_first(client: FakeRuntimeClient) -> None:
    state = ConsoleState()
    state.adopt(client.state, client.link)
    client.emit(ev.OperationDenied(denial=fleet.denial("/new")), FIRST)
    state.apply(client.log[-1:])
    state.add_earlier([envelope for envelope in client.log[:-1] if envelope.event.kind == "operation.denied"])
    assert [row.denial.operation.target for row in state.denials] == ["/etc/passwd", "crates.io:443", "/new"]
    assert [row.serial for row in state.denials] == [1, 2, 3]
    assert state.activity[-1].text.startswith("⊘ denied by policy: fs.read /new")
    client.emit(ev.OperationDenied(denial=fleet.denial("/new")), FIRST)
    state.apply(client.log[-1:])
    assert state.denials[-1].count == 2, "folding goes on after history came in"


async def test_an_unknown_kind_is_kept_and_shown_raw(client: FakeRuntimeClient) -> None:
    state = attached(client)
    client.emit(ev.UnknownEvent(kind="agent.dreamt", body={"of": "sheep"}), FIRST)
    state.apply(client.log)
    assert state.unknown_kinds == {"agent.dreamt": 1}
    assert state.activity[-1].text == 'agent.dreamt {"of": "sheep"}'


async def test_events_of_a_host_that_is_not_ours_are_left_alone(client: FakeRuntimeClient) -> None:
    state = attached(client)
    stranger = client.log[0].model_copy(update={"host": "elsewhere"})
    state.apply([stranger])
    assert "elsewhere" not in state.hosts


async def test_a_resync_replaces_the_fleet_and_shows_the_gap(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log[:40])
    state.adopt(client.state, client.link, missed=31)
    assert state.hosts[HOST].fleet == client.state
    assert state.hosts[HOST].missed == 31
    last = state.agents[KEY].output.entries[-1]
    assert isinstance(last, Mark)
    assert (last.kind, "31 events" in last.text) == ("gap", True)


async def test_history_goes_before_what_is_there(client: FakeRuntimeClient) -> None:
    state = ConsoleState()
    state.adopt(client.state, client.link)
    assert state.agents[KEY].output.history_seq == client.state.seq
    fleet.say(client, FIRST, "live\n")
    state.apply(client.log[-1:])
    state.add_history(KEY, [envelope for envelope in client.log[:-1] if envelope.agent == FIRST])
    output = state.agents[KEY].output
    assert isinstance(output.entries[-1], Text)
    assert output.entries[-1].text == "live\n"
    assert any(isinstance(entry, Tool) and entry.call == "c2" for entry in output.entries)
    assert output.history_seq is None, "it is asked for once"


async def test_windows_share_what_memory_there_is(client: FakeRuntimeClient) -> None:
    state = attached(client)
    for number in range(300):
        client.emit(ev.SpecLoaded(spec=fleet.spec(f"agent-{number}"), rights=fleet.rights()))
    state.apply(client.log)
    assert len({entry.output.capacity for entry in state.agents.values()}) == 1
    assert sum(entry.output.capacity for entry in state.agents.values()) <= 25 * 2**20


# -- commands -----------------------------------------------------------------------------------------------------


def pending(state: ConsoleState, client: FakeRuntimeClient, text: str = "pausing") -> CommandId:
    command = CommandId("c:1")
    assert client.clock is not None
    state.sent(Pending(command, text, (KEY,), client.clock.now()))
    return command


async def test_a_command_is_pending_until_its_event_is_here(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log)
    command = pending(state, client)
    state.answered(CommandResult(id=command, ok=True, seq=client.state.seq + 2))
    assert state.pending_of(KEY) is not None, "the answer alone confirms nothing"
    client.emit(ev.CommandHandled(command=command, actor="op", name="agent.pause", ok=True), FIRST)
    state.apply(client.log[-1:])
    assert state.pending_of(KEY) is None


async def test_an_answer_that_is_older_than_the_state_settles_it(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log)
    command = pending(state, client)
    state.answered(CommandResult(id=command, ok=True, seq=client.state.seq))
    assert state.pending_of(KEY) is None


async def test_a_refused_command_is_not_pending(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log)
    command = pending(state, client)
    known = state.answered(CommandResult(id=command, ok=False, code="command.refused", message="no"))
    assert known is not None
    assert state.pending_of(KEY) is None


async def test_no_answer_means_unknown(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log)
    command = pending(state, client)
    state.lost(command, "no answer to")
    found = state.pending_of(KEY)
    assert found is not None
    assert found.unknown == "no answer to"


async def test_a_lost_link_changes_every_row_of_its_host(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log)
    before = {key: entry.version for key, entry in state.agents.items()}
    assert client.clock is not None
    state.set_link(Link(host=HOST, state=LinkState.DOWN, since=client.clock.now()))
    assert all(entry.version > before[key] for key, entry in state.agents.items())
    assert not state.is_up(HOST)


async def test_tokens_a_second_look_at_the_last_half_minute(client: FakeRuntimeClient) -> None:
    state = attached(client)
    state.apply(client.log)
    ended = ev.ModelCallEnded(
        call=CallId("m"), task=0, turn=1, provider="p", model="m", outcome="ok", duration_s=1,
        usage=TokenUsage(output_tokens=600),
    )  # fmt: skip
    client.emit(ended, FIRST)
    state.apply(client.log[-1:])
    assert client.clock is not None
    assert state.tokens_per_s(client.clock.now()) == 20
    assert state.tokens_per_s(client.clock.now() + timedelta(seconds=31)) == 0
