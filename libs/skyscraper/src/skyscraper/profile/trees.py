"""Gradient-boosted trees as plain arrays: fitted by scikit-learn, evaluated anywhere, stored without pickle.

A prediction for one segment takes a microsecond instead of scikit-learn's milliseconds, and a decoder needs no
scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Forest:
    """One regression. Nodes of all trees in one array: feature (-1 for a leaf), threshold (or the leaf's value), left,
    right; roots of the trees; baseline."""

    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    roots: Integers
    baseline: float

    def predict(self, inputs: Floats) -> Floats:
        """[T] from [T,G]."""
        told = np.full(len(inputs), self.baseline)
        _add_trees(
            self.feature,
            self.threshold,
            self.left,
            self.right,
            self.roots,
            np.ascontiguousarray(inputs, dtype=np.float64),
            told,
        )
        return told


@dataclass(frozen=True)
class Size:
    """How much a forest may learn by heart: trees, leaves of each, and the least share of segments behind a leaf."""

    trees: int
    leaves: int
    leaf_share: float


# A day of one street repeats itself, and small trees forget what was chance; a week of many kinds of content fills
# large ones. Which it is, segments held back tell (see `predict.out_of_fold`).
SIZES = (Size(60, 4, 0.01), Size(120, 24, 0.001))
_FEWEST_IN_LEAF = 40


def fit_forest(inputs: Floats, target: Floats, *, size: Size, seed: int) -> Forest:
    """Boosted trees on [T,G] and [T]. Reproducible from the seed. Thresholds and leaves have single precision: more
    would say nothing of the features, and takes twice the room in a profile."""
    # Seconds to import, and decoders that only predict have no use for it.
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    model = HistGradientBoostingRegressor(
        max_iter=size.trees,
        learning_rate=0.08,
        max_leaf_nodes=size.leaves,
        min_samples_leaf=max(_FEWEST_IN_LEAF, round(size.leaf_share * len(inputs))),
        random_state=seed,
    )
    # So few rows gain nothing from threads, and OpenMP's spin on cores that decoders use.
    with threadpool_limits(1):
        model.fit(inputs, target)
    feature, threshold, left, right, roots = [], [], [], [], []
    start = 0
    for (tree,) in model._predictors:  # noqa: SLF001 - the library has no public form of its trees
        nodes = tree.nodes
        leaf = nodes["is_leaf"].astype(bool)
        feature.append(np.where(leaf, -1, nodes["feature_idx"]))
        threshold.append(np.where(leaf, nodes["value"], nodes["num_threshold"]))
        left.append(nodes["left"].astype(np.int64) + start)
        right.append(nodes["right"].astype(np.int64) + start)
        roots.append(start)
        start += len(nodes)
    baseline = float(np.ravel(model._baseline_prediction)[0])  # noqa: SLF001
    if not roots:
        empty = np.empty(0, dtype=np.int64)
        return Forest(empty, np.empty(0), empty, empty, empty, baseline)
    return Forest(
        np.concatenate(feature).astype(np.int64),
        np.concatenate(threshold).astype(np.float32).astype(np.float64),
        np.concatenate(left),
        np.concatenate(right),
        np.array(roots, dtype=np.int64),
        baseline,
    )


@njit(cache=True)
def _add_trees(  # pragma: no cover - compiled
    feature: Integers,
    threshold: Floats,
    left: Integers,
    right: Integers,
    roots: Integers,
    inputs: Floats,
    told: Floats,
) -> None:
    for row in range(inputs.shape[0]):
        total = 0.0
        for root in roots:
            node = root
            while feature[node] >= 0:
                node = left[node] if inputs[row, feature[node]] <= threshold[node] else right[node]
            total += threshold[node]
        told[row] += total
