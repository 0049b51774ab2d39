"""Every kind of event survives the wire; kinds from the future are kept whole; noise is refused by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import events as fake
from toka_runtime.errors import ProtocolError
from toka_runtime.protocol import codec
from toka_runtime.protocol.commands import CommandRequest, CommandResult, KillAgent, ReadEvents
from toka_runtime.protocol.events import Delivery, Envelope, Event, UnknownEvent
from toka_runtime.protocol.ids import AgentName, CommandId, RunRef
from toka_runtime.store.rows import kind_of

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_the_examples_are_one_of_each_kind() -> None:
    assert sorted(kind_of(event) for event in fake.every_kind()) == sorted(codec.known_kinds())


@pytest.mark.parametrize("event", fake.every_kind(), ids=kind_of)
def test_round_trip(event: Event) -> None:
    envelope = fake.envelope(7, event, "alpha")
    line = codec.encode(envelope)
    assert b"\n" not in line
    assert codec.decode_envelope(line) == envelope
    assert codec.decode_event(kind_of(event), codec.encode_event(event)) == event
    assert type(codec.decode_envelope(line).event) is type(event)


@pytest.mark.parametrize("event", fake.every_kind(), ids=kind_of)
def test_fields_of_a_newer_peer_are_ignored(event: Event) -> None:
    raw = json.loads(codec.encode(fake.envelope(7, event, "alpha")))
    raw["event"]["from_the_future"] = {"a": 1}
    raw["also_new"] = [1]
    assert codec.decode_envelope(json.dumps(raw)).event == event


def test_only_samples_are_not_kept_and_only_they_and_output_may_be_lost() -> None:
    kinds = {kind_of(event): event for event in fake.every_kind()}
    assert {kind for kind, event in kinds.items() if not event.durable} == {"host.sampled", "agent.sampled"}
    lossy = {kind for kind, event in kinds.items() if event.delivery is not Delivery.MUST}
    assert lossy == {"host.sampled", "agent.sampled", "output.appended"}
    assert UnknownEvent.delivery is Delivery.MUST


@given(
    kind=st.text(min_size=1).filter(lambda kind: kind not in codec.known_kinds()),
    body=st.dictionaries(
        st.text().filter(lambda key: key not in ("kind", "body")), json_values, min_size=1, max_size=4
    ),
)
def test_unknown_kinds_are_kept_whole_and_passed_on(kind: str, body: dict[str, object]) -> None:
    sent = {"seq": 3, "at": "2026-01-01T00:00:00Z", "host": "h", "event": {"kind": kind, **body}}
    envelope = codec.decode_envelope(json.dumps(sent))
    assert isinstance(envelope.event, UnknownEvent)
    assert envelope.event.kind == kind
    assert envelope.event.body == {"kind": kind, **body}
    assert codec.decode_envelope(codec.encode(envelope)) == envelope


def test_a_known_kind_with_a_body_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ProtocolError):
        codec.decode_event("agent.blocked", b'{"kind":"agent.blocked","blockers":7}')


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"event":1}',
        b"\xff\xfe",
        b'{"seq":1,"event":{"kind":"runtime.stopped"}}',
        b"{",
        b'"x"',
    ],
)
def test_noise_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        codec.decode_envelope(line)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_a_protocol_error(line: bytes) -> None:
    for decode in (codec.decode_envelope, codec.decode_request, codec.decode_result):
        try:
            decode(line)
        except ProtocolError:
            continue


def test_commands_round_trip() -> None:
    target = RunRef(host=fake.HOST, agent=AgentName("alpha"))
    for command in (KillAgent(target=target), ReadEvents(after_seq=3, kinds=("a",))):
        request = CommandRequest(id=CommandId("c:1"), actor="me", command=command, reason="why not")
        assert codec.decode_request(codec.encode(request)) == request
    result = CommandResult(id=CommandId("c:1"), ok=False, code="command.refused", message="no", data={"x": [1]})
    assert codec.decode_result(codec.encode(result)) == result


def test_envelopes_without_an_agent_say_so() -> None:
    envelope = fake.envelope(1, fake.every_kind()[0], None, None)
    assert isinstance(codec.decode_envelope(codec.encode(envelope)), Envelope)
    assert codec.decode_envelope(codec.encode(envelope)).agent is None


def frame_of(*events: str) -> bytes:
    return f'{{"n":3,"t":"evs","e":[{",".join(events)}]}}\n'.encode()


def test_a_frame_of_events_is_read_at_once() -> None:
    envelopes = [fake.envelope(number, event, "alpha") for number, event in enumerate(fake.every_kind(), 1)]
    frame = codec.decode_events(frame_of(*(codec.encode(envelope).decode() for envelope in envelopes)))
    assert frame is not None
    assert frame.n == 3
    assert frame.e == envelopes
    assert [type(each.event) for each in frame.e] == [type(each.event) for each in envelopes]
    assert [codec.envelope_from(each) for each in frame.e] == envelopes


@pytest.mark.parametrize(
    "event",
    [
        {"kind": "agent.dreamt", "of": "sheep"},
        {"kind": "agent.dreamt", "body": {"of": "sheep"}, "and": "more"},
        {"kind": "agent.sampled"},
        "noise",
    ],
    ids=["unknown", "unknown with a body", "a field is missing", "no event"],
)
def test_a_frame_that_needs_a_closer_look_is_left_to_it(event: object) -> None:
    whole = codec.encode(fake.envelope(1, fake.every_kind()[0], "alpha")).decode()
    raw = json.loads(whole) | {"event": event}
    assert codec.decode_events(frame_of(whole, json.dumps(raw))) is None


@pytest.mark.parametrize("line", [b"", b"\n", b'{"t":"hb"}', b'{"n":1,"t":"snap","state":{}}', b'{"n":1,"t":"evs"}'])
def test_other_frames_are_no_events(line: bytes) -> None:
    assert codec.decode_events(line) is None
