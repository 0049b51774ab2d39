"""The script of a rehearsal: within the rights but once, always to an end, the same each time, honest about itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.clock import FakeClock
from fakes.engines import collect
from fakes.model_requests import LIST_FILES, model_request
from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.llm.base import Delta, Finished, GatewaySettings
from toka_runtime.llm.engine import Engine
from toka_runtime.llm.redact import Redactor
from toka_runtime.llm.rehearsal import RehearsalProvider
from toka_runtime.llm.rehearsal_input import fill_schema
from toka_runtime.llm.rehearsal_script import TAG
from toka_runtime.llm.tool_schema import misfit
from toka_runtime.policy.engine import decide
from toka_runtime.protocol.capability import (
    Decision,
    Denial,
    ExecuteRule,
    NetworkRule,
    Operation,
    OperationKind,
    PathRule,
    Rights,
)


def tool(name: str, required: str, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}
    return {"name": name, "description": name, "input_schema": schema}


STRING = {"type": "string"}
TOOLS = {
    "list_files": LIST_FILES,
    "read_file": tool("read_file", "path", path=STRING, offset={"type": "integer"}, limit={"type": "integer"}),
    "search_text": tool("search_text", "pattern path", pattern=STRING, path=STRING),
    "write_file": tool("write_file", "path content", path=STRING, content=STRING),
    "run_command": tool("run_command", "command", command=STRING, timeout_s={"type": "number"}),
    "fetch_url": tool("fetch_url", "url", url=STRING),
    "finish": tool(
        "finish",
        "status summary evidence",
        status={"type": "string", "enum": ["blocked", "done"]},
        summary=STRING,
        evidence={"type": "array", "items": STRING},
    ),
}


def rights(
    read: tuple[str, ...] = ("**",),
    write: tuple[str, ...] = (),
    execute: tuple[tuple[str, ...], ...] = (),
    network: tuple[str, ...] = (),
) -> Rights:
    return Rights(
        read=tuple(PathRule(id="r", capability="filesystem-read", glob=glob) for glob in read),
        write=tuple(PathRule(id="w", capability="filesystem-write", glob=glob) for glob in write),
        execute=tuple(ExecuteRule(id="x", capability="execution", argv_prefix=argv) for argv in execute),
        network=tuple(NetworkRule(id="n", capability="network-access", host=host, port=443) for host in network),
    )


def offered(granted: Rights) -> list[dict[str, Any]]:
    names = ["finish"]
    names += ["list_files", "read_file", "search_text"] if granted.read else []
    names += ["write_file"] if granted.write else []
    names += ["run_command"] if granted.execute else []
    names += ["fetch_url"] if granted.network else []
    return [TOOLS[name] for name in names]


def verdict(name: str, arguments: dict[str, Any], granted: Rights) -> Decision:
    """As the broker would ask."""
    if name not in {tool["name"] for tool in offered(granted)}:
        return decide(Operation(kind=OperationKind.TOOL, target=name, tool=name), granted)
    match name:
        case "list_files" | "search_text":
            kind = OperationKind.LIST if name == "list_files" else OperationKind.READ
            return decide(Operation(kind=kind, target=arguments["path"] + "/"), granted)
        case "read_file":
            return decide(Operation(kind=OperationKind.READ, target=arguments["path"]), granted)
        case "write_file":
            return decide(Operation(kind=OperationKind.WRITE, target=arguments["path"]), granted)
        case "run_command":
            argv = tuple(arguments["command"].split())
            return decide(Operation(kind=OperationKind.EXECUTE, target=arguments["command"], argv=argv), granted)
        case _:
            return decide(Operation(kind=OperationKind.CONNECT, target="example.com:443"), granted)


LISTING = "src/\nREADME.md\nCargo.toml\nlink@\n(3 more: narrow path or pattern)"
Result = Callable[[str, dict[str, Any]], tuple[str, bool]]


def engine_of() -> Engine:
    settings = GatewaySettings(provider="rehearsal", rehearsal_delay_s=0)
    return Engine(RehearsalProvider(FakeClock(), 0), settings, FakeClock(), Redactor({}), default_model="")


async def play(
    granted: Rights, *, task: int = 0, attempt: int = 1, agent: str = "builder", result: Result | None = None
) -> tuple[list[tuple[str, dict[str, Any]]], list[Finished]]:
    """Run one task to its end as the worker would; (calls, turns)."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Do the task."}]
    calls: list[tuple[str, dict[str, Any]]] = []
    turns: list[Finished] = []
    for turn in range(1, 30):
        request = model_request(
            agent=agent,
            task=task,
            attempt=attempt,
            turn=turn,
            rights=granted,
            messages=messages,
            tools=offered(granted),
        )
        events = await collect(engine_of(), request)
        finished = events[-1]
        turns.append(finished)
        assert finished.rejected_tools == ()
        used = [block for block in finished.content if block["type"] == "tool_use"]
        calls += [(block["name"], block["input"]) for block in used]
        if not used or (used[0]["name"] == "finish" and result is None):
            return calls, turns
        results = []
        for block in used:
            denied = block["name"] != "finish" and isinstance(verdict(block["name"], block["input"], granted), Denial)
            text, error = (LISTING, False) if block["name"] == "list_files" else ("ok", denied)
            if result is not None:
                text, error = result(block["name"], block["input"])
            results.append({"type": "tool_result", "tool_use_id": block["id"], "content": text, "is_error": error})
        messages += [{"role": "assistant", "content": list(finished.content)}, {"role": "user", "content": results}]
    raise AssertionError("the rehearsal does not end")


