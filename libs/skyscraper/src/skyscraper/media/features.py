"""Content features of a segment that cost nothing: plain numbers from packet sizes.

The size of what the encoder could not predict (inter frames) follows motion; the size of a keyframe follows detail.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, pstdev

from skyscraper.media.segmenter import PacketInfo
from skyscraper.media.ticks import to_seconds


def packet_features(infos: Sequence[PacketInfo], duration_ticks: int) -> dict[str, float]:
    """`frames`, `keyframes`, `bytes_per_frame`, `keyframe_bytes` (mean), `kbit_per_second`; with inter frames also
    `interframe_bytes` (mean), `interframe_bytes_cv` (deviation over mean) and `ip_ratio` (mean keyframe over mean
    inter frame). `infos` must not be empty.
    """
    sizes = [info.size for info in infos]
    keys = [info.size for info in infos if info.keyframe]
    inter = [info.size for info in infos if not info.keyframe]
    features = {
        "frames": float(len(sizes)),
        "keyframes": float(len(keys)),
        "bytes_per_frame": fmean(sizes),
        "keyframe_bytes": fmean(keys) if keys else 0.0,
    }
    if duration_ticks > 0:
        features["kbit_per_second"] = sum(sizes) * 8 / 1000 / to_seconds(duration_ticks)
    if inter and (mean := fmean(inter)) > 0:
        features["interframe_bytes"] = mean
        features["interframe_bytes_cv"] = pstdev(inter) / mean
        features["ip_ratio"] = features["keyframe_bytes"] / mean
    return features
