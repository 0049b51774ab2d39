"""The main job with a model: the real SDK over real HTTP on loopback, against a server that speaks the Messages API."""

from __future__ import annotations

import json
import secrets
import threading
from pathlib import Path

import pytest
from llmock.scenarios import Reply

from e2e.fleet import Ran, git, make_repository, run_json
from fakes.conversing_model import Body, Mind, call, conversing_model, finish, first_words, offered, results
from fakes.processes import alive, processes_naming

FIRST = "build-system-stabilization"
KEY = f"dummy-credential-{secrets.token_hex(8)}"
"""Another one each time: tests may run side by side, and look into all processes."""
SMALL = """\
metadata: {name: small}
spec: {name: Small, domain: test}
tasks: {default: [{description: look around}]}
security: {sandbox: true, capabilities_required: [filesystem-read]}
"""


class Worker:
    """Looks, reads, writes where it may, and finishes; in the first task of each agent only, to save time."""

    def __init__(self) -> None:
        self.holders: set[int] = set()
        """Pids whose environment or command line held the credential while agents were at work."""
        self._lock = threading.Lock()

    def __call__(self, body: Body) -> Reply:
        done = len(results(body))
        if "# Task 1 of" not in first_words(body) or done >= 3:
            return finish()
        if done == 0:
            return call(("list_files", {}), ("read_file", {"path": "README.md"}), text="Looking around.")
        with self._lock:
            # Between fork and exec a new process still shows its parent's environment: those that keep it count.
            self.holders.update(set(processes_naming(KEY)) & set(processes_naming(KEY)))
        if "write_file" in offered(body):
            return call(("write_file", {"path": "docs/notes.md", "content": "notes\n"}))
        return finish()


class Nine:
    def __init__(self, specs: Path, home: Path) -> None:
        self.repository = make_repository(home / "project")
        self.state = home / "state"
        self.recording = home / "session.jsonl"
        self.worker = Worker()
        with conversing_model(self.worker) as model:
            self.ran = run_json(
                specs,
                *("--workspace", self.repository, "--state-dir", self.state, "--record", self.recording),
                *("--provider", "anthropic", "--base-url", model.base_url, "--max-agents", "9"),
                home=home,
                ANTHROPIC_API_KEY=KEY,
            )
            self.requests = list(model.requests)


@pytest.fixture(scope="module")
def nine(toka_specs: Path, tmp_path_factory: pytest.TempPathFactory) -> Nine:
    return Nine(toka_specs, tmp_path_factory.mktemp("nine"))


@pytest.mark.slow
def test_all_nine_complete_foundation_first(nine: Nine) -> None:
    ran = nine.ran
    assert ran.code == 0, ran.stderr[-3000:]
    assert set(ran.final_states().values()) == {"completed"}
    assert len(ran.final_states()) == 9
    done = ran.first("agent.state_changed", FIRST, after="completed")["seq"]
    starts = [e["seq"] for e in ran.of("agent.state_changed") if e["event"]["after"] == "starting"]
    assert sum(seq > done for seq in starts) == 8


@pytest.mark.slow
def test_own_processes_worktrees_and_branches_and_none_left(nine: Nine) -> None:
    ran = nine.ran
    assert len({e["event"]["process"]["pid"] for e in ran.of("agent.process_started")}) == 9
    spaces = [e["event"] for e in ran.of("agent.workspace_ready")]
    assert {space["mode"] for space in spaces} == {"worktree"}
    assert len({space["path"] for space in spaces}) == len({space["branch"] for space in spaces}) == 9
    assert alive(ran.pids()) == set()
    assert processes_naming(str(nine.state)) == []


@pytest.mark.slow
def test_what_the_model_asked_for_was_done(nine: Nine) -> None:
    ran = nine.ran
    for name in ran.final_states():
        tools = [e["event"]["tool"] for e in ran.of("tool.call_ended", name) if e["event"]["outcome"] == "ok"]
        assert {"list_files", "read_file", "finish"} <= set(tools), name
        branch = ran.first("agent.workspace_ready", name)["event"]["branch"]
        wrote = any(
            e["event"]["tool"] == "write_file" and e["event"]["outcome"] == "ok"
            for e in ran.of("tool.call_ended", name)
        )
        assert wrote == (git(nine.repository, "ls-tree", "--name-only", branch, "docs/notes.md") != ""), name
    assert any(e["event"]["tool"] == "write_file" and e["event"]["outcome"] == "ok" for e in ran.of("tool.call_ended"))
    texts = [e["event"]["text"] for e in ran.of("output.appended") if e["event"]["stream"] == "model"]
    assert any("Looking around." in text for text in texts)
    assert "REHEARSAL" not in ran.stderr


