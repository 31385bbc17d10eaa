"""Step four of four: one output per row from its experts' outputs. Two losses, as in the paper."""

from __future__ import annotations

import torch
from torch import Tensor

from dynamoe.dispatch import Dispatch


def with_zero_row(grouped: Tensor) -> Tensor:
    """[R, d] -> [R + 1, d]; the last row is what a dropped assignment adds."""
    return torch.cat([grouped, grouped.new_zeros(1, *grouped.shape[1:])])


def combine(grouped: Tensor, weights: Tensor, dispatch: Dispatch) -> Tensor:
    """The cooperative output: `out_b = sum_j weights_bj * y_bj`, dropped assignments adding zero.

    `grouped` is [R, ...] in the order of `dispatch`, `weights` is [B, k]. The gradient of `weights_bj` is
    `<g_b, y_bj>`, that of an expert's row `weights_bj * g_b`.
    """
    batch, k = dispatch.position.shape
    per_slot = with_zero_row(grouped).index_select(0, dispatch.position.reshape(-1)).view(batch, k, *grouped.shape[1:])
    scale = weights.to(grouped.dtype).view(batch, k, *[1] * (grouped.dim() - 1))
    return (per_slot * scale).sum(dim=1)


class _Specialised(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grouped: Tensor, chosen: Tensor, dispatch: Dispatch) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(chosen)
        ctx.dispatch = dispatch
        return with_zero_row(grouped).index_select(0, dispatch.position.reshape(-1))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[no-untyped-def]
        (chosen,) = ctx.saved_tensors
        dispatch: Dispatch = ctx.dispatch
        batch, k = chosen.shape
        taken = dispatch.position < len(dispatch.order)
        errors = batch * gradient.reshape(batch, k, -1).to(chosen.dtype).square().sum(dim=-1) * taken
        total = errors.sum(dim=1, keepdim=True)
        # Where every loss of a row is zero there is no error to share out: the gate is left alone.
        share = torch.where(total > 0, errors / total, 1 - chosen)
        to_gate = (share - (1 - chosen)) * taken
        scale = dispatch.scale(chosen).to(gradient.dtype)
        to_experts = gradient.index_select(0, dispatch.order.clamp(min=0)) * scale.view(-1, *[1] * (gradient.dim() - 1))
        return to_experts, to_gate, None


def combine_specialised(grouped: Tensor, chosen: Tensor, dispatch: Dispatch) -> Tensor:
    """The specialisation loss: [B * k, ...], one output row per chosen expert, for labels repeated k times.

    `chosen` [B, k] are the chosen experts' probabilities. Not the gradient of any function: an expert's row gets
    `p_j g_j`, and the gate is regressed toward `1 - normalised error`: with `err_j = B ||g_j||^2` its gradient is
    `err_j / sum(err) - (1 - p_j)`. Dropped rows are zero and give no gradient.
    """
    return _Specialised.apply(grouped, chosen, dispatch)  # type: ignore[no-any-return]
