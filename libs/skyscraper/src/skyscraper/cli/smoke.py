"""`skyscraper smoke`: a clip of a few seconds in at one end, and its rows out at the other."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from confluent_kafka import Consumer, TopicPartition

from skyscraper.cli.kafka import LOCAL, Bootstrap, client_at
from skyscraper.errors import SkyscraperError

_REGISTER_SECONDS = 15.0
_REQUEST_SECONDS = 10.0
_POLL_SECONDS = 0.5
# A street camera goes on for ever; so much of any source is enough.
_SEGMENTS = 4


def smoke(
    bootstrap: Bootstrap = LOCAL,
    pipeline: Annotated[str, typer.Option(help="Pipeline that turns the clip into rows.")] = "counting",
    source: Annotated[str, typer.Option(help="The clip.")] = "street:people?seed=1&density=4&seconds=8",
    seconds: Annotated[int, typer.Option(help="In how long its rows must come out.", min=10)] = 180,
) -> None:
    """Publish a clip as a stream of its own, wait for its rows, remove the stream; exit status 1 where none come."""
    from skyscraper.bus.register import change_register
    from skyscraper.bus.reports import ReportReader
    from skyscraper.bus.stream_edits import forgetting
    from skyscraper.cli.publishing import run_publisher

    deadline = time.monotonic() + seconds
    client = client_at(bootstrap)
    stream = f"smoke-{uuid.uuid4().hex[:8]}"
    reports = ReportReader(client, since_seconds=time.time())
    try:
        entry = {"id": stream, "source": source, "pipeline": pipeline, "pace": "max", "max_segments": _SEGMENTS}
        if run_publisher(entry, bootstrap) != 0:
            raise SkyscraperError(f"the clip {source} could not be published; the publisher's log above says why")
        expected, segments, rows = _published(client, stream), 0, 0
        while segments < expected:
            if time.monotonic() >= deadline:
                raise SkyscraperError(
                    f"{segments} of {expected} segments of {stream} were processed within {seconds} s: look at the "
                    "decoders' and inference's logs"
                )
            for seen in reports.poll(_POLL_SECONDS):
                if seen.report.stream_id == stream:
                    segments, rows = segments + 1, rows + seen.report.rows
        if rows == 0:
            raise SkyscraperError(f"{segments} segments of {stream} were processed, but gave no rows")
    finally:
        reports.close()
        change_register(client, forgetting(stream, force=True), deadline_seconds=_REGISTER_SECONDS)
    typer.echo(f"{stream}: {segments} segments, {rows} rows, after {seconds - (deadline - time.monotonic()):.1f} s")


def _published(client: Mapping[str, Any], stream: str) -> int:
    """Segments of the stream in Kafka; its partition may have held another stream before."""
    from skyscraper.bus.register import read_register
    from skyscraper.bus.topics import SEGMENTS

    register, _ = read_register(client, deadline_seconds=_REGISTER_SECONDS)
    partition = register[stream].stream.partition
    consumer = Consumer({**client, "group.id": "skyscraper-smoke", "enable.auto.commit": False})
    try:
        place = TopicPartition(SEGMENTS, partition)
        low, high = consumer.get_watermark_offsets(place, timeout=_REQUEST_SECONDS)
        consumer.assign([TopicPartition(SEGMENTS, partition, low)])
        found, read = 0, low
        while read < high:
            message = consumer.poll(_REQUEST_SECONDS)
            if message is None or message.error() is not None:
                raise SkyscraperError(f"{SEGMENTS} [{partition}] cannot be read; is Kafka well?")
            found += message.key() == stream.encode()
            read = (message.offset() or 0) + 1
    finally:
        consumer.close()
    return found
