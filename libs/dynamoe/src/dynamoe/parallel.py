"""A layer whose experts are spread over the processes of a group, and whose hot experts follow the load.

Every process calls `forward` with rows of its own, and all take part in every call. The load of all is known to all,
so that they change plans in the same step without asking each other.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dynamoe.combine import combine
from dynamoe.dispatch import capacities, group
from dynamoe.errors import SettingError
from dynamoe.exchange import exchange, same_everywhere, shadows
from dynamoe.experts import FfnExperts
from dynamoe.grouped import grouped_ffn
from dynamoe.kernels import fused_ffn
from dynamoe.memory import SHARED_ARENA, Arena
from dynamoe.moe import MoE
from dynamoe.offload import MappedExperts
from dynamoe.placement import hot_experts, part
from dynamoe.plan import Overflow, Plan
from dynamoe.policies import Policy, recompile
from dynamoe.recompile import Event, Observation, Recompile, Score, next_score
from dynamoe.routing import Mixing, assignments_per_expert, balanced, mixing_weights, route


@dataclass(frozen=True)
class _Load:
    """Of all processes together: counts of n experts, rows, dropped rows; complete once `work` is."""

    told: Tensor
    k: int
    work: dist.Work | None

    def read(self) -> Observation:
        if self.work is not None:
            self.work.wait()
        *counts, rows, dropped = self.told.tolist()
        return Observation(rows, self.k, counts, dropped)


class ParallelMoE(nn.Module):
    """As `MoE` with the fused FFN, for n experts of which each of P processes has n / P.

    `experts` are this process's own, numbers rank * n / P and up. The gate is the same everywhere: its first weights
    come from process 0, its gradients are this process's own (average them as those of the rest of the model). Experts'
    gradients are those of all processes' rows, divided by P, as an average over processes is.

    The plan's alpha is each process's for its own rows; its `replicas` say which experts every process computes for
    itself (see `dynamoe.placement`). With `mapped`, the experts that got the fewest rows leave the memory down to
    `resident_bytes` whenever the plan changes.
    """

    def __init__(
        self,
        experts: FfnExperts,
        k: int,
        *,
        process_group: dist.ProcessGroup | None = None,
        gate: nn.Module | None = None,
        plan: Plan = Plan(),  # noqa: B008 - frozen
        policy: Policy | Recompile | None = None,
        mixing: Mixing = Mixing.PROBABILITY,
        balance: float = 0.0,
        mapped: MappedExperts | None = None,
        resident_bytes: int = 0,
        arena: Arena = SHARED_ARENA,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        super().__init__()
        self._group = process_group
        self.processes = dist.get_world_size(process_group)
        self.n = len(experts) * self.processes
        if not 1 <= k <= self.n:
            raise SettingError(f"k is {k}: between 1 and {self.n}, the number of experts, can be chosen")
        self.k, self.mixing, self.balance = k, Mixing(mixing), balance
        d_model, like = experts.shape.d_model, experts.up
        self.gate = gate or nn.Linear(d_model, self.n, bias=False, dtype=like.dtype, device=like.device)
        for parameter in self.gate.parameters():
            same_everywhere(parameter, process_group)
        # One row, one expert: what arrives here is computed as any layer's rows are.
        self.own = MoE(experts, 1, gate=nn.Identity(), arena=arena)
        for weight in (experts.up, experts.down):
            if weight.requires_grad:
                weight.register_hook(lambda gradient: gradient / self.processes)
        self.events: list[Event] = []
        self._rule = policy if policy is None or isinstance(policy, Recompile) else recompile(policy)
        self._mapped, self._resident_bytes = mapped, resident_bytes
        self._arena = arena
        self._on_event = on_event
        self._seen: deque[_Load] = deque()
        self._last: _Load | None = None
        self._score: Score | None = None
        self.plan = Plan()
        self._hot: tuple[int, ...] = ()
        self.set_plan(plan)

    def set_plan(self, plan: Plan) -> None:
        """Use this plan from the next call on. Every process has to, in the same step."""
        if plan.overflow is Overflow.GROW and plan.alpha is not None:
            raise SettingError("overflow=grow is not for experts in several processes: use alpha=None")
        for name, factors in (("alpha", plan.alphas(self.n)), ("replicas", plan.replicas)):
            if factors is not None and len(factors) != self.n:
                raise SettingError(f"{name} has {len(factors)} entries, the layer {self.n} experts")
        hot = hot_experts(plan.replicas, processes=self.processes)
        if hot and self._own_experts.on_gradient is not None:
            raise SettingError("an optimizer that steps inside the backward pass cannot have replicas: use another one")
        self.plan, self._hot = plan, hot

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] to the same shape."""
        rows = x.reshape(-1, x.shape[-1])
        routing = route(self.gate(rows), self.k)
        probabilities = routing.probabilities
        if self.training and torch.is_grad_enabled():
            probabilities = balanced(probabilities, assignments_per_expert(routing.experts, self.n), self.balance)
        weights = mixing_weights(probabilities, routing.experts, self.mixing)
        return self.mix(rows, routing.experts, weights).view(x.shape)

    def mix(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """[T, d]: the weighted sum of the experts' outputs for another router's choice.

        x [T, d], experts [T, k] int64 in 0..n-1, weights [T, k]; T may differ between processes, and be 0.
        """
        limits = capacities(self.plan.alpha, n=self.n, k=experts.shape[1], batch=len(x))
        dispatch = group(experts, self.n, limits)
        self._observe(len(x), experts.shape[1], dispatch.counts, dispatch.dropped)
        parting = part(dispatch.places, self._hot, processes=self.processes)
        away, here = parting.away.to(x.device), parting.here.to(x.device)
        grouped = x.index_select(0, dispatch.rows)
        arriving = self._sizes(parting.sent, x.device)
        received = exchange(grouped[away], parting.send_sizes, [sum(one) for one in arriving], self._group)
        done = self.own.mix(received, _ids(arriving, x.device), received.new_ones(len(received), 1))
        back = exchange(done, [sum(one) for one in arriving], parting.send_sizes, self._group)
        outputs = torch.empty_like(grouped).index_copy(0, away, back)
        if self._hot:
            outputs = outputs.index_copy(0, here, self._through_shadows(grouped[here], parting.hot_places))
        return combine(outputs, weights, dispatch).to(x.dtype)

    def step(self) -> Event | None:
        """Tell the policy of the last call, in every process; returns the event where the plan has changed."""
        if self._rule is None or self._last is None:
            return None
        self._seen.append(self._last)
        self._last = None
        if len(self._seen) <= self._rule.launch_ahead:
            return None
        self._score = next_score(self._score, self._seen.popleft().read())
        change = self._rule.alter(self.plan, self._score) if self._rule.trigger(self.plan, self._score) else None
        if change is None or change.plan == self.plan:
            return None
        started, old = time.perf_counter(), self.plan
        self.set_plan(change.plan)
        self._keep_resident(self._score.counts)
        seconds = time.perf_counter() - started
        event = Event(self._score.step, change.reason, old, change.plan, build_seconds=0.0, swap_seconds=seconds)
        self._score = replace(self._score, steps_since_change=0)
        self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)
        return event

    @property
    def _own_experts(self) -> FfnExperts:
        assert isinstance(self.own.experts, FfnExperts)  # noqa: S101 - as given to __init__
        return self.own.experts

    def _through_shadows(self, rows: Tensor, places: Sequence[int]) -> Tensor:
        experts = self._own_experts
        up, down = shadows(experts.up, self._hot, self._group), shadows(experts.down, self._hot, self._group)
        ids, ones = _ids([places], rows.device), rows.new_ones(len(rows), 1)
        shape = replace(experts.shape, experts=len(self._hot))
        if rows.device.type != "cpu":
            return grouped_ffn(rows, ones, ids, up, down, shape, None)[0]
        dispatch = group(ids, len(self._hot), None)
        return fused_ffn(rows, ones, up, down, dispatch, shape, self._arena, self.own.plan.products)

    def _observe(self, rows: int, k: int, counts: Tensor, dropped: int) -> None:
        """The load of all processes; on its way while the step goes on."""
        if self._rule is None:
            return
        told = torch.cat([counts, counts.new_tensor([rows, dropped])])
        self._last = _Load(told, k, dist.all_reduce(told, group=self._group, async_op=True))

    def _sizes(self, sent: Sequence[Sequence[int]], device: torch.device) -> list[list[int]]:
        """[P][n / P]: rows that come from each process for each expert here."""
        mine = torch.tensor(sent, dtype=torch.int64, device=device)
        arriving = torch.empty_like(mine)
        dist.all_to_all_single(arriving, mine, group=self._group)
        sizes: list[list[int]] = arriving.tolist()
        return sizes

    def _keep_resident(self, counts: Sequence[int]) -> None:
        if self._mapped is not None:
            own = len(self._own_experts)
            first = dist.get_rank(self._group) * own
            self._mapped.keep_resident(counts[first : first + own], limit_bytes=self._resident_bytes)


def _ids(sizes: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """[R, 1]: the local number of the expert of each row, for rows that lie by source, then by expert."""
    flat = torch.tensor([count for one in sizes for count in one], dtype=torch.int64, device=device)
    numbers = torch.arange(len(sizes[0]), device=device).repeat(len(sizes))
    return numbers.repeat_interleave(flat).unsqueeze(1)
