"""A whole segment to a burst machine and back: what is found there is what would have been found here."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from burst_processes import GatewayProcess
from skyscraper.errors import BadSegment
from skyscraper.media.decode import decode_segment
from skyscraper.media.segments import read_segments
from skyscraper.media.sources import parse_source
from skyscraper.models.repository import install_models
from skyscraper.pipeline import configure, load_pipeline
from skyscraper.processes import free_ports, spawn, stop
from skyscraper.record.models import MeteredModels
from skyscraper.rpc.burst_client import BurstClient, BurstFailed
from skyscraper_decoder.away import Away, send

pytestmark = [pytest.mark.broker, pytest.mark.models, pytest.mark.timeout(600)]

# A pipeline's imports take five seconds of a core that is free, and minutes of one that is not.
START_SECONDS = 420.0

MODEL = "nanodet-g"
PIPELINE = load_pipeline("counting")
CONFIGURATION = configure(PIPELINE.knobs, {"model": MODEL, "frame_rate": "2", "input_size": "224"})
SEGMENT = next(iter(read_segments(parse_source("street:people?density=12&fps=5&seconds=8&seed=3"), 2.0)))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[str]:
    """The target of an inference process that takes whole segments."""
    install_models([MODEL])
    (port,) = free_ports(1)
    config = tmp_path / "machine.toml"
    values = {"port": port, "models": [MODEL], "stages": ["counting"], "instances": 1}
    config.write_text(tomli_w.dumps(values | {"warmup_shapes": [{"height": 32, "width": 32}]}))
    process = spawn([sys.executable, "-m", "skyscraper_inference", "--config", str(config)], tmp_path / "machine.log")
    try:
        yield f"127.0.0.1:{port}"
    finally:
        stop(process, deadline_seconds=20)


def away(client: BurstClient, tenant: str, value: bytes) -> Away:
    return send(
        client,
        value,
        PIPELINE,
        CONFIGURATION,
        expected_frames=None,
        tenant=tenant,
        core_seconds=0.2,
        advantage=0.0,
        deadline_seconds=30.0,
    )


def until_ready(client: BurstClient, tenant: str) -> Away:
    """The machine may still be starting."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return away(client, tenant, SEGMENT.value)
        except BurstFailed as error:
            if error.reason != "no_machine" or time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def test_a_segment_is_decoded_and_detected_elsewhere_as_it_would_be_here(
    gateway: Callable[..., GatewayProcess], machine: str, tenant: str
) -> None:
    one = gateway(pools=[{"targets": [machine], "usd_per_core_hour": 36.0}], budgets={tenant: {"usd": 10.0}})
    one.start()
    client = BurstClient([one.target], in_flight_bytes=1 << 24)
    there = until_ready(client, tenant)
    frames = decode_segment(SEGMENT.value, PIPELINE.sampling(CONFIGURATION))
    here = PIPELINE.detect(frames, CONFIGURATION, MeteredModels())
    np.testing.assert_array_equal(there.frames.times_seconds, frames.times_seconds)
    assert sum(len(found.scores) for found in here) > 0
    for found, expected in zip(there.detections, here, strict=True):
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.scores, expected.scores)
        np.testing.assert_array_equal(found.labels, expected.labels)
    assert there.core_seconds > 0
    assert there.nano_usd == pytest.approx(there.core_seconds * 1e7, abs=1)
    with pytest.raises(BadSegment):
        away(client, tenant, b"not a video")
    client.close()
