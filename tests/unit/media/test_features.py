from __future__ import annotations

import pytest
from skyscraper.media.features import packet_features
from skyscraper.media.segmenter import PacketInfo


def test_features_are_plain_numbers_of_the_packets() -> None:
    infos = [PacketInfo(0, 0, 1, 900, True), PacketInfo(1, 1, 1, 100, False), PacketInfo(2, 2, 1, 200, False)]
    features = packet_features(infos, 90_000)
    assert features == {
        "frames": 3,
        "keyframes": 1,
        "bytes_per_frame": 400,
        "keyframe_bytes": 900,
        "kbit_per_second": pytest.approx(9.6),
        "interframe_bytes": 150,
        "interframe_bytes_cv": pytest.approx(1 / 3),
        "ip_ratio": 6,
    }


def test_intra_only_video_has_no_ratio() -> None:
    assert "ip_ratio" not in packet_features([PacketInfo(0, 0, 1, 900, True)], 0)
