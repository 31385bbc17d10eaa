"""The commands of docs/how-to/publish-with-ffmpeg-and-kcat.md, run as they stand there."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition
from skyscraper.bus.admin import create_topics
from skyscraper.bus.headers import decode_headers
from skyscraper.bus.register import read_register
from skyscraper.bus.topics import SEGMENTS, topic_specs
from skyscraper.localkafka.broker import LocalBroker

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "publish-with-ffmpeg-and-kcat.md"
MISSING = [tool for tool in ("ffmpeg", "ffprobe", "kcat") if shutil.which(tool) is None]

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (apt-get install ffmpeg kcat)"),
]


def commands() -> str:
    return "\n".join(re.findall(r"^```bash \w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[str]:
    with LocalBroker(tmp_path / "kafka") as broker:
        specs = topic_specs(partitions=8, pipelines=(), retention_seconds=3600, retention_bytes_per_partition=1 << 30)
        create_topics({"bootstrap.servers": broker.bootstrap_servers}, specs, replication_factor=1)
        yield broker.bootstrap_servers


def make_clip(path: Path) -> list[bytes]:
    """Eight seconds; returns each frame's pixels as a decoder gives them."""
    texture = np.random.default_rng(9).integers(0, 255, (128, 160, 3), dtype=np.uint8)
    with av.open(path, "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        stream.codec_context.gop_size = 25
        for index in range(200):
            frame = av.VideoFrame.from_ndarray(np.roll(texture, index, axis=1), format="rgb24").reformat(
                format="yuv420p"
            )
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    with av.open(path, "r") as video:
        return [frame.to_ndarray().tobytes() for frame in video.decode(video=0)]


def test_the_documented_commands_publish_every_frame_once(tmp_path: Path, servers: str) -> None:
    wanted = make_clip(tmp_path / "clip.mp4")
    tools = tmp_path / "bin"
    tools.mkdir()
    protoc = tools / "protoc"
    protoc.write_text(f'#!/bin/sh\nexec {sys.executable} -m grpc_tools.protoc "$@"\n')
    protoc.chmod(0o755)
    (tmp_path / "proto").symlink_to(ROOT / "proto")
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "KAFKA": servers,
        "STREAM": "by-hand",
        "SOURCE": str(tmp_path / "clip.mp4"),
        "PARTITION": "5",
    }
    script = "set -eu -o pipefail\n" + commands()
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "codec_name=h264" in done.stdout

    register, _ = read_register({"bootstrap.servers": servers}, deadline_seconds=20)
    assert register["by-hand"].stream.partition == 5

    consumer = Consumer({"bootstrap.servers": servers, "group.id": "test"})
    consumer.assign([TopicPartition(SEGMENTS, 5, 0)])
    messages = consumer.consume(4, timeout=20)
    consumer.close()
    got: list[bytes] = []
    for sequence, message in enumerate(messages):
        assert message.key() == b"by-hand"
        headers, malformed = decode_headers(cast(list[tuple[str, bytes]], message.headers()))
        assert headers.sequence == sequence
        assert not malformed
        with av.open(io.BytesIO(message.value() or b""), "r") as video:
            got += [frame.to_ndarray().tobytes() for frame in video.decode(video=0)]
    assert got == wanted
