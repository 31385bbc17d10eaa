"""Traces: what every configuration would have yielded on every segment of a stream."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyscraper.simulate.errors import TraceError

Floats = NDArray[np.float64]

_REQUIRED = ("quality", "work_core_seconds", "segment_bytes", "segment_seconds", "features")


@dataclass(frozen=True)
class Trace:
    """One stream: T segments, K configurations (from cheapest), F features.

    quality [T,K] ≥ 0, any unit; work_core_seconds [T,K] > 0, CPU time of one segment; segment_bytes [T];
    features [T,F], known before a segment is processed; burst_usd [K] and burst_seconds [K] where configurations may
    run on burst machines (price and round trip of one segment), else None. labels [K] say what the configurations are;
    hours [T] are each segment's time of day, and operator_work [K,P] the mean core-seconds of each of `operators`,
    where a recording knows them.
    """

    name: str
    quality: Floats
    work_core_seconds: Floats
    segment_bytes: Floats
    segment_seconds: float
    features: Floats
    burst_usd: Floats | None = None
    burst_seconds: Floats | None = None
    labels: tuple[str, ...] = ()
    hours: Floats | None = None
    operators: tuple[str, ...] = ()
    operator_work: Floats | None = None

    @property
    def segments(self) -> int:
        return int(self.quality.shape[0])

    @property
    def configurations(self) -> int:
        return int(self.quality.shape[1])

    @property
    def segments_per_day(self) -> float:
        return 86_400 / self.segment_seconds

    def part(self, start: int, stop: int) -> Trace:
        """Segments start..stop as a trace of its own."""
        return replace(
            self,
            quality=self.quality[start:stop],
            work_core_seconds=self.work_core_seconds[start:stop],
            segment_bytes=self.segment_bytes[start:stop],
            features=self.features[start:stop],
            hours=None if self.hours is None else self.hours[start:stop],
        )


def make_trace(name: str, **arrays: Any) -> Trace:
    """A checked Trace from arrays as the `.npz` format names them. Raises TraceError."""
    missing = [key for key in _REQUIRED if key not in arrays]
    if missing:
        raise TraceError(f"{name}: {', '.join(missing)} missing; a trace needs {', '.join(_REQUIRED)}")
    quality = _array(name, "quality", arrays["quality"], "[T,K]", ndim=2)
    count, width = quality.shape
    if count < 2:
        raise TraceError(f"{name}: quality has {count} segments; at least 2 are needed")
    if width < 2:
        raise TraceError(f"{name}: quality has {width} configuration; with fewer than 2 there is nothing to choose")
    work = _array(name, "work_core_seconds", arrays["work_core_seconds"], "[K] or [T,K]")
    if work.shape not in ((width,), (count, width)):
        raise TraceError(f"{name}: work_core_seconds is {work.shape}; expected ({width},) or ({count}, {width})")
    if not (work > 0).all():
        raise TraceError(f"{name}: work_core_seconds holds {work.min():g}; every configuration takes some work")
    mean_work = work if work.ndim == 1 else work.mean(axis=0)
    if (np.diff(mean_work) < 0).any():
        index = int(np.argmax(np.diff(mean_work) < 0))
        raise TraceError(
            f"{name}: configuration {index + 1} is cheaper than {index} ({mean_work[index + 1]:g} < "
            f"{mean_work[index]:g} core-seconds); order them from the cheapest"
        )
    seconds = np.asarray(arrays["segment_seconds"], dtype=np.float64)
    if seconds.ndim != 0 or not np.isfinite(seconds) or seconds <= 0:
        raise TraceError(f"{name}: segment_seconds is {arrays['segment_seconds']!r}; expected one number above 0")
    features = _array(name, "features", arrays["features"], f"({count}, F)", ndim=2, signed=True)
    if len(features) != count:
        raise TraceError(f"{name}: features has {len(features)} rows; quality has {count} segments")
    return Trace(
        name,
        quality,
        np.broadcast_to(work, quality.shape),
        _sized(name, "segment_bytes", arrays["segment_bytes"], count),
        float(seconds),
        features,
        _sized(name, "burst_usd", arrays["burst_usd"], width) if arrays.get("burst_usd") is not None else None,
        _sized(name, "burst_seconds", arrays["burst_seconds"], width)
        if arrays.get("burst_seconds") is not None
        else None,
        labels=_labels(name, arrays.get("labels"), width),
        **_operators(name, arrays, width),
        hours=_sized(name, "hours", arrays["hours"], count) if arrays.get("hours") is not None else None,
    )


def load_trace(path: Path) -> Trace:
    """Read a `.npz` trace. Raises TraceError."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except FileNotFoundError as error:
        raise TraceError(f"{path}: no such file") from error
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise TraceError(f"{path}: not a readable .npz file ({error})") from error
    return make_trace(str(path), **arrays)


def save_trace(path: Path, trace: Trace) -> None:
    """Write `trace` as `.npz`; work that is the same for all segments is stored once."""
    work = trace.work_core_seconds
    arrays: dict[str, Any] = {
        "quality": trace.quality.astype(np.float32),
        "work_core_seconds": work[0] if (work == work[0]).all() else work,
        "segment_bytes": trace.segment_bytes,
        "segment_seconds": np.float64(trace.segment_seconds),
        "features": trace.features.astype(np.float32),
    }
    if trace.burst_usd is not None:
        arrays["burst_usd"] = trace.burst_usd
    if trace.burst_seconds is not None:
        arrays["burst_seconds"] = trace.burst_seconds
    if trace.labels:
        arrays["labels"] = np.array(trace.labels)
    if trace.hours is not None:
        arrays["hours"] = trace.hours
    if trace.operator_work is not None:
        arrays |= {"operators": np.array(trace.operators), "operator_work": trace.operator_work}
    np.savez_compressed(path, **arrays)


def _array(name: str, key: str, value: Any, shape: str, *, ndim: int | None = None, signed: bool = False) -> Floats:
    try:
        array: Floats = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TraceError(f"{name}: {key} is not numeric") from error
    if ndim is not None and array.ndim != ndim:
        raise TraceError(f"{name}: {key} has {array.ndim} dimensions; expected {shape}")
    if not np.isfinite(array).all():
        where = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise TraceError(f"{name}: {key}{list(where)} is {array[where]}; every value must be a finite number")
    if not signed and array.size and array.min() < 0:
        where = tuple(int(index) for index in np.argwhere(array < 0)[0])
        raise TraceError(f"{name}: {key}{list(where)} is {array[where]:g}; negative values have no meaning here")
    return array


def _sized(name: str, key: str, value: Any, length: int) -> Floats:
    array = _array(name, key, value, f"({length},)")
    if array.shape != (length,):
        raise TraceError(f"{name}: {key} is {array.shape}; expected ({length},)")
    return array


def _operators(name: str, arrays: dict[str, Any], width: int) -> dict[str, Any]:
    if arrays.get("operator_work") is None:
        return {}
    operators = tuple(str(operator) for operator in np.asarray(arrays.get("operators", ())).ravel())
    work = _array(name, "operator_work", arrays["operator_work"], "(K, operators)", ndim=2)
    if work.shape != (width, len(operators)):
        raise TraceError(f"{name}: operator_work is {work.shape}; expected ({width}, {len(operators)})")
    return {"operators": operators, "operator_work": work}


def _labels(name: str, value: Any, width: int) -> tuple[str, ...]:
    if value is None:
        return ()
    labels = tuple(str(label) for label in np.asarray(value).ravel())
    if len(labels) != width:
        raise TraceError(f"{name}: {len(labels)} labels for {width} configurations")
    return labels
