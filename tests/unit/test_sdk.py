"""The paper's interface on a made-up stream, with clocks of our own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from skyscraper.control.errors import Infeasible
from skyscraper.errors import ConfigError
from skyscraper.sdk import Skyscraper


class World:
    """A core on which a frame takes as long as its configuration asks; hard frames need large images."""

    def __init__(self) -> None:
        self.now = 0.0
        self.used: list[int] = []

    def clock(self) -> float:
        return self.now

    def proc_frame(self, frame: Any, state: Any, knobs: Any) -> tuple[str, float, int]:
        size = int(knobs["size"])
        self.now += {1: 0.2, 2: 0.8, 4: 3.0}[size]
        self.used.append(size)
        hard = float(frame[0])
        return f"rows of {size}", 1.0 - hard * (1 - size / 4) * 0.8, (state or 0) + 1


def ready(world: World, *, cores: float = 1.0, buffer_bytes: int = 8_000) -> Skyscraper:
    sky = Skyscraper(frame_seconds=1.0, window_seconds=50, clock=world.clock, cpu_clock=world.clock)
    sky.register_knob("size", [1, 2, 4])
    sky.set_resources(num_cores=cores, buffer_bytes=buffer_bytes, cloud_budget_usd=0)
    frames = [np.array([hard]) for hard in ([0.0] * 30 + [1.0] * 10) * 2]
    sky.fit(frames[:4], ["a"] * 4, frames[4:], world.proc_frame)
    return sky


def stream(sky: Skyscraper, world: World, hardness: list[float]) -> list[int]:
    """Sizes used; a frame is not processed before it arrived."""
    state, begin = None, world.now
    world.used.clear()
    for number, hard in enumerate(hardness):
        world.now = max(world.now, begin + number + 1.0)
        output, state = sky.process(np.array([hard]), state)
        assert output == f"rows of {world.used[-1]}"
        # A full buffer is 1,000 frames of 8 bytes.
        assert world.now - begin - number - 1.0 <= 1_000 + 3.0
    assert state == len(hardness)
    return list(world.used)


def test_hard_frames_get_the_large_images_and_easy_ones_the_small() -> None:
    world = World()
    used = stream(ready(world), world, ([0.0] * 30 + [1.0] * 10) * 5)
    hard = [size for number, size in enumerate(used) if number % 40 > 31]
    easy = [size for number, size in enumerate(used) if 2 < number % 40 < 30]
    assert np.mean(hard) > np.mean(easy) + 0.5


def test_a_small_buffer_is_never_overrun() -> None:
    world = World()
    sky = ready(world, buffer_bytes=40)
    begin = world.now
    for number in range(200):
        world.now = max(world.now, begin + number + 1.0)
        assert world.now - begin - number - 1.0 <= 5.0 + 1e-6
        sky.process(np.array([1.0]), None)


def test_labels_replace_the_reported_quality() -> None:
    world = World()
    sky = Skyscraper(frame_seconds=1.0, window_seconds=50, clock=world.clock, cpu_clock=world.clock)
    sky.register_knob("size", [1, 2, 4])
    sky.set_resources(num_cores=4, buffer_bytes=80)
    frames = [np.array([hard]) for hard in [0.0, 1.0] * 10]
    asked: list[tuple[object, object]] = []

    def score(output: object, label: object) -> float:
        asked.append((output, label))
        return 0.5

    sky.fit(frames, ["x"] * 20, [], world.proc_frame, score=score)
    assert asked
    # Nothing is worth its work when every configuration scores the same.
    assert sky.configurations == [{"size": 1}]


def test_wrong_use_is_told() -> None:
    world = World()
    with pytest.raises(ConfigError, match="frame_seconds"):
        Skyscraper(frame_seconds=0)
    sky = Skyscraper(frame_seconds=1.0)
    with pytest.raises(ConfigError, match="come before fit"):
        sky.fit([], [], [np.zeros(1)] * 10, world.proc_frame)
    with pytest.raises(ConfigError, match="fit comes before process"):
        sky.process(np.zeros(1), None)
    with pytest.raises(ConfigError, match="cores"):
        sky.set_resources(0, 1)
    with pytest.raises(ConfigError, match="burst machines"):
        sky.set_resources(1, 1, cloud_budget_usd=5)
    with pytest.raises(ConfigError, match="at least one value"):
        sky.register_knob("size", [])
    sky.register_knob("size", [1, 2])
    sky.set_resources(1, 1)
    with pytest.raises(ConfigError, match="labels"):
        sky.fit([np.zeros(1)], [], [], world.proc_frame)
    with pytest.raises(ConfigError, match="too few"):
        sky.fit([], [], [np.zeros(1)], world.proc_frame)
    with pytest.raises(ConfigError, match="quality nan"):
        sky.fit([], [], [np.zeros(1)] * 10, lambda frame, state, knobs: (None, float("nan"), None))


def test_a_stream_faster_than_its_cheapest_configuration_is_refused() -> None:
    with pytest.raises(Infeasible, match="the cheapest configuration takes"):
        ready(World(), cores=0.1)
