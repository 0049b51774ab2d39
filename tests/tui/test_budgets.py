"""Budgets, limits and quota on screen: what is used of which cap, what holds a limit, what waits and why."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fakes import fleet
from fakes.console import Console, console
from fakes.events import START
from toka_console import budgets, selectors
from toka_console.budgeting import parse
from toka_console.dialogs.confirm import ConfirmDialog
from toka_console.format import budget_text
from toka_runtime.protocol import commands as cmd
from toka_runtime.protocol import events as ev
from toka_runtime.protocol.budget import Account, BudgetScope, Spending
from toka_runtime.protocol.ids import CallId
from toka_runtime.protocol.limits import Culprit, LimitName, LimitOutcome
from toka_runtime.protocol.states import AgentState, StopReason
from toka_runtime.protocol.usage import Budget, TokenUsage

FIRST, OTHER = fleet.NAMES[0][0], fleet.NAMES[6][0]


def spend(made: Console, tokens: int, cost_usd: float | None, agent: str = FIRST, task: int = 1) -> None:
    ended = ev.ModelCallEnded(
        call=CallId("m9"), task=task, turn=2, provider="p", model="m", outcome="ok", duration_s=2,
        usage=TokenUsage(input_tokens=tokens), cost_usd=cost_usd,
    )  # fmt: skip
    made.client.emit(ended, agent)


def cap(made: Console, scope: BudgetScope, name: str = "", **budget: float) -> None:
    made.client.emit(ev.BudgetSet(scope=scope, name=name, budget=Budget.model_validate(budget), actor="ann"))


# -- budgets ------------------------------------------------------------------------------------------------------


async def test_the_agent_screen_shows_every_account_with_its_pace() -> None:
    async with console((99, 150)) as made:
        cap(made, BudgetScope.TASK, max_tokens=50_000)
        cap(made, BudgetScope.DAY, max_cost_usd=1.0)
        spend(made, 30_000, None)
        spend(made, 1_000, 0.25)
        await made.drained()
        await made.put_cursor_on(FIRST)
        await made.press("enter")
        text = made.text()
        for words in (
            "40.6k/200k", "31.0k/50.0k", "$0.27/$1.00", "unpriced: 30,000 tokens", "tokens/min",
            "cap reached in 23 min", "cap reached in 3 min", "cap reached in 14 min",
        ):  # fmt: skip
            assert words in text, words
        assert "fleet tok" not in text, "an account of all without a cap says nothing here"


async def test_the_fleet_shows_what_is_used_of_its_caps() -> None:
    async with console((120, 40)) as made:
        cap(made, BudgetScope.FLEET, max_tokens=100_000)
        spend(made, 11_000, 0.5)
        await made.drained()
        assert "FLEET 20.6k/100k" in made.text()
        assert "cap reached in" in made.text()


@pytest.mark.parametrize(("tokens", "shown"), [(90_000, ""), (91_000, "50 %"), (150_000, "80 %")])
async def test_warnings_are_in_the_alert_line(tokens: int, shown: str) -> None:
    async with console((200, 50)) as made:
        spend(made, tokens, 0.0)
        await made.drained()
        alert = made.text().splitlines()[2]
        expected = f"{shown} of the budget of agent {FIRST}: {9_650 + tokens:,} of 200,000 tokens"
        assert (expected in alert) if shown else ("budget" not in alert)


async def test_an_agent_that_has_no_room_says_why_it_is_paused() -> None:
    async with console((200, 50)) as made:
        why = "budget of agent x: 199,000 of 200,000 tokens; the next call may take 9,000 tokens"
        fleet.change(made.client, FIRST, AgentState.PAUSED, StopReason.BUDGET, why)
        await made.drained()
        (row,) = (line for line in made.text().splitlines() if "PAUSED" in line and FIRST in line)
        assert "budget: budget of agent" in row


async def test_only_live_agents_warn() -> None:
    async with console() as made:
        spend(made, 150_000, 0.0)
        await made.drained()
        state, now = made.app.session.known, made.clock.now()
        assert [figure.name for figure in budgets.warnings(state, now)] == [FIRST]
        fleet.change(made.client, FIRST, AgentState.FAILED)
        await made.drained()
        assert budgets.warnings(state, now) == []


# -- setting a cap ------------------------------------------------------------------------------------------------


async def test_a_cap_is_set_through_a_dialog_whose_default_changes_nothing() -> None:
    async with console() as made:
        await made.put_cursor_on(FIRST)
        await made.press("B")
        assert f":budget agent:{FIRST}" in made.text()
        await made.type("500k,$5")
        await made.press("enter")
        assert isinstance(made.app.screen, ConfirmDialog)
        for words in ("9,650 tokens, $0.02", "200,000 tokens", "500,000 tokens, $5.00"):
            assert words in made.text(), words
        await made.press("enter")
        assert made.client.commands == []
        await made.press("B")
        await made.type("500k,$5")
        await made.press("enter", "tab", "enter")
        assert made.client.commands == [
            cmd.SetBudget(scope=BudgetScope.AGENT, name=FIRST, budget=Budget(max_tokens=500_000, max_cost_usd=5.0))
        ]


@pytest.mark.parametrize("text", ["budget agent:nobody 5", "budget planet 5", "budget fleet", "budget fleet much"])
async def test_a_wrong_cap_does_nothing(text: str) -> None:
    async with console() as made:
        await made.press(":")
        await made.type(text)
        await made.press("enter")
        assert not isinstance(made.app.screen, ConfirmDialog)
        assert made.client.commands == []
        said = made.text().splitlines()[-1]
        assert "no agent nobody" in said or ":budget fleet|day|agent:NAME" in said


def test_caps_in_words() -> None:
    assert parse("fleet 2M,$9.50") == (Account(BudgetScope.FLEET, ""), Budget(max_tokens=2_000_000, max_cost_usd=9.5))
    assert parse("task:docs/0 none") == (Account(BudgetScope.TASK, "docs/0"), Budget())
    assert budget_text.account(BudgetScope.TASK, "docs/0") == "task 1 of docs"
    assert budget_text.account(BudgetScope.AGENT, "") == "each agent"
    assert budget_text.cap(Budget()) == "no cap"


async def test_the_cap_that_holds() -> None:
    async with console() as made:
        fleet_state = made.client.state
        account = Account(BudgetScope.AGENT, FIRST)
        assert fleet_state.cap(account) == Budget(max_tokens=200_000), "of its spec"
        cap(made, BudgetScope.AGENT, max_tokens=7)
        assert made.client.state.cap(account) == Budget(max_tokens=200_000), "its own before that of all"
        assert made.client.state.cap(Account(BudgetScope.AGENT, "other")) == Budget(max_tokens=7)
        cap(made, BudgetScope.AGENT, FIRST)
        assert made.client.state.cap(account) == Budget(), "an operator has taken it away"


def test_when_a_cap_is_reached() -> None:
    now = START
    spent = Spending().after(3_000, 0.03, now)
    assert spent.reached_in_s(Budget(), now) is None
    assert spent.reached_in_s(Budget(max_tokens=6_000), now) == pytest.approx(300)
    assert spent.reached_in_s(Budget(max_tokens=6_000, max_cost_usd=0.04), now) == pytest.approx(100)
    assert spent.reached_in_s(Budget(max_tokens=3_000), now) == 0
    assert Spending(tokens=5).reached_in_s(Budget(max_tokens=5), now) == 0
    assert Spending(tokens=5).reached_in_s(Budget(max_tokens=9), now) is None
    assert budget_text.reached(720) == "cap reached in 12 min"


# -- limits -------------------------------------------------------------------------------------------------------


async def test_each_limit_is_shown_with_what_holds_it_and_how_well() -> None:
    async with console((99, 150)) as made:
        await made.put_cursor_on(FIRST)
        await made.press("enter")
        text = made.text()
        for words in (
            "414M/512M", "◐ approximate: RLIMIT_DATA, shared memory", "○ none, no control group may be written",
            "61%/75%", "7/64", "● enforced: RLIMIT_NPROC", "open files 1024", "(default)", "256 KiB",
        ):  # fmt: skip
            assert words in text, words


async def test_a_reached_limit_is_in_the_alert_line_the_activity_and_the_output() -> None:
    async with console((200, 60)) as made:
        reached = ev.LimitReached(
            limit=LimitName.MEMORY, used=600 * fleet.MIB, allowed=512 * fleet.MIB, outcome=LimitOutcome.KILLED,
            mechanism="RLIMIT_DATA", culprit=Culprit(pid=44, command="eat\x1b[2J", known_by="kernel"),
        )  # fmt: skip
        made.client.emit(reached, OTHER)
        await made.drained()
        await made.put_cursor_on(OTHER)
        said = "memory limit of 512 MiB reached by eat␛[2J (pid 44): killed by RLIMIT_DATA"
        assert f"{OTHER}: {said}" in made.text().splitlines()[2]
        assert made.text().count(said) == 2, "in the live output, too"
        assert "memory limit" in made.text().split("RECENT")[1]
        await made.clock.advance(selectors.LIMIT_SHOWN_S + 1)
        made.app.repaint()
        await made.pilot.pause()
        assert said not in made.text().splitlines()[2]


# -- quota --------------------------------------------------------------------------------------------------------


async def test_a_call_that_waits_for_quota_counts_down() -> None:
    async with console((200, 50)) as made:
        asked = ev.ModelCallRetried(
            call=CallId("m7"), attempt=0, delay_s=12, code="model.cooling_down", message="slow down", shared=True
        )
        made.client.emit(asked, OTHER)
        await made.drained()
        assert "waiting for quota 12 s" in made.text()
        await made.clock.advance(5)
        made.app.repaint()
        await made.pilot.pause()
        assert "waiting for quota 7 s" in made.text()
        await made.clock.advance(7)
        made.app.repaint()
        await made.pilot.pause()
        assert "quota" not in made.text().split("RECENT")[0]


async def test_where_there_is_no_room_the_seconds_stay() -> None:
    async with console((80, 24)) as made:
        asked = ev.ModelCallRetried(call=CallId("m7"), attempt=0, delay_s=12, code="c", message="slow", shared=True)
        made.client.emit(asked, OTHER)
        await made.drained()
        assert "quota 12 s" in made.text()


async def test_nobody_waits_for_quota_while_frozen() -> None:
    async with console() as made:
        asked = ev.ModelCallRetried(call=CallId("m7"), attempt=0, delay_s=12, code="c", message="slow", shared=True)
        made.client.emit(asked, OTHER)
        fleet.change(made.client, OTHER, AgentState.PAUSED, StopReason.OPERATOR)
        await made.drained()
        view = made.agent(OTHER).view
        assert selectors.quota_wait(view, made.clock.now() - timedelta(seconds=1)) == ""
