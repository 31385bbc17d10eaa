"""The fits that are in sky.profiles, decoded once each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog
from google.protobuf.message import DecodeError
from skyscraper.bus.profiles import is_versioned, profile_key
from skyscraper.profile.codec import decode_fit
from skyscraper.profile.errors import ProfileError
from skyscraper.profile.fit import Fit
from skyscraper.v1 import profile_pb2

log = structlog.get_logger()


class Fits:
    """Answers from memory. Any thread may ask."""

    def __init__(self, get: Callable[[bytes], bytes | None], items: Callable[[], Mapping[bytes, bytes]]) -> None:
        self._get = get
        self._items = items
        self._lock = threading.Lock()
        self._known: dict[bytes, tuple[bytes, Fit | None]] = {}

    def current(self, pipeline: str) -> Fit | None:
        """What the pipeline's fit is now; None where there is none that can be used."""
        return self._read(pipeline.encode())

    def version(self, pipeline: str, version: str) -> Fit | None:
        """One particular fit."""
        found = self._read(profile_key(pipeline, version)) if version else None
        # Before it was published under its version, a fit may stand under the pipeline's name only.
        current = self.current(pipeline) if found is None else None
        return current if current is not None and current.version == version else found

    def profile(self, pipeline: str) -> profile_pb2.Profile | None:
        """The whole message that is there now."""
        value = self._get(pipeline.encode())
        return None if value is None else profile_pb2.Profile.FromString(value)

    def compatible(self, pipeline: str, fit: Fit) -> frozenset[str]:
        """Versions of fits with the same configurations and features: what they decided, this one can learn from."""
        found = {fit.version}
        for key in self._items():
            if is_versioned(key) and key.startswith(profile_key(pipeline, "")):
                other = self._read(key)
                if other is not None and (other.configurations, other.feature_names) == (
                    fit.configurations,
                    fit.feature_names,
                ):
                    found.add(other.version)
        return frozenset(found)

    def _read(self, key: bytes) -> Fit | None:
        value = self._get(key)
        if value is None:
            return None
        with self._lock:
            known = self._known.get(key)
        if known is None or known[0] != value:
            known = value, _decoded(key, value)
            with self._lock:
                self._known[key] = known
        return known[1]


def _decoded(key: bytes, value: bytes) -> Fit | None:
    try:
        profile = profile_pb2.Profile.FromString(value)
        return decode_fit(profile.fit) if profile.HasField("fit") else None
    except (DecodeError, ProfileError) as error:
        log.warning("profile_cannot_be_used", key=key.decode(errors="replace"), error=str(error))
        return None
