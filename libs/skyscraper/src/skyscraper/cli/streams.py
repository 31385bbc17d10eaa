"""`skyscraper stream`: the register of streams. Publishers and decoders follow what is written here."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from skyscraper.cli.kafka import LOCAL, Bootstrap, client_at
from skyscraper.errors import ConfigError, SkyscraperError
from skyscraper.v1.stream_pb2 import STREAM_STATE_REMOVING, Capture, Stream, StreamState

stream_app = typer.Typer(help="Streams: which cameras there are, and what becomes of them.", no_args_is_help=True)

StreamId = Annotated[str, typer.Argument(metavar="STREAM", help="Name of the camera, e.g. gate-3.")]
Knobs = Annotated[
    list[str] | None,
    typer.Option("--knob", metavar="NAME=VALUE", help="Fixed value of a knob; others take the default. Repeatable."),
]
# A broker that runs answers within a second; colliding with other editors costs some more.
_DEADLINE_SECONDS = 15.0
_LOOK_SECONDS = 0.5
_PIPE_COLUMNS = 240


@stream_app.command("add")
def add(
    stream: StreamId,
    source: Annotated[
        str, typer.Argument(help="URL without credentials, file, folder, /dev/video0, or street:people?density=6")
    ],
    pipeline: Annotated[str, typer.Option(help="Pipeline that turns it into rows.")] = "counting",
    version: Annotated[str, typer.Option(help="Version of the pipeline; left out, the installed one.")] = "",
    tenant: Annotated[str, typer.Option(help="Who pays for it.")] = "",
    weight: Annotated[float, typer.Option(help="Importance relative to other streams.")] = 1.0,
    knob: Knobs = None,
    partition: Annotated[int | None, typer.Option(help="Left out: the lowest free one.", min=0)] = None,
    publisher: Annotated[str, typer.Option(help="Instance name of the publisher that captures it.")] = "0",
    loop: Annotated[bool, typer.Option("--loop", help="Start a file or folder again when it ends.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for new files in a folder for ever.")] = False,
    pace: Annotated[str, typer.Option(help="Of files: real, max, or a factor of real time.")] = "real",
    bootstrap: Bootstrap = LOCAL,
) -> None:
    """Register a camera; the publisher named opens it within a second."""
    from skyscraper.bus.stream_edits import adding

    if loop and watch:
        raise ConfigError("--loop and --watch are both given: a watched folder never ends, so leave --loop out")
    entry = Stream(
        stream_id=_stream_id(stream),
        source=_source(source),
        pipeline=pipeline,
        pipeline_version=version,
        tenant=tenant,
        weight=_weight(weight),
        publisher=_publisher(publisher),
        configuration=_knobs(knob),
        capture=Capture(loop=loop, watch=watch, pace=_pace(pace)),
    )
    client = client_at(bootstrap)
    _check_pipeline(client, entry)
    register = _change(client, adding(entry, partition))
    print(f"added {stream}: partition {register[stream].stream.partition}, captured by publisher {publisher}")


@stream_app.command("pause")
def pause(stream: StreamId, bootstrap: Bootstrap = LOCAL) -> None:
    """Publish nothing more of it; what is in Kafka already is still processed."""
    from skyscraper.bus.stream_edits import pausing

    _change(client_at(bootstrap), pausing(stream))
    print(f"paused {stream}")


@stream_app.command("resume")
def resume(stream: StreamId, bootstrap: Bootstrap = LOCAL) -> None:
    """Publish it again."""
    from skyscraper.bus.stream_edits import resuming

    _change(client_at(bootstrap), resuming(stream))
    print(f"resumed {stream}")


@stream_app.command("remove")
def remove(
    stream: StreamId,
    wait_seconds: Annotated[float, typer.Option(help="Longest wait for what is left of it.", min=0)] = 60.0,
    force: Annotated[
        bool, typer.Option("--force", help="Do not wait: what is left is processed as an unregistered stream's.")
    ] = False,
    group: Annotated[str, typer.Option(help="Consumer group of the decoders.")] = "sky-decoder",
    bootstrap: Bootstrap = LOCAL,
) -> None:
    """Stop it, wait until everything of it is published and processed, and give its id and partition free.

    Interrupted or out of time, the stream stays stopped; the same command goes on where it was.
    """
    from skyscraper.bus.stream_edits import forgetting, retiring

    client = client_at(bootstrap)
    _change(client, retiring(stream))
    until = time.monotonic() + wait_seconds
    while not force and (left := _left(client, stream, group)):
        if time.monotonic() >= until:
            raise SkyscraperError(f"{stream} is stopped but not removed yet: {left}. Run the same command again later")
        time.sleep(_LOOK_SECONDS)
    _change(client, forgetting(stream, force=force))
    print(f"removed {stream}")


@stream_app.command("list")
def list_streams(
    bootstrap: Bootstrap = LOCAL,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per stream.")] = False,
) -> None:
    """Every registered stream."""
    from skyscraper.bus.register import read_register

    register, _ = read_register(client_at(bootstrap), deadline_seconds=_DEADLINE_SECONDS)
    streams = [registration.stream for _, registration in sorted(register.items())]
    if as_json:
        for one in streams:
            print(json.dumps(_told(one)))
        return
    shown = ("stream", "state", "publisher", "partition", "pipeline", "weight", "tenant", "source")
    table = Table(*shown, show_edge=False, header_style="bold")
    for one in streams:
        told = _told(one)
        if one.pipeline_version:
            told["pipeline"] = f"{one.pipeline}@{one.pipeline_version}"
        table.add_row(*(f"{value:g}" if isinstance(value, float) else str(value) for value in map(told.get, shown)))
    console = Console()
    # Whoever reads a pipe wants whole words, not a terminal's width.
    console.print(table, width=None if console.is_terminal else _PIPE_COLUMNS)


@stream_app.command("set-weight")
def set_weight(
    stream: StreamId,
    weight: Annotated[float, typer.Argument(help="Importance relative to other streams.")],
    bootstrap: Bootstrap = LOCAL,
) -> None:
    """Change how much it counts when streams compete for cores and dollars."""
    from skyscraper.bus.stream_edits import editing

    value = _weight(weight)
    _change(client_at(bootstrap), editing(stream, lambda entry: setattr(entry, "weight", value)))
    print(f"{stream}: weight {value:g}")


@stream_app.command("set-source")
def set_source(
    stream: StreamId,
    source: Annotated[str, typer.Argument(help="As for add.")],
    bootstrap: Bootstrap = LOCAL,
) -> None:
    """Read it from elsewhere: its publisher opens the new source as soon as the old one is closed."""
    from skyscraper.bus.stream_edits import editing

    value = _source(source)
    _change(client_at(bootstrap), editing(stream, lambda entry: setattr(entry, "source", value)))
    print(f"{stream}: source {value}")


@stream_app.command("set-publisher")
def set_publisher(
    stream: StreamId,
    publisher: Annotated[str, typer.Argument(help="Instance name of the publisher that captures it from now on.")],
    bootstrap: Bootstrap = LOCAL,
) -> None:
    """Let another publisher capture it. Pause it before and resume it after, or the end of the old one's video may come
    after the beginning of the new one's, and is then set aside as a dead letter."""
    from skyscraper.bus.stream_edits import editing

    value = _publisher(publisher)
    _change(client_at(bootstrap), editing(stream, lambda entry: setattr(entry, "publisher", value)))
    print(f"{stream}: captured by publisher {value}")


