"""A profile from a file."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError

from skyscraper.profile.errors import ProfileError
from skyscraper.v1 import profile_pb2

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
