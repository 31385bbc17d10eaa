"""What the decoder knows of its streams: the compacted topic sky.streams, and the installed pipelines."""

from __future__ import annotations

import threading

from google.protobuf.message import DecodeError
from skyscraper.bus.compacted import CompactedTable
from skyscraper.bus.ledger import DEFAULT_TENANT
from skyscraper.errors import BadSegment, ConfigError, SkyscraperError
from skyscraper.pipeline import Pipeline, PipelineMissing, configure, load_pipeline
from skyscraper.v1 import stream_pb2

from skyscraper_decoder.step import StreamSettings

# A stream that was registered just before its first segment arrives here may not be in the table yet.
_REFRESH_SECONDS = 5.0


class PipelineNotHere(SkyscraperError):
    """A stream's pipeline, or that version of it, is not installed on this decoder: its segments wait until it is, or
    until a decoder that has it takes over, or until the stream is given another."""

    retriable = True


class Directory:
    """Answers from memory; asks Kafka only for a stream it has never heard of."""

    def __init__(self, table: CompactedTable, default_pipeline: str | None) -> None:
        self._table = table
        self._default = default_pipeline
        self._lock = threading.Lock()
        self._pipelines: dict[tuple[str, str], Pipeline] = {}
        self._unregistered: set[str] = set()
        self._known: dict[str, tuple[bytes, StreamSettings]] = {}

    def settings(self, stream_id: str) -> StreamSettings:
        """As the register says now: a change holds from the stream's next segment on.

        Raises BadSegment: `unregistered_stream`, or `stream_settings` for an entry that cannot be used. Raises
        PipelineNotHere, which is waited out: in a roll-out some decoders do not have the new version yet.
        """
        value = self._entry(stream_id)
        if value is None:
            if self._default is None:
                raise BadSegment(
                    "unregistered_stream", f"stream {stream_id} is not in sky.streams and there is no default_pipeline"
                )
            pipeline = self._pipeline(self._default, "")
            return StreamSettings(pipeline, configure(pipeline.knobs, {}), partition=None)
        with self._lock:
            known = self._known.get(stream_id)
        if known is not None and known[0] == value:
            return known[1]
        settings = self._read(stream_id, value)
        with self._lock:
            self._known[stream_id] = (value, settings)
        return settings

    def _entry(self, stream_id: str) -> bytes | None:
        key = stream_id.encode()
        value = self._table.get(key)
        if value is None and stream_id not in self._unregistered:
            self._table.refresh(deadline_seconds=_REFRESH_SECONDS)
            value = self._table.get(key)
            if value is None:
                self._unregistered.add(stream_id)
        return value

    def _read(self, stream_id: str, value: bytes) -> StreamSettings:
        try:
            stream = stream_pb2.Stream.FromString(value)
            pipeline = self._pipeline(stream.pipeline or self._default or "", stream.pipeline_version)
            configuration = configure(pipeline.knobs, stream.configuration)
        except PipelineMissing as error:
            raise PipelineNotHere(f"stream {stream_id} waits: {error}") from error
        except (DecodeError, ConfigError) as error:
            raise BadSegment("stream_settings", f"the entry of {stream_id} in sky.streams: {error}") from error
        return StreamSettings(pipeline, configuration, stream.partition, stream.tenant or DEFAULT_TENANT)

    def _pipeline(self, name: str, version: str) -> Pipeline:
        with self._lock:
            if (name, version) not in self._pipelines:
                self._pipelines[name, version] = load_pipeline(name, version)
            return self._pipelines[name, version]
