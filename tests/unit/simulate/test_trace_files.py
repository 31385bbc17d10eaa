"""What a trace file must hold, and what is said where it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skyscraper.simulate.errors import TraceError
from skyscraper.simulate.trace import load_trace, make_trace, save_trace

from .streams import arrays, street


def test_a_saved_trace_is_read_back_the_same(tmp_path: Path) -> None:
    trace = street(days=0.1)
    save_trace(tmp_path / "a.npz", trace)
    read = load_trace(tmp_path / "a.npz")
    np.testing.assert_allclose(read.quality, trace.quality, rtol=1e-6)
    np.testing.assert_array_equal(read.work_core_seconds, trace.work_core_seconds)
    assert read.burst_usd is not None


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("quality", np.full((10, 3), np.nan), r"quality\[0, 0\] is nan"),
        ("quality", -np.ones((10, 3)), "negative values have no meaning"),
        ("quality", np.ones((10, 1)), "nothing to choose"),
        ("quality", np.ones(10), r"expected \[T,K\]"),
        ("quality", np.ones((1, 3)), "at least 2"),
        ("work_core_seconds", np.ones(4), r"expected \(3,\) or \(10, 3\)"),
        ("work_core_seconds", np.zeros(3), "takes some work"),
        ("work_core_seconds", np.array([3.0, 2.0, 1.0]), "order them from the cheapest"),
        ("segment_bytes", np.ones(9), r"expected \(10,\)"),
        ("segment_seconds", 0.0, "above 0"),
        ("features", np.ones((9, 2)), "features has 9 rows"),
        ("burst_usd", np.ones(2), "burst_usd"),
        ("segment_bytes", ["a"] * 10, "not numeric"),
    ],
)
def test_a_wrong_array_is_named_with_what_is_expected(key: str, value: object, words: str) -> None:
    good = {
        "quality": np.ones((10, 3)),
        "work_core_seconds": np.array([1.0, 2.0, 3.0]),
        "segment_bytes": np.ones(10),
        "segment_seconds": 2.0,
        "features": np.ones((10, 2)),
    }
    with pytest.raises(TraceError, match=words):
        make_trace("t", **(good | {key: value}))


def test_a_missing_array_is_named() -> None:
    values = arrays(days=0.1)
    del values["features"]
    with pytest.raises(TraceError, match="features missing"):
        make_trace("t", **values)


def test_a_file_that_is_no_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"not a zip")
    with pytest.raises(TraceError, match="not a readable"):
        load_trace(tmp_path / "x.npz")
    with pytest.raises(TraceError, match="no such file"):
        load_trace(tmp_path / "y.npz")