@stream_app.command("set-pipeline")
def set_pipeline(
    stream: StreamId,
    pipeline: Annotated[str, typer.Argument(help="Pipeline that turns it into rows from its next segment on.")],
    version: Annotated[str, typer.Option(help="Version of the pipeline; left out, the installed one.")] = "",
    knob: Knobs = None,
    bootstrap: Bootstrap = LOCAL,
) -> None:
    """Change its pipeline, its version or its knobs. Knobs stay as they are where none is given and the pipeline is the
    same; another pipeline begins with its own defaults."""
    from skyscraper.bus.stream_edits import editing, known

    client = client_at(bootstrap)
    chosen = _knobs(knob)

    def edit(entry: Stream) -> None:
        if chosen or entry.pipeline != pipeline:
            entry.configuration.clear()
            entry.configuration.update(chosen)
        entry.pipeline, entry.pipeline_version = pipeline, version

    # Before anything is written; the change itself is made on the entry as it then is.
    _check_pipeline(client, _edited(known(_register(client), stream), edit))
    _change(client, editing(stream, edit))
    print(f"{stream}: pipeline {pipeline}" + (f", version {version}" if version else ""))


def _left(client: Mapping[str, Any], stream: str, group: str) -> str:
    """What of a retired stream is not over yet, in words; empty where nothing is."""
    from skyscraper.bus.backlog import waiting_segments

    registration = _register(client).get(stream)
    if registration is None or registration.stream.state != STREAM_STATE_REMOVING:
        return ""
    entry = registration.stream
    if entry.publisher:
        return (
            f"publisher {entry.publisher!r} has not said yet that it holds nothing more of it (start that publisher, "
            "or give up what it may hold with --force)"
        )
    waiting = waiting_segments(client, group, entry.partition, deadline_seconds=_DEADLINE_SECONDS)
    return f"{waiting} segments on partition {entry.partition} wait for a decoder of group {group}" if waiting else ""


