"""What burst machines offer a segment now, put together from the gateway's terms, the plan and what was learned."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skyscraper.control.priced import usd_price_now
from skyscraper.pipeline import Configuration, Pipeline
from skyscraper.rpc.burst_client import BurstClient, BurstTerms

from skyscraper_decoder import metrics
from skyscraper_decoder.away import Away, AwayBelief, Offer, call_seconds, offer, send
from skyscraper_decoder.config import BurstClientConfig
from skyscraper_decoder.plans import PoolView

Floats = NDArray[np.float64]

# A pool without machines is asked for them so often, whoever would use them.
_WANT_SECONDS = 1.0


@dataclass(frozen=True)
class Offered:
    """An offer, whether it can be taken now, and the longest that the segment may be away."""

    offer: Offer
    ready: bool
    most_seconds: float


class Bursting:
    """One for the process. Any thread."""

    def __init__(
        self, config: BurstClientConfig, client: BurstClient, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._wanted: dict[str, float] = {}

    def offered(
        self,
        tenant: str,
        away: AwayBelief,
        view: PoolView | None,
        *,
        work: Floats,
        segment_seconds: float,
        slack_core_seconds: float,
        cores: float,
        event_seconds: float,
    ) -> Offered | None:
        """None without a plan that has dollars in it, and while no gateway answers. work [K] core-seconds."""
        terms = self._client.terms(tenant)
        if terms is None or view is None or view.prices.usd_per_day <= 0:
            return None
        away.fade(self._config.round_trip_seconds)
        usd_price = price_of_a_dollar(terms, view, event_seconds)
        metrics.USD_PRICE.set(usd_price)
        # Until then the cheapest can still be done here, should nothing come back.
        most_seconds = min(self._config.most_seconds, (slack_core_seconds - float(work[0])) / cores)
        found = offer(
            away,
            terms,
            work,
            longest_seconds=min(self._config.longest_segments * segment_seconds, most_seconds),
            round_trip_seconds=self._config.round_trip_seconds,
            usd_price=usd_price,
        )
        return None if found is None else Offered(found, terms.ready, most_seconds)

    def want(self, tenant: str, core_seconds: float) -> None:
        """Burst machines would be taken, and there are none: told to the gateway, which has them started."""
        now = self._clock()
        with self._lock:
            if now - self._wanted.get(tenant, float("-inf")) < _WANT_SECONDS:
                return
            self._wanted[tenant] = now
        self._client.want(tenant, core_seconds)

    def send(
        self,
        segment: bytes,
        pipeline: Pipeline,
        configuration: Configuration,
        *,
        expected_frames: int | None,
        tenant: str,
        core_seconds: float,
        expected_seconds: float,
        most_seconds: float,
        advantage: float,
    ) -> Away:
        """Raises BurstFailed, and BadSegment as the pipeline here would."""
        return send(
            self._client,
            segment,
            pipeline,
            configuration,
            expected_frames=expected_frames,
            tenant=tenant,
            core_seconds=core_seconds,
            advantage=advantage,
            deadline_seconds=call_seconds(expected_seconds, most_seconds),
        )


def price_of_a_dollar(terms: BurstTerms, view: PoolView, event_seconds: float) -> float:
    """μ: the plan's, corrected by what was spent where the budget's day is the plan's. A rolling window's spending has
    no hour by which it is due; there the budget itself is the bound."""
    price = view.prices.price
    if not terms.calendar_day or terms.budget_usd <= 0:
        return price.usd_price
    day_seconds = view.prices.day_seconds
    due = float(np.interp(event_seconds % day_seconds / day_seconds, *_curve(price.usd_curve)))
    return usd_price_now(price.usd_price, spent_share=1.0 - terms.left_usd / terms.budget_usd, due_share=due)


def _curve(shares: Floats) -> tuple[Floats, Floats]:
    return np.linspace(0.0, 1.0, len(shares)), shares
