"""The layer: route, dispatch, run the experts, combine; the plan says how, and can change between two steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from operator import gt
from typing import Any

import torch
from torch import Tensor, nn

from dynamoe.cache import AssignmentCache, same_sets
from dynamoe.combine import combine, combine_specialised
from dynamoe.dispatch import CAPACITY_ROUNDING, Dispatch, capacities, group, padded, shared_out
from dynamoe.errors import SettingError, ShapeError
from dynamoe.experts import FfnExperts, ModuleExperts
from dynamoe.grouped import grouped_ffn
from dynamoe.kernels import block_rows, fused_ffn
from dynamoe.memory import SHARED_ARENA, Arena
from dynamoe.plan import Overflow, Plan, Precision, Rows
from dynamoe.policies import Policy, recompile
from dynamoe.prepared import PreparedExperts, prepare, prepared_ffn, versions
from dynamoe.products import fastest_products
from dynamoe.recompile import Event, Observation, Recompile, Recompiler, observe_on_device
from dynamoe.routing import Mixing, assignments_per_expert, balanced, mixing_weights, route


class Loss(StrEnum):
    """How experts learn from a row that several of them see."""

    COOPERATIVE = "cooperative"
    """Together: one output, the weighted sum. [B, ...]"""
    SPECIALISED = "specialised"
    """Each for itself: k outputs per row, [B * k, ...], for labels repeated k times. In evaluation as cooperative."""


@dataclass(frozen=True)
class BuiltPlan:
    """A plan and what was made for it."""

    plan: Plan
    prepared: PreparedExperts | None = None
    alpha: Tensor | None = None
    """[n] float64 on the experts' device, where they run as `dynamoe.grouped`: no capacity has to be sent in a step."""