def _check_pipeline(client: Mapping[str, Any], entry: Stream) -> None:
    """Raises ConfigError for a pipeline, version, knob or value that the installation does not know."""
    from skyscraper.bus.profiles import read_profiles
    from skyscraper.pipeline import Knob, PipelineMissing, configure, load_pipeline

    profiles = read_profiles(client, deadline_seconds=_DEADLINE_SECONDS)
    profile = profiles.get(entry.pipeline)
    if profile is None:
        raise ConfigError(
            f"there is no pipeline {entry.pipeline!r}; registered are: {', '.join(sorted(profiles)) or 'none'}. "
            f"Where it is installed: skyscraper topics create --pipeline {entry.pipeline}"
        )
    knobs: Sequence[Knob] = [
        Knob(one.name, tuple(one.domain), one.default_value, one.description) for one in profile.knobs
    ]
    if entry.pipeline_version not in {"", profile.version}:
        try:
            knobs = load_pipeline(entry.pipeline, entry.pipeline_version).knobs
        except PipelineMissing as error:
            raise ConfigError(
                f"version {entry.pipeline_version!r} of {entry.pipeline} is unknown: registered is "
                f"{profile.version!r}, and here {error}"
            ) from error
    configure(knobs, entry.configuration)


def _change(client: Mapping[str, Any], change: Any) -> Mapping[str, Any]:
    from skyscraper.bus.register import change_register

    return change_register(client, change, deadline_seconds=_DEADLINE_SECONDS)


def _register(client: Mapping[str, Any]) -> Mapping[str, Any]:
    from skyscraper.bus.register import read_register

    return read_register(client, deadline_seconds=_DEADLINE_SECONDS)[0]


def _edited(stream: Stream, edit: Any) -> Stream:
    entry = Stream()
    entry.CopyFrom(stream)
    edit(entry)
    return entry


def _told(stream: Stream) -> dict[str, Any]:
    state = StreamState.Name(stream.state).removeprefix("STREAM_STATE_").lower()
    return {
        "stream": stream.stream_id,
        "state": "active" if state == "unspecified" else state,
        "publisher": stream.publisher,
        "partition": stream.partition,
        "pipeline": stream.pipeline,
        "pipeline_version": stream.pipeline_version,
        "configuration": dict(stream.configuration),
        "tenant": stream.tenant,
        "weight": stream.weight or 1.0,
        "source": stream.source,
        "loop": stream.capture.loop,
        "watch": stream.capture.watch,
        "pace": stream.capture.pace or "real",
    }


def _stream_id(text: str) -> str:
    from skyscraper.bus.topics import is_stream_id

    if not is_stream_id(text):
        raise ConfigError(
            f"{text!r} is not a stream id: use a-z, 0-9, dot and dash, starting with a letter or digit, at most 63 "
            "characters"
        )
    return text


def _source(text: str) -> str:
    """Without secrets, for everyone reads `sky.streams`; and absolute, for the publisher runs in another folder."""
    from skyscraper.media.sources import SourceKind, parse_source

    source = parse_source(text)
    if source.shown != source.location:
        raise ConfigError(
            f"the source {source.shown} was given with credentials, and whoever reads sky.streams would read them: "
            "leave them out, and put them into the publisher's own settings under [credentials], by host"
        )
    if source.kind in {SourceKind.FILE, SourceKind.DIRECTORY}:
        return str(Path(source.location).absolute())
    return source.location


def _weight(value: float) -> float:
    if not 0 < value < float("inf"):
        raise ConfigError(f"a weight of {value:g} cannot be used: give a positive number; 1 is the usual")
    return value


def _pace(text: str) -> str:
    try:
        usable = text in {"real", "max"} or 0 < float(text) < float("inf")
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"a pace of {text!r} is no speed: use real, max or a positive factor")
    return text


def _publisher(text: str) -> str:
    from skyscraper.service.config import is_instance_name

    if not is_instance_name(text):
        raise ConfigError(
            f"{text!r} is not the name of a publisher: it is the `instance` of its settings, of letters, digits, dot, "
            "dash and underscore"
        )
    return text


def _knobs(given: Sequence[str] | None) -> dict[str, str]:
    chosen = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"--knob {one!r} is not of the form name=value")
        chosen[name] = value
    return chosen
