"""A recorded session played again: the same calls in the same order, without a model and without a server."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from e2e.fleet import Ran, make_repository, run_json

RIGHTS = "security: {sandbox: true, capabilities_required: [filesystem-read, filesystem-write, script-execution]}\n"
TASKS = "tasks: {default: [{description: Read the documentation}, {description: Write notes on the source}]}\n"


def write_spec(folder: Path, name: str, title: str, more: str = "") -> None:
    folder.mkdir(exist_ok=True)
    text = f"metadata: {{name: {name}}}\nspec: {{name: {title}, domain: test}}\n{TASKS}{RIGHTS}{more}"
    (folder / f"{name}.yaml").write_text(text)


def calls(ran: Ran, agent: str) -> list[tuple[str, str, str]]:
    """Tool calls of an agent in order: (tool, what it was asked for, how it ended)."""
    ended = {e["event"]["call"]: e["event"]["outcome"] for e in ran.of("tool.call_ended", agent)}
    started = [e["event"] for e in ran.of("tool.call_started", agent)]
    return [(event["tool"], event["target"], ended[event["call"]]) for event in started]


class Recorded:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.specs = home / "specs"
        write_spec(self.specs, "reader", "Reader")
        write_spec(self.specs, "writer", "Writer", "dependencies: {required: {reader: its notes}}\n")
        self.file = home / "session.jsonl"
        self.ran = self.run(self.specs, "first", "rehearsal", "--record", self.file)

    def run(self, specs: Path, copy: str, provider: str, *more: str | Path) -> Ran:
        workspace = make_repository(self.home / copy / "project")
        state = self.home / copy / "state"
        arguments = (specs, "--workspace", workspace, "--state-dir", state, "--provider", provider, *more)
        return run_json(*arguments, home=self.home)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("recorded"))


@pytest.mark.slow
def test_a_recording_is_its_owners_alone(recorded: Recorded) -> None:
    assert recorded.ran.code == 0, recorded.ran.stderr[-2000:]
    assert stat.S_IMODE(recorded.file.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in recorded.file.read_text().splitlines()]
    assert lines[0]["provider"] == "rehearsal"
    assert len(lines) - 1 == len(recorded.ran.of("model.call_ended"))


@pytest.mark.slow
def test_a_replay_makes_the_same_calls_in_the_same_order(recorded: Recorded) -> None:
    again = recorded.run(recorded.specs, "second", f"replay:{recorded.file}")
    assert again.code == 0, again.stderr[-2000:]
    for agent in ("reader", "writer"):
        assert calls(again, agent) == calls(recorded.ran, agent)
        assert len(calls(again, agent)) > 4
    assert again.final_states() == {"reader": "completed", "writer": "completed"}
    assert "REPLAY" in again.stderr


@pytest.mark.slow
def test_a_replay_of_other_specs_is_a_miss_and_nothing_is_made_up(recorded: Recorded) -> None:
    changed = recorded.home / "changed"
    write_spec(changed, "reader", "Quite another reader")
    write_spec(changed, "stranger", "Stranger")
    ran = recorded.run(changed, "third", f"replay:{recorded.file}")
    assert ran.code == 1
    assert ran.final_states() == {"reader": "failed", "stranger": "failed"}
    assert ran.of("tool.call_started") == []
    ended = {e["agent"]: e["event"] for e in ran.of("model.call_ended")}
    assert len(ran.of("model.call_ended")) == 2, "another attempt cannot change it"
    assert {event["code"] for event in ended.values()} == {"model.recording_miss"}
    assert "another system prompt" in ended["reader"]["message"]
    assert "does not hold agent stranger" in ended["stranger"]["message"]
    assert "model.recording_miss" in ran.stderr


@pytest.mark.slow
def test_a_recording_is_never_overwritten(recorded: Recorded) -> None:
    before = recorded.file.read_bytes()
    ran = recorded.run(recorded.specs, "fourth", "rehearsal", "--record", recorded.file)
    assert ran.code == 3
    assert "exists already" in ran.stderr
    assert recorded.file.read_bytes() == before
    assert ran.envelopes == []
