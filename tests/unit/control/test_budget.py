"""The account: whatever is held, settled, released or lost in a crash, never more than the budget in any window."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skyscraper.control.budget import (
    NANO_PER_MICRO,
    Account,
    Budget,
    CalendarWindow,
    Held,
    Pace,
    Period,
    RollingWindow,
    Window,
    cost_nano,
    recovered,
)

DAY = CalendarWindow(Period.DAY)
windows: st.SearchStrategy[Window] = st.one_of(
    st.builds(RollingWindow, st.floats(1, 1e6)),
    st.builds(CalendarWindow, st.sampled_from(Period), st.sampled_from(["UTC", "Europe/Zurich", "America/New_York"])),
)


def funded(micro_usd: int, *, window: Window = DAY, block_micro: int | None = None, now: float = 0.0) -> Account:
    account = Account(Budget(micro_usd, window))
    block = (micro_usd if block_micro is None else block_micro) * NANO_PER_MICRO
    account.ask(block)
    account.grant(block)
    return account


@dataclass
class Run:
    """An account, a ledger that holds its balance, and what was truly paid, by time."""

    account: Account
    now: float = 1_700_000_000.0
    paid: list[tuple[float, int]] = field(default_factory=list)
    holds: list[int] = field(default_factory=list)

    def step(self, action: str, amount: int, share: float) -> None:
        match action:
            case "wait":
                self.now += amount / 100
            case "hold":
                if self.account.hold(amount, self.now) is Held.YES:
                    self.holds.append(amount)
            case "block":
                nano = self.account.block_nano(self.now, waiting_nano=amount, ahead_nano=amount, most_nano=amount)
                self.account.ask(nano)
                self.written = self.account.balance()
                self.account.grant(nano)
            case "settle" if self.holds:
                held = self.holds.pop()
                cost = int(held * share)
                self.paid.append((self.now, cost))
                self.account.settle(held, cost, self.now)
            case "release" if self.holds:
                self.account.release(self.holds.pop())
            case "crash":
                # Whatever was held is lost to the books; the machines may have worked for it all the same.
                for held in self.holds:
                    self.paid.append((self.now, held))
                self.holds.clear()
                self.account = recovered(self.written, self.now)
                self.written = self.account.balance()

    def __post_init__(self) -> None:
        self.written = self.account.balance()


actions = st.lists(
    st.tuples(
        st.sampled_from(["wait", "hold", "hold", "block", "settle", "release", "crash"]),
        st.integers(0, 400_000),
        st.floats(0, 1),
    ),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(steps=actions, window=windows, micro=st.integers(0, 2_000))
def test_no_window_ever_holds_more_than_the_budget(
    steps: list[tuple[str, int, float]], window: Window, micro: int
) -> None:
    run = Run(Account(Budget(micro, window)))
    for step in steps:
        run.step(*step)
        oldest = window.oldest(run.now)
        inside = sum(cost for at, cost in run.paid if window.slot(at) >= oldest)
        assert inside + run.account.held_nano <= micro * NANO_PER_MICRO
        if isinstance(window, RollingWindow):
            recent = sum(cost for at, cost in run.paid if at > run.now - window.seconds)
            assert recent + run.account.held_nano <= micro * NANO_PER_MICRO
    # And nothing that was paid is missing in the books.
    account = run.account
    assert sum(cost for _, cost in run.paid) <= account.settled_total_nano + account.forfeited_total_nano


@given(steps=actions, micro=st.integers(0, 2_000))
def test_what_was_held_stays_covered_and_the_books_add_up(steps: list[tuple[str, int, float]], micro: int) -> None:
    run = Run(Account(Budget(micro, DAY)))
    for step in steps:
        run.step(*step)
        account = run.account
        assert 0 <= account.held_nano <= account.open_nano
        assert account.overrun_total_nano == 0
        assert account.spent_nano(run.now) + account.left_nano(run.now) <= account.budget.nano_usd or (
            account.left_nano(run.now) == 0
        )


def test_without_a_crash_the_whole_budget_can_be_used() -> None:
    account = Account(Budget(100, DAY))
    while (held := account.hold(3_000, 0.0)) is not Held.SPENT:
        if held is Held.YES:
            account.settle(3_000, 3_000, 0.0)
            continue
        block = account.block_nano(0.0, waiting_nano=3_000, ahead_nano=6_000, most_nano=10_000)
        account.ask(block)
        account.grant(block)
    assert account.spent_nano(0.0) >= 97_000


def test_a_hold_waits_for_a_block_and_is_refused_only_by_the_budget() -> None:
    account = funded(10, block_micro=2)
    assert account.hold(2_000, 0.0) is Held.YES
    assert account.hold(1_000, 0.0) is Held.WAIT
    assert account.hold(9_000, 0.0) is Held.SPENT


def test_a_crash_counts_what_was_open_as_spent() -> None:
    account = funded(10, block_micro=4)
    assert account.hold(1_000, 0.0) is Held.YES
    account.settle(1_000, 500, 0.0)
    written = account.balance()
    after = recovered(written, 1.0)
    assert (after.spent_nano(1.0), after.forfeited_total_nano) == (5_000, 4_000)
    assert after.open_nano == 0
    assert recovered(after.balance(), 2.0).forfeited_total_nano == 4_000


def test_a_block_is_never_larger_than_what_is_left_nor_than_a_crash_may_cost() -> None:
    account = funded(10, block_micro=0)
    assert account.block_nano(0.0, waiting_nano=0, ahead_nano=9_000, most_nano=2_000) == 2_000
    assert account.block_nano(0.0, waiting_nano=5_000, ahead_nano=9_000, most_nano=2_000) == 5_000
    assert account.block_nano(0.0, waiting_nano=99_000, ahead_nano=0, most_nano=2_000) == 10_000


def test_a_smaller_budget_takes_back_what_nobody_holds() -> None:
    account = funded(10)
    assert account.hold(4_000, 0.0) is Held.YES
    account.set_budget(Budget(3, DAY), 0.0)
    assert (account.open_nano, account.free_nano, account.left_nano(0.0)) == (4_000, 0, 0)


def test_a_new_window_counts_all_that_the_old_one_did() -> None:
    account = funded(10)
    assert account.hold(4_000, 0.0) is Held.YES
    account.settle(4_000, 4_000, 0.0)
    account.set_budget(Budget(10, RollingWindow(60)), 30.0)
    assert account.spent_nano(80.0) == 4_000
    assert account.spent_nano(95.0) == 0


def test_a_calendar_day_begins_at_local_midnight() -> None:
    window = CalendarWindow(Period.DAY, "Europe/Zurich")
    midnight = datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Zurich")).timestamp()
    assert window.slot(midnight - 1) + 1 == window.slot(midnight) == window.slot(midnight + 86_399)


@given(st.floats(0, 4e9), st.floats(0, 1e7), windows)
def test_slots_never_fall_as_time_goes_on(start: float, passed: float, window: Window) -> None:
    # Clocks that go back in autumn repeat an hour, which then counts as one: allow for it.
    slack = 1 if isinstance(window, CalendarWindow) and window.period is Period.HOUR else 0
    assert window.slot(start) <= window.slot(start + passed) + slack


def test_costs_are_rounded_up() -> None:
    assert cost_nano(0.1, 13_889) == 1_389


def test_the_pace_follows_what_is_held() -> None:
    pace = Pace(1.0)
    for step in range(50):
        pace.add(100, step / 10)
    assert pace.nano_per_second(5.0) == pytest.approx(1_000, rel=0.1)
    assert pace.nano_per_second(15.0) < 1
