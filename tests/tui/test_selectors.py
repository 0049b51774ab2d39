"""Rows and their order, frozen targets, the alert line."""

from __future__ import annotations

import pytest

from fakes import fleet
from fakes.client import HOST, FakeRuntimeClient
from fakes.clock import FakeClock
from toka_console import filters, fleet_list, selectors
from toka_console.identity import AgentKey, RowKey
from toka_console.state import ConsoleState
from toka_runtime.client.base import Link, LinkState
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.ids import AgentName, HostId, ProcessRef
from toka_runtime.protocol.states import AgentState, StopReason

FIRST = fleet.NAMES[0][0]


@pytest.fixture
async def client() -> FakeRuntimeClient:
    clock = FakeClock()
    made = FakeRuntimeClient(clock)
    await fleet.work(made, clock)
    return made


@pytest.fixture
def state(client: FakeRuntimeClient) -> ConsoleState:
    made = ConsoleState()
    made.adopt(client.state, client.link)
    return made


def names(state: ConsoleState, source: str = "") -> list[str]:
    chosen = filters.parse(source, fleet_list.FILTER_KEYS, fleet_list.NUMBER_KEYS)
    return [key.name for key in fleet_list.rows(state, FakeClock().now(), chosen)]


def test_trouble_comes_first_and_the_rest_by_name(state: ConsoleState) -> None:
    assert names(state) == [
        "configs/agents/broken.yaml",
        "kernel-events-enhancement",  # failed
        "storage-advancement",  # killed
        "testing-infrastructure",  # paused
        "build-system-stabilization",
        "performance-observability",
        "security-extension",  # running, by name
        "document-organization",
        "github-cicd-issues-resolution",  # waiting
        "llm-credentials-setup",  # done
    ]


def test_what_survived_a_kill_is_worse_than_all_else(state: ConsoleState, client: FakeRuntimeClient) -> None:
    ended = ev.ProcessEnded(process=ProcessRef(pid=5003, started_ticks=1), survivors=(6003,))
    client.emit(ended, "storage-advancement")
    state.apply(client.log[-1:])
    assert names(state)[:2] == ["configs/agents/broken.yaml", "storage-advancement"]
    alert = selectors.alert(state, client.envelope(ended).at)
    assert alert is not None
    assert alert.text.startswith("1 kill UNCONFIRMED: storage-advancement")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("state:paused", {"testing-infrastructure"}),
        ("state:rejected", {"configs/agents/broken.yaml"}),
        ("reason:timeout", {"kernel-events-enhancement"}),
        ("priority:critical", {"build-system-stabilization"}),
        ("cap:cargo state:running !security", {"build-system-stabilization", "performance-observability"}),
        ("-f bldsys", {"build-system-stabilization"}),
        ("pid:5004", {"security-extension"}),
        ("nothing-like-this", set[str]()),
        ("state:failed,killed", {"kernel-events-enhancement", "storage-advancement"}),
        ("state:paused cap:network", set[str]()),
        ("state:paused cap:cargo host:loc", {"testing-infrastructure"}),
        ("host:=loc", set[str]()),
        ("denials:>0", {"build-system-stabilization", "security-extension"}),
        ("denials:>=14", {"security-extension"}),
        ("denials:2,14 !name:sec", {"build-system-stabilization"}),
        ("tokens:>9k", {"build-system-stabilization"}),
        ("cost:>$0.02 cost:<0.1", {"build-system-stabilization"}),
        ("mem:>200M", {"build-system-stabilization"}),
        ("mem:>10m", {"build-system-stabilization", "security-extension", "testing-infrastructure"}),
        ("cpu:>50", {"build-system-stabilization"}),
        ("procs:5", {"build-system-stabilization"}),
        ("age:>60m", set[str]()),
    ],
)
def test_filters_of_the_fleet(state: ConsoleState, source: str, found: set[str]) -> None:
    assert set(names(state, source)) == found


def test_figures_of_what_has_ended_are_unknown(state: ConsoleState) -> None:
    known = names(state, "age:>0")
    assert "kernel-events-enhancement" in known
    assert "kernel-events-enhancement" not in names(state, "cpu:>=0"), "it uses nothing any more"
    assert "kernel-events-enhancement" in names(state, "!cpu:>=0")


def test_trouble_only(state: ConsoleState, client: FakeRuntimeClient) -> None:
    now = client.log[-1].at
    assert [key.name for key in fleet_list.rows(state, now, trouble=True)] == [
        "configs/agents/broken.yaml",
        "kernel-events-enhancement",
        "storage-advancement",
        "testing-infrastructure",
        "build-system-stabilization",  # running, but something was denied
        "security-extension",
    ]


def test_a_removed_run_is_gone_until_there_is_a_new_one(state: ConsoleState, client: FakeRuntimeClient) -> None:
    key = AgentKey(HOST, AgentName("kernel-events-enhancement"))
    removed = {fleet_list.run_of(state.agents[key])}

    def shown() -> list[str]:
        return [row.name for row in fleet_list.rows(state, client.log[-1].at, removed=removed)]

    assert key.name not in shown()
    fleet.change(client, key.name, AgentState.PENDING)
    fleet.start(client, key.name, 77)
    state.apply(client.log)
    assert key.name in shown()


def test_a_target_is_frozen(state: ConsoleState, client: FakeRuntimeClient) -> None:
    key = AgentKey(HOST, AgentName(FIRST))
    target = selectors.freeze(state.agents[key])
    fleet.start(client, FIRST, 77)
    state.apply(client.log)
    assert target.ref.run == "r0000000000"
    assert target.ref.process == ProcessRef(pid=5000, started_ticks=880000)
    assert selectors.freeze(state.agents[key]).ref.run == "r000000004d"


def test_the_alert_names_the_newest_failure(state: ConsoleState, client: FakeRuntimeClient) -> None:
    fleet.change(client, FIRST, AgentState.FAILED, StopReason.LLM_FAILED, "no answer")
    state.apply(client.log[-1:])
    alert = selectors.alert(state, client.log[-1].at)
    assert alert is not None
    assert alert.bad
    assert alert.text.startswith(f"2 failed: {FIRST} llm failed: no answer 0s ago")


def test_no_alert_when_all_is_well() -> None:
    client = FakeRuntimeClient(FakeClock())
    fleet.load(client)
    state = ConsoleState()
    state.adopt(client.state, client.link)
    assert selectors.alert(state, client.log[-1].at) is None


def test_a_lost_link_is_an_alert(state: ConsoleState, client: FakeRuntimeClient) -> None:
    now = client.log[-1].at
    state.set_link(Link(host=HOST, state=LinkState.DOWN, since=now, detail="connection refused"))
    alert = selectors.alert(state, now)
    assert alert is not None
    assert alert.text.startswith("local: link down, last seen 0s ago connection refused")


def test_an_agent_that_was_not_asked_to_start_reads_loaded() -> None:
    client = FakeRuntimeClient(FakeClock())
    fleet.load(client)
    assert selectors.badge(client.state.agents[AgentName(FIRST)]).word == "LOADED"


def test_rows_of_two_hosts_stay_apart(state: ConsoleState, client: FakeRuntimeClient) -> None:
    other = HostId("other")
    agents = {name: view.model_copy(update={"host": other}) for name, view in client.state.agents.items()}
    state.adopt(client.state.model_copy(update={"host": other, "agents": agents}), client.link)
    rows = fleet_list.rows(state, FakeClock().now())
    assert len(set(rows)) == 20
    assert RowKey("agent", other, FIRST) in rows
    assert RowKey("agent", HOST, FIRST) in rows
