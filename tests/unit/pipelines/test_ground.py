"""From pixels to metres, and how near people are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyscraper.errors import ConfigError
from skyscraper_pipelines.covid.ground import GroundPlane, nearest_metres
from skyscraper_pipelines.covid.settings import STREET, covid_settings

metres = st.floats(-30, 30)
cameras = st.builds(
    lambda height, above, focal: GroundPlane.from_camera(
        height_metres=height, horizon_row=-above, focal_pixels=focal, centre=(384.0, 288.0)
    ),
    st.floats(2, 20),
    st.floats(1, 300),
    st.floats(300, 2000),
)
feet = st.lists(st.tuples(st.floats(0, 768), st.floats(10, 576)), min_size=2, max_size=8)


@given(cameras, feet)
def test_distances_do_not_depend_on_the_order_or_on_where_metres_are_counted_from(
    plane: GroundPlane, points: list[tuple[float, float]]
) -> None:
    places = plane.positions(np.array(points))
    nearest = nearest_metres(places)
    np.testing.assert_allclose(nearest_metres(places[::-1])[::-1], nearest)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    np.testing.assert_allclose(nearest_metres(places @ turn.T + [7.0, -3.0]), nearest, rtol=1e-6, atol=1e-6)


@given(cameras)
def test_a_camera_is_found_again_from_four_points(plane: GroundPlane) -> None:
    pixels = [(100.0, 150.0), (700.0, 150.0), (60.0, 560.0), (720.0, 500.0)]
    found = GroundPlane.from_points(pixels, [(x, y) for x, y in plane.positions(np.array(pixels)).tolist()])
    points = np.array([(384.0, 300.0), (200.0, 250.0), (600.0, 550.0)])
    np.testing.assert_allclose(found.positions(points), plane.positions(points), rtol=1e-3, atol=1e-3)


@given(st.floats(3, 40), st.floats(-10, 10))
def test_a_camera_sees_ahead_of_it_what_is_nearer_lower_in_the_picture(ahead: float, aside: float) -> None:
    """A point on the ground, drawn as a camera of 5 m height with a level gaze draws it, is measured where it is."""
    camera = GroundPlane.from_camera(height_metres=5, horizon_row=300, focal_pixels=900, centre=(400, 300))
    pixel = np.array([[400 + 900 * aside / ahead, 300 + 900 * 5 / ahead]])
    np.testing.assert_allclose(camera.positions(pixel), [[aside, ahead]], rtol=1e-6, atol=1e-6)


def test_above_the_horizon_there_is_no_ground() -> None:
    sky = GroundPlane.from_camera(height_metres=5, horizon_row=200, focal_pixels=800, centre=(384, 288))
    places = sky.positions(np.array([(384.0, 150.0), (384.0, 400.0)]))
    assert np.isnan(places[0]).all()
    assert np.isfinite(places[1]).all()
    assert np.isinf(nearest_metres(places)).all()


def test_one_person_has_no_neighbour_and_two_have_each_other() -> None:
    assert np.isinf(nearest_metres(np.array([[1.0, 2.0]]))).all()
    assert nearest_metres(np.zeros((0, 2))).shape == (0,)
    np.testing.assert_allclose(nearest_metres(np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0]])), [5, 1, 1])


@pytest.mark.parametrize(
    "matrix",
    [np.zeros((3, 3)), np.ones((3, 3)), np.array([[1, 2, 3], [2, 4, 6], [0, 0, 1.0]]), np.full((3, 3), np.nan)],
)
def test_a_singular_homography_is_refused(matrix: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    with pytest.raises(ConfigError, match="singular|finite"):
        GroundPlane(matrix)


def test_settings_name_the_camera_whose_points_lie_on_a_line(tmp_path: Path) -> None:
    file = tmp_path / "covid.toml"
    file.write_text(
        "distance_metres = 2\n[cameras.gate-3]\npixels = [[0, 0], [1, 1], [2, 2], [3, 3]]\n"
        "metres = [[0, 0], [1, 1], [2, 2], [3, 3]]\n"
    )
    with pytest.raises(ConfigError, match="gate-3") as caught:
        covid_settings({"SKYSCRAPER_COVID_FILE": str(file)})
    assert "line" in str(caught.value)


def test_settings_are_read_from_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "covid.toml"
    file.write_text(
        "[cameras.gate-3]\npixels = [[0, 100], [700, 100], [700, 500], [0, 500]]\n"
        "metres = [[0, 30], [10, 30], [6, 5], [4, 5]]\n"
    )
    found = covid_settings({"SKYSCRAPER_COVID_FILE": str(file), "SKYSCRAPER_COVID_DISTANCE_METRES": "2"})
    assert found.distance_metres == 2
    np.testing.assert_allclose(
        found.cameras["gate-3"].plane().positions(np.array([[700.0, 500.0]])), [[6, 5]], atol=1e-6
    )
    with pytest.raises(ConfigError, match="distance"):
        covid_settings({"SKYSCRAPER_COVID_DISTANCE": "2"})


def test_the_streets_people_are_of_plausible_size_apart() -> None:
    """A box 75 pixels high in the middle of the picture is about 1.7 m, so 75 pixels to the side are, too."""
    places = STREET.positions(np.array([(384.0, 230.0), (459.0, 230.0)]))
    assert nearest_metres(places)[0] == pytest.approx(1.7, abs=0.2)
