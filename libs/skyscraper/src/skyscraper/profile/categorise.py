"""Content categories: clusters of quality vectors (paper section 3.2), how many, and how to tell them apart cheaply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.plan import StreamForecast, plan

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# The paper takes 3 to 5; its supplement I.1 finds little difference above 3.
COUNTS = (3, 4, 5, 6, 8)
_ROWS = 20_000
_SILHOUETTE_ROWS = 2_000
# Plans whose value is within this of the best are equal; fewer categories are then told apart more surely.
_EQUAL = 0.005
# Where one configuration tells categories apart this much worse than the best does, a dearer one is used.
_AGREEMENT = 0.05
# Pools, as shares of the work between cheapest and dearest, at which plans are compared.
_POOLS = (0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Categories:
    """centres [C,K] mean qualities, ordered by that of the dearest configuration; share [C] of the training segments;
    silhouette, -1 to 1, of the clustering."""

    centres: Floats
    share: Floats
    silhouette: float

    @property
    def count(self) -> int:
        return len(self.share)


def categorise(quality: Floats, count: int, *, seed: int) -> Categories:
    """KMeans on quality vectors [T,K]. Fewer categories where fewer vectors differ. Reproducible from the seed."""
    # Seconds to import, and services that only read profiles have no use for it.
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
    from threadpoolctl import threadpool_limits

    rows = quality[:: max(1, len(quality) // _ROWS)]
    count = min(count, len(np.unique(rows, axis=0)))
    with threadpool_limits(1):
        model = KMeans(count, n_init=4, random_state=seed).fit(rows)
    order = np.argsort(model.cluster_centers_[:, -1], kind="stable")
    labels = np.argsort(order)[model.labels_]
    few = slice(None, None, max(1, len(rows) // _SILHOUETTE_ROWS))
    some = labels[few]
    apart = float(silhouette_score(rows[few], some)) if 1 < len(np.unique(some)) < len(some) else 0.0
    return Categories(
        np.asarray(model.cluster_centers_[order], dtype=np.float64),
        np.bincount(labels, minlength=count) / len(labels),
        apart,
    )


def choose_categories(quality: Floats, work: Floats, *, seed: int, counts: Sequence[int] = COUNTS) -> Categories:
    """The number of categories by what the planner makes of them, and by their silhouette where that is equal.

    quality [T,K], work [K]. Plans are made from the first half and judged on the second.
    """
    half = len(quality) // 2
    found = [categorise(quality[:half], count, seed=seed) for count in counts]
    values = np.array([_plan_value(one, quality[half:], work) for one in found])
    good = [index for index, value in enumerate(values) if value >= values.max() * (1 - _EQUAL)]
    best = max(good, key=lambda index: found[index].silhouette)
    return categorise(quality, counts[best], seed=seed)


def classify(centres: Floats, quality: Floats, configuration: int) -> Integers:
    """[T] category of segments by the quality [T] of one configuration (equation 5)."""
    return np.asarray(np.abs(quality[:, None] - centres[None, :, configuration]).argmin(axis=1), dtype=np.int64)


def nearest(centres: Floats, quality: Floats) -> Integers:
    """[T] category of segments by their whole quality vectors [T,K]."""
    distance = ((quality[:, None, :] - centres[None]) ** 2).sum(axis=2)
    return np.asarray(distance.argmin(axis=1), dtype=np.int64)


def discriminating(categories: Categories, quality: Floats) -> int:
    """The cheapest configuration whose quality alone tells the categories apart about as well as any one does.

    The paper takes the cheapest of all, of which some pipelines see nothing.
    """
    truth = nearest(categories.centres, quality)
    agreement = [
        float((classify(categories.centres, quality[:, k], k) == truth).mean()) for k in range(quality.shape[1])
    ]
    return next(k for k, value in enumerate(agreement) if value >= max(agreement) - _AGREEMENT)


def _plan_value(categories: Categories, quality: Floats, work: Floats) -> float:
    labels = nearest(categories.centres, quality)
    count = categories.count
    truth = np.stack(
        [quality[labels == c].mean(axis=0) if (labels == c).any() else quality[0] * 0 for c in range(count)]
    )
    share = np.bincount(labels, minlength=count) / len(labels)
    total = 0.0
    for part in _POOLS:
        forecast = StreamForecast(categories.centres, categories.share, work, np.zeros_like(work))
        made = plan([forecast], work_core_seconds=float(work[0] + part * (work[-1] - work[0])), usd=0.0)
        total += float((made.alpha[0] * truth * share[:, None]).sum())
    return total
