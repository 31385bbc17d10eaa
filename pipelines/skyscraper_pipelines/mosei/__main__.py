"""Streams of the paper's MOSEI workloads, as a configuration file of the publisher. All content is simulated.

uv run python -m skyscraper_pipelines.mosei high --streams 62 > mosei-high.toml
uv run python -m skyscraper_publisher --config mosei-high.toml
"""

from __future__ import annotations

import argparse

from skyscraper_pipelines.mosei.streams import WORKLOADS, publisher_toml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=list(WORKLOADS), help="high: short spikes; long: long peaks")
    parser.add_argument("--streams", type=int, default=8, help="the paper has up to 62 (default 8)")
    parser.add_argument("--seconds", type=int, default=120, help="length of each looped clip (default 120)")
    parser.add_argument("--time-scale", type=float, default=60.0, help="content seconds per second (default 60)")
    arguments = parser.parse_args()
    print(
        publisher_toml(
            arguments.workload,
            streams=arguments.streams,
            clip_seconds=arguments.seconds,
            time_scale=arguments.time_scale,
        )
    )


if __name__ == "__main__":
    main()
