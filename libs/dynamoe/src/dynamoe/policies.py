"""When to recompile, and to what: pure functions of the plan and the score, and policies made from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dynamoe.plan import Plan, Precision
from dynamoe.recompile import Change, Recompile, Score

Policy = Callable[[Plan, Score], Change | None]

# The paper's rule (its code, version of September 2021): shrink below 0.6, grow above 0.92, to 1.25 of what is needed.
SHRINK_BELOW = 0.6
GROW_ABOVE = 0.92
HEADROOM = 1.25
DEFAULT_CAP = 4.0
# The paper's rule for the cache of assignments.
CACHE_ON_ABOVE = 0.95
CACHE_OFF_BELOW = 0.85
CACHE_STEPS = 2000
# An expert with less than a tenth of its fair share, or one with more than half of all rows, is a collapse in the
# making: capacity that follows the load would feed it.
COLLAPSED_SHARE = 0.5
# A local plan moves when a tenth of all capacity lies at the wrong expert: building costs about a step.
MISPLACED_SHARE = 0.1
# Steps between two changes of one local plan, so that a routing that flickers does not rebuild on each step.
LOCAL_STEPS = 5


def following_capacity(alpha: float, needed: float, *, cap: float = DEFAULT_CAP) -> float:
    """One capacity factor that follows what is needed, with hysteresis."""
    if needed < SHRINK_BELOW * alpha:
        return HEADROOM * needed
    if alpha < cap and needed > GROW_ABOVE * alpha:
        return min(HEADROOM * needed, cap)
    return alpha


def shared_capacity(needed: Sequence[float], *, total: float) -> tuple[float, ...]:
    """Capacity factors that sum to `total`, each expert's in proportion to what it needs.

    What an expert needs is given in full as long as the sum allows it; the rest is spread evenly as headroom. Where the
    sum is short, every expert is cut to the same level (water filling), which drops the fewest rows: a slot is worth
    the same wherever it is filled.
    """
    want = sum(needed)
    if want <= total:
        spare = (total - want) / len(needed)
        return tuple(one + spare for one in needed)
    level, left, open_ = 0.0, total, sorted(needed)
    for index, one in enumerate(open_):
        share = left / (len(open_) - index)
        if one > share:
            level = share
            break
        left -= one
    return tuple(min(one, level) for one in needed)


def misplaced(alphas: Sequence[float], wanted: Sequence[float]) -> float:
    """Share of all capacity that lies at another expert than wanted, 0 to 1."""
    total = sum(wanted)
    return 0.0 if total <= 0 else sum(abs(a - b) for a, b in zip(alphas, wanted, strict=True)) / (2 * total)


def collapsed(counts: Sequence[float]) -> bool:
    """Whether one expert gets more than half of all rows (of four experts or more)."""
    return len(counts) >= 4 and max(counts) > COLLAPSED_SHARE * sum(counts)


def cache_switch(cached: bool, unchanged: float, steps_since_change: int) -> bool:
    """Whether the cache of assignments should be on."""
    if cached:
        return unchanged >= CACHE_OFF_BELOW
    return unchanged > CACHE_ON_ABOVE and steps_since_change >= CACHE_STEPS


def replicas(counts: Sequence[int], *, processes: int) -> tuple[int, ...]:
    """In how many of the processes each expert's weights should lie.

    An expert with more rows than one process's fair share is in every process, so that its rows stay where they are;
    the others are in one.
    """
    fair = sum(counts) / max(1, processes * 2)
    return tuple(processes if count > fair else 1 for count in counts)


def capacity(*, cap: float = DEFAULT_CAP) -> Policy:
    """One factor for all experts (the paper's global capacity)."""

    def decide(plan: Plan, score: Score) -> Change | None:
        if not isinstance(plan.alpha, int | float):
            return None
        needed = max(score.needed)
        alpha = following_capacity(float(plan.alpha), needed, cap=cap)
        if alpha == plan.alpha:
            return None
        verb = "shrinks" if alpha < plan.alpha else "grows"
        return Change(
            plan.with_(alpha=alpha), f"capacity {verb} from {plan.alpha:.3g} to {alpha:.3g}: {needed:.3g} is needed"
        )

    return decide


def local_capacity(*, total: float | None = None, steps: int = LOCAL_STEPS, smooth: bool = False) -> Policy:
    """One factor per expert, moved to where the rows are, by the newest step's counts; `smooth` by their running mean,
    where a step has too few rows to tell (serving).

    With `total` (the paper's setting: the number of experts for a mean of 1) the sum is constant, so memory is. Without
    it every expert gets 1.25 of what it needs, and nothing that stays within that is dropped.
    A collapse is not followed: a balance term has to undo it, and more capacity would hide it.
    """

    def decide(plan: Plan, score: Score) -> Change | None:
        n = len(score.counts)
        now = plan.alphas(n)
        if now is None or score.steps_since_change < steps:
            return None
        needed = score.needed if smooth else score.needed_now
        if collapsed(needed):
            return None
        want = shared_capacity(needed, total=total) if total is not None else _with_headroom(needed)
        short = any(need > GROW_ABOVE * have for need, have in zip(needed, now, strict=True))
        share = misplaced(now, want)
        if share <= MISPLACED_SHARE and not (short and total is None):
            return None
        return Change(plan.with_(alpha=want), f"local capacity: {share:.0%} of it was at the wrong experts")

    return decide


def assignment_cache(*, gate_share: float, worth_share: float = 0.1) -> Policy:
    """The cache of assignments, where the gate's part of the work (`gate_share`, 0 to 1) is worth saving."""

    def decide(plan: Plan, score: Score) -> Change | None:
        wanted = gate_share >= worth_share and cache_switch(plan.cached, score.unchanged, score.steps_since_change)
        if wanted == plan.cached:
            return None
        verb = "on" if wanted else "off"
        return Change(
            plan.with_(cached=wanted), f"assignment cache {verb}: {score.unchanged:.1%} of the rows keep theirs"
        )

    return decide


def precision_by_rows(
    *,
    small: Precision = Precision.INT8,
    large: Precision = Precision.BFLOAT16,
    rows: int,
    slack: float = 0.25,
    steps: int = 0,
    smooth: bool = False,
) -> Policy:
    """`small` for batches of at most `rows` rows, `large` above; with slack, so that a border does not flap.

    Decides on the newest step's rows, `smooth` on their running mean, where sizes are mixed (serving); at most once in
    so many `steps`.
    """

    def decide(plan: Plan, score: Score) -> Change | None:
        if score.steps_since_change < steps:
            return None
        now = score.mean_rows if smooth else score.rows
        if plan.precision is not small and now <= rows * (1 - slack):
            return Change(plan.with_(precision=small), f"precision {small}: batches of {now:.0f} rows")
        if plan.precision is not large and now > rows * (1 + slack):
            return Change(plan.with_(precision=large), f"precision {large}: batches of {now:.0f} rows")
        return None

    return decide


def replication(*, processes: int, steps: int = 100) -> Policy:
    """Hot experts into every process."""

    def decide(plan: Plan, score: Score) -> Change | None:
        want = replicas(score.counts, processes=processes)
        if plan.replicas is None or plan.replicas == want or score.steps_since_change < steps:
            return None
        hot = sum(1 for count in want if count > 1)
        return Change(plan.with_(replicas=want), f"replication: {hot} hot experts in each of {processes} processes")

    return decide


def first_of(*policies: Policy) -> Policy:
    """The first policy that wants a change decides."""

    def decide(plan: Plan, score: Score) -> Change | None:
        return next((change for policy in policies if (change := policy(plan, score)) is not None), None)

    return decide


def auto(*, gate_share: float = 0.0, cap: float = math.inf) -> Policy:
    """What fits the plan: local capacities where there are some, else the global one, and the cache for deep gates."""
    by_plan = {True: local_capacity(), False: capacity(cap=cap)}

    def decide(plan: Plan, score: Score) -> Change | None:
        chosen = by_plan[isinstance(plan.alpha, tuple)]
        return first_of(chosen, assignment_cache(gate_share=gate_share))(plan, score)

    return decide


def recompile(policy: Policy, *, launch_ahead: int = 1) -> Recompile:
    """A policy as a trigger and an alteration."""
    return Recompile(
        trigger=lambda plan, score: policy(plan, score) is not None, alter=policy, launch_ahead=launch_ahead
    )


def _with_headroom(needed: Sequence[float]) -> tuple[float, ...]:
    return tuple(HEADROOM * one for one in needed)
