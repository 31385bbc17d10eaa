"""The crops pipeline from compressed segments to rows, both of its models behind the real server."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from skyscraper.media.decode import decode_segment
from skyscraper.media.segments import read_segments
from skyscraper.media.sources import parse_source
from skyscraper.models.repository import install_models
from skyscraper.pipeline import SegmentContext, configure, load_pipeline
from skyscraper.rpc.model_client import OipModelClient, open_channel

torch = pytest.importorskip("torch")
from dynamoe.classifier import ImageClassifier  # noqa: E402 - only where torch is
from skyscraper_pipelines.crops import train  # noqa: E402
from skyscraper_pipelines.crops.cutting import CLASSES  # noqa: E402

STREET = "street:people?seed=1&density=6&seconds=6&fps=5"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The detector, and a classifier that was not trained, but takes nearly everything for a person by day."""
    torch.manual_seed(0)
    classifier = ImageClassifier(train.SHAPE)
    with torch.no_grad():
        classifier.get_parameter("head.1.bias")[CLASSES.index("person/day")] = 4.0
    train.lay_out(classifier, tmp_path)
    (tmp_path / "nanodet-g").symlink_to(install_models(["nanodet-g"]) / "nanodet-g")
    return tmp_path


@pytest.mark.models
def test_segments_become_rows_and_knobs_reach_the_experts(new_server: Callable[..., Any], models: Path) -> None:
    server = new_server(folder=models, models=[]).start()
    client = OipModelClient(open_channel(server.target), max_rows=8, call_seconds=20, retry_seconds=20)
    pipeline = load_pipeline("crops")
    configuration = configure(pipeline.knobs, {"frame_rate": "5", "experts": "2", "top_k": "1"})
    state: bytes | None = None
    tracks: list[set[object]] = []
    for number, segment in enumerate(read_segments(parse_source(STREET), 2.0)):
        frames = decode_segment(segment.value, pipeline.sampling(configuration), expected_frames=segment.frames)
        context = SegmentContext("gate-1", f"gate-1/0/{number}", START + timedelta(seconds=2 * number), 2.0)
        detections = pipeline.detect(frames, configuration, client)
        result = pipeline.track(state, context, frames, detections, configuration)
        state = result.state
        assert result.quality > 0
        for index, row in enumerate(result.rows):
            assert (row["label"], row["light"]) == ("person", "day")
            assert pipeline.row_schema.encode(row, stream_id="gate-1", segment=context.segment_id, index=index)
        tracks.append({row["track_id"] for row in result.rows})
    assert len(tracks) == 3
    assert tracks[0] & tracks[1], "nobody was followed from one segment into the next"
    assert client.take_work_core_seconds() > 0
    served = re.findall(r'expert_rows_total\{expert="(\d)",layer="0",model="street-crops"\}', server.page("metrics"))
    assert set(served) <= {"0", "1"}
    assert served
