"""What is sent is valid for the API version in use. The test servers accept anything, so the body is checked against
the SDK's own parameter types, made strict: no unknown key anywhere, no missing one, every block of a type that exists.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

import typing_extensions

from fakes.engines import MakeEngine, collect
from fakes.messages_server import Answer, FakeMessagesServer
from fakes.model_requests import LIST_FILES, hello_turn, model_request
from toka_runtime.llm.base import ModelRequest
from toka_runtime.llm.request import request_body

CONVERSATION = (
    {"role": "user", "content": "Do the task."},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
            {"type": "text", "text": "Looking."},
            {"type": "tool_use", "id": "toolu_1", "name": "list_files", "input": {"path": "."}},
            {"type": "tool_use", "id": "toolu_2", "name": "list_files", "input": {}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "README.md"},
            {"type": "tool_result", "tool_use_id": "toolu_2", "content": "no path", "is_error": True},
        ],
    },
)


def problems(value: Any, kind: Any, where: str = "body") -> list[str]:
    """What does not fit the type: TypedDicts are closed, everything else means what it says."""
    kind = _plain(kind)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        found = [problems(value, option, where) for option in get_args(kind)]
        return [] if any(not one for one in found) else min(found, key=len)
    if origin is Literal:
        return [] if value in get_args(kind) else [f"{where}: {value!r} is none of {get_args(kind)}"]
    if kind is Any or kind is object:
        return []
    if typing_extensions.is_typeddict(kind):
        return _typed_dict_problems(value, kind, where)
    if origin in (list, Iterable, typing.Iterable) or (isinstance(origin, type) and issubclass(origin, Iterable)):
        if isinstance(value, Mapping):
            return [] if origin in (dict, Mapping) else [f"{where}: an object"]
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        item = (*get_args(kind), Any)[0]
        return [problem for at, one in enumerate(value) for problem in problems(one, item, f"{where}[{at}]")]
    if isinstance(kind, type):
        fits = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
        return [] if fits else [f"{where}: {value!r} is no {kind.__name__}"]
    raise AssertionError(f"{where}: a type that this test does not know: {kind!r}")


def _typed_dict_problems(value: Any, kind: Any, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no object"]
    hints = typing_extensions.get_type_hints(kind, include_extras=True)
    found = [
        f"{where}: lacks {name}" for name, hint in hints.items() if _required(kind, name, hint) and name not in value
    ]
    for name, item in value.items():
        found += problems(item, hints[name], f"{where}.{name}") if name in hints else [f"{where}: unknown key {name}"]
    return found


def _required(kind: Any, name: str, hint: Any) -> bool:
    if get_origin(hint) is typing_extensions.Required:
        return True
    # A class inherits keys, not its bases' totality; `__required_keys__` is no help, as the SDK's annotations are text.
    owner = kind
    while base := next((base for base in _bases(owner) if name in base.__annotations__), None):
        owner = base
    return get_origin(hint) is not typing_extensions.NotRequired and owner.__total__


def _bases(kind: Any) -> list[Any]:
    return [base for base in getattr(kind, "__orig_bases__", ()) if typing_extensions.is_typeddict(base)]


def _plain(kind: Any) -> Any:
    while get_origin(kind) in (typing_extensions.Required, typing_extensions.NotRequired, typing.Annotated):
        kind = get_args(kind)[0]
    if get_origin(kind) is None and not isinstance(kind, type) and hasattr(kind, "__value__"):
        return kind.__value__
    return kind


def check(body: dict[str, Any]) -> list[str]:
    from anthropic.types.message_create_params import MessageCreateParamsStreaming

    return problems(body, MessageCreateParamsStreaming)


def test_the_check_itself_finds_faults() -> None:
    good = request_body(model_request(messages=CONVERSATION), "m")
    assert check(good) == []
    for broken in (
        {**good, "temperature": 1.0},
        {name: value for name, value in good.items() if name != "max_tokens"},
        {**good, "max_tokens": "1000"},
        {**good, "messages": [{"role": "operator", "content": "x"}]},
        {**good, "messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]},
        {**good, "messages": [{"role": "user", "content": [{"type": "text", "text": "x", "surplus": 1}]}]},
        {**good, "system": [{"type": "text"}]},
        {**good, "stream": False},
    ):
        assert check(broken), broken


async def test_the_body_that_is_sent_fits_the_sdk_s_own_types(anthropic_engine: MakeEngine) -> None:
    async with FakeMessagesServer(Answer(events=hello_turn())) as server:
        engine = anthropic_engine(server.url)
        await collect(engine, model_request(messages=CONVERSATION))
        await collect(engine, model_request(system=(), tools=()))
    for received in server.received:
        assert check(received.body) == []
        assert not {"temperature", "top_p", "top_k"} & received.body.keys()
        assert received.body["stream"] is True


def breakpoints(value: Any) -> int:
    if isinstance(value, dict):
        return ("cache_control" in value) + sum(breakpoints(item) for item in value.values())
    return sum(breakpoints(item) for item in value) if isinstance(value, list) else 0


def body_of(request: ModelRequest) -> dict[str, Any]:
    return request_body(request, "m")


def test_cache_breakpoints_lie_where_the_stable_part_ends() -> None:
    body = body_of(model_request(system=("stable", "less so"), tools=(LIST_FILES, LIST_FILES), messages=CONVERSATION))
    assert breakpoints(body) == 3
    assert "cache_control" in body["system"][-1]
    assert "cache_control" in body["tools"][-1]
    assert "cache_control" in body["messages"][-1]["content"][-1]


def test_breakpoints_that_come_with_the_messages_are_not_added_up() -> None:
    marked = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}} for _ in range(9)]
    messages = ({"role": "user", "content": marked}, {"role": "assistant", "content": marked}, *CONVERSATION[:1])
    assert breakpoints(body_of(model_request(messages=messages))) <= 4


def test_the_newest_user_turn_is_marked_also_under_a_later_answer() -> None:
    body = body_of(model_request(messages=CONVERSATION[:2]))
    assert "cache_control" in body["messages"][0]["content"][-1]
    assert breakpoints(body["messages"][1]) == 0


def test_what_the_api_refuses_is_not_sent() -> None:
    messages = (
        {"role": "user", "content": [{"type": "text", "text": "  "}, {"type": "text", "text": "Go."}]},
        {"role": "assistant", "content": []},
        {"role": "user", "content": ""},
        {"role": "user", "content": "On."},
    )
    body = body_of(model_request(system=("", "s"), messages=messages))
    texts = [[block["text"] for block in message["content"]] for message in body["messages"]]
    assert texts == [["Go."], ["On."]]
    assert [block["text"] for block in body["system"]] == ["s"]


def test_nothing_but_known_fields_gets_through() -> None:
    tool = {**LIST_FILES, "type": "mcp", "defer_loading": True}
    message = {"role": "user", "content": "x", "mcp_servers": ["evil"]}
    body = body_of(model_request(tools=(tool,), messages=(message,)))
    assert set(body["tools"][0]) == {"name", "description", "input_schema", "cache_control"}
    assert set(body["messages"][0]) == {"role", "content"}


def test_the_request_given_is_not_changed() -> None:
    request = model_request(messages=CONVERSATION)
    before = request.model_dump_json()
    body_of(request)
    assert request.model_dump_json() == before


def test_the_default_model_is_current() -> None:
    from anthropic.resources.messages import DEPRECATED_MODELS
    from anthropic.types.model_param import ModelParam

    from toka_runtime.llm.models import DEFAULT_MODEL

    known = [name for option in get_args(ModelParam) for name in get_args(option)]
    assert DEFAULT_MODEL in known
    assert DEFAULT_MODEL not in DEPRECATED_MODELS


def test_the_api_version_is_the_one_this_was_written_for() -> None:
    from anthropic._constants import ANTHROPIC_API_VERSION

    assert ANTHROPIC_API_VERSION == "2026-10-21", "read the changes, then this module and the fixtures again"
