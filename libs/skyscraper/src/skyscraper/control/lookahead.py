"""Looking into the backlog: prices from the content that waits, and what may come after it.

Segments in the buffer are known before they are processed: hours of them when the pool lags far behind. A dynamic
program goes back from the newest of them, where the plan's table says what a lag is worth at that time of day and
level of content, to the one that is next.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from skyscraper.control.prices import best_prices

Floats = NDArray[np.float64]


class Table(NamedTuple):
    """A PricePlan for compiled code (same names, same shapes)."""

    grid: Floats
    lags: Floats
    price: Floats
    after: Floats
    edges: Floats


@njit(cache=True)
def foresee(  # pragma: no cover - compiled
    table: Table, value: Floats, drift: Floats, start: int, stop: int, need: float, price: Floats
) -> None:
    """The price of work by lag, from known slots start..stop (counted from a midnight) on. Writes price [L].

    value, drift [D,P]: of every slot, what prices would yield, and by how many seconds they would change the lag; need:
    of the newest content.
    """
    slots = table.price.shape[0]
    level = np.searchsorted(table.edges, need)
    if stop <= start:
        price[:] = table.price[start % slots, level]
        return
    after = table.after[(stop - 1) % slots, level].copy()
    worth = np.empty_like(after)
    for slot in range(stop - 1, start - 1, -1):
        best_prices(table.grid, value[slot], drift[slot], after, table.lags, price, worth)
        after[:] = worth - worth[0]
