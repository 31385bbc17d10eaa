"""What the covid pipeline must be told: the rule, and where each camera's ground is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator, model_validator
from skyscraper.bus.topics import is_stream_id
from skyscraper.errors import ConfigError
from skyscraper.service import load_config
from skyscraper.service.config import EnvironmentSettings, Settings

from skyscraper_pipelines.covid.ground import GroundPlane

# The street camera's ground, learned by tools/fit_street_ground.py from the people cut out of its clip: the height is
# that of a camera for which they are 1.7 m tall everywhere, the focal length that for which they walk equally fast in
# all directions. No calibration by others went in. Approximate: see docs/reference/pipelines.md.
STREET = GroundPlane.from_camera(height_metres=7.93, horizon_row=-120.0, focal_pixels=825.0, centre=(384.0, 288.0))

_FILE = "SKYSCRAPER_COVID_FILE"


class Calibration(Settings):
    """Points on a camera's ground, measured once: where they are in the picture, and where on the ground."""

    pixels: list[tuple[float, float]] = Field(description="x and y of four or more points, in pixels of the video.")
    metres: list[tuple[float, float]] = Field(description="The same points on the ground, in any metric system.")

    @model_validator(mode="after")
    def _fits(self) -> Calibration:
        try:
            self.plane()
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    def plane(self) -> GroundPlane:
        return GroundPlane.from_points(self.pixels, self.metres)


class CovidSettings(EnvironmentSettings):
    """Settings of the covid pipeline: a TOML file named by SKYSCRAPER_COVID_FILE, and SKYSCRAPER_COVID_* variables."""

    env_prefix: ClassVar[str] = "SKYSCRAPER_COVID_"

    distance_metres: float = Field(1.5, gt=0, le=100, description="People nearer to each other than this are too near.")
    cameras: dict[str, Calibration] = Field(
        default_factory=dict,
        description="By stream id. A stream that is not here is measured as if it were the street camera, and its rows "
        "say calibrated = false.",
    )

    @field_validator("cameras")
    @classmethod
    def _named_after_streams(cls, cameras: dict[str, Calibration]) -> dict[str, Calibration]:
        for name in cameras:
            if not is_stream_id(name):
                raise ValueError(f"{name!r} is not a stream id")
        return cameras


def covid_settings(environ: dict[str, str] | None = None) -> CovidSettings:
    """Raises ConfigError naming every bad field at once."""
    variables = dict(os.environ if environ is None else environ)
    path = variables.pop(_FILE, None)
    return load_config(CovidSettings, Path(path) if path else None, variables)
