"""Pictures of a profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skyscraper.profile.fit import Fit

# Round numbers for a logarithmic axis of cores.
_TICKS = [digit * 10.0**power for power in range(-3, 3) for digit in (1, 2, 5)]


def draw(fit: Fit, folder: Path) -> None:
    """`pareto.png`: work and quality of the configurations; `categories.png`: what they yield in each category."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    folder.mkdir(parents=True, exist_ok=True)
    names = [" ".join(knobs.values()) for knobs in fit.configurations]
    figure, axis = pyplot.subplots(figsize=(8, 5))
    axis.scatter(fit.work.rate, fit.mean_quality)
    on_average = np.maximum.accumulate(fit.mean_quality)
    axis.step(fit.work.rate, on_average, where="post", alpha=0.5, label="best for so many cores, on average")
    for x, y, name in zip(fit.work.rate, fit.mean_quality, names, strict=True):
        axis.annotate(name, (x, y), xytext=(4, -10), textcoords="offset points", fontsize=7)
    axis.set(xscale="log", xlabel="cores (core-seconds per second of video)", ylabel="mean quality of a segment")
    axis.set_xlim(fit.work.rate[0] / 1.15, fit.work.rate[-1] * 1.6)
    axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    axis.set_xticks([x for x in _TICKS if fit.work.rate[0] / 1.15 <= x <= fit.work.rate[-1] * 1.6])
    axis.legend(loc="lower right")
    axis.set_title("Configurations: " + ", ".join(fit.configurations[0]))
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / "pareto.png", dpi=120)
    pyplot.close(figure)
    figure, axis = pyplot.subplots(figsize=(8, 5))
    for index, centre in enumerate(fit.categories.centres):
        axis.plot(
            range(len(centre)), centre, marker="o", label=f"{index}: {fit.categories.share[index]:.0%} of segments"
        )
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=7)
    axis.set(ylabel="mean quality of a segment", title="Content categories")
    axis.legend()
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(folder / "categories.png", dpi=120)
    pyplot.close(figure)
