"""The forecaster: how often each content category will come in the plan window (paper section 3.3, supplement H, K).

Histograms of the last two days in 8 parts go through two small hidden layers (16 and 8, ReLU) to a softmax over the
categories. A few hundred weights: plain numpy trains them in a second, and the tuner needs no framework to refine them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.units import SECONDS_PER_DAY

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

INPUT_SECONDS = 2 * SECONDS_PER_DAY
SPLITS = 8
EVERY_SECONDS = 900.0
# Fewer examples say nothing of what follows what.
_FEWEST_EXAMPLES = 20
_HIDDEN = (16, 8)
_EPOCHS = 40
_FINE_TUNE_EPOCHS = 5
_VALIDATION = 0.2
_BATCH = 16
_RATE, _FINE_TUNE_RATE = 5e-3, 1e-3
# Adam (Kingma and Ba, 2015), its usual values.
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Examples:
    """inputs [N, SPLITS*C] and targets [N,C], in the order of time."""

    inputs: Floats
    targets: Floats


@dataclass(frozen=True)
class Forecaster:
    """weights and biases of the layers, and the mean absolute error of a share on the validation part."""

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]
    mae: float

    def forecast(self, inputs: Floats) -> Floats:
        """[N,C] shares, each row summing to 1, from [N, SPLITS*C]."""
        return _forward(self.weights, self.biases, inputs)[-1]


def histograms(labels: Integers, categories: int, parts: int) -> Floats:
    """[parts, C] shares of the categories in equal parts of labels [T]."""
    edges = np.linspace(0, len(labels), parts + 1).astype(int)
    return np.stack(
        [
            np.bincount(labels[start:stop], minlength=categories) / max(stop - start, 1)
            for start, stop in zip(edges[:-1], edges[1:], strict=True)
        ]
    )


def latest_input(labels: Integers, categories: int, segment_seconds: float) -> Floats:
    """[1, SPLITS*C] from the newest labels; a history that is too short is repeated."""
    wanted = round(INPUT_SECONDS / segment_seconds)
    if len(labels) < wanted:
        labels = np.tile(labels, -(-wanted // len(labels)))
    return histograms(labels[-wanted:], categories, SPLITS).reshape(1, -1)


def examples(labels: Integers, categories: int, segment_seconds: float, window_seconds: float) -> Examples:
    """A training point every quarter of an hour: two days before it, the plan window after it. None where too short."""
    before, after = round(INPUT_SECONDS / segment_seconds), round(window_seconds / segment_seconds)
    moments = range(before, len(labels) - after + 1, max(1, round(EVERY_SECONDS / segment_seconds)))
    if not moments:
        return Examples(np.empty((0, SPLITS * categories)), np.empty((0, categories)))
    inputs = [histograms(labels[at - before : at], categories, SPLITS).ravel() for at in moments]
    targets = [histograms(labels[at : at + after], categories, 1)[0] for at in moments]
    return Examples(np.stack(inputs), np.stack(targets))


def learn_forecaster(
    labels: Integers, categories: int, segment_seconds: float, window_seconds: float, *, seed: int
) -> Forecaster | None:
    """From the labels [T] of consecutive segments; None where they are too few for it."""
    points = examples(labels, categories, segment_seconds, window_seconds)
    return train(points, seed=seed) if len(points.inputs) >= _FEWEST_EXAMPLES else None


def train(of: Examples, *, seed: int) -> Forecaster:
    """40 epochs; the weights of the epoch with the least error on the last fifth of time are kept.

    Raises ValueError for fewer than 5 examples.
    """
    if len(of.inputs) < 5:
        raise ValueError(f"{len(of.inputs)} examples are too few to train a forecaster; 5 are the least")
    rng = np.random.default_rng(seed)
    sizes = (of.inputs.shape[1], *_HIDDEN, of.targets.shape[1])
    weights = [
        rng.normal(0, np.sqrt(2 / rows), (rows, columns)) for rows, columns in zip(sizes[:-1], sizes[1:], strict=True)
    ]
    biases = [np.zeros(columns) for columns in sizes[1:]]
    # So that an untrained network forecasts what is usual.
    biases[-1] = np.log(of.targets.mean(axis=0) + 1e-3)
    weights[-1] *= 0.1
    return _descend(weights, biases, of, epochs=_EPOCHS, rate=_RATE, rng=rng)


def fine_tune(forecaster: Forecaster, of: Examples, *, seed: int) -> Forecaster:
    """A few slow epochs on recent examples; the old one where that does not lower the error on the newest of them."""
    if len(of.inputs) < 5:
        return forecaster
    rng = np.random.default_rng(seed)
    return _descend(
        [weight.copy() for weight in forecaster.weights],
        [bias.copy() for bias in forecaster.biases],
        of,
        epochs=_FINE_TUNE_EPOCHS,
        rate=_FINE_TUNE_RATE,
        rng=rng,
    )


def _descend(
    weights: list[Floats], biases: list[Floats], of: Examples, *, epochs: int, rate: float, rng: np.random.Generator
) -> Forecaster:
    split = max(1, round(len(of.inputs) * (1 - _VALIDATION)))
    inputs, targets = of.inputs[:split], of.targets[:split]

    def error() -> float:
        told = _forward(weights, biases, of.inputs[split:])[-1]
        return float(np.abs(told - of.targets[split:]).mean())

    best = Forecaster(tuple(w.copy() for w in weights), tuple(b.copy() for b in biases), error())
    parameters = weights + biases
    first = [np.zeros_like(one) for one in parameters]
    second = [np.zeros_like(one) for one in parameters]
    step = 0
    for _ in range(epochs):
        order = rng.permutation(split)
        for start in range(0, split, _BATCH):
            rows = order[start : start + _BATCH]
            gradients = _gradients(weights, biases, inputs[rows], targets[rows])
            step += 1
            for index, gradient in enumerate(gradients):
                first[index] += (1 - _BETA_1) * (gradient - first[index])
                second[index] += (1 - _BETA_2) * (gradient**2 - second[index])
                unbiased = first[index] / (1 - _BETA_1**step)
                scale = np.sqrt(second[index] / (1 - _BETA_2**step)) + _EPSILON
                parameters[index] -= rate * unbiased / scale
        if (now := error()) < best.mae:
            best = Forecaster(tuple(w.copy() for w in weights), tuple(b.copy() for b in biases), now)
    return best


def _forward(weights: Sequence[Floats], biases: Sequence[Floats], inputs: Floats) -> list[Floats]:
    """Every layer's output; the last is the softmax."""
    layers = [inputs]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        layers.append(np.maximum(layers[-1] @ weight + bias, 0.0))
    scores = layers[-1] @ weights[-1] + biases[-1]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    layers.append(powers / powers.sum(axis=1, keepdims=True))
    return layers


def _gradients(weights: list[Floats], biases: list[Floats], inputs: Floats, targets: Floats) -> list[Floats]:
    """Of the cross-entropy: weights first, then biases."""
    layers = _forward(weights, biases, inputs)
    delta = (layers[-1] - targets) / len(inputs)
    of_weights: list[Floats] = []
    of_biases: list[Floats] = []
    for index in range(len(weights) - 1, -1, -1):
        of_weights.insert(0, layers[index].T @ delta)
        of_biases.insert(0, delta.sum(axis=0))
        if index:
            delta = (delta @ weights[index].T) * (layers[index] > 0)
    return of_weights + of_biases
