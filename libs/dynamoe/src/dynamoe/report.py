"""`dynamoe report run.jsonl`: expert load, capacity and recompilations over time, as one HTML page or a PNG."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import numpy as np

from dynamoe.errors import DynamoeError
from dynamoe.record import Run, read_run


def write_report(source: Path, target: Path) -> None:
    """`target` ends in .html or .png. Raises DynamoeError for any other ending or an unreadable run."""
    run = read_run(source)
    if target.suffix == ".png":
        target.write_bytes(figure(run))
    elif target.suffix == ".html":
        target.write_text(page(run, source.name), encoding="utf-8")
    else:
        raise DynamoeError(f"{target}: a report is written as .html or .png")


def figure(run: Run) -> bytes:
    """A PNG of three panels over the steps: load of each expert, capacity factors, dropped assignments."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DynamoeError("the report draws with matplotlib: install dynamoe[report]") from error
    steps = [line["step"] for line in run.steps]
    load = np.array([_loads(line) for line in run.steps])
    canvas = Figure(figsize=(10, 9), layout="constrained")
    above, middle, below = canvas.subplots(3, sharex=True, height_ratios=(3, 2, 1))
    image = above.imshow(
        load.T,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(steps[0], steps[-1] + 1, -0.5, load.shape[1] - 0.5),
    )
    canvas.colorbar(image, ax=above, label="rows / fair share")
    above.set(ylabel="expert", title="Load of each expert")
    alphas = [line["alpha"] for line in run.steps]
    middle.plot(steps, load.max(axis=1), label="needed by the busiest expert", color="0.6")
    if any(alphas):
        wide = [max(one) if one else float("nan") for one in alphas]
        middle.plot(steps, wide, label="largest capacity factor", color="C0")
        middle.plot(steps, [min(one) if one else float("nan") for one in alphas], label="smallest", color="C0", ls=":")
    middle.set(ylabel="capacity factor")
    below.plot(steps, [line["dropped"] for line in run.steps], color="C3")
    below.set(ylabel="dropped", xlabel="step")
    for event in run.events:
        for panel in (above, middle, below):
            panel.axvline(event["step"], color="C3" if event["error"] else "C1", lw=0.8)
    middle.plot([], [], color="C1", lw=0.8, label="recompilation")
    middle.legend(fontsize="small", loc="upper right")
    out = io.BytesIO()
    canvas.savefig(out, format="png", dpi=110)
    return out.getvalue()


def page(run: Run, name: str) -> str:
    """One self-contained page: the figure and the table of recompilations."""
    picture = base64.b64encode(figure(run)).decode("ascii")
    assignments = sum(line["rows"] * line["k"] for line in run.steps)
    dropped = sum(line["dropped"] for line in run.steps)
    rows = "".join(_row(event) for event in run.events)
    title = html.escape(name)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "img{max-width:100%}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}</style>"
        f"<h1>{title}</h1><p>{len(run.steps)} steps, {assignments} assignments, {dropped} dropped, "
        f"{len(run.events)} recompilations.</p>"
        f'<img alt="load, capacity and drops over the steps" src="data:image/png;base64,{picture}">'
        "<h2>Recompilations</h2><table><tr><th>step<th>reason<th>built in<th>swapped in</tr>"
        + rows
        + "</table></html>\n"
    )


def _loads(line: dict[str, Any]) -> list[float]:
    fair = max(1, sum(line["counts"])) / len(line["counts"])
    return [count / fair for count in line["counts"]]


def _row(event: dict[str, Any]) -> str:
    reason = html.escape(event["reason"] + (f" (failed: {event['error']})" if event["error"] else ""))
    return (
        f"<tr><td>{event['step']}<td>{reason}<td>{event['build_seconds'] * 1000:.1f} ms"
        f"<td>{event['swap_seconds'] * 1e6:.0f} us</tr>"
    )