class MoE(nn.Module):
    """A mixture-of-experts layer.

    With `FfnExperts` it takes [..., d] and routes every token; with modules as experts it takes [B, ...] and routes
    every sample. `gate` maps the same rows to n logits; without one it is a linear layer of `d_model` inputs.

    Call `step` once after every training step, or after every batch served: it observes the load and, where a policy is
    set, puts new plans in place.
    """

    experts: FfnExperts | ModuleExperts
    gate: nn.Module

    def __init__(
        self,
        experts: FfnExperts | Sequence[nn.Module],
        k: int,
        *,
        gate: nn.Module | None = None,
        d_model: int | None = None,
        capacity: float | Sequence[float] | None = None,
        plan: Plan | None = None,
        policy: Policy | Recompile | None = None,
        mixing: Mixing = Mixing.PROBABILITY,
        loss: Loss = Loss.COOPERATIVE,
        balance: float = 0.0,
        cache_samples: int | None = None,
        gate_every: int = 1,
        arena: Arena = SHARED_ARENA,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        super().__init__()
        self.experts = experts if isinstance(experts, FfnExperts) else ModuleExperts(experts)
        n = len(self.experts)
        if not 1 <= k <= n:
            raise SettingError(f"k is {k}: between 1 and {n}, the number of experts, can be chosen")
        if plan is not None and capacity is not None:
            raise SettingError("capacity and plan are both given: put the capacity into the plan's alpha")
        if gate_every < 1:
            raise SettingError(f"gate_every is {gate_every}: the gate has to run at least now and then (1 is always)")
        self.k, self.mixing, self.loss, self.balance = k, Mixing(mixing), Loss(loss), balance
        self.gate = gate if gate is not None else self._linear_gate(n, d_model)
        self.cache = None if cache_samples is None else AssignmentCache(cache_samples, k)
        self.gate_every = gate_every
        self.growths = 0
        """Steps that ran with more rows than the plan has, under overflow=grow."""
        self._arena = arena
        self._seen: Observation | None = None
        self._cached_steps = 0
        self._built = BuiltPlan(Plan())
        self._built = self.build(plan or self._first_plan(capacity))
        self._recompiler: Recompiler | None = None
        if policy is not None:
            rule = policy if isinstance(policy, Recompile) else recompile(policy)
            self._recompiler = Recompiler(rule, self.build, self._swap, on_event=on_event)

    @property
    def plan(self) -> Plan:
        """How the layer runs now."""
        return self._built.plan

    @property
    def events(self) -> Sequence[Event]:
        """Every recompilation since the start."""
        return () if self._recompiler is None else self._recompiler.events

    @property
    def observed(self) -> Observation | None:
        """What the last forward pass showed."""
        return self._seen

    def set_plan(self, plan: Plan) -> None:
        """Build and use this plan, now."""
        self._built = self.build(plan)

    def build(self, plan: Plan) -> BuiltPlan:
        """Make what a plan needs. Any thread may call it while the layer runs with another plan."""
        n = len(self.experts)
        if isinstance(plan.alpha, tuple) and len(plan.alpha) != n:
            raise SettingError(f"alpha has {len(plan.alpha)} factors, the layer {n} experts")
        if not isinstance(self.experts, FfnExperts):
            if plan.precision is not Precision.PARAMETERS or plan.rows is not Rows.EXACT:
                raise SettingError("experts that are modules run with precision=parameters and rows=exact")
            return BuiltPlan(plan)
        if self.experts.up.device.type != "cpu":
            if plan.precision is not Precision.PARAMETERS or plan.rows is not Rows.EXACT:
                raise SettingError("on an accelerator experts run with precision=parameters and rows=exact")
            return BuiltPlan(plan, alpha=_alpha_tensor(plan, n, self.experts.up.device))
        if plan.reserved_rows:
            self._reserve(plan, self.experts)
        if plan.precision is Precision.PARAMETERS:
            return BuiltPlan(plan)
        before = self._built.prepared
        weights = self.experts.up, self.experts.down
        if before is not None and before.precision is plan.precision and before.versions == versions(*weights):
            return BuiltPlan(plan, prepared=before)
        return BuiltPlan(plan, prepared=prepare(*weights, plan.precision))

    def step(self, seen: Observation | None = None) -> Event | None:
        """Tell the policy what a forward pass showed, without `seen` the last one; returns the event where a new plan
        was put in place. One thread at a time."""
        seen = self._seen if seen is None else seen
        if self._recompiler is None or seen is None:
            return None
        return self._recompiler.step(self.plan, seen)

    def wait_for_plan(self, *, timeout_seconds: float) -> Event | None:
        """Put a plan that is being built in place now."""
        return None if self._recompiler is None else self._recompiler.wait(self.plan, timeout_seconds=timeout_seconds)

    def forward(
        self, x: Tensor, *, sample_ids: Tensor | None = None, k: int | None = None, active: int | None = None
    ) -> Tensor:
        """The combined output. `k` and `active` (the first so many experts) restrict this one call."""
        k, n = self._restricted(k, active)
        rows = x.reshape(-1, x.shape[-1]) if isinstance(self.experts, FfnExperts) else x
        cached = self._cached(sample_ids) if k == self.k and active is None else None
        if cached is not None and self.training and not self._gate_turn():
            out = self._run(rows, cached[1].to(rows.device), cached[0], None, None, unchanged=None)
        else:
            out = self._routed(rows, k, n, sample_ids, None if cached is None else cached[0])
        return out.view(*x.shape[:-1], out.shape[-1]) if isinstance(self.experts, FfnExperts) else out

    @torch.no_grad()
    def evaluate(
        self, x: Tensor, *, k: int | None = None, active: int | None = None, capacity: float | None = None
    ) -> tuple[Tensor, Observation]:
        """The output for served rows [B, d], and what to hand to `step`. On a CPU, in evaluation.

        Reads the plan once and leaves nothing in the layer: any number of threads may be in here while another puts a
        new plan in place. `capacity` is the mean capacity factor of this call, shared out among its experts as the
        plan's alpha is; without it nothing is dropped, whatever the plan.
        """
        k, n = self._restricted(k, active)
        built = self._built
        shares = built.plan.alphas(len(self.experts)) or (1.0,) * len(self.experts)
        alpha = None if capacity is None else shared_out(shares, capacity, active=n)
        routing = route(self.gate(x)[:, :n], k)
        weights = mixing_weights(routing.probabilities, routing.experts, self.mixing)
        prepared = self._prepared(built)
        dispatch = self._dispatch(routing.experts, built.plan.with_(alpha=alpha, rows=Rows.EXACT), prepared)
        out = self._through_experts(x, weights, dispatch, built.plan, prepared)
        return out, Observation(len(x), k, dispatch.counts, dispatch.dropped)

    def mix(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """[T, d]: the weighted sum of the experts' outputs for another router's choice.

        x [T, d], experts [T, k] int64, weights [T, k]. The plan's capacity applies; the layer's gate does not run.
        """
        return self._run(x, weights, experts, None, None, unchanged=None)

    @staticmethod
    def from_hf(block: Any, **settings: Any) -> nn.Module:
        """`dynamoe.hf.from_hf`: transformers' Mixtral, Qwen-MoE and OLMoE blocks on the same weights."""
        from dynamoe.hf import from_hf

        return from_hf(block, **settings)

    def get_extra_state(self) -> dict[str, Any]:
        return {"plan": self.plan.to_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._built = self.build(Plan.from_dict(state["plan"]))

    def _restricted(self, k: int | None, active: int | None) -> tuple[int, int]:
        """(k, number of experts) of one call."""
        k = self.k if k is None else k
        n = len(self.experts) if active is None else active
        if not 1 <= n <= len(self.experts) or not 1 <= k <= n:
            raise ShapeError(f"k={k} of active={n} experts: the layer has {len(self.experts)}")
        return k, n

    def _routed(self, rows: Tensor, k: int, n: int, ids: Tensor | None, cached: Tensor | None) -> Tensor:
        logits = self.gate(rows)
        routing = route(logits[:, :n], k)
        probabilities = routing.probabilities
        if n < len(self.experts):
            probabilities = nn.functional.pad(probabilities, (0, len(self.experts) - n))
        unchanged = None
        if self.cache is not None and ids is not None and self.training and k == self.k:
            unchanged = self.cache.store(ids, routing.experts, routing.probabilities.gather(1, routing.experts))
        used = routing.experts if cached is None else cached
        stale = None if cached is None else ~same_sets(cached, routing.experts)
        return self._run(rows, probabilities, used, routing.experts, stale, unchanged=unchanged)

    def _run(
        self,
        rows: Tensor,
        probabilities: Tensor,
        used: Tensor,
        wanted: Tensor | None,
        stale: Tensor | None,
        *,
        unchanged: float | None,
    ) -> Tensor:
        """Run the experts in `used` [B, k]; the gate wanted `wanted`.

        `probabilities` is [B, n], or [B, k] where they come from the cache or from another router.
        """
        built = self._built
        from_cache = wanted is None
        if wanted is not None and self.training and torch.is_grad_enabled():
            counts = assignments_per_expert(wanted, len(self.experts))
            probabilities = balanced(probabilities, counts, self.balance)
        weights = probabilities if from_cache else mixing_weights(probabilities, used, self.mixing)
        if stale is not None:
            # A sample on another assignment than its own says nothing about the gate's choice.
            weights = torch.where(stale.unsqueeze(1), weights.detach(), weights)
        if isinstance(self.experts, FfnExperts) and (rows.device.type != "cpu" or torch.compiler.is_compiling()):
            return self._run_grouped(rows, weights, used, built, self.experts)
        prepared = self._prepared(built)
        dispatch = self._dispatch(used, built.plan, prepared)
        self._seen = Observation(len(rows), used.shape[1], dispatch.counts, dispatch.dropped, unchanged)
        return self._through_experts(rows, weights, dispatch, built.plan, prepared)

    def _through_experts(
        self, rows: Tensor, weights: Tensor, dispatch: Dispatch, plan: Plan, prepared: PreparedExperts | None
    ) -> Tensor:
        """[B, ...] from rows [B, ...] and mixing weights [B, k]; [B * k, ...] where the loss is specialised."""
        specialised = self.loss is Loss.SPECIALISED and self.training
        if isinstance(self.experts, ModuleExperts):
            grouped = self.experts(rows.index_select(0, dispatch.rows), dispatch.places)
            return (combine_specialised if specialised else combine)(grouped, weights, dispatch)
        if specialised:
            raise SettingError("loss=specialised is for experts that are modules: each needs a loss of its own")
        if rows.dtype != self.experts.up.dtype:
            raise ShapeError(f"the input is {rows.dtype}, the experts are {self.experts.up.dtype}: convert one of them")
        if prepared is not None:
            return prepared_ffn(rows, weights, prepared, dispatch, self.experts.shape)
        return fused_ffn(
            rows,
            weights.to(rows.dtype),
            self.experts.up,
            self.experts.down,
            dispatch,
            self.experts.shape,
            self._arena,
            plan.products,
            self.experts.on_gradient,
        )

    def _run_grouped(
        self, rows: Tensor, weights: Tensor, used: Tensor, built: BuiltPlan, experts: FfnExperts
    ) -> Tensor:
        n, k = len(experts), used.shape[1]
        alpha = self._alpha_on(rows.device, built)
        limits = None if alpha is None else (alpha * (k / n * len(rows)) - CAPACITY_ROUNDING).ceil().long()
        out, counts = grouped_ffn(rows, weights, used, experts.up, experts.down, experts.shape, limits)
        if not torch.compiler.is_compiling():
            dropped = None if limits is None else (counts - limits).clamp(min=0).sum()
            self._seen = observe_on_device(len(rows), k, counts, dropped)
        return out

    def _alpha_on(self, device: torch.device, built: BuiltPlan) -> Tensor | None:
        if torch.compiler.is_compiling():
            return _alpha_tensor(built.plan, len(self.experts), device)
        if built.plan.alpha is not None and (built.alpha is None or built.alpha.device != device):
            # Since the plan was built, the layer has moved.
            built = self._built = BuiltPlan(built.plan, alpha=_alpha_tensor(built.plan, len(self.experts), device))
        return built.alpha

    def _dispatch(self, experts: Tensor, plan: Plan, prepared: PreparedExperts | None) -> Dispatch:
        n = len(self.experts)
        limits = capacities(plan.alpha, n=n, k=experts.shape[1], batch=len(experts))
        grows = plan.overflow is Overflow.GROW
        room = padded if plan.products.batched and prepared is None else None
        if plan.rows is Rows.STATIC and limits is not None:
            # More than its limit an expert keeps only where the plan grows.
            room = partial(_most_of_each, limits)
        dispatch = group(experts, n, None if grows else limits, room=room)
        if grows and limits is not None and any(map(gt, dispatch.counts.tolist(), limits)):
            self.growths += 1
        return dispatch

    def _prepared(self, built: BuiltPlan) -> PreparedExperts | None:
        """Prepared weights where they may be used: in evaluation, and only if they are the parameters of now."""
        if built.prepared is None or self.training or torch.is_grad_enabled():
            return None
        assert isinstance(self.experts, FfnExperts)  # noqa: S101 - others cannot be prepared (`build`)
        if built.prepared.versions != versions(self.experts.up, self.experts.down):
            built = self._built = self.build(built.plan)
        return built.prepared

    def _cached(self, ids: Tensor | None) -> tuple[Tensor, Tensor] | None:
        if not self.plan.cached or not self.training:
            return None
        if self.cache is None or ids is None:
            raise SettingError("the plan runs from cached assignments: give cache_samples to the layer and sample_ids")
        return self.cache.lookup(ids)

    def _gate_turn(self) -> bool:
        self._cached_steps += 1
        return self._cached_steps % self.gate_every == 0

    def _swap(self, built: Any) -> None:
        self._built = built

    def _linear_gate(self, n: int, d_model: int | None) -> nn.Module:
        width = self.experts.shape.d_model if isinstance(self.experts, FfnExperts) else d_model
        if width is None:
            raise SettingError("d_model or a gate is needed where experts are modules")
        like = self.experts.up if isinstance(self.experts, FfnExperts) else torch.empty(0)
        return nn.Linear(width, n, bias=False, dtype=like.dtype, device=like.device)

    def _first_plan(self, capacity: float | Sequence[float] | None) -> Plan:
        alpha = capacity if capacity is None or isinstance(capacity, int | float) else tuple(capacity)
        if not isinstance(self.experts, FfnExperts) or self.experts.up.device.type != "cpu":
            return Plan(alpha=alpha)
        shape = self.experts.shape
        return Plan(alpha=alpha, products=fastest_products(shape.d_model, shape.d_ff, self.experts.up.dtype))

    def _reserve(self, plan: Plan, experts: FfnExperts) -> None:
        """Have the workspaces of a training step of that many rows waiting."""
        shape, dtype = experts.shape, experts.up.dtype
        limits = capacities(plan.alpha, n=shape.experts, k=self.k, batch=plan.reserved_rows)
        places = plan.reserved_rows * self.k if limits is None else min(sum(limits), plan.reserved_rows * self.k)
        if plan.rows is Rows.STATIC and limits is not None:
            places = sum(limits)
        wanted = [(places, shape.up_rows), (places + 1, shape.d_model), (places + 1, shape.d_model)]
        most = max(limits) if limits else math.ceil(plan.reserved_rows * self.k / shape.experts)
        most = max(most, min(places, block_rows(shape, dtype)))
        wanted += [(most, shape.d_ff), (most, shape.d_model)]
        tensors = [self._arena.take(*sizes, dtype=dtype) for sizes in wanted]
        for tensor in tensors:
            tensor.zero_()


def _most_of_each(left: Sequence[int], right: Sequence[int]) -> list[int]:
    return list(map(max, left, right))


def _alpha_tensor(plan: Plan, n: int, device: torch.device) -> Tensor | None:
    if plan.alpha is None or plan.overflow is Overflow.GROW:
        return None
    factors = [plan.alpha] * n if isinstance(plan.alpha, int | float) else list(plan.alpha)
    return torch.tensor(factors, dtype=torch.float64, device=device)
