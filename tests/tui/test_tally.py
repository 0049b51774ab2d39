"""What is carried forward with each view is what counting all agents would give."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isclose

from hypothesis import given
from hypothesis import strategies as st

from fakes import events as fake
from toka_console.state import ConsoleState
from toka_runtime.client.base import Link, LinkState
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import HostId
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.states import LIVE, AgentState


def counted(state: ConsoleState) -> None:
    """Compare the tally with the agents themselves."""
    tally, views = state.tally, {key: entry.view for key, entry in state.agents.items()}
    for wanted in AgentState:
        assert tally.in_state[wanted] == {key for key, view in views.items() if view.state is wanted}
    assert tally.survived == {key for key, view in views.items() if view.survivors}
    assert tally.unwell == {key for key, view in views.items() if view.health is not None}
    assert tally.spenders == {key for key, view in views.items() if view.model_calls and view.state in LIVE}
    assert tally.unconfined == {
        key
        for key, view in views.items()
        if view.in_force is not None and view.in_force.unconfined and (view.state in LIVE or view.survivors)
    }
    assert tally.tokens == sum(view.tokens.total_tokens for view in views.values())
    assert tally.output_tokens == sum(view.tokens.output_tokens for view in views.values())
    assert isclose(tally.cost_usd, sum(view.cost_usd for view in views.values()), abs_tol=1e-9)
    assert tally.unpriced_calls == sum(view.unpriced_calls for view in views.values())
    assert tally.model_calls == sum(view.model_calls for view in views.values())
    assert tally.denials == sum(view.denials for view in views.values())


@given(fake.histories(), st.integers(1, 9))
def test_the_tally_is_what_counting_gives(history: list[ev.Envelope], size: int) -> None:
    host = history[0].host if history else HostId("h")
    link = Link(host=host, state=LinkState.UP, since=datetime(2026, 1, 1, tzinfo=UTC))
    state = ConsoleState()
    state.adopt(FleetState(host=host), link)
    for start in range(0, len(history), size):
        state.apply(history[start : start + size])
        counted(state)
    state.adopt(fold(FleetState(host=host), history), link)
    counted(state)
    state.adopt(FleetState(host=host), link)
    assert not state.agents
    counted(state)
