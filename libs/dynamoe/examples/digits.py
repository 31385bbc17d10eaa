"""Train a mixture of experts on scikit-learn's digits, as the paper trains on MNIST: whole images are routed.

    python digits.py --experts 16 --loss specialised --policy local
    dynamoe report run.jsonl

With the cooperative loss the experts of an image answer together, and learn from the answer's error. With the
specialisation loss each answers for itself, and the gate learns which of them errs least; evaluated are they together.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from dynamoe import Loss, MoE
from dynamoe.errors import DynamoeError
from dynamoe.policies import Policy, assignment_cache, capacity, local_capacity
from dynamoe.record import RunRecorder
from sklearn.datasets import load_digits
from torch import Tensor, nn

TRAIN, BATCH = 1500, 50
PIXELS, HIDDEN, LABELS = 64, 32, 10
# The gate runs in every fourth step once assignments come from the cache, and goes on learning.
GATE_EVERY = 4
# Of the work, with a gate as deep as an expert and k 2.
GATE_SHARE = 0.33

POLICIES: dict[str, Callable[[int], Policy | None]] = {
    "none": lambda experts: None,
    "global": lambda experts: capacity(),
    "local": lambda experts: local_capacity(total=float(experts), smooth=True),
    "cache": lambda experts: assignment_cache(gate_share=GATE_SHARE),
}


def network(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))


def build(given: argparse.Namespace) -> MoE:
    """With capacities their mean factor is 1, which drops what does not fit; otherwise nothing is dropped."""
    alpha = {"global": 1.0, "local": (1.0,) * given.experts}.get(given.policy)
    return MoE(
        [network(LABELS) for _ in range(given.experts)],
        given.k,
        gate=network(given.experts),
        capacity=alpha,
        loss=Loss(given.loss),
        balance=given.balance,
        cache_samples=TRAIN,
        gate_every=GATE_EVERY,
        policy=POLICIES[given.policy](given.experts),
    )


def train(layer: MoE, images: Tensor, labels: Tensor, steps: int, recorder: RunRecorder) -> None:
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
    answers = layer.k if layer.loss is Loss.SPECIALISED else 1
    for _ in range(steps):
        ids = torch.randint(0, TRAIN, (BATCH,))
        loss = nn.functional.cross_entropy(layer(images[ids], sample_ids=ids), labels[ids].repeat_interleave(answers))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        recorder.step(layer, layer.step())


@torch.no_grad()
def accuracy(layer: MoE, images: Tensor, labels: Tensor) -> float:
    layer.set_plan(layer.plan.with_(alpha=None))
    layer.eval()
    return float((layer(images).argmax(dim=1) == labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="a mixture of experts on scikit-learn's digits")
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--k", type=int, default=2, help="experts per image")
    parser.add_argument("--loss", choices=[str(loss) for loss in Loss], default="cooperative")
    parser.add_argument("--policy", choices=POLICIES, default="none", help="what follows the load")
    parser.add_argument("--balance", type=float, default=0.04, help="weight of the balance term")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("run.jsonl"), help="for `dynamoe report`")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    data, target = load_digits(return_X_y=True)
    images, labels = torch.tensor(data).float() / 16, torch.tensor(target)
    try:
        layer = build(given)
    except DynamoeError as error:
        parser.error(str(error))
    with given.out.open("w", encoding="utf-8") as file:
        train(layer, images, labels, given.steps, RunRecorder(file, every=10))
    right = accuracy(layer, images[TRAIN:], labels[TRAIN:])
    print(f"accuracy {right:.3f} on {len(images) - TRAIN} images, {len(layer.events)} recompilations")
    for event in layer.events[-3:]:
        print(f"  step {event.step}: {event.reason}")


if __name__ == "__main__":
    main()
