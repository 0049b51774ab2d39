"""Budgets on real runs: caps that hold, agents that wait, caps that are lifted, what a dead runtime leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes.gateway import Answer, finish, say, tool_results, tool_turn
from fakes.scene import Scene, scene, spec
from toka_runtime.llm.base import Finished, GatewaySettings, ModelRequest
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.budget import Account, BudgetScope
from toka_runtime.protocol.commands import KillAgent, ResumeAgent, SetBudget
from toka_runtime.protocol.states import AgentState, StopReason
from toka_runtime.protocol.usage import Budget, TokenUsage

PAID = GatewaySettings(provider="replay", replay_file="a fake plays it")
FLEET = Account(BudgetScope.FLEET, "")
LARGE = 45_000
"""More than the worst case of a first call: prompt and tools in bytes, and the longest answer."""
TURN = 12_000


def costing(answer: Finished, tokens: int) -> Finished:
    return answer.model_copy(update={"usage": TokenUsage(input_tokens=tokens - 5, output_tokens=5)})


def working(tokens: int, turns: int = 3) -> Callable[[ModelRequest], Answer]:
    """Lists its folder `turns` times, then is done; each turn costs so many tokens."""

    def brain(request: ModelRequest) -> Answer:
        more = tool_results(request) < turns
        return costing(tool_turn(("list_files", {"path": "."})) if more else finish(), tokens)

    return brain


def spent(stage: Scene, account: Account = FLEET) -> int:
    return stage.supervisor.services.budgets.ledger.spent(account).tokens


async def test_an_agent_without_room_waits_for_a_new_cap_and_goes_on(tmp_path: Path) -> None:
    text = spec("a", body=f"budget: {{max_tokens: {LARGE}}}\n")
    async with scene(tmp_path, working(TURN), text, gateway=PAID) as stage:
        await stage.start()
        await stage.until(lambda: stage.of(ev.BudgetExhausted))
        await stage.until_state("a", AgentState.PAUSED)
        agent = stage.agent("a")
        assert agent.reason is StopReason.BUDGET
        assert "budget of agent a" in agent.detail
        assert spent(stage) <= LARGE
        assert [each.figure.used for each in stage.of(ev.BudgetWarned)] == [2 * TURN, 3 * TURN]
        refused = await stage.send(ResumeAgent(target=stage.ref("a")))
        assert (refused.ok, "higher cap" in refused.message) == (False, True)
        answer = await stage.send(SetBudget(scope=BudgetScope.AGENT, name="a", budget=Budget(max_tokens=10 * LARGE)))
        assert answer.ok
        await stage.until_state("a", AgentState.COMPLETED)
        assert spent(stage) == 4 * TURN


async def test_one_that_waits_can_be_killed(tmp_path: Path) -> None:
    async with scene(tmp_path, working(10), spec("a", body="budget: {max_tokens: 5}\n"), gateway=PAID) as stage:
        await stage.start()
        await stage.until_state("a", AgentState.PAUSED)
        assert (await stage.send(KillAgent(target=stage.ref("a")))).ok
        assert stage.final() == {"a": AgentState.KILLED}
        assert stage.gateway.requests == []


async def test_ten_agents_in_parallel_never_pass_the_cap(tmp_path: Path) -> None:
    """They call at once, fail, retry and are killed in the middle; the cap holds at every moment."""
    cap = 200_000
    highest = 0

    def brain(request: ModelRequest) -> Answer:
        nonlocal highest
        ledger = stage.supervisor.services.budgets.ledger
        highest = max(highest, spent(stage) + ledger.reserved(FLEET).tokens)
        return costing(tool_turn(("list_files", {"path": "."})), 7_000)

    specs = [spec(f"a{number}") for number in range(10)]
    async with scene(tmp_path, brain, *specs, gateway=PAID, fleet_budget=Budget(max_tokens=cap)) as stage:
        await stage.start()
        await stage.until(lambda: spent(stage) > cap / 3)
        for name in ("a1", "a2"):
            if stage.agent(name).state in (AgentState.RUNNING, AgentState.PAUSED):
                await stage.send(KillAgent(target=stage.ref(name)))
        live = [f"a{number}" for number in range(10) if number not in (1, 2)]
        await stage.until(lambda: all(stage.agent(name).state is AgentState.PAUSED for name in live))
        assert cap * 2 / 3 < spent(stage) <= cap
        assert highest <= cap
        assert stage.supervisor.services.budgets.ledger.reserved(FLEET).tokens == 0


async def test_a_cut_call_is_charged_by_what_came(tmp_path: Path) -> None:
    never = asyncio.Event()
    async with scene(tmp_path, lambda _request: never, spec("a"), gateway=PAID) as stage:
        stage.gateway.usd_per_token = 0.001
        await stage.start()
        await stage.gateway.called.wait()
        await stage.send(KillAgent(target=stage.ref("a")))
        await stage.until(lambda: stage.of(ev.ModelCallEnded))
        (ended,) = stage.of(ev.ModelCallEnded)
        assert (ended.outcome, ended.usage.total_tokens, ended.cost_usd) == ("cancelled", 11, 0.011)
        assert spent(stage) == 11


async def test_money_is_reserved_at_the_dearest_and_counted_as_it_was(tmp_path: Path) -> None:
    def brain(_request: ModelRequest) -> Answer:
        return finish()

    text = spec("a", body="budget: {max_cost_usd: 100}\n")
    async with scene(tmp_path, brain, text, gateway=PAID) as stage:
        stage.gateway.usd_per_token = 0.001
        await stage.run()
        (started,) = stage.of(ev.ModelCallStarted)
        assert started.reserved_cost_usd is not None
        assert started.reserved_cost_usd == started.reserved_tokens * 0.001
        books = stage.supervisor.bus.snapshot().books
        assert books.spent["agent:a"].cost_usd == books.spent["fleet"].cost_usd == 0.001
        assert books.open == {}


async def test_what_was_spent_and_set_survives_a_restart(tmp_path: Path) -> None:
    async with scene(tmp_path, working(1000), spec("a"), gateway=PAID) as stage:
        await stage.send(SetBudget(scope=BudgetScope.DAY, budget=Budget(max_tokens=3 * LARGE)))
        await stage.run()
        assert spent(stage) == 4000
    async with scene(tmp_path, working(1000), spec("a"), gateway=PAID) as stage:
        assert spent(stage) == 4000
        (day,) = [key for key in stage.supervisor.bus.snapshot().books.spent if key.startswith("day:")]
        ledger = stage.supervisor.services.budgets.ledger
        assert ledger.cap(Account(BudgetScope.DAY, day.removeprefix("day:"))).max_tokens == 3 * LARGE


async def test_a_call_that_a_dead_runtime_left_open_is_counted_at_its_worst(tmp_path: Path) -> None:
    async with scene(tmp_path, working(10), spec("a"), gateway=PAID) as stage:
        store = stage.supervisor.store
        started = ev.ModelCallStarted(
            call="m9",
            task=0,
            turn=1,
            provider="p",
            model="m",
            reserved_tokens=5000,
            reserved_cost_usd=0.5,  # type: ignore[arg-type]
        )
        await store.append(started, agent=stage.agent("a").name, run=None)
    async with scene(tmp_path, working(10), spec("a"), gateway=PAID) as stage:
        assert spent(stage) == 5000
        assert stage.supervisor.bus.snapshot().books.spent["fleet"].tokens == 5000


async def test_a_cap_for_tasks_holds_for_each_of_them(tmp_path: Path) -> None:
    text = spec("a", tasks="[{description: one}, {description: two}]", body="budget: {max_tokens_per_task: 60000}\n")

    def brain(_request: ModelRequest) -> Answer:
        return costing(finish(), 30_000)

    async with scene(tmp_path, brain, text, gateway=PAID) as stage:
        await stage.run()
        assert stage.final() == {"a": AgentState.COMPLETED}
        assert spent(stage) == 60_000


async def test_a_rehearsal_is_never_charged_nor_held_back(tmp_path: Path) -> None:
    def brain(_request: ModelRequest) -> Answer:
        return say("nothing") if len(stage.gateway.requests) < 2 else finish()

    async with scene(tmp_path, brain, spec("a", body="budget: {max_tokens: 5}\n")) as stage:
        await stage.run()
        assert stage.final() == {"a": AgentState.COMPLETED}


async def test_a_cap_for_what_nobody_knows_is_refused(tmp_path: Path) -> None:
    async with scene(tmp_path, working(1), spec("a")) as stage:
        answer: Any = await stage.send(SetBudget(scope=BudgetScope.AGENT, name="b", budget=Budget(max_tokens=1)))
        assert (answer.ok, answer.code) == (False, "command.refused")
