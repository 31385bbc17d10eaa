"""The plan in force on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from skyscraper.control.units import SECONDS_PER_DAY
from skyscraper.view.draw import heat
from skyscraper.view.layout import facts_table, plain
from skyscraper.view.plans import Plans, PoolRow, StreamRow
from skyscraper.view.words import ABSENT, duration, number, percent, usd


def plans_table(plans: Plans, width: int) -> RenderableType:
    parts: list[RenderableType] = []
    if plans.pool is None:
        parts.append(Text("No pool plan is published: is the tuner running (`python -m skyscraper_tuner`)?", "yellow"))
    else:
        parts += _pool_parts(plans.pool)
    if plans.streams:
        parts += [Text("\nStreams", "bold"), _stream_table(plans.streams, width)]
        refused = [one for one in plans.streams if one.refused]
        parts += [Text(f"{one.stream} is refused: {one.refusal or 'no reason is given'}", "yellow") for one in refused]
        if len(plans.streams) == 1 and plans.streams[0].mix:
            parts += [Text("\nThe paper's plan: shares by content category", "bold"), _mix_table(plans.streams[0])]
    elif plans.pool is not None:
        parts.append(Text("\nNo stream has a plan."))
    parts += [Text(f"cannot be read: {one}", "red") for one in plans.damaged]
    return Group(*parts)


def _pool_parts(pool: PoolRow) -> list[RenderableType]:
    stale = ", STALE: its lease is over" if pool.stale else ""
    lease = f"good for {duration(pool.lease_seconds)}{stale}"
    facts = {
        "plan": f"version {pool.version}, {duration(pool.age_seconds)} old ({lease})",
        "pool": f"{pool.cores:g} cores",
        "limit": f"{duration(pool.limit_seconds)} of lag",
        "now": f"slot {pool.clock} (of {duration(pool.slot_seconds)}), content level {pool.level + 1} of {pool.levels}",
    }
    if pool.day_seconds != SECONDS_PER_DAY:
        facts["day"] = f"compressed to {duration(pool.day_seconds)}; times below are its share of 24 hours"
    if pool.usd_per_day > 0:
        facts["dollars"] = (
            f"{usd(pool.usd_per_day)} a day, {usd(pool.usd_planned)} planned by now; "
            f"μ = {number(pool.usd_price)} per dollar"
        )
    if pool.refused_streams:
        facts["refused"] = ", ".join(pool.refused_streams)
    return [
        Text("Pool", "bold"),
        facts_table(facts),
        Text("\nλ by hour of the day (UTC) and lag, quality per core-second", "bold"),
        _price_heat(pool),
    ]


def _price_heat(pool: PoolRow) -> Text:
    rows = [np.array(row) for row in pool.price_by_hour]
    # Two columns per hour are easier to read than one.
    lines = heat([np.repeat(row, 2) for row in rows])
    text = Text()
    margin = 12
    text.append(" " * margin + "".join(f"{hour:<6d}" for hour in range(0, 24, 3)) + "   least   most\n", "dim")
    now = int(int(pool.clock[:2]) * 2)
    for lag, row, line in zip(pool.lag_seconds, rows, lines, strict=True):
        text.append(f"{'lag ' + duration(lag):<{margin}}"[:margin], "dim")
        text.append(line[:now], "cyan")
        text.append(line[now : now + 2], "bold yellow")
        text.append(line[now + 2 :], "cyan")
        text.append(f"  {number(float(row.min())):>6} {number(float(row.max())):>6}\n")
    text.append(" " * (margin + now) + "▲ now", "bold yellow")
    return text


def _stream_table(rows: Sequence[StreamRow], width: int) -> Table:
    headings = ["stream", "policy", "cores", "share", "expected", "of dearest", "work ×", "drift", "admitted"]
    if width >= 100:
        headings += ["pipeline", "profile"]
    if width >= 130:
        headings.append("most used, by category")
    table = plain(*headings, left=("stream", "policy", "pipeline", "profile", "most used, by category"))
    for row in rows:
        cells = {
            "stream": row.stream,
            "policy": row.policy or ABSENT,
            "cores": f"{row.cores:.2f}",
            "share": percent(row.cores_share),
            "expected": number(row.expected_quality),
            "of dearest": percent(row.quality_share),
            "work ×": f"{row.work_scale:.2f}" if row.work_scale else ABSENT,
            "drift": ABSENT if row.drift_error <= 0 else f"{row.drift_error:.1f}×" + ("!" if row.drifted else ""),
            "admitted": "no" if row.refused else "yes",
            "pipeline": row.pipeline,
            "profile": row.profile_version,
            "most used, by category": " | ".join(one.configurations[0][0] for one in row.mix if one.configurations),
        }
        table.add_row(*(Text(cells[heading]) for heading in headings), style="yellow" if row.refused else "")
    return table


def _mix_table(row: StreamRow) -> Table:
    table = plain("category", "of the window", "configurations", left=("configurations",))
    for one in row.mix:
        table.add_row(
            str(one.category),
            percent(one.share),
            Text(", ".join(f"{name}: {share:.0%}" for name, share in one.configurations) or ABSENT),
        )
    return table
