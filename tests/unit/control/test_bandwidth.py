"""The link: never more bytes than it carries, and the best bid first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from skyscraper.control.bandwidth import Link, TokenBucket

UNLIMITED = float("inf")


def link(up: float = 1_000.0, burst: float = 0.0) -> Link:
    return Link(TokenBucket(up, burst), TokenBucket(UNLIMITED, 0.0))


@given(
    sizes=st.lists(st.floats(1, 1e5), min_size=1, max_size=40),
    rate=st.floats(10, 1e6),
    burst=st.floats(0, 1e5),
)
def test_never_more_bytes_than_rate_and_burst_allow(sizes: list[float], rate: float, burst: float) -> None:
    one = link(rate, burst)
    for size in sizes:
        one.join(bid_per_byte=0.0, up_bytes=size, down_bytes=0.0)
    now, sent, number = 0.0, 0.0, 0
    while number < len(sizes):
        for _ in one.granted(now):
            # All that was granted before the last one has been carried by now.
            assert sent <= rate * now + burst + 1e-6 * rate + 1
            sent += sizes[number]
            number += 1
        now += max(one.next_seconds(now), 1e-9)


def test_the_best_bid_goes_first_and_of_equal_bids_who_came_first() -> None:
    one = link()
    one.granted(0.0)
    numbers = [one.join(bid_per_byte=bid, up_bytes=1_000, down_bytes=0) for bid in (1.0, 3.0, 2.0, 3.0)]
    order = []
    for second in range(5):
        order += one.granted(float(second))
    assert order == [numbers[1], numbers[3], numbers[2], numbers[0]]


def test_who_left_takes_no_bytes() -> None:
    one = link()
    first = one.join(bid_per_byte=1.0, up_bytes=1e9, down_bytes=0)
    second = one.join(bid_per_byte=0.0, up_bytes=1, down_bytes=0)
    one.leave(first)
    assert one.granted(0.0) == [second]
    assert one.wait_seconds(0.0) < 1


def test_an_occupied_downlink_holds_requests_back() -> None:
    one = Link(TokenBucket(UNLIMITED, 0.0), TokenBucket(100.0, 0.0))
    first = one.join(bid_per_byte=0.0, up_bytes=1, down_bytes=100)
    second = one.join(bid_per_byte=0.0, up_bytes=1, down_bytes=0)
    assert one.granted(0.0) == [first]
    one.received(100, 0.5)
    assert one.granted(1.9) == []
    assert one.granted(2.01) == [second]


def test_without_a_limit_nobody_waits() -> None:
    one = link(UNLIMITED)
    numbers = [one.join(bid_per_byte=0.0, up_bytes=1e9, down_bytes=0) for _ in range(10)]
    assert one.granted(0.0) == numbers
    assert one.wait_seconds(0.0) == 0.0
