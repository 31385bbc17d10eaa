"""The day as a picture: quality, configuration and backlog by the hour, static beside Skyscraper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skyscraper.demo.compare import DayRun, by_hour

# Half hours: finer ones hold too few segments of a compressed day.
_MOST_BINS = 48
_COLOURS = {"static": "#888888", "skyscraper": "#0b6e99"}


def draw_day(runs: Sequence[DayRun], title: str, path: Path) -> Path:
    """Write a PNG. Returns `path`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (quality, work, wait) = pyplot.subplots(3, 1, figsize=(10, 8.5), sharex=True)
    for run in runs:
        colour = _COLOURS.get(run.name, "#aa4400")
        streams = len({one.stream_id for one in run.moments})
        # Every part of the day holds a segment of every stream.
        bins = max(1, min(_MOST_BINS, len(run.moments) // max(1, streams)))
        hours, values = by_hour(run, [one.quality for one in run.moments], bins)
        quality.plot(hours, values, color=colour, label=f"{run.name}: mean {run.quality:.2f}")
        _, values = by_hour(run, [one.core_seconds for one in run.moments], bins)
        work.plot(hours, values, color=colour, label=f"{run.name}: {run.core_seconds:.0f} core-seconds")
        _, values = by_hour(run, [one.wait_seconds for one in run.moments], bins)
        wait.plot(hours, values, color=colour, label=f"{run.name}: longest {run.longest_wait_seconds:.0f} s")
    adaptive = runs[-1]
    points = work.twinx()
    names = sorted({one.configuration for one in adaptive.moments}, key=_mean_work(adaptive))
    rank = {name: index for index, name in enumerate(names)}
    points.scatter(
        [one.hour for one in adaptive.moments],
        [rank[one.configuration] for one in adaptive.moments],
        s=5,
        alpha=0.35,
        color="#d08000",
    )
    points.set_yticks(range(len(names)), [" ".join(value for _, value in name) for name in names], fontsize=7)
    points.set_ylabel(f"configurations of {adaptive.name} (dots)")
    quality.set(title=title, ylabel="quality per segment")
    work.set_ylabel("core-seconds per segment")
    wait.set(ylabel="wait in the buffer, s", xlabel="hour of the compressed day", xlim=(0, 24))
    wait.set_xticks(range(0, 25, 3))
    for axis in (quality, work, wait):
        axis.axvspan(0, 6.5, color="#20304a", alpha=0.07, lw=0)
        axis.axvspan(18.5, 24, color="#20304a", alpha=0.07, lw=0)
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _mean_work(run: DayRun):  # type: ignore[no-untyped-def]
    sums: dict[object, list[float]] = {}
    for one in run.moments:
        sums.setdefault(one.configuration, []).append(one.core_seconds)
    means = {name: sum(values) / len(values) for name, values in sums.items()}
    return means.__getitem__