FULL = rights(write=("**",), execute=(("git",), ("cargo",)), network=("crates.io",))


async def test_a_first_task_with_all_rights() -> None:
    calls, turns = await play(FULL)
    names = [name for name, _ in calls]
    assert names[:4] == ["list_files", "read_file", "write_file", "run_command"]
    assert names[-1] == "finish"
    assert len(names) == 6
    assert dict(calls)["read_file"]["path"] == "README.md"
    assert dict(calls)["run_command"]["command"] == "git status --short"
    for turn in turns:
        assert turn.usage.total_tokens == 0
        assert not turn.usage.estimated
        assert turn.cost_usd == 0.0
        assert turn.model == "rehearsal"
        assert all(block["text"].startswith(TAG) for block in turn.content if block["type"] == "text")
    finish = calls[-1][1]
    assert finish["status"] == "done"
    assert finish["summary"].startswith(TAG)
    assert finish["evidence"]


async def test_later_tasks_stay_within_the_rights_and_call_several_tools_in_a_turn() -> None:
    calls, turns = await play(FULL, task=1)
    assert not [call for call in calls[:-1] if isinstance(verdict(*call, FULL), Denial)]
    assert [name for name, _ in calls[:2]] == ["list_files", "search_text"]
    assert sum(block["type"] == "tool_use" for block in turns[0].content) == 2


globs = st.sampled_from(["**", "docs/**", "src/*.rs", "*.md", "Cargo.toml", "a/*/b/**", "**/*.yaml", "/var/log/**"])
programs = st.sampled_from([("git",), ("git", "log"), ("cargo", "test"), ("*",), ("kubectl",), ("ls",)])
hosts = st.sampled_from(["crates.io", "*.github.com", "example.com"])
some_rights = st.builds(
    rights,
    read=st.lists(globs, max_size=2).map(tuple),
    write=st.lists(globs, max_size=3).map(tuple),
    execute=st.lists(programs, max_size=2).map(tuple),
    network=st.lists(hosts, max_size=2).map(tuple),
)


@settings(max_examples=40)
@given(some_rights, st.integers(0, 3), st.sampled_from(["builder", "writer", "security-extension"]))
async def test_exactly_one_call_of_the_first_task_is_outside_the_rights(granted: Rights, task: int, agent: str) -> None:
    calls, _ = await play(granted, task=task, agent=agent)
    denied = [call for call in calls if call[0] != "finish" and isinstance(verdict(*call, granted), Denial)]
    assert len(denied) == (1 if task == 0 else 0), calls
    assert calls[-1][0] == "finish"


