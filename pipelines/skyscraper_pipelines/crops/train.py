"""`python -m skyscraper_pipelines.crops.train`: train the crop classifier and lay it out as a served model.

Trained on some days of the street camera, judged on others, beside a dense network of the same active work, with
standard errors over seeds. One network serves every value of the knobs: each training step draws its own number of
experts and how many of them look at a crop.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dynamoe.classifier import ClassifierShape, ImageClassifier
from skyscraper.paths import cache_dir
from torch.nn import functional

from skyscraper_pipelines.crops.cutting import CLASSES, CROP_PIXELS
from skyscraper_pipelines.crops.examples import Examples, examples
from skyscraper_pipelines.crops.offline import versions
from skyscraper_pipelines.crops.pipeline import MODEL, CropsPipeline

# 0.40 million products per crop outside of the experts, 0.15 in them.
SHAPE = ClassifierShape(
    height=CROP_PIXELS,
    width=CROP_PIXELS,
    channels=(12, 24),
    d_model=96,
    d_ff=192,
    layers=2,
    experts=8,
    k=2,
    labels=CLASSES,
)
_TRAIN_DAYS, _HELD_OUT_DAYS = (101, 102, 103, 104), (201, 202)
_EPOCHS = 6
_BATCH = 256
_LEARNING_RATE, _WEIGHT_DECAY = 2e-3, 1e-2
# The balance term is no mean over the batch, as the loss is, and reaches the convolutions through the gate: ten times
# as much cost a hundredth of the accuracy (one seed); with this, every expert still has rows.
_BALANCE = 2e-4
# Every second step trains the whole network, the others a part of it.
_WHOLE_SHARE = 0.5
# Rows per batch of the server: more than a picture has objects.
_MAX_BATCH = 64

Choice = tuple[int, int]
"""Experts that may be chosen, and how many of them look at a crop."""


@dataclass(frozen=True)
class Run:
    """One seed: correct shares on held-out days."""

    by_choice: dict[Choice, float]
    dense: float


def choices() -> list[Choice]:
    """Every value of the pipeline's knobs."""
    domains = {knob.name: [int(value) for value in knob.domain] for knob in CropsPipeline.knobs}
    return [(experts, k) for experts in domains["experts"] for k in domains["top_k"]]


def dense_shape(shape: ClassifierShape) -> ClassifierShape:
    """A network without a choice whose work per crop is that of the k chosen experts."""
    return replace(shape, experts=1, k=1, d_ff=shape.k * shape.d_ff)


def train(shape: ClassifierShape, data: Examples, *, seed: int, epochs: int) -> ImageClassifier:
    # Threads would wait for each other longer than so small a network computes.
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = ImageClassifier(shape, balance=_BALANCE if shape.experts > 1 else 0.0)
    crops, labels = torch.from_numpy(data.crops), torch.from_numpy(data.labels)
    steps = epochs * math.ceil(len(labels) / _BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    parts = choices()
    for _ in range(epochs):
        for rows in torch.from_numpy(rng.permutation(len(labels))).split(_BATCH):
            batch = crops[rows].flip(2) if rng.random() < 0.5 else crops[rows]
            part = None if rng.random() < _WHOLE_SHARE or shape.experts == 1 else parts[int(rng.integers(len(parts)))]
            logits = model(batch) if part is None else model(batch, active=part[0], k=part[1])
            optimizer.zero_grad()
            functional.cross_entropy(logits, labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def correct_share(model: ImageClassifier, data: Examples, choice: Choice | None = None) -> float:
    active, k = (None, None) if choice is None else choice
    found = [model(crops, active=active, k=k).argmax(dim=1) for crops in torch.from_numpy(data.crops).split(4 * _BATCH)]
    return float((torch.cat(found).numpy() == data.labels).mean())


def lay_out(model: ImageClassifier, repository: Path) -> Path:
    """A new version of the served model; returns its folder. Servers take the highest version when they start."""
    folder = repository / MODEL
    version = folder / str(max(versions(repository), default=0) + 1)
    partial = folder / f".{version.name}.part"
    model.save(partial)
    partial.rename(version)
    shape = model.shape
    (folder / "config.pbtxt").write_text(
        f"""name: "{MODEL}"
backend: "dynamoe"
max_batch_size: {_MAX_BATCH}
input [ {{ name: "images" data_type: TYPE_UINT8 dims: [ {shape.height}, {shape.width}, 3 ] }} ]
output [ {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {len(shape.labels)} ] }} ]
parameters [ {{ key: "follow" value: {{ string_value: "capacity" }} }} ]
""",
        encoding="utf-8",
    )
    return version


def report(runs: Sequence[Run], counts: tuple[int, int], seconds: float) -> dict[str, Any]:
    whole = (SHAPE.experts, SHAPE.k)
    return {
        "seeds": len(runs),
        "crops_trained": counts[0],
        "crops_held_out": counts[1],
        "accuracy": {
            f"experts={experts} top_k={k}": _mean([run.by_choice[experts, k] for run in runs])
            for experts, k in runs[0].by_choice
        },
        "dense_accuracy": _mean([run.dense for run in runs]),
        "gain_over_dense": _mean([run.by_choice[whole] - run.dense for run in runs]),
        "seconds": round(seconds, 1),
    }


def _mean(values: Sequence[float]) -> dict[str, float | None]:
    """With its standard error, which one seed does not have."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return {"mean": round(float(np.mean(values)), 5), "standard_error": None if error is None else round(error, 5)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="skyscraper_pipelines.crops.train", description=__doc__)
    parser.add_argument("--repository", type=Path, default=cache_dir() / "models", help="Model repository to write to.")
    parser.add_argument("--seeds", type=int, default=3, help="Networks to train; the first is the one that is written.")
    parser.add_argument("--quick", action="store_true", help="One seed on two short twilights: to see that it runs.")
    parser.add_argument("--json", action="store_true", help="Print the figures as JSON.")
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 1:
        parser.error("--seeds: at least one network is trained")
    started = time.monotonic()
    if chosen.quick:
        trained, held_out = examples(_TRAIN_DAYS[:1], twilights=1), examples(_HELD_OUT_DAYS[:1], twilights=1)
    else:
        trained, held_out = examples(_TRAIN_DAYS), examples(_HELD_OUT_DAYS)
    runs = []
    for seed in range(1 if chosen.quick else chosen.seeds):
        model = train(SHAPE, trained, seed=seed, epochs=_EPOCHS)
        if seed == 0:
            version = lay_out(model, chosen.repository)
        dense = train(dense_shape(SHAPE), trained, seed=seed, epochs=_EPOCHS)
        by_choice = {choice: correct_share(model, held_out, choice) for choice in choices()}
        runs.append(Run(by_choice, correct_share(dense, held_out)))
        print(f"seed {seed}: {by_choice[SHAPE.experts, SHAPE.k]:.4f}, dense {runs[-1].dense:.4f}", file=sys.stderr)
    told = report(runs, (len(trained.labels), len(held_out.labels)), time.monotonic() - started)
    print(json.dumps(told) if chosen.json else json.dumps(told, indent=2))
    print(f"wrote {version}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
