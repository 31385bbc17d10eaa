"""Fixtures of the whole tree."""

from broker_fixture import session_broker

__all__ = ["session_broker"]
