"""The streams of the paper's MOSEI workloads: many cameras whose crowds gather at the same moments."""

from __future__ import annotations

import json

from skyscraper.errors import ConfigError

# Which crowd of the street camera stands for which workload.
WORKLOADS = {"high": "spikes", "long": "peaks"}
# More people than this hide each other.
_DENSITY = 12


def sources(workload: str, *, streams: int, clip_seconds: int, time_scale: float) -> dict[str, str]:
    """Street cameras by stream id. Raises ConfigError."""
    if workload not in WORKLOADS:
        raise ConfigError(f"workload {workload!r} is not known; there are: {', '.join(WORKLOADS)}")
    if streams < 1:
        raise ConfigError(f"{streams} streams: at least one is needed")
    options = f"density={_DENSITY}&crowd={WORKLOADS[workload]}&seconds={clip_seconds}&time_scale={time_scale:g}"
    return {f"mosei-{workload}-{number}": f"street:people?seed={number}&{options}" for number in range(1, streams + 1)}


def publisher_toml(workload: str, *, streams: int, clip_seconds: int, time_scale: float) -> str:
    """A configuration of the publisher."""
    found = sources(workload, streams=streams, clip_seconds=clip_seconds, time_scale=time_scale)
    # A JSON string is a TOML string.
    entries = [
        f'[[streams]]\nid = {json.dumps(name)}\nsource = {json.dumps(source)}\npipeline = "mosei"\nloop = true\n'
        for name, source in found.items()
    ]
    return "\n".join(entries)
