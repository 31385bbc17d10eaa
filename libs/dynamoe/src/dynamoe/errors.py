"""Everything this library raises on purpose."""

from __future__ import annotations


class DynamoeError(Exception):
    """Base of the library's errors."""


class SettingError(DynamoeError, ValueError):
    """A setting or a combination of settings that cannot work; the message says what to change."""


class ShapeError(DynamoeError, ValueError):
    """A tensor whose shape, type or device does not fit the layer."""
