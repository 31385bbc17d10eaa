"""Adam inside the backward pass: an expert is stepped as soon as its gradient is known, and the gradient is dropped.

Gradients of all experts at once are a quarter of what Adam needs (weights, gradients, two moments); here they are one
expert's. What it costs: gradients cannot be accumulated over batches, clipped by their total norm, or averaged over
processes, and an expert without rows is left alone, moments included (as torch.optim.SparseAdam leaves rows).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from dynamoe.errors import SettingError
from dynamoe.experts import FfnExperts


@dataclass(frozen=True)
class AdamSettings:
    """AdamW's (Loshchilov and Hutter, 2019); without weight decay it is Adam."""

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0


class FusedAdam:
    """Steps the experts of one layer within `backward`. The other parameters need an optimizer of their own."""

    def __init__(
        self,
        experts: FfnExperts,
        settings: AdamSettings = AdamSettings(),  # noqa: B008 - frozen
        *,
        device: torch.device | str | None = None,
    ) -> None:
        """`device="meta"` makes no moments: `MappedExperts.optimizer` then puts them into files."""
        if experts.on_gradient is not None:
            raise SettingError("these experts are stepped by another optimizer already")
        self.settings = settings
        self.moments: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] = tuple(
            (
                torch.zeros_like(weight, requires_grad=False, device=device),
                torch.zeros_like(weight, requires_grad=False, device=device),
            )
            for weight in (experts.up, experts.down)
        )  # type: ignore[assignment]
        self.steps = torch.zeros(len(experts))
        self._experts = experts
        experts.on_gradient = self._step

    def detach(self) -> None:
        """Give the gradients back to autograd."""
        self._experts.on_gradient = None

    def state_dict(self) -> dict[str, Tensor]:
        (up_mean, up_square), (down_mean, down_square) = self.moments
        return {
            "steps": self.steps,
            "up_mean": up_mean,
            "up_square": up_square,
            "down_mean": down_mean,
            "down_square": down_square,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, mine in self.state_dict().items():
            mine.copy_(state[name])

    @torch.no_grad()
    def _step(self, expert: int, to_up: Tensor, to_down: Tensor) -> None:
        weights = [self._experts.up.data[expert], self._experts.down.data[expert]]
        step = self.steps[expert]
        settings = self.settings
        adamw(
            weights,
            [to_up, to_down],
            [mean[expert] for mean, _ in self.moments],
            [square[expert] for _, square in self.moments],
            [],
            # Both weights share a counter; the operator counts each up by one.
            [step, step.clone()],
            fused=True,
            amsgrad=False,
            beta1=settings.beta1,
            beta2=settings.beta2,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            eps=settings.epsilon,
            maximize=False,
        )