@settings(max_examples=40)
@given(some_rights)
async def test_notes_go_to_new_files_only(granted: Rights) -> None:
    calls, _ = await play(granted, task=1)
    for name, arguments in calls:
        if name == "write_file":
            assert "rehearsal" in arguments["path"]
            assert TAG in arguments["content"].splitlines()[0]


async def test_a_second_attempt_asks_for_nothing_forbidden() -> None:
    calls, _ = await play(FULL, attempt=2)
    assert not [call for call in calls[:-1] if isinstance(verdict(*call, FULL), Denial)]


async def test_agents_differ_in_what_they_try() -> None:
    granted = rights(write=("docs/**",))
    tried = set()
    for agent in "abcdefghijkl":
        calls, _ = await play(granted, agent=agent)
        tried |= {name for name, arguments in calls if isinstance(verdict(name, arguments, granted), Denial)}
    assert tried - {"finish"} == {"fetch_url", "write_file", "run_command"}


async def test_it_ends_even_when_everything_fails_finish_included() -> None:
    calls, turns = await play(FULL, result=lambda _name, _arguments: ("no", True))
    assert [name for name, _ in calls].count("finish") == 3
    assert turns[-1].stop_reason == "end_turn"


async def test_it_ends_when_the_conversation_forgets() -> None:
    """Compaction drops results; the turn number still leads to the end."""
    request = model_request(rights=FULL, tools=offered(FULL), turn=12)
    finished = (await collect(engine_of(), request))[-1]
    assert finished.content[-1]["name"] == "finish"


async def test_without_a_finish_tool_it_ends_in_words() -> None:
    finished = (await collect(engine_of(), model_request(tools=(), turn=20)))[-1]
    assert finished.stop_reason == "end_turn"


async def test_the_same_request_gives_the_same_answer() -> None:
    request = model_request(rights=FULL, tools=offered(FULL))
    first, second = [(await collect(engine_of(), request))[-1] for _ in range(2)]
    assert first.content == second.content


async def test_it_streams_in_pieces_with_pauses() -> None:
    clock = FakeClock()
    engine = Engine(
        RehearsalProvider(clock, 0.5), GatewaySettings(provider="rehearsal"), clock, Redactor({}), default_model=""
    )
    task = spawn(collect(engine, model_request(rights=FULL, tools=offered(FULL))), name="call")
    while not task.done():
        sleeping = spawn(clock.until_sleeping(), name="sleeping")
        await asyncio.wait({task, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        await cancel_and_wait(sleeping)
        await clock.advance(0.5 if not task.done() else 0)
    deltas = [event for event in task.result() if isinstance(event, Delta)]
    assert len(deltas) > 3
    assert clock.monotonic() == 0.5 * len(deltas)
    assert "".join(delta.text for delta in deltas if delta.kind == "tool_input") == json.dumps({"path": "."})


@pytest.mark.parametrize(
    ("wanted", "schema", "filled"),
    [
        ({"command": ["git", "log"]}, {"command": STRING}, {"command": "git log"}),
        ({"command": ["echo", "a b"]}, {"command": STRING}, {"command": "echo 'a b'"}),
        ({"command": ["git", "log"]}, {"argv": {"type": "array", "items": STRING}}, {"argv": ["git", "log"]}),
        ({"path": "x"}, {"file_path": STRING}, {"file_path": "x"}),
        ({"status": "done"}, {"status": {"enum": ["failed", "success"]}}, {"status": "success"}),
        ({"evidence": ["a", "b"]}, {"evidence": STRING}, {"evidence": "a\nb"}),
        ({"path": "x", "limit": 3}, {"path": STRING}, {"path": "x"}),
        ({}, {"n": {"type": "integer", "minimum": 5}, "b": {"type": "boolean"}}, {"n": 5, "b": False}),
    ],
)
def test_inputs_fit_whatever_the_schema_calls_them(
    wanted: dict[str, Any], schema: dict[str, Any], filled: dict[str, Any]
) -> None:
    declared = {"type": "object", "properties": schema, "required": list(schema)}
    assert fill_schema(declared, wanted) == filled
    assert misfit(fill_schema(declared, wanted), declared) is None
