"""`toka-runtime plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from toka_runtime.cli.main import main


def spec(name: str, body: str = "") -> str:
    return f"metadata: {{name: {name}}}\ntasks: {{default: [{{description: work, estimated_duration: 1h}}]}}\n{body}"


@pytest.fixture
def fleet(tmp_path: Path):
    def write(**bodies: str) -> Path:
        for name, body in bodies.items():
            (tmp_path / f"{name}.yaml").write_text(spec(name, body))
        return tmp_path

    return write


def plan(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["plan", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def plan_json(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    code, out, _ = plan(capsys, "--format", "json", *arguments)
    return code, json.loads(out)


def test_the_published_fleet(capsys: pytest.CaptureFixture[str], toka_specs: Path) -> None:
    code, answer = plan_json(capsys, toka_specs)
    assert code == 0
    assert answer["graph"]["order"][0] == "build-system-stabilization"
    assert [agent["name"] for agent in answer["agents"]] == answer["graph"]["order"]
    assert answer["agents"][0]["waits"] == []
    assert all(agent["waits"] for agent in answer["agents"][1:])
    assert all(agent["rights"]["text"] and agent["rights"]["tools"] for agent in answer["agents"])
    assert answer["left_out"] == {}
    code, out, _ = plan(capsys, toka_specs)
    assert code == 0
    assert "★ critical path: build-system-stabilization → testing-infrastructure" in out
    assert out.count("read everything in its folder (filesystem-read)") == 9


def test_why_each_would_wait(capsys: pytest.CaptureFixture[str], fleet) -> None:
    folder = fleet(
        a="",
        b="dependencies: {required: {a: {reason: foundations, condition: verified}}}\n",
        c="dependencies: {optional: {a: nice to have}}\n",
        d="dependencies: {required: {a: {condition: started}}}\n",
    )
    _, answer = plan_json(capsys, "--max-agents", "2", folder)
    waits = {agent["name"]: agent["waits"] for agent in answer["agents"]}
    assert waits == {
        "a": [],
        "b": ["for a to complete and be verified: foundations"],
        "c": ["for a to complete, or to end (optional): nice to have"],
        "d": ["for a to start", "for a free slot: 2 run at once, 2 of its level go first"],
    }
    assert answer["max_agents"] == 2


def test_conditions(capsys: pytest.CaptureFixture[str], fleet) -> None:
    folder = fleet(a="")
    conditional = "tasks: {default: [{description: w}], conditional: {deep: [{description: x}, {description: y}]}}\n"
    (folder / "b.yaml").write_text(f"metadata: {{name: b}}\n{conditional}")
    _, answer = plan_json(capsys, folder)
    assert answer["conditions"] == {"deep": {"enabled": False, "agents": ["b"]}}
    assert [agent["tasks"] for agent in answer["agents"]] == [1, 1]
    _, answer = plan_json(capsys, "--enable", "deep", folder)
    assert answer["conditions"]["deep"]["enabled"]
    assert [agent["tasks"] for agent in answer["agents"]] == [1, 3]
    _, out, _ = plan(capsys, folder)
    assert "deep (b): off; --enable deep switches them on" in out
    _, _, err = plan(capsys, "--enable", "dep", folder)
    assert err == "note: no spec has tasks for the condition 'dep' did you mean “deep”?\n"


def test_drawings_are_all_that_is_on_stdout(capsys: pytest.CaptureFixture[str], fleet) -> None:
    code, out, err = plan(capsys, "--format", "mermaid", fleet(a="", b="dependencies: {required: [a]}\n"))
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "flowchart LR"
    assert "  n0 --> n1" in out.splitlines()


def test_what_cannot_run_is_left_out_and_said(capsys: pytest.CaptureFixture[str], fleet) -> None:
    folder = fleet(
        good="",
        bad="spec: {priority: never}\n",
        needs="dependencies: {required: [bad]}\n",
        further="dependencies: {required: [needs]}\n",
        wishes="dependencies: {optional: [bad]}\n",
    )
    code, answer = plan_json(capsys, folder)
    assert code == 1
    assert answer["graph"]["order"] == ["good", "wishes"]
    assert answer["left_out"] == {
        "needs": "requires bad, which cannot run",
        "further": "requires needs, which cannot run",
    }
    assert [problem["code"] for problem in answer["problems"]] == ["spec.bad_value"]
    code, out, err = plan(capsys, folder)
    assert code == 1
    assert f"{folder}/bad.yaml:3:18  spec.bad_value" in err
    assert "needs  left out: requires bad, which cannot run" in out


def test_a_cycle_is_told_and_the_rest_is_planned(capsys: pytest.CaptureFixture[str], fleet) -> None:
    folder = fleet(a="dependencies: {required: [b]}\n", b="dependencies: {required: [a]}\n", c="")
    code, out, err = plan(capsys, folder)
    assert code == 1
    assert "dependency cycle: a → b → a" in err
    assert "start order: 1 agent in 1 level" in out


def test_slots_come_from_the_fleet_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    agents = "".join(f'[[agents]]\nname = "{n}"\n[[agents.tasks.default]]\ndescription = "d"\n' for n in "abc")
    (tmp_path / "fleet.toml").write_text("[orchestration]\nmax_concurrent_agents = 2\n" + agents)
    _, answer = plan_json(capsys, tmp_path)
    assert answer["max_agents"] == 2
    assert [len(agent["waits"]) for agent in answer["agents"]] == [0, 0, 1]


def test_nothing_to_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = plan(capsys, tmp_path)
    assert code == 1
    assert "spec.no_specs" in err
    assert "start order: 0 agents" in out
