"""The inbox: facts in order, the newest figures alone, and the same fleet in the end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fakes import events as fake
from fakes.clock import FakeClock
from toka_console.inbox import Inbox
from toka_runtime.client.base import Resync
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.fold import fold
from toka_runtime.protocol.ids import AgentName, HostId
from toka_runtime.protocol.snapshot import FleetState
from toka_runtime.protocol.usage import HostUsage, Usage


def sample(agent: str | None, figure: int) -> ev.Envelope:
    event = (
        ev.HostSampled(usage=HostUsage(cores=figure)) if agent is None else ev.AgentSampled(usage=Usage(threads=figure))
    )
    name = AgentName(agent) if agent else None
    return ev.Envelope(seq=1, at=FakeClock().now(), host=HostId("h"), agent=name, durable=False, event=event)


def said(agent: str, text: str = "x") -> ev.Envelope:
    event = ev.OutputAppended(stream=ev.Stream.MODEL, text=text)
    return sample(agent, 0).model_copy(update={"event": event, "durable": True})


def everything(inbox: Inbox) -> list[ev.Envelope]:
    found: list[ev.Envelope] = []
    while inbox:
        batch = inbox.take(3)
        assert isinstance(batch, list)
        found += batch
    return found


def test_only_the_newest_sample_of_each_is_kept_and_none_comes_after_what_followed_it() -> None:
    inbox = Inbox()
    batch = [sample("a", 1), sample("b", 2), said("a"), sample("a", 3), sample(None, 4), sample(None, 5), said("c")]
    assert inbox.add(batch)
    assert everything(inbox) == [batch[0], batch[2], batch[6]]
    assert inbox.holds_figures
    inbox.release()
    assert everything(inbox) == [batch[1], batch[3], batch[5]]
    assert not inbox.holds_figures
    assert inbox.passed_over() == 1
    assert inbox.passed_over() == 0


def test_samples_alone_are_not_urgent() -> None:
    inbox = Inbox()
    assert not inbox.add([sample("a", 1), sample(None, 2)])
    assert not inbox
    assert inbox.take(10) == []


def test_a_resync_comes_in_its_place_and_makes_older_samples_void() -> None:
    inbox, state = Inbox(), FleetState(host=HostId("h"))
    inbox.add([said("a", "before"), sample("b", 1)])
    inbox.resync(Resync(state=state, missed=3))
    inbox.add([said("a", "after")])
    inbox.release()
    assert inbox.take(10) == [said("a", "before")]
    assert inbox.take(10) == Resync(state=state, missed=3)
    assert inbox.take(10) == [said("a", "after")]
    assert inbox.take(10) == []


@given(fake.histories(), st.lists(st.integers(0, 12), max_size=60), st.data())
def test_the_fleet_is_the_same_whatever_was_passed_over(
    history: list[ev.Envelope], places: list[int], data: st.DataObject
) -> None:
    stream: list[ev.Envelope] = []
    for number, envelope in enumerate(history):
        stream.append(envelope)
        for figure in range(places[number % len(places)] % 4 if places else 0):
            agent = data.draw(st.sampled_from([*fake.AGENTS, None]))
            stream.append(sample(agent, number * 10 + figure + 1).model_copy(update={"seq": envelope.seq}))
    inbox, kept = Inbox(), FleetState()
    for number, envelope in enumerate(stream):
        inbox.add([envelope])
        if number % 7 == 6:
            inbox.release()
        if number % 3 == 2:
            kept = fold(kept, everything(inbox))
    inbox.release()
    kept = fold(kept, everything(inbox))
    whole = fold(FleetState(), stream)
    assert kept.agents == whole.agents
    assert (kept.seq, kept.host_usage, kept.books) == (whole.seq, whole.host_usage, whole.books)
