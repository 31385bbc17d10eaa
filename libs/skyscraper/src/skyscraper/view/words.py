"""Numbers, settings and rules in the shortest words that still say their unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from skyscraper.v1 import plan_pb2, report_pb2

RULES = {
    report_pb2.RULE_UNSPECIFIED: "",
    report_pb2.RULE_FIXED: "fixed",
    report_pb2.RULE_PRICED: "priced",
    report_pb2.RULE_PLANNED: "planned",
    report_pb2.RULE_GUARDED: "guarded",
    report_pb2.RULE_FLOOR: "floor",
}
POLICIES = {
    plan_pb2.POLICY_UNSPECIFIED: "",
    plan_pb2.POLICY_FIXED: "fixed",
    plan_pb2.POLICY_SKYSCRAPER: "skyscraper",
    plan_pb2.POLICY_PRICED: "priced",
}
ABSENT = "–"


def duration(seconds: float | None) -> str:
    """`0.4 s`, `12 s`, `3.4 min`, `5.6 h`, `3.2 d`."""
    if seconds is None:
        return ABSENT
    if math.isinf(seconds):
        return "∞"
    for unit, length, upto in (("s", 1.0, 120.0), ("min", 60.0, 7_200.0), ("h", 3_600.0, 172_800.0)):
        if abs(seconds) < upto:
            value = seconds / length
            return f"{value:.1f} {unit}" if abs(value) < 9.95 else f"{value:.0f} {unit}"
    return f"{seconds / 86_400.0:.1f} d"


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return ABSENT
    if value == 0:
        return "0"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """Whole percents, but for small shares."""
    if share is None:
        return ABSENT
    return f"{share:.1%}" if 0 < abs(share) < 0.0995 else f"{share:.0%}"


def usd(dollars: float) -> str:
    return f"${dollars:.2f}"


def knobs(configuration: Mapping[str, str], shown: Sequence[str] | None = None) -> str:
    """Values without names: `nanodet-g/5/320`. `shown`: only these knobs, in this order."""
    names = sorted(configuration) if shown is None else [name for name in shown if name in configuration]
    return "/".join(configuration[name] for name in names) or ABSENT


def counted(count: int, noun: str) -> str:
    """`1 segment`, `2 segments`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
