"""Where video comes from: URL, file, directory, device, street camera. Packets only; nothing is decoded here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType

import av
from av.container import InputContainer

from skyscraper.errors import ConfigError, SkyscraperError
from skyscraper.media.mux import CARRIAGES, VideoPacket
from skyscraper.service.logs import without_credentials

# How often a watched directory is looked at; a file counts as finished when two looks find the same size.
WATCH_SECONDS = 1.0
VIDEO_SUFFIXES = {".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts"}
VIDEO_SUFFIXES |= {".webm", ".h264", ".h265", ".hevc"}


class SourceKind(Enum):
    URL = "url"
    FILE = "file"
    DIRECTORY = "directory"
    DEVICE = "device"
    STREET = "street"


class SourceError(SkyscraperError):
    """A source that cannot be read. `reason` is one of a bounded set of words, used as a metric label."""

    def __init__(self, reason: str, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.retriable = retriable


@dataclass(frozen=True)
class Source:
    """A source as the user named it; `shown` carries no credentials."""

    kind: SourceKind
    location: str

    @property
    def shown(self) -> str:
        return without_credentials(self.location)

    @property
    def live(self) -> bool:
        """Whether it goes on without us: it is connected to again, and cannot be asked to wait."""
        return self.kind in {SourceKind.URL, SourceKind.DEVICE}


def parse_source(text: str) -> Source:
    """Tell what `text` names; nothing is opened or looked up. Raises ConfigError for an empty text."""
    if not text.strip():
        raise ConfigError(
            "a source is a URL, a file, a directory, a device (/dev/video0) or street:…; this one is empty"
        )
    if text.startswith("street:"):
        return Source(SourceKind.STREET, text)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    elif re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", text):
        return Source(SourceKind.URL, text)
    if re.fullmatch(r"/dev/video\d+", text):
        return Source(SourceKind.DEVICE, text)
    return Source(SourceKind.DIRECTORY if Path(text).is_dir() else SourceKind.FILE, text)


def locations(
    source: Source,
    *,
    loop: bool = False,
    watch: bool = False,
    sleep: Callable[[float], bool],
) -> Iterator[str]:
    """What to open, one after the other: endless for live sources, with `loop` and with `watch`.

    `sleep(seconds)` waits and says whether to stop. Raises SourceError where nothing is there.
    """
    if source.live:
        while True:
            yield source.location
    if source.kind is SourceKind.DIRECTORY:
        yield from _directory(Path(source.location), loop=loop, watch=watch, sleep=sleep)
        return
    path = _street_clip(source.location) if source.kind is SourceKind.STREET else Path(source.location)
    if not path.is_file():
        raise SourceError("not_found", f"{path}: no such file or directory")
    yield str(path)
    while loop or source.kind is SourceKind.STREET:
        yield str(path)


def _directory(folder: Path, *, loop: bool, watch: bool, sleep: Callable[[float], bool]) -> Iterator[str]:
    done: set[str] = set()
    sizes: dict[str, int] = {}
    while True:
        try:
            found = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
            now = {path.name: path.stat().st_size for path in found}
        except OSError as error:
            raise SourceError("not_found", f"{folder}: cannot list it ({error.strerror})") from error
        if not found and not watch:
            raise SourceError(
                "not_found", f"{folder}: no video files in it (looked for {', '.join(sorted(VIDEO_SUFFIXES))})"
            )
        for path in found:
            if path.name in done or (watch and sizes.get(path.name) != now[path.name]):
                continue
            done.add(path.name)
            yield str(path)
        sizes = now
        if watch:
            if sleep(WATCH_SECONDS):
                return
        elif loop:
            done.clear()
        else:
            return


def _street_clip(location: str) -> Path:
    # Rendering needs OpenCV and the sprite asset, which no other source does.
    from skyscraper.media.street import StreetSpec, cached_clip

    return Path(cached_clip(StreetSpec.parse(location)).video_path)


class VideoInput:
    """One opened file or connection: its first video stream. Audio and everything else is left out."""

    def __init__(self, source: Source, location: str, *, open_seconds: float, read_seconds: float) -> None:
        """Raises SourceError. No call on it waits longer than the timeouts given."""
        self._shown = without_credentials(location)
        options = {}
        container_format = None
        if source.kind is SourceKind.DEVICE:
            container_format, options = "v4l2", {"input_format": "mjpeg"}
        elif location.startswith(("rtsp://", "rtsps://")):
            # UDP loses packets silently on a busy network, and a lost packet is a broken GOP.
            options = {"rtsp_transport": "tcp"}
        try:
            opened = av.open(
                location, "r", format=container_format, options=options, timeout=(open_seconds, read_seconds)
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._explained(error, "open") from error
        self._container: InputContainer = opened
        try:
            self.stream = self._video_stream(source)
        except SourceError:
            self.close()
            raise
        self.codec = self.stream.codec_context.codec.canonical_name

    def _video_stream(self, source: Source) -> av.VideoStream:
        if not self._container.streams.video:
            kinds = ", ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"
            raise SourceError("no_video", f"{self._shown}: it has no video stream (found: {kinds})")
        stream = self._container.streams.video[0]
        try:
            codec = stream.codec_context.codec.canonical_name
        except AttributeError:
            codec = "unknown"
        if codec == "rawvideo":
            raise SourceError(
                "raw_video",
                f"{self._shown} gives raw pictures, which would have to be encoded, and the publisher never encodes. "
                f"Let ffmpeg do it: ffmpeg -f v4l2 -i {source.location} -c:v libx264 -preset ultrafast -tune "
                "zerolatency -g 50 -f mpegts 'tcp://127.0.0.1:9999?listen', and publish tcp://127.0.0.1:9999",
            )
        if codec not in CARRIAGES:
            raise SourceError(
                "unsupported_codec",
                f"{self._shown}: no segment can carry codec {codec}; known are {', '.join(sorted(CARRIAGES))}",
            )
        return stream

    def packets(self) -> Iterator[VideoPacket]:
        """Compressed frames in decode order until the input ends. Raises SourceError where it breaks or stalls."""
        try:
            for packet in self._container.demux(self.stream):
                # The last, empty packet only tells a decoder to give out what it holds.
                if packet.size:
                    yield packet
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._explained(error, "read") from error

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> VideoInput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _explained(self, error: Exception, doing: str) -> SourceError:
        # FFmpeg's own message repeats the URL with its credentials.
        text = getattr(error, "strerror", None) or type(error).__name__
        reason = "broken"
        if isinstance(error, av.error.ExitError | TimeoutError):
            reason, text = "timeout", "it did not answer in time"
        elif isinstance(error, FileNotFoundError | av.error.HTTPNotFoundError):
            reason = "not_found"
        elif isinstance(error, av.error.ProtocolNotFoundError):
            return SourceError("unknown_protocol", f"{self._shown}: FFmpeg knows no such protocol")
        elif isinstance(error, ConnectionError):
            reason = "unreachable"
        elif isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError | PermissionError):
            reason = "denied"
        elif isinstance(error, av.error.InvalidDataError):
            reason, text = "bad_data", "it is no video that FFmpeg knows, or it is damaged"
        return SourceError(reason, f"{self._shown}: cannot {doing} it: {text}", retriable=True)
