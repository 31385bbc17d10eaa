"""An explanation on a terminal."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from skyscraper.view.draw import curve
from skyscraper.view.explain import Explanation, Prices, guard_words, price_words
from skyscraper.view.layout import facts_table, plain
from skyscraper.view.words import counted, duration, number, percent

_CHOICES_NOTE = (
    "→ chosen, * the most of what the guard allows; quality as predicted, share of the dearest's mean; value as "
    "prices see it"
)


def explanation(told: Explanation, width: int) -> RenderableType:
    parts: list[RenderableType] = [Text(told.stream, "bold")]
    parts += [Text(sentence) for sentence in told.summary]
    parts += [Text(), facts_table(told.facts)]
    if told.choices:
        parts += [Text("\nConfigurations as the decoder saw them for its newest segment", "bold"), _choices(told)]
        parts.append(
            Text("quality is predicted; value is normalised: the dearest's mean times the stream's weight", "dim")
        )
    if told.prices is not None:
        parts += [Text("\nPrice of work", "bold"), Text(price_words(told.prices)), price_curve(told.prices, width)]
        if told.prices.usd_price > 0:
            parts.append(Text(f"μ = {number(told.prices.usd_price)} per dollar."))
    if told.guard is not None and told.choices:
        parts += [Text("\nGuard", "bold"), Text(guard_words(told.guard))]
    if told.last:
        parts += [Text(f"\nLast {counted(len(told.last), 'decision')}, the newest first", "bold"), _last(told, width)]
    return Group(*parts)


def _choices(told: Explanation) -> Table:
    table = plain(
        "", "configuration", "quality", "share", "work core-s", "value", "− λ·work", "guard", left=("configuration",)
    )
    best = max((one.score for one in told.choices if one.allowed), default=0.0)
    for one in told.choices:
        style = "bold green" if one.chosen else "" if one.allowed else "dim"
        table.add_row(
            Text(f"→ {one.index}" if one.chosen else str(one.index)),
            Text(one.configuration),
            number(one.predicted_quality),
            percent(one.quality_share),
            number(one.core_seconds),
            f"{one.value:.3f}",
            f"{one.score:.3f}" + ("*" if one.allowed and one.score == best else " "),
            "yes" if one.allowed else "no",
            style=style,
        )
    return table


def price_curve(prices: Prices, width: int) -> Text:
    """λ over the lag, five lines high, with the lag of now marked below."""
    points = np.array(prices.over_lag)
    margin = 9
    count = max(10, min(len(points), width - margin - 1))
    values = np.interp(np.linspace(0, len(points) - 1, count), np.arange(len(points)), points)
    top = float(values.max(initial=0.0))
    lines = curve(values, 5)
    text = Text(style="cyan")
    for number_of_line, line in enumerate(lines):
        label = number(top) if number_of_line == 0 else "0" if number_of_line == len(lines) - 1 else ""
        text.append(f"{label:>{margin - 2}} ┤{line}\n")
    # Beyond the limit the price stays what it is there.
    at = round(min(1.0, prices.lag_seconds / prices.limit_seconds) * (count - 1)) if prices.limit_seconds > 0 else 0
    text.append(" " * margin + " " * at + "▲ now\n", "bold")
    end = f"{duration(prices.limit_seconds)} (limit)"
    text.append(" " * margin + "lag 0" + end.rjust(max(len(end) + 1, count - 5)), "dim")
    return text


def _last(told: Explanation, width: int) -> Table:
    left = ("segment", "rule", "configuration")
    headings = ["age", "segment", "rule", "configuration", "predicted", "quality", "λ", "lag", "slack", "work"]
    # On a narrow terminal the epoch of the publisher, a long number, says least.
    if width < 110:
        headings.remove("segment")
    table = plain(*headings, left=left)
    for one in told.last:
        cells = {
            "age": duration(one.age_seconds),
            "segment": one.segment,
            "rule": one.rule,
            "configuration": one.configuration,
            "predicted": number(one.predicted),
            "quality": number(one.quality),
            "λ": number(one.work_price),
            "lag": duration(one.lag_seconds),
            "slack": number(one.slack_core_seconds),
            "work": number(one.core_seconds),
        }
        table.add_row(*(Text(cells[heading]) for heading in headings))
    return table
