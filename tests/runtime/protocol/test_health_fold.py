"""What is wrong with an agent stays in view while it is wrong, and no longer."""

from __future__ import annotations

from fakes.events import START, envelope, spec_of
from toka_runtime.cli.ps import as_object
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.health import Health, HealthLevel, HealthReason
from toka_runtime.protocol.ids import AgentName
from toka_runtime.protocol.snapshot import AgentView, FleetState
from toka_runtime.protocol.states import AgentState, StopReason

S = AgentState


def change(before: AgentState, after: AgentState, reason: StopReason = StopReason.NONE) -> ev.Event:
    return ev.AgentStateChanged(before=before, after=after, reason=reason)


def health(level: HealthLevel, reason: HealthReason = HealthReason.NONE) -> ev.Event:
    return ev.HealthChanged(health=Health(level=level, reason=reason, since=START))


STUCK = health(HealthLevel.STUCK, HealthReason.REPEATED_ACTION)
CRASHED = health(HealthLevel.CRASH_LOOP, HealthReason.DEATHS)


def seen_after(*events: ev.Event) -> AgentView:
    loaded = ev.SpecLoaded(spec=spec_of("alpha"), rights=Rights())
    tale = [loaded, change(S.PENDING, S.STARTING), change(S.STARTING, S.RUNNING), *events]
    state = fold(FleetState(), [envelope(seq, event, "alpha") for seq, event in enumerate(tale, 1)])
    return state.agents[AgentName("alpha")]


def test_it_is_in_view_until_all_is_well() -> None:
    view = seen_after(STUCK)
    assert view.health is not None
    shown = as_object(view)
    assert (shown["health"], shown["health_reason"]) == ("stuck", "same action, same result")
    assert shown["health_since"] == START.isoformat()
    well = seen_after(STUCK, health(HealthLevel.OK))
    assert well.health is None
    assert as_object(well)["health"] == "ok"


def test_a_pause_keeps_it_and_the_end_of_the_run_clears_it() -> None:
    assert seen_after(STUCK, change(S.RUNNING, S.PAUSED, StopReason.STUCK)).health is not None
    assert seen_after(STUCK, change(S.RUNNING, S.FAILED)).health is None


def test_why_it_stays_down_is_in_view_until_it_is_started_again() -> None:
    down = (CRASHED, change(S.RUNNING, S.FAILED, StopReason.CRASH_LOOP))
    assert seen_after(*down).health is not None
    assert seen_after(*down, change(S.FAILED, S.PENDING)).health is None
