"""The street camera: real pixels, exact truth, the same for everyone who names the same camera."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyscraper.errors import ConfigError
from skyscraper.media.street import DayCurve, Street, StreetSpec, cached_clip, load_truth
from skyscraper.media.street.sprites import load_material

SPEC = StreetSpec(seed=7, density=6)


def test_the_same_camera_gives_the_same_pixels_in_another_process() -> None:
    code = (
        "import hashlib; from skyscraper.media.street import *; "
        "print(hashlib.sha256(Street(StreetSpec(seed=7, density=6)).frame(25)[0].tobytes()).hexdigest())"
    )
    told = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)]
    assert told[0] == told[1]


def test_frames_may_be_drawn_in_any_order() -> None:
    forwards, alone = Street(SPEC), Street(SPEC)
    drawn = [forwards.frame(number) for number in range(30)]
    image, truth = alone.frame(17)
    assert np.array_equal(image, drawn[17][0])
    assert truth == drawn[17][1]


def test_another_seed_is_another_street() -> None:
    assert not np.array_equal(Street(SPEC).frame(10)[0], Street(StreetSpec(seed=8, density=6)).frame(10)[0])


def test_a_looped_clip_has_no_seam() -> None:
    street = Street(SPEC, period_frames=60)
    for number in (0, 5, 59):
        image, truth = street.frame(number)
        again, truth_again = street.frame(number + 60)
        assert np.array_equal(image, again)
        assert truth.objects == truth_again.objects


def test_boxes_hold_everything_that_differs_from_the_empty_street() -> None:
    street, background = Street(SPEC), load_material("people").background
    seen = 0
    for number in range(40, 80, 5):
        image, truth = street.frame(number)
        changed = np.abs(image.astype(int) - background).max(axis=2) > 40
        for one in truth.objects:
            x_min, y_min, x_max, y_max = (int(edge) for edge in one.box)
            # Each side of the box touches the person: it is tight, not merely large enough.
            assert changed[y_min:y_max, x_min:x_max].any()
            assert 0 <= one.visibility <= 1
            changed[max(0, y_min - 2) : y_max + 2, max(0, x_min - 2) : x_max + 2] = False
            seen += 1
        # What is left are people who are still fading in or out.
        assert changed.mean() < 0.01
    assert seen > 10


def test_vehicles_drive_and_two_are_parked() -> None:
    street = Street(StreetSpec(scene="vehicles", seed=2, density=1.5))
    moving = [len([one for one in street.frame(number)[1].objects if one.id >= 0]) for number in range(0, 3000, 50)]
    assert {one.label for one in street.frame(0)[1].objects} == {"vehicle"}
    assert all(len(street.frame(number)[1].objects) >= 2 for number in (0, 100))
    assert 0.5 < np.mean(moving) < 3


def test_more_density_is_more_people() -> None:
    def people(density: float) -> float:
        street = Street(StreetSpec(seed=1, density=density))
        return float(np.mean([len(street.frame(number)[1].objects) for number in range(0, 400, 20)]))

    assert people(0) == 0
    assert 1 < people(3) < people(12)


def test_dusk_and_night_are_darker() -> None:
    day, dusk, night = (Street(StreetSpec(light=light)).frame(0)[0].mean() for light in ("day", "dusk", "night"))
    assert day > 1.5 * dusk > 1.5 * night


def test_rendering_costs_less_than_encoding(tmp_path: Path) -> None:
    street = Street(SPEC)
    started = time.thread_time()
    images = [street.frame(number)[0] for number in range(60)]
    rendering = time.thread_time() - started
    started = time.thread_time()
    with av.open(str(tmp_path / "clip.ts"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "superfast"})
        stream.width, stream.height, stream.pix_fmt = 768, 576, "yuv420p"
        stream.codec_context.thread_count = 1
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
    assert rendering < time.thread_time() - started


def test_a_clip_is_rendered_once_with_its_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYSCRAPER_HOME", str(tmp_path))
    spec = StreetSpec(seed=3, density=4, seconds=2)
    clip = cached_clip(spec)
    written = clip.video_path.stat().st_mtime_ns
    assert cached_clip(spec) == clip
    assert clip.video_path.stat().st_mtime_ns == written
    with av.open(str(clip.video_path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 20
    truth = load_truth(clip.truth_path)
    assert [frame.number for frame in truth] == list(range(20))
    assert truth[5] == Street(spec, period_frames=20).frame(5)[1]
    assert not list(tmp_path.rglob("*.part"))


@given(st.integers(0, 1000), st.floats(0, 24 * 400))
def test_a_day_stays_within_its_bounds(seed: int, hour: float) -> None:
    curve = DayCurve(seed)
    assert 0 < curve.crowd(hour) <= 1
    assert 0 <= curve.light(hour) <= 1


def test_rush_hours_are_busy_and_nights_are_quiet_and_dark() -> None:
    curve = DayCurve(5)
    assert curve.crowd(8.3) > 3 * curve.crowd(3)
    assert (curve.light(12), curve.light(2)) == (1, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rtsp://camera", "must begin with street:"),
        ("street:moon", "scene 'moon' is not known; there are: people, vehicles"),
        ("street:people?colour=red", "unknown option 'colour'"),
        ("street:people?density=many", "not a number"),
        ("street:people?density=1000", "from 0 to 40"),
        ("street:people?light=neon", "light 'neon' is not known"),
        ("street:people?seed=1&seed=2", "given twice"),
        ("street:people?seconds=1.5", "not a whole number"),
    ],
)
def test_a_camera_that_cannot_be_named_so_is_refused_clearly(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StreetSpec.parse(text)


def test_options_are_read_from_the_name() -> None:
    assert StreetSpec.parse("street:people?seed=3&density=6.5&light=night&seconds=9&fps=5") == StreetSpec(
        seed=3, density=6.5, light="night", seconds=9, fps=5
    )
