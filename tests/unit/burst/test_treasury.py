"""Money between requests and the ledger: nothing is held before it is durable, nobody waits for what is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest
from skyscraper.bus.ledger import decode_balance
from skyscraper.control.budget import Balance, Budget, CalendarWindow, Period
from skyscraper_burst.treasury import BlockTerms, BudgetSpent, NotLeading, Treasury

DAY = CalendarWindow(Period.DAY)
TERMS = BlockTerms(ahead_seconds=0.1, most_block_share=0.01)


def leading(micro_usd: int = 1_000, ledger: Mapping[str, tuple[int, Balance]] | None = None) -> Treasury:
    treasury = Treasury({"a": Budget(micro_usd, DAY)}, None, TERMS)
    treasury.take_over(ledger or {})
    treasury.committed(treasury.writes())
    treasury.serve()
    return treasury


def commit(treasury: Treasury) -> int:
    """As the keeper does it. How many balances were written."""
    writes = treasury.writes()
    treasury.committed(writes)
    return len(writes)


def soon() -> float:
    return time.monotonic() + 2.0


def test_the_first_request_waits_for_its_block_and_those_behind_it_do_not() -> None:
    async def run() -> None:
        treasury = leading()
        first = asyncio.create_task(treasury.hold("a", 5_000, soon()))
        await asyncio.sleep(0.01)
        assert not first.done()
        commit(treasury)
        await first
        treasury.settle("a", 5_000, 4_000)
        commit(treasury)
        await asyncio.wait_for(treasury.hold("a", 5_000, soon()), 0.1)

    asyncio.run(run())


def test_a_request_that_gives_up_leaves_nothing_held() -> None:
    async def run() -> None:
        treasury = leading()
        with pytest.raises(NotLeading):
            await treasury.hold("a", 5_000, time.monotonic() + 0.01)
        commit(treasury)
        await asyncio.sleep(0)
        assert treasury.balance("a")[3] == 1_000_000

    asyncio.run(run())


def test_what_the_budget_has_no_room_for_is_refused_at_once() -> None:
    async def run() -> None:
        treasury = leading(10)
        with pytest.raises(BudgetSpent):
            await treasury.hold("a", 10_001, soon())
        with pytest.raises(BudgetSpent, match="no burst budget"):
            await treasury.hold("nobody", 1, soon())

    asyncio.run(run())


def test_a_deposed_treasury_holds_nothing_and_tells_who_waits() -> None:
    async def run() -> None:
        treasury = leading()
        waiting = asyncio.create_task(treasury.hold("a", 5_000, soon()))
        await asyncio.sleep(0.01)
        treasury.depose("another gateway leads")
        with pytest.raises(NotLeading, match="another"):
            await waiting
        with pytest.raises(NotLeading):
            await treasury.hold("a", 1, soon())
        treasury.settle("a", 1, 1)

    asyncio.run(run())


def test_every_entry_covers_what_may_be_spent_on_it() -> None:
    async def run() -> None:
        treasury = leading()
        for _ in range(50):
            task = asyncio.create_task(treasury.hold("a", 7_000, soon()))
            await asyncio.sleep(0)
            writes = treasury.writes()
            told = decode_balance(writes[-1].value)[1] if writes else None
            treasury.committed(writes)
            await task
            treasury.settle("a", 7_000, 6_500)
            if told is not None:
                spent = sum(told.spent_micro_usd.values()) + told.open_micro_usd
                assert treasury.balance("a")[1] <= spent * 1_000

    asyncio.run(run())


def test_a_successor_counts_what_was_open_and_says_so_once() -> None:
    balance = Balance(Budget(100, DAY), 40, {}, 10, 0)
    treasury = Treasury({}, None, TERMS)
    treasury.take_over({"a": (7, balance)})
    (write,) = treasury.writes()
    sequence, written = decode_balance(write.value)
    assert (sequence, written.open_micro_usd, written.forfeited_total_micro_usd) == (8, 0, 40)
    treasury.committed([write])
    treasury.serve()
    assert treasury.writes() == []
    assert treasury.balance("a")[3] == 60_000


def test_an_orderly_end_gives_back_what_is_open() -> None:
    async def run() -> None:
        treasury = leading()
        task = asyncio.create_task(treasury.hold("a", 5_000, soon()))
        await asyncio.sleep(0)
        commit(treasury)
        await task
        treasury.settle("a", 5_000, 1_000)
        (write,) = treasury.writes(final=True)
        assert decode_balance(write.value)[1].open_micro_usd == 0

    asyncio.run(run())


def test_a_budget_that_is_set_is_durable_before_it_is_told() -> None:
    async def run() -> None:
        treasury = leading()
        task = asyncio.create_task(treasury.set_budget("b", Budget(5, DAY)))
        await asyncio.sleep(0.01)
        assert not task.done()
        assert commit(treasury) == 1
        await task
        assert treasury.balance("b")[0].micro_usd == 5

    asyncio.run(run())
