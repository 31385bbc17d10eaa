"""A bounded queue on disk for one stream: what cannot reach the broker now waits here, in order, through any restart.

Append-only files `<first ordinal>.spill` of records (magic, CRC-32, ordinal, length, payload), and `acked`, the ordinal
up to which everything has been delivered. A file is deleted when all of it is acknowledged.

Durability: every append is handed to the operating system before it returns, so it survives `kill -9` of the
process. It survives a power cut only after `fsync`, which happens when a file is full and at close, and on every
append with `fsync_every_append=True`. `acked` is never fsynced: losing it repeats segments (with the same `ce_id`),
it never loses any.

A torn tail (process killed or disk full in the middle of an append) is cut off when the file is opened again. A record
whose checksum does not match ends its file: the rest of that file is counted in `corrupt_bytes`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from skyscraper.errors import SkyscraperError

_MAGIC = 0x534B5950  # "SKYP"
_HEADER = struct.Struct(">IIQI")
_ACKED = struct.Struct(">QI")
# The unit of deletion: small enough that disk is given back soon, large enough to hold several segments.
FILE_BYTES = 16 * 1024 * 1024
# A length beyond this is a damaged header: no segment with its headers comes near it.
MAX_RECORD_BYTES = 64 * 1024 * 1024


class SpillFull(SkyscraperError):
    """The queue holds as many bytes as it may."""

    retriable = True


class SpillFailed(SkyscraperError):
    """The disk refused: full, read-only, gone."""

    retriable = True


@dataclass(frozen=True, slots=True)
class Record:
    """One spilled payload and its place in the order."""

    ordinal: int
    payload: bytes


@dataclass(slots=True)
class _File:
    path: Path
    first: int
    last: int
    size: int


class Spill:
    """The queue of one stream, for one thread of one process; a second process is refused."""

    def __init__(self, folder: Path, *, max_bytes: int, fsync_every_append: bool = False) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.torn_bytes = 0
        self.corrupt_bytes = 0
        self._fsync = fsync_every_append
        self._files: deque[_File] = deque()
        self._writer: int | None = None
        # Where the next unread record lies: its file and the offset in it.
        self._reader: tuple[Path, int] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SpillFailed(f"cannot use the spill folder {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise SpillFailed(
                f"the spill folder {folder} is in use by another publisher: give each publisher its own, or stop one"
            ) from error
        self._acked = self._read_acked()
        self._next = self._acked + 1
        try:
            for path in sorted(folder.glob("*.spill")):
                self._recover(path)
        except OSError as error:
            os.close(self._lock)
            raise SpillFailed(f"cannot read the spill folder {folder}: {error.strerror}") from error
        self._delete_acked()
        self._read_ordinal = self._acked

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, acknowledged or not."""
        return sum(file.size for file in self._files)

    @property
    def last_ordinal(self) -> int:
        """The newest record's ordinal; 0 if there never was one."""
        return self._next - 1

    @property
    def has_unread(self) -> bool:
        return self._read_ordinal < self.last_ordinal

    @property
    def is_empty(self) -> bool:
        """Everything has been acknowledged."""
        return self._acked >= self.last_ordinal

    def append(self, payload: bytes) -> int:
        """Store `payload` after everything else and return its ordinal. Raises SpillFull, SpillFailed."""
        ordinal = self._next
        body = struct.pack(">QI", ordinal, len(payload)) + payload
        record = struct.pack(">II", _MAGIC, zlib.crc32(body)) + body
        if self.size_bytes + len(record) > self.max_bytes:
            raise SpillFull(
                f"{self.folder} holds {self.size_bytes} bytes; {len(record)} more would pass its bound of "
                f"{self.max_bytes}: bring the broker back or raise spill.max_bytes_per_stream"
            )
        try:
            self._write(ordinal, record)
        except OSError as error:
            self._forget_partial()
            raise SpillFailed(f"cannot write to the spill folder {self.folder}: {error.strerror}") from error
        self._next += 1
        return ordinal

    def read(self) -> Record | None:
        """The oldest record not yet read since the queue was opened, or None. Raises SpillFailed."""
        while self.has_unread:
            file = next((one for one in self._files if one.last > self._read_ordinal), None)
            if file is None:
                return None
            offset = self._reader[1] if self._reader is not None and self._reader[0] == file.path else 0
            try:
                with file.path.open("rb") as opened:
                    opened.seek(offset)
                    found = _read_record(opened)
            except OSError as error:
                raise SpillFailed(f"cannot read {file.path}: {error.strerror}") from error
            if found is None:
                # It was whole when this process opened or wrote it: the disk has changed it since.
                self.corrupt_bytes += file.size - offset
                self._read_ordinal = file.last
                continue
            self._reader = (file.path, offset + _HEADER.size + len(found.payload))
            if found.ordinal > self._read_ordinal:
                self._read_ordinal = found.ordinal
                return found
        return None

    def rewind(self, ordinal: int) -> None:
        """Read again from the record `ordinal` on (its delivery failed)."""
        self._read_ordinal = min(self._read_ordinal, max(ordinal - 1, self._acked))
        self._reader = None

    def mark_read(self, ordinal: int) -> None:
        """The caller still holds everything up to `ordinal` and needs no reading of it."""
        self._read_ordinal = max(self._read_ordinal, ordinal)
        self._reader = None

    def acknowledge(self, ordinal: int) -> None:
        """Everything up to `ordinal` is delivered. Called in order."""
        if ordinal <= self._acked:
            return
        self._acked = ordinal
        self._read_ordinal = max(self._read_ordinal, ordinal)
        raw = struct.pack(">Q", ordinal)
        # Not written is as good as lost in a power cut: some segments are sent twice.
        with contextlib.suppress(OSError):
            descriptor = os.open(self.folder / "acked", os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(descriptor, raw + struct.pack(">I", zlib.crc32(raw)), 0)
            finally:
                os.close(descriptor)
        self._delete_acked()

    def close(self) -> None:
        self._close_writer()
        os.close(self._lock)

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, ordinal: int, record: bytes) -> None:
        if self._writer is not None and self._files and self._files[-1].size >= FILE_BYTES:
            self._close_writer()
        if self._writer is None:
            path = self.folder / f"{ordinal:020d}.spill"
            self._writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._files.append(_File(path, ordinal, ordinal - 1, 0))
        view = memoryview(record)
        while view:
            view = view[os.write(self._writer, view) :]
        if self._fsync:
            os.fsync(self._writer)
        self._files[-1].size += len(record)
        self._files[-1].last = ordinal

    def _forget_partial(self) -> None:
        """Cut a half-written record off, so that the next append stands on a whole one."""
        if self._writer is None:
            return
        file = self._files[-1]
        with contextlib.suppress(OSError):
            os.ftruncate(self._writer, file.size)
        self._close_writer()
        if file.size == 0:
            self._files.pop()
            with contextlib.suppress(OSError):
                file.path.unlink()

    def _close_writer(self) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._writer)
            os.close(self._writer)
            self._writer = None

    def _recover(self, path: Path) -> None:
        size = path.stat().st_size
        good = 0
        first = last = self._next - 1
        with path.open("rb") as opened:
            while (record := _read_record(opened)) is not None:
                if good == 0:
                    first = record.ordinal
                last = record.ordinal
                good = opened.tell()
            rest = size - good
            opened.seek(good)
            magic = opened.read(4)
        if rest:
            header_is_whole = rest >= _HEADER.size and magic == struct.pack(">I", _MAGIC)
            torn = not header_is_whole or self._is_cut_short(path, good, size)
            self.torn_bytes += rest if torn else 0
            self.corrupt_bytes += 0 if torn else rest
            os.truncate(path, good)
        if good == 0:
            path.unlink()
            return
        self._files.append(_File(path, first, last, good))
        self._next = max(self._next, last + 1)

    @staticmethod
    def _is_cut_short(path: Path, offset: int, size: int) -> bool:
        with path.open("rb") as opened:
            opened.seek(offset)
            length = int(_HEADER.unpack(opened.read(_HEADER.size))[3])
        return offset + _HEADER.size + length > size

    def _read_acked(self) -> int:
        try:
            raw = (self.folder / "acked").read_bytes()
        except OSError:
            return 0
        if len(raw) != _ACKED.size or zlib.crc32(raw[:8]) != _ACKED.unpack(raw)[1]:
            return 0
        return int(_ACKED.unpack(raw)[0])

    def _delete_acked(self) -> None:
        while self._files and self._files[0].last <= self._acked:
            if len(self._files) == 1:
                self._close_writer()
            file = self._files.popleft()
            with contextlib.suppress(OSError):
                file.path.unlink()


def _read_record(opened: BinaryIO) -> Record | None:
    """The record at the file's position, or None if it is not whole and right."""
    header = opened.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    magic, crc, ordinal, length = _HEADER.unpack(header)
    if magic != _MAGIC or length > MAX_RECORD_BYTES:
        return None
    payload = opened.read(length)
    if len(payload) < length or zlib.crc32(header[8:] + payload) != crc:
        return None
    return Record(ordinal, payload)