@pytest.mark.slow
def test_tokens_are_counted_for_every_agent(nine: Nine) -> None:
    for name in nine.ran.final_states():
        ended = [e["event"] for e in nine.ran.of("model.call_ended", name)]
        assert {event["outcome"] for event in ended} == {"ok"}
        assert all(event["usage"]["input_tokens"] > 0 and event["usage"]["output_tokens"] > 0 for event in ended)
        assert all(event["provider"] == "anthropic" and event["request_digest"] for event in ended)
    assert len(nine.ran.of("model.call_ended")) == len(nine.requests)


@pytest.mark.slow
def test_the_credential_is_nowhere(nine: Nine) -> None:
    ran = nine.ran
    assert KEY not in ran.stderr
    assert KEY not in json.dumps(ran.envelopes)
    assert KEY not in json.dumps(nine.requests)
    runtime = ran.of("runtime.started")[0]["event"]["pid"]
    assert nine.worker.holders == {runtime}, "only the runtime, which was given it in its environment"
    files = [nine.recording, *(path for path in nine.state.rglob("*") if path.is_file() and not path.is_symlink())]
    assert nine.recording.stat().st_size > 0
    assert any(path.suffix == ".db" or "events" in path.name for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def run_small(spec: Path, home: Path, base_url: str, **variables: str) -> Ran:
    return run_json(
        spec,
        *("--workspace", make_repository(home / "project"), "--state-dir", home / "state"),
        *("--provider", "anthropic", "--base-url", base_url),
        home=home,
        ANTHROPIC_API_KEY=KEY,
        **variables,
    )


def looks_then_finishes(body: Body) -> Reply:
    return finish() if results(body) else call(("list_files", {}), text="I look around in the folder first.")


@pytest.mark.slow
def test_outages_and_a_cut_stream_are_tried_again_visibly(small: Path, tmp_path: Path) -> None:
    with conversing_model(looks_then_finishes) as model:
        model.fail(529)
        model.fail(429)
        model.cut(after_chunks=3)
        ran = run_small(small, tmp_path, model.base_url)
        assert len(model.requests) == 5
    assert ran.code == 0, ran.stderr[-2000:]
    retried = [e["event"] for e in ran.of("model.call_retried", "small")]
    codes = [event["code"] for event in retried if event["code"] != "model.cooling_down"]
    assert codes == ["model.unavailable", "model.unavailable", "model.stream_broken"]
    assert "model call again in" in ran.stderr
    # The agent saw none of it: two turns, one tool call and its finish.
    assert [e["event"]["outcome"] for e in ran.of("model.call_ended")] == ["ok", "ok"]
    assert [e["event"]["tool"] for e in ran.of("tool.call_ended")] == ["list_files", "finish"]


@pytest.mark.slow
def test_words_without_finish_fail_the_agent(small: Path, tmp_path: Path) -> None:
    mind: Mind = lambda body: Reply(text="All tasks are completed and verified, success!")  # noqa: E731
    with conversing_model(mind) as model:
        ran = run_small(small, tmp_path, model.base_url)
    assert ran.code == 1
    assert ran.final_states() == {"small": "failed"}
    assert "without calling finish" in ran.of("agent.state_changed")[-1]["event"]["detail"]
    assert alive(ran.pids()) == set()


@pytest.mark.slow
def test_a_refused_credential_fails_at_once_and_is_no_rehearsal(small: Path, tmp_path: Path) -> None:
    with conversing_model(looks_then_finishes) as model:
        model.fail(401, times=100)
        ran = run_small(small, tmp_path, model.base_url)
        assert len(model.requests) == 1
    assert ran.code == 1
    last = ran.of("agent.state_changed")[-1]["event"]
    assert (last["after"], last["reason"]) == ("failed", "llm_failed")
    assert "rehearsal" not in ran.stderr.lower()
    assert KEY not in ran.stderr
