"""The paper's own interface (section 2.2), in one process and without a broker: for trying an idea, or reading along.

    sky = Skyscraper(frame_seconds=2.0)
    sky.register_knob("size", [224, 416, 608])
    sky.set_resources(num_cores=2, buffer_bytes=1 << 30, cloud_budget_usd=0)
    sky.fit(labeled, labels, unlabeled, proc_frame)
    for frame in stream:
        output, state = sky.process(frame, state)

A *frame* is whatever `proc_frame(frame, state, knobs)` takes: a picture, or the pictures of some seconds. It returns
`(output, quality, state)`: quality is the user's own measure, non-negative, larger is better. Production runs the same
decisions in the services, where video waits in Kafka.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyscraper.control.errors import Infeasible
from skyscraper.control.guard import slack_core_seconds
from skyscraper.control.plan import StreamForecast, plan
from skyscraper.control.switcher import category, fall_back, pick
from skyscraper.control.units import core_seconds_per_segment
from skyscraper.control.work import recalibrated
from skyscraper.errors import ConfigError
from skyscraper.pipeline.knobs import Configuration, Knob, KnobValue
from skyscraper.profile.categorise import categorise
from skyscraper.profile.forecast import Forecaster, latest_input, learn_forecaster
from skyscraper.profile.sample import diverse
from skyscraper.profile.search import Score, key_of, search
from skyscraper.profile.work import WorkModel, fit_work

Floats = NDArray[np.float64]
ProcessFrame = Callable[[Any, Any, Configuration], tuple[Any, float, Any]]

_MOST_CONFIGURATIONS = 12
_SEARCHED_FRAMES = 4
_CATEGORIES = 4
_FEWEST_FRAMES = 8


class Skyscraper:
    """One stream. `frame_seconds`: how much video a frame stands for; `window_seconds`: how far plans reach."""

    def __init__(
        self,
        *,
        frame_seconds: float,
        window_seconds: float = 2 * 86_400.0,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
        seed: int = 0,
    ) -> None:
        if frame_seconds <= 0 or window_seconds < frame_seconds:
            raise ConfigError(
                f"frame_seconds is {frame_seconds:g} and window_seconds {window_seconds:g}: a frame takes more than "
                "0 s, and a window at least a frame"
            )
        self._frame_seconds = frame_seconds
        self._window_frames = round(window_seconds / frame_seconds)
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._seed = seed
        self._knobs: list[Knob] = []
        self._cores = 0.0
        self._buffer_bytes = 0
        self._proc_frame: ProcessFrame | None = None

    def register_knob(self, name: str, domain: Sequence[KnobValue]) -> None:
        """A setting and its values, from the cheapest to the dearest."""
        if not domain or any(knob.name == name for knob in self._knobs):
            raise ConfigError(f"knob {name!r} needs at least one value, and a name that is not taken yet")
        self._knobs.append(Knob(name, tuple(domain), domain[0], name))

    def set_resources(self, num_cores: float, buffer_bytes: int, cloud_budget_usd: float = 0.0) -> None:
        if num_cores <= 0 or buffer_bytes < 0:
            raise ConfigError(f"{num_cores:g} cores and {buffer_bytes} bytes: cores are above 0, a buffer not below")
        if cloud_budget_usd:
            raise ConfigError("one process has no burst machines to spend dollars on: run the services for that")
        self._cores, self._buffer_bytes = float(num_cores), buffer_bytes

    def fit(
        self,
        labeled: Sequence[Any],
        labels: Sequence[Any],
        unlabeled: Sequence[Any],
        proc_frame: ProcessFrame,
        *,
        score: Callable[[Any, Any], float] | None = None,
    ) -> None:
        """The offline phase (section 3). On labeled frames `score(output, label)` replaces the reported quality, so
        that configurations that are only sure of themselves are not kept; without it, labels are not looked at.

        Raises ConfigError for missing knobs or resources and too few frames, Infeasible where the cheapest
        configuration is slower than the stream.
        """
        if len(labeled) != len(labels):
            raise ConfigError(f"{len(labeled)} labeled frames have {len(labels)} labels")
        if not self._knobs or not self._cores:
            raise ConfigError("register_knob and set_resources come before fit")
        frames = [*labeled, *unlabeled]
        if len(frames) < _FEWEST_FRAMES:
            raise ConfigError(f"{len(frames)} frames are too few to learn from; {_FEWEST_FRAMES} are the least")
        self._proc_frame = proc_frame

        def measure(index: int, configuration: Configuration) -> Score:
            output, quality, _, work = self._run(frames[index], None, configuration)
            if score is not None and index < len(labeled):
                quality = score(output, labels[index])
            return Score(quality, work)

        ends = [{knob.name: knob.domain[end] for knob in self._knobs} for end in (0, -1)]
        vectors = np.array([[measure(index, one).quality for one in ends] for index in range(len(frames))])
        chosen = diverse(vectors, _SEARCHED_FRAMES)
        found = search(
            self._knobs,
            len(chosen),
            lambda wanted: [measure(chosen[segment], one) for segment, one in wanted],
            most=_MOST_CONFIGURATIONS,
        )
        self._configurations = found.configurations
        scores = [[measure(index, one) for one in self._configurations] for index in range(len(frames))]
        quality = np.array([[one.quality for one in row] for row in scores])
        work = np.array([[one.work for one in row] for row in scores])
        self._work: WorkModel = fit_work(work, np.full(len(frames), self._frame_seconds))
        self._categories = categorise(quality, _CATEGORIES, seed=self._seed)
        self._labels = [self._category(quality[index, 0], 0) for index in range(len(labeled), len(frames))] or [0]
        self._forecaster: Forecaster | None = learn_forecaster(
            np.array(self._labels),
            self._categories.count,
            self._frame_seconds,
            self._window_frames * self._frame_seconds,
            seed=self._seed,
        )
        self._buffer_seconds = self._buffer_bytes / float(np.mean([_size(frame) for frame in frames]))
        self._buffer_seconds *= self._frame_seconds
        self._scale, self._done, self._last = 1.0, 0, self._labels[-1]
        self._started_seconds = self._clock()
        self._plan()

    @property
    def configurations(self) -> list[Configuration]:
        """Those in use, from the cheapest."""
        return list(self._configurations)

    def process(self, frame: Any, state: Any) -> tuple[Any, Any]:
        """The next frame of the stream, with the configuration that plan, backlog and guard allow (section 4).

        Frames are taken to arrive every `frame_seconds` since `fit`. Returns (output, state).
        """
        if self._proc_frame is None:
            raise ConfigError("fit comes before process")
        if self._done and self._done % self._window_frames == 0:
            self._plan()
        work = self._work.estimate(self._frame_seconds) * self._scale
        now = self._clock() - self._started_seconds
        due = (self._done + 1) * self._frame_seconds
        uncertainty = float(self._work.uncertainty.max())
        slack = slack_core_seconds(now, due + self._frame_seconds, self._buffer_seconds, self._cores, uncertainty)
        wanted = pick(self._alpha[self._last], self._used[self._last])
        nothing = np.zeros(len(work))
        k = fall_back(wanted, work, nothing, self._categories.centres[self._last], slack, 0.0)
        output, quality, state, spent = self._run(frame, state, self._configurations[k])
        self._scale = recalibrated(self._scale, float(self._work.estimate(self._frame_seconds)[k]), spent)
        self._used[self._last, k] += 1
        self._last = self._category(quality, k)
        self._labels.append(self._last)
        self._done += 1
        return output, state

    def _run(self, frame: Any, state: Any, configuration: Configuration) -> tuple[Any, float, Any, float]:
        """Output, quality, state and CPU seconds."""
        if self._proc_frame is None:
            raise ConfigError("fit comes before process")
        started = self._cpu_clock()
        output, quality, after = self._proc_frame(frame, state, configuration)
        spent = self._cpu_clock() - started
        if not np.isfinite(quality) or quality < 0:
            raise ConfigError(
                f"proc_frame reported quality {quality!r} with {key_of(configuration)}; it must be a number, 0 or more"
            )
        # A clock too coarse to see a frame must not make it free.
        return output, float(quality), after, max(spent, 1e-9)

    def _category(self, quality: float, configuration: int) -> int:
        return int(category(self._categories.centres, quality, configuration))

    def _plan(self) -> None:
        count = self._categories.count
        labels = np.array(self._labels)
        if self._forecaster is not None:
            share = self._forecaster.forecast(latest_input(labels, count, self._frame_seconds))[0]
        else:
            recent = labels[-self._window_frames :]
            share = np.bincount(recent, minlength=count) / len(recent)
        work = self._work.estimate(self._frame_seconds)
        forecast = StreamForecast(self._categories.centres, np.asarray(share), work, np.zeros(len(work)))
        budget = core_seconds_per_segment(self._cores, self._frame_seconds)
        if work[0] > budget:
            raise Infeasible(
                f"the cheapest configuration takes {work[0]:.3g} core-seconds for {self._frame_seconds:g} s of video, "
                f"and {self._cores:g} cores give {budget:.3g}: register cheaper knobs, or add cores"
            )
        self._alpha = plan([forecast], work_core_seconds=budget, usd=0.0).alpha[0]
        self._used = np.zeros_like(self._alpha)


def _size(frame: Any) -> int:
    """Bytes that a waiting frame takes."""
    return int(getattr(frame, "nbytes", None) or sys.getsizeof(frame))
