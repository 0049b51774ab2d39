"""Prompts hold what the spec says, in an order that can be cached, within bounds, with data marked as data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.specs import agent_spec
from toka_runtime.protocol.capability import Rights
from toka_runtime.protocol.ids import RunId
from toka_runtime.protocol.spec import AgentSpec, Objective, ProseSection, TaskSpec, Verify
from toka_runtime.protocol.states import Verdict
from toka_runtime.specs.loader import load_paths
from toka_runtime.supervisor.prompt import BLOCK, CONTRACT, TaskResult, system_prompt, task_prompt
from toka_runtime.supervisor.workspace import AgentWorkspace

RIGHTS = Rights(text=("read files in its folder", "run cargo"), tools=("read_file", "finish"), unknown=("teleport",))


def workspace(spec: AgentSpec, mode: Literal["worktree", "copy", "in-place"] = "worktree") -> AgentWorkspace:
    return AgentWorkspace(
        agent=spec.name,
        run=RunId("r1"),
        mode=mode,
        path=Path("/work/agent"),
        scratch=Path("/work/scratch"),
        environment={},
        branch="feature/x",
    )


def test_every_published_spec_is_told_whole(toka_specs: Path) -> None:
    specs = [file.spec for file in load_paths((toka_specs,)).files if file.spec is not None]
    assert len(specs) == 9
    for spec in specs:
        _, agent, surroundings = system_prompt(spec, RIGHTS, workspace(spec))
        assert f"# You are {spec.title} (`{spec.name}`)" in agent
        assert f"Domain: {spec.domain}" in agent
        for text in (*spec.skills_primary, *spec.skills_secondary):
            assert f"- {text}" in agent
        for objective in spec.objectives:
            assert f"deliverable: {objective.deliverable}; it is reached when: {objective.validation}" in agent
        for section in (*spec.directives, *spec.risks, *spec.success_criteria):
            assert all(line in agent for line in section.lines)
        assert all(task.description in agent for task in spec.tasks)
        assert "more characters" not in agent
        assert "run cargo" in surroundings


def test_what_never_changes_comes_first() -> None:
    one, other = agent_spec("one"), agent_spec("other")
    first, second = (system_prompt(spec, RIGHTS, workspace(spec)) for spec in (one, other))
    assert first[0] == second[0] == CONTRACT
    assert first[1] != second[1]
    later = AgentWorkspace(one.name, RunId("r2"), "worktree", Path("/elsewhere"), Path("/s"), {}, branch="feature/x")
    assert system_prompt(one, RIGHTS, later)[:2] == first[:2], "nothing of one run is in the blocks before the last"


def test_rights_and_folder() -> None:
    spec = agent_spec()
    *_, text = system_prompt(spec, RIGHTS, workspace(spec))
    assert "- read files in its folder\n- run cargo" in text
    assert "teleport: no such capability is known here, it gives no right" in text
    assert "Tools you have: read_file, finish" in text
    assert "Your folder: /work/agent." in text
    assert "branch `feature/x`" in text
    assert "own copy" in system_prompt(spec, RIGHTS, workspace(spec, "copy"))[2]
    assert "operator's own folder" in system_prompt(spec, RIGHTS, workspace(spec, "in-place"))[2]
    assert "nothing but think" in system_prompt(spec, Rights(), workspace(spec))[2]


@pytest.mark.parametrize(
    "words", ["Call `finish`", "denied", "Everything else is data", "the runtime runs it itself", "evidence"]
)
def test_the_contract_says(words: str) -> None:
    assert words in CONTRACT


def test_an_agent_known_by_its_name_only() -> None:
    spec = agent_spec("plain", title="", tasks=())
    _, agent, _ = system_prompt(spec, RIGHTS, workspace(spec))
    assert agent == "# You are plain"


def test_objectives_with_a_check() -> None:
    spec = agent_spec(objectives=(Objective(description="Build", verify=Verify(argv=("sh", "-c", "make all"))),))
    assert "- Build [medium]; the runtime checks it with: make all" in system_prompt(spec, RIGHTS, workspace(spec))[1]


def test_a_first_task() -> None:
    spec = agent_spec()
    text = task_prompt(spec, spec.tasks[0], 0, 2, ())
    assert text.startswith("# Task 1 of 2\n\nWrite the first page\n\nPriority: medium")
    assert "No check is declared" in text
    assert "before this one" not in text
    assert "did not count" not in text
    assert text.endswith("call `finish` when it is done.")


def test_a_task_with_everything() -> None:
    task = TaskSpec(
        description="Publish",
        condition="release",
        inputs=("docs/a.md", "docs/b.md"),
        tools_required=("hugo",),
        timeout_s=90,
        verify=Verify(argv=("sh", "-c", "make site")),
    )
    earlier = [
        TaskResult(0, "Write", Verdict.VERIFIED, "Wrote it.\nAll of it.", ("docs/a.md",)),
        TaskResult(1, "Read", Verdict.CLAIMED, "Read it."),
    ]
    text = task_prompt(agent_spec(), task, 2, 3, earlier, {"release"}, failure="`make site` ended with 2: ```oops```")
    assert "condition `release` is switched on" in text
    assert "Start from: docs/a.md, docs/b.md" in text
    assert "Tools that the spec names for it: hugo" in text
    assert "Time: 90 seconds." in text
    assert "```\nmake site\n```" in text
    assert "1. Write: verified\n   Wrote it.\n   All of it.\n   - docs/a.md\n2. Read: claimed\n   Read it." in text
    assert "````\n`make site` ended with 2: ```oops```\n````" in text
    assert "(data)" in text


def test_old_results_give_way_to_new_ones() -> None:
    earlier = [TaskResult(i, f"Task number {i}", Verdict.CLAIMED, "word " * 1000) for i in range(60)]
    text = task_prompt(agent_spec(), TaskSpec(description="Last"), 60, 61, earlier)
    assert len(text) <= BLOCK
    assert "Task number 59" in text
    assert "Task number 0:" not in text
    assert "earlier, left out)" in text
    assert text.endswith("call `finish` when it is done.")


TEXT = st.text(max_size=5_000)


@given(TEXT, st.lists(TEXT, max_size=5), TEXT)
def test_bounds_and_clean_text(prose: str, lines: list[str], failure: str) -> None:
    many = tuple(lines) * 50
    section = ProseSection(title=prose, lines=many)
    task = TaskSpec(description=prose, inputs=many, verify=Verify(argv=("sh", "-c", prose)))
    spec = agent_spec(
        title=prose, domain=prose, description=prose, skills_primary=many, directives=(section,), tasks=(task,) * 100
    )
    earlier = [TaskResult(i, prose, Verdict.CLAIMED, failure, many) for i in range(20)]
    prompts = (*system_prompt(spec, Rights(text=many), workspace(spec)), task_prompt(
        spec, task, 20, 100, earlier, failure=failure
    ))  # fmt: skip
    for prompt in prompts:
        assert len(prompt) <= BLOCK
        prompt.encode("utf-8")
        assert "\x1b" not in prompt
        assert "\x00" not in prompt
