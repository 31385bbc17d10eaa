"""Arrays in Protobuf messages."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyscraper.profile.errors import ProfileError
from skyscraper.v1 import profile_pb2

# What a message may hold; anything else is damage.
_DTYPES = ("<f4", "<f8", "<i2", "<i4", "<i8")
_MAX_BYTES = 64 << 20


def to_proto(array: NDArray[Any], dtype: str = "<f8") -> profile_pb2.Array:
    """As it is stored; `dtype` may be smaller than the array's own."""
    stored = np.ascontiguousarray(array, dtype=dtype)
    return profile_pb2.Array(shape=stored.shape, dtype=dtype, data=zlib.compress(stored.tobytes(), 6))


def from_proto(message: profile_pb2.Array, *shape: int | None, dtype: type = np.float64) -> NDArray[Any]:
    """The array, of the expected shape (None: any length). Raises ProfileError."""
    found = tuple(message.shape)
    if len(found) != len(shape) or any(want not in (None, have) for want, have in zip(shape, found, strict=True)):
        raise ProfileError(f"an array has the shape {found} where {shape} belongs")
    if message.dtype not in _DTYPES:
        raise ProfileError(f"an array is of type {message.dtype!r}; known are {', '.join(_DTYPES)}")
    size = math.prod(found) * np.dtype(message.dtype).itemsize
    if size > _MAX_BYTES:
        raise ProfileError(f"an array of {size} bytes; {_MAX_BYTES} are the most")
    unpack = zlib.decompressobj()
    try:
        data = unpack.decompress(message.data, size + 1)
    except zlib.error as error:
        raise ProfileError(f"an array is damaged: {error}") from error
    if len(data) != size:
        raise ProfileError(f"an array has {len(data)} bytes; its shape says {size}")
    array: NDArray[Any] = np.frombuffer(data, dtype=message.dtype).reshape(found).astype(dtype)
    if not np.isfinite(array).all():
        raise ProfileError("an array holds values that are no finite numbers")
    return array
