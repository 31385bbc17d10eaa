"""Pictures of a profile."""

from __future__ import annotations

from pathlib import Path

from skyscraper.profile.fit import Fit


def draw(fit: Fit, folder: Path) -> None:
    """`pareto.png`: work and quality of the configurations; `categories.png`: what they yield in each category."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    names = [" ".join(knobs.values()) for knobs in fit.configurations]
    figure, axis = pyplot.subplots(figsize=(8, 5))
    axis.plot(fit.work.rate, fit.mean_quality, marker="o")
    for x, y, name in zip(fit.work.rate, fit.mean_quality, names, strict=True):
        axis.annotate(name, (x, y), xytext=(4, -10), textcoords="offset points", fontsize=7)
    axis.set(xscale="log", xlabel="cores (core-seconds per second of video)", ylabel="mean quality of a segment")
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
