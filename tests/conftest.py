"""Fixtures of the whole tree."""

from broker_fixture import session_broker
from hypothesis import settings

__all__ = ["session_broker"]

# How long an example takes says nothing on a shared machine; the first call of compiled code compiles it.
settings.register_profile("skyscraper", deadline=None)
settings.load_profile("skyscraper")
