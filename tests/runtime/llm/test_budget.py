"""The ledger: no cap is passed by any order of calls, nobody starves, everything is given back."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toka_runtime.aio import cancel_and_wait, spawn
from toka_runtime.errors import BudgetReached
from toka_runtime.llm.budget import Amount, Ledger
from toka_runtime.protocol.budget import Account, BudgetScope, Spending
from toka_runtime.protocol.spending import accounts_of
from toka_runtime.protocol.usage import Budget

FLEET = Account(BudgetScope.FLEET, "")
DAY = Account(BudgetScope.DAY, "2026-01-31")


def ledger(tokens: int | None = None, cost: float | None = None, **spent: int) -> Ledger:
    return Ledger({FLEET: Budget(max_tokens=tokens, max_cost_usd=cost)}, {})


async def test_the_worst_case_is_reserved_and_what_is_not_used_comes_back() -> None:
    books = ledger(100)
    held = await books.reserve([FLEET], Amount(80, 0.1))
    assert books.reserved(FLEET) == Amount(80, 0.1)
    assert books.room([FLEET]) == 20
    books.settle(held, Amount(30, 0.02))
    assert books.reserved(FLEET) == Amount(0, 0.0)
    assert books.spent(FLEET) == Amount(30, 0.02)
    assert books.room([FLEET]) == 70


async def test_a_call_that_never_fits_is_refused_at_once_with_the_figures() -> None:
    books = ledger(100)
    books.settle(await books.reserve([FLEET], Amount(60, None)), Amount(60, None))
    with pytest.raises(BudgetReached, match=r"budget of fleet: 60 of 100 tokens; the next call may take 50") as raised:
        await books.reserve([FLEET], Amount(50, None))
    assert raised.value.figure.fraction == 0.6


async def test_money_is_held_like_tokens_and_an_unpriced_model_by_tokens_alone() -> None:
    books = ledger(1000, 1.0)
    books.settle(await books.reserve([FLEET], Amount(10, 0.9)), Amount(10, 0.9))
    with pytest.raises(BudgetReached, match=r"\$0\.90 of \$1\.00"):
        await books.reserve([FLEET], Amount(10, 0.2))
    books.settle(await books.reserve([FLEET], Amount(900, None)), Amount(900, None))
    with pytest.raises(BudgetReached, match="tokens"):
        await books.reserve([FLEET], Amount(100, None))


async def test_a_call_waits_while_only_reservations_are_in_its_way() -> None:
    books = ledger(100)
    first = await books.reserve([FLEET], Amount(80, 0.0))
    second = spawn(books.reserve([FLEET], Amount(80, 0.0)))
    await asyncio.sleep(0)
    assert not second.done()
    books.settle(first, Amount(20, 0.0))
    assert (await second).amount.tokens == 80


async def test_one_that_waits_is_refused_when_the_others_used_it_up() -> None:
    books = ledger(100)
    first = await books.reserve([FLEET], Amount(80, 0.0))
    second = spawn(books.reserve([FLEET], Amount(80, 0.0)))
    await asyncio.sleep(0)
    books.settle(first, Amount(70, 0.0))
    with pytest.raises(BudgetReached):
        await second


async def test_priority_goes_first_and_small_calls_do_not_starve_a_large_one() -> None:
    books = ledger(100)
    first = await books.reserve([FLEET], Amount(60, 0.0))
    order: list[str] = []

    async def one(name: str, tokens: int, priority: int) -> None:
        held = await books.reserve([FLEET], Amount(tokens, 0.0), priority=priority)
        order.append(name)
        books.settle(held, Amount(0, 0.0))

    waiting: list[asyncio.Task[None]] = []
    for name, tokens, priority in (("large", 90, 1), ("small", 10, 1), ("urgent", 50, 5)):
        waiting.append(spawn(one(name, tokens, priority)))
        await asyncio.sleep(0)
    assert order == []
    books.settle(first, Amount(0, 0.0))
    await asyncio.gather(*waiting)
    assert order == ["urgent", "large", "small"]


async def test_who_waits_for_one_account_does_not_hold_up_another() -> None:
    mine, other = Account(BudgetScope.AGENT, "mine"), Account(BudgetScope.AGENT, "other")
    books = Ledger({mine: Budget(max_tokens=10)}, {})
    await books.reserve([mine, FLEET], Amount(10, 0.0))
    waiting = spawn(books.reserve([mine, FLEET], Amount(10, 0.0)))
    await asyncio.sleep(0)
    assert (await books.reserve([other, FLEET], Amount(10, 0.0))).amount.tokens == 10
    await cancel_and_wait(waiting)


async def test_one_that_gives_up_lets_the_next_one_go() -> None:
    books = ledger(100)
    first = await books.reserve([FLEET], Amount(50, 0.0))
    large = spawn(books.reserve([FLEET], Amount(90, 0.0)))
    await asyncio.sleep(0)
    small = spawn(books.reserve([FLEET], Amount(50, 0.0)))
    await asyncio.sleep(0)
    assert not small.done()
    await cancel_and_wait(large)
    assert (await small).amount.tokens == 50
    books.settle(first, Amount(0, 0.0))
    assert books.reserved(FLEET).tokens == 50


async def test_one_cancelled_in_the_moment_it_is_given_gives_it_back() -> None:
    books = ledger(100)
    first = await books.reserve([FLEET], Amount(80, 0.0))
    second = spawn(books.reserve([FLEET], Amount(80, 0.0)))
    await asyncio.sleep(0)
    books.settle(first, Amount(0, 0.0))
    await cancel_and_wait(second)
    assert books.reserved(FLEET) == Amount(0, 0.0)


async def test_another_try_needs_room_of_its_own() -> None:
    books = ledger(100)
    held = await books.reserve([FLEET], Amount(40, 0.0))
    books.extend(held, Amount(40, 0.0))
    with pytest.raises(BudgetReached):
        books.extend(held, Amount(40, 0.0))
    books.settle(held, Amount(75, 0.0))
    assert books.spent(FLEET).tokens == 75
    assert books.reserved(FLEET).tokens == 0


async def test_a_new_cap_lets_who_waits_go_on() -> None:
    books = ledger(10)
    changed = spawn(books.until_changed(books.version))
    await asyncio.sleep(0)
    with pytest.raises(BudgetReached):
        await books.reserve([FLEET], Amount(50, 0.0))
    books.set_cap(FLEET, Budget(max_tokens=100))
    await changed
    assert (await books.reserve([FLEET], Amount(50, 0.0))).amount.tokens == 50


async def test_each_line_warns_once_and_again_after_a_new_cap() -> None:
    books = ledger(100)

    async def spend(tokens: int) -> list[float]:
        return [
            each.used for each in books.settle(await books.reserve([FLEET], Amount(tokens, 0.0)), Amount(tokens, 0.0))
        ]

    assert [await spend(each) for each in (40, 15, 10, 20, 5)] == [[], [55], [], [85], []]
    books.set_cap(FLEET, Budget(max_tokens=200))
    assert [await spend(each) for each in (10, 70)] == [[100], [170]]


async def test_what_was_spent_before_a_restart_counts_and_warns_no_second_time() -> None:
    books = Ledger({DAY: Budget(max_tokens=100)}, {DAY: Spending(tokens=85, cost_usd=1.0)})
    assert books.room([DAY]) == 15
    assert books.settle(await books.reserve([DAY], Amount(5, 0.0)), Amount(5, 0.0)) == []
    with pytest.raises(BudgetReached):
        await books.reserve([DAY], Amount(20, 0.0))


async def test_a_cap_of_a_scope_holds_for_each_of_its_accounts() -> None:
    books = Ledger({Account(BudgetScope.DAY, ""): Budget(max_tokens=100)}, {})
    books.settle(await books.reserve(accounts_of("a", 0, "2026-01-30"), Amount(100, 0.0)), Amount(100, 0.0))
    assert (await books.reserve(accounts_of("a", 0, "2026-01-31"), Amount(100, 0.0))).amount.tokens == 100


async def test_a_new_run_begins_its_account_anew() -> None:
    agent = Account(BudgetScope.AGENT, "a")
    books = Ledger({agent: Budget(max_tokens=100)}, {})
    books.settle(await books.reserve([agent], Amount(100, 0.0)), Amount(100, 0.0))
    books.forget(agent)
    assert books.room([agent]) == 100


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), cap=st.integers(50, 400), calls=st.integers(5, 60))
def test_no_order_of_calls_passes_a_cap(seed: int, cap: int, calls: int) -> None:
    """Ten agents call in parallel, are cancelled, retry and cost anything up to what they reserved."""
    rng = random.Random(seed)

    async def run() -> None:
        books = ledger(cap)
        most = 0

        async def call(agent: int) -> None:
            nonlocal most
            worst = rng.randint(1, 60)
            try:
                held = await books.reserve(accounts_of(str(agent), 0, "d"), Amount(worst, 0.0), priority=agent % 3)
            except BudgetReached:
                return
            try:
                for _ in range(rng.randint(0, 2)):
                    await asyncio.sleep(0)
                    books.extend(held, Amount(worst, 0.0))
            except BudgetReached:
                pass
            finally:
                books.settle(held, Amount(rng.randint(0, held.amount.tokens), 0.0))
                most = max(most, books.spent(FLEET).tokens)

        tasks = [spawn(call(number % 10)) for number in range(calls)]
        await asyncio.sleep(0)
        for task in rng.sample(tasks, calls // 4):
            task.cancel()
        await asyncio.wait(tasks, timeout=5)
        assert all(task.done() for task in tasks), "nobody waits for ever"
        assert most <= cap

    asyncio.run(run())


def test_the_burn_rate_decays_and_adds_up() -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    spending = Spending()
    for minute in range(60):
        spending = spending.after(600, 0.06, began + timedelta(minutes=minute))
    tokens, cost = spending.burn(began + timedelta(minutes=59.5))
    assert 9 < tokens < 11
    assert 0.0009 < cost < 0.0011
    assert spending.burn(began + timedelta(hours=3))[0] < 0.001
    assert (spending.tokens, spending.unpriced_tokens) == (36_000, 0)
    assert spending.after(5, None, began).unpriced_tokens == 5
