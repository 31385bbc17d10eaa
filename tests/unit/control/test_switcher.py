"""The paper's switcher, case by case."""

from __future__ import annotations

import numpy as np
from skyscraper.control.switcher import category, fall_back, pick

CENTRES = np.array([[0.9, 1.0], [0.2, 0.8]])
WORK, USD, VALUE = np.array([1.0, 5.0, 0.0]), np.array([0.0, 0.0, 0.1]), np.array([0.2, 0.8, 0.8])


def test_the_category_is_the_one_whose_centre_is_nearest_to_the_report() -> None:
    assert category(CENTRES, 0.85, 0) == 0
    assert category(CENTRES, 0.3, 0) == 1


def test_the_option_furthest_behind_its_plan_is_picked() -> None:
    alpha = np.array([0.5, 0.5, 0.0])
    assert pick(alpha, np.array([3.0, 1.0, 0.0])) == 1
    assert pick(alpha, np.zeros(3)) == 0


def test_over_many_segments_the_shares_become_the_plan() -> None:
    alpha, used = np.array([0.3, 0.6, 0.1]), np.zeros(3)
    for _ in range(1000):
        used[pick(alpha, used)] += 1
    np.testing.assert_allclose(used / 1000, alpha, atol=0.01)


def test_what_does_not_fit_falls_back_and_at_last_to_the_cheapest() -> None:
    assert fall_back(1, WORK, USD, VALUE, 10.0, 0.0) == 1
    assert fall_back(1, WORK, USD, VALUE, 2.0, 1.0) == 2
    assert fall_back(1, WORK, USD, VALUE, 2.0, 0.0) == 0
    assert fall_back(1, WORK, USD, VALUE, -1.0, 0.0) == 0
