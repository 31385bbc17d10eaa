"""A profile from a file, or from the package of its pipeline."""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.resources import as_file, files
from pathlib import Path

from google.protobuf.message import DecodeError

from skyscraper.pipeline.pipeline import ENTRY_POINTS, load_pipeline
from skyscraper.profile.errors import ProfileError
from skyscraper.v1 import profile_pb2

SHIPPED_NAME = "profile.pb"
_MAX_BYTES = 64 << 20


def load_profile(path: Path) -> profile_pb2.Profile:
    """A profile with a fit. Raises ProfileError."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ProfileError(f"{path} has {path.stat().st_size} bytes; a profile has at most {_MAX_BYTES}")
        message = profile_pb2.Profile.FromString(path.read_bytes())
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read ({error.strerror})") from error
    except DecodeError as error:
        raise ProfileError(f"{path} is not a profile, or it is damaged: make one with `skyscraper fit`") from error
    if not message.HasField("fit"):
        raise ProfileError(f"{path} holds no fit: make one with `skyscraper fit`")
    return message


def shipped_profile(pipeline_name: str) -> profile_pb2.Profile | None:
    """The profile that comes with an installed pipeline: `profile.pb` beside the module of its entry point; None where
    there is none. A start, until one is fitted on the cameras themselves.

    Raises ConfigError where the pipeline is not installed, ProfileError where its profile is of another pipeline.
    """
    pipeline = load_pipeline(pipeline_name)
    (point,) = entry_points(group=ENTRY_POINTS, name=pipeline_name)
    resource = files(point.module) / SHIPPED_NAME
    if not resource.is_file():
        return None
    with as_file(resource) as path:
        message = load_profile(path)
    if (message.pipeline, message.version) != (pipeline.name, pipeline.version):
        raise ProfileError(
            f"the profile shipped with {pipeline.name} {pipeline.version} is of {message.pipeline} {message.version}: "
            "make one with `skyscraper fit`"
        )
    return message
