"""The fleet on a terminal: a table that fits its width."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from skyscraper.view.layout import GAP
from skyscraper.view.top import Attention, Row, Top, head_line
from skyscraper.view.words import ABSENT, duration, number, percent

_STYLES = {
    Attention.LOST: "bold red",
    Attention.FLOOR: "bold red",
    Attention.STALLED: "bold red",
    Attention.HEADROOM: "red",
    Attention.DEAD_LETTERS: "yellow",
    Attention.REFUSED: "yellow",
    Attention.DRIFT: "yellow",
    Attention.GUARDED: "yellow",
    Attention.BELOW_TARGET: "yellow",
    Attention.SILENT: "yellow",
    Attention.WAITING: "dim",
    Attention.OK: "green",
    Attention.PAUSED: "dim",
}


@dataclass(frozen=True)
class Column:
    """`rank`: the smaller, the narrower a terminal it is still shown on."""

    heading: str
    rank: int
    cell: Callable[[Row], str]
    right: bool = True


def _quality(row: Row) -> str:
    """Where no profile says what 100 % is, the pipeline's own number."""
    known = row.quality_now is not None or row.quality_hour is not None
    return percent(row.quality_now) if known else number(row.quality_raw)


def _category(row: Row) -> str:
    return ABSENT if row.category is None else str(row.category)


def _backlog(row: Row) -> str:
    return duration(row.backlog_seconds) if row.backlog_segments else "0"


def _drift(row: Row) -> str:
    return ABSENT if row.drift_error is None else f"{row.drift_error:.1f}×"


def _work(row: Row) -> str:
    return f"{row.cores:.2f}" if row.work_share is None else percent(row.work_share)


COLUMNS = (
    Column("stream", 0, lambda row: row.stream, right=False),
    Column("state", 0, lambda row: row.state, right=False),
    Column("pipeline", 7, lambda row: row.pipeline or ABSENT, right=False),
    Column("cat", 8, _category),
    Column("configuration", 3, lambda row: row.configuration, right=False),
    Column("rule", 2, lambda row: row.rule or ABSENT, right=False),
    Column("quality", 0, _quality),
    Column("1 h", 4, lambda row: percent(row.quality_hour)),
    Column("plan", 4, lambda row: percent(row.quality_target)),
    Column("lag", 0, lambda row: duration(row.lag_seconds)),
    Column("backlog", 5, _backlog),
    Column("headroom", 1, lambda row: duration(row.headroom_seconds)),
    Column("work", 2, _work),
    Column("drift", 6, _drift),
)


def choose(rows: Sequence[Row], width: int) -> list[Column]:
    """The columns that fit, by rank; those of rank 0 always."""
    widths = {column: max([len(column.heading), *(len(column.cell(row)) for row in rows)]) for column in COLUMNS}
    chosen: list[Column] = []
    left = width + GAP
    for column in sorted(COLUMNS, key=lambda one: one.rank):
        if column.rank == 0 or widths[column] + GAP <= left:
            chosen.append(column)
            left -= widths[column] + GAP
    return [column for column in COLUMNS if column in chosen]


def fitting_rows(top: Top, width: int, height: int, caveats: Sequence[str] = ()) -> int:
    """How many rows a terminal of that size holds below the header and beside the other lines."""
    header = math.ceil(len(_head(top, caveats)) / max(1, width))
    # Headings, the line that counts the rest, and the cursor's.
    return max(1, height - header - 3)


def top_table(top: Top, width: int, *, most_rows: int | None = None, caveats: Sequence[str] = ()) -> RenderableType:
    """Header and table; `most_rows`: the others are only counted."""
    style = "bold yellow" if caveats or top.head.plan_stale else "bold"
    head = Text(_head(top, caveats), style)
    if not top.rows:
        told = "No stream is registered and nothing was reported in the last hour: see `skyscraper publish --help`."
        return Group(head, Text(told))
    shown = top.rows if most_rows is None else top.rows[: max(1, most_rows)]
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim")
    columns = choose(shown, width)
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in shown:
        table.add_row(
            *(Text(column.cell(row), _STYLES[row.attention] if column.heading == "state" else "") for column in columns)
        )
    parts: list[RenderableType] = [head, table]
    hidden = len(top.rows) - len(shown)
    if hidden:
        parts.append(Text(f"… and {hidden:,} more that need less attention", "dim"))
    return Group(*parts)


def _head(top: Top, caveats: Sequence[str]) -> str:
    return " · ".join([head_line(top.head), *caveats])
