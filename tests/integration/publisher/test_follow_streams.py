"""A following publisher does what the register says, while it runs: nothing lost, in order, one capture a stream."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from skyscraper.cli import main

pytestmark = [pytest.mark.broker, pytest.mark.timeout(240)]

MakeService = Callable[..., Any]
Eventually = Callable[..., None]
MakeClip = Callable[..., Path]


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Streams:
    """`skyscraper stream ...`, in this process: starting another takes longer than the command."""

    def __init__(self, servers: str) -> None:
        self._servers = servers

    def run(self, *arguments: str) -> Done:
        command = ["stream", *arguments, "--bootstrap", self._servers]
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "argv", ["skyscraper", *command]):
            try:
                main()
            except SystemExit as ended:
                return Done(ended.code if isinstance(ended.code, int) else 1, out.getvalue(), err.getvalue())
        return Done(0, out.getvalue(), err.getvalue())

    def __call__(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def state(self, stream_id: str) -> dict[str, Any]:
        told = [json.loads(line) for line in self("list", "--json").splitlines()]
        return next((one for one in told if one["stream"] == stream_id), {})


@pytest.fixture
def streams(kafka: Any) -> Streams:
    return Streams(kafka.servers)


def sent(publisher: Any, stream_id: str) -> float:
    found: float = publisher.metric(f'skyscraper_publisher_segments_total{{stream="{stream_id}"}}')
    return found


def by_epoch(segments: list[Any]) -> dict[int, list[int]]:
    """Sequence numbers by epoch, in the topic's order; fails where epochs mix."""
    found: dict[int, list[int]] = {}
    epochs = [one.place[0] for one in segments]
    assert epochs == sorted(epochs)
    for one in segments:
        found.setdefault(one.place[0], []).append(one.place[1])
    return found


def assert_whole(segments: list[Any], epochs: int) -> None:
    """So many captures, each numbered without a gap or a repeat."""
    found = by_epoch(segments)
    assert len(found) == epochs
    for sequences in found.values():
        assert sequences == list(range(len(sequences)))


def test_a_stream_is_added_paused_resumed_moved_and_removed_while_others_go_on(
    kafka: Any, service: MakeService, make_clip: MakeClip, eventually: Eventually, streams: Streams
) -> None:
    one, two = make_clip(frames=100), make_clip(frames=150)
    own = {"id": "own", "source": str(one), "pace": 4.0, "loop": True}
    publisher = service(kafka.servers, [own], follow=True, instance="life").start()
    eventually(lambda: sent(publisher, "own") >= 1)

    streams("add", "guest", str(one), "--publisher", "life", "--pace", "4", "--loop", "--knob", "frame_rate=1")
    eventually(lambda: sent(publisher, "guest") >= 2)

    # What a capture does not depend on restarts nothing.
    streams("set-weight", "guest", "2.5")
    streams("set-pipeline", "guest", "counting", "--knob", "frame_rate=2")
    assert streams.state("guest")["weight"] == 2.5
    before = sent(publisher, "guest")
    eventually(lambda: sent(publisher, "guest") >= before + 2)
    assert len(by_epoch(kafka.segments("guest"))) == 1

    streams("pause", "guest")
    eventually(lambda: publisher.metric('skyscraper_publisher_stream_changes_total{change="forget"}') == 1)
    stored = len(kafka.segments("guest"))
    before = sent(publisher, "own")
    eventually(lambda: sent(publisher, "own") >= before + 2)
    assert len(kafka.segments("guest")) == stored

    streams("resume", "guest")
    eventually(lambda: len(by_epoch(kafka.segments("guest"))) == 2)

    streams("set-source", "guest", str(two))
    eventually(lambda: len(by_epoch(kafka.segments("guest"))) == 3)
    assert {segment.headers.source for segment in kafka.segments("guest")} == {str(one), str(two)}

    streams("pause", "own")
    eventually(lambda: publisher.metric('skyscraper_publisher_stream_changes_total{change="forget"}') == 2)

    # No decoder runs, so what is in Kafka waits, and the stream stays registered, stopped.
    told = streams.run("remove", "guest", "--wait-seconds", "15")
    assert told.returncode == 1
    assert "wait for a decoder of group sky-decoder" in told.stderr
    assert streams.state("guest")["state"] == "removing"
    assert streams.state("guest")["publisher"] == ""
    assert_whole(kafka.segments("guest"), epochs=3)
    assert streams("remove", "guest", "--force") == "removed guest\n"
    assert streams.state("guest") == {}
    assert publisher.kill(signal.SIGTERM) == 0
    assert_whole(kafka.segments("own"), epochs=1)


def test_what_a_killed_publisher_left_on_disk_is_sent_although_its_streams_are_paused_and_removed_meanwhile(
    kafka: Any, service: MakeService, make_clip: MakeClip, eventually: Eventually, streams: Streams
) -> None:
    clip = str(make_clip(frames=500))
    names = ("kept", "halted", "leaving")
    for name in names:
        streams("add", name, clip, "--publisher", "killed", "--pace", "8", "--loop")
    publisher = service(kafka.servers, [], follow=True, instance="killed").start()
    eventually(lambda: all(sent(publisher, name) >= 3 for name in names))
    published = {name: sent(publisher, name) for name in names}
    kafka.broker.kill()
    spilled = "skyscraper_publisher_spilled_segments_total"
    eventually(lambda: all(publisher.metric(f'{spilled}{{stream="{name}"}}') >= 6 for name in names))
    publisher.kill()
    kafka.broker.start()
    streams("pause", "halted")
    assert streams.run("remove", "leaving", "--wait-seconds", "0").returncode == 1
    assert streams.state("leaving")["publisher"] == "killed"

    publisher.start()
    eventually(lambda: streams.state("leaving")["publisher"] == "")
    eventually(lambda: len(by_epoch(kafka.segments("kept"))) == 2)
    eventually(lambda: not list((publisher.log_path.parent / "spill" / "halted").glob("*.spill")))
    for name in ("halted", "leaving"):
        segments = kafka.segments(name)
        # A repeat has the same number; nothing between is missing.
        (sequences,) = by_epoch(segments).values()
        assert sorted(set(sequences)) == list(range(max(sequences) + 1))
        assert len(set(sequences)) >= published[name] + 6
    assert publisher.kill(signal.SIGTERM) == 0
    for name in names:
        streams("remove", name, "--force")


def test_a_publisher_that_starts_while_the_broker_is_away_captures_what_it_was_told_last(
    kafka: Any, service: MakeService, make_clip: MakeClip, eventually: Eventually, streams: Streams
) -> None:
    clip = str(make_clip(frames=100))
    streams("add", "last", clip, "--publisher", "alone", "--pace", "4", "--loop")
    publisher = service(kafka.servers, [], follow=True, instance="alone").start()
    eventually(lambda: sent(publisher, "last") >= 1)
    publisher.kill()
    kafka.broker.kill()
    publisher.start()
    spilled = 'skyscraper_publisher_spilled_segments_total{stream="last"}'
    eventually(lambda: publisher.metric(spilled) >= 3)
    kafka.broker.start()
    eventually(lambda: len(by_epoch(kafka.segments("last"))) == 2)
    assert publisher.kill(signal.SIGTERM) == 0
    second = max(by_epoch(kafka.segments("last")).items())[1]
    assert sorted(set(second)) == list(range(len(set(second))))
    streams("remove", "last", "--force")


def test_a_second_publisher_of_the_same_name_is_noticed_and_the_first_ends(
    kafka: Any, service: MakeService, make_clip: MakeClip, eventually: Eventually, streams: Streams, tmp_path: Path
) -> None:
    streams("add", "shared", str(make_clip(frames=100)), "--publisher", "twin", "--loop")
    first = service(kafka.servers, [], follow=True, instance="twin").start()
    eventually(lambda: sent(first, "shared") >= 1)
    second = type(first)(tmp_path / "second", kafka.servers, [], follow=True, instance="twin").start()
    try:
        assert first.wait(40) == 1
        assert "another publisher named 'twin' has started" in first.log
        eventually(lambda: sent(second, "shared") >= 1)
        assert second.kill(signal.SIGTERM) == 0
    finally:
        second.close()
    streams("remove", "shared", "--force")


def test_a_stream_that_a_publisher_follows_is_refused_to_one_that_brings_it_in_its_file(
    kafka: Any, service: MakeService, make_clip: MakeClip, streams: Streams
) -> None:
    clip = str(make_clip(frames=50))
    streams("add", "taken", clip, "--publisher", "somebody")
    publisher = service(kafka.servers, [{"id": "taken", "source": clip, "pace": "max"}]).start()
    assert publisher.wait() == 2
    assert "captured by the publisher 'somebody' already" in publisher.log
    assert kafka.segments("taken") == []
    streams("remove", "taken", "--force")


def test_a_source_that_cannot_be_opened_stops_nobody_and_a_better_one_is_taken_up(
    kafka: Any, service: MakeService, make_clip: MakeClip, eventually: Eventually, streams: Streams
) -> None:
    clip = str(make_clip(frames=100))
    streams("add", "typo", "/nowhere/at/all.mp4", "--publisher", "patient")
    streams("add", "fine", clip, "--publisher", "patient", "--pace", "max")
    publisher = service(kafka.servers, [], follow=True, instance="patient").start()
    eventually(lambda: publisher.metric('skyscraper_publisher_streams_count{state="failed"}') == 1)
    eventually(lambda: sent(publisher, "fine") == 2)
    streams("set-source", "typo", clip)
    eventually(lambda: sent(publisher, "typo") >= 1)
    assert publisher.kill(signal.SIGTERM) == 0
    for name in ("typo", "fine"):
        streams("remove", name, "--force")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pause", "nobody"), "there is no stream nobody"),
        (("add", "Wrong Id", "x.mp4"), "is not a stream id"),
        (("add", "a", "rtsp://u:hunter2@cam/x"), "rtsp://cam/x was given with credentials"),
        (("add", "a", "http://cam/x?token=hunter2"), "token=*** was given with credentials"),
        (("add", "a", "x.mp4", "--pipeline", "nothing"), "there is no pipeline 'nothing'; registered are: counting"),
        (("add", "a", "x.mp4", "--version", "77"), "version '77' of counting is unknown"),
        (("add", "a", "x.mp4", "--knob", "frame_rate=99"), "'99' is not one of 1, 2, 5, 10"),
        (("add", "a", "x.mp4", "--knob", "frame_rate"), "not of the form name=value"),
        (("add", "a", "x.mp4", "--partition", "999"), "has 24 partitions"),
        (("add", "a", "x.mp4", "--pace", "slow"), "is no speed"),
        (("set-weight", "a", "0"), "a weight of 0 cannot be used"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(streams: Streams, arguments: tuple[str, ...], words: str) -> None:
    done = streams.run(*arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


def test_no_broker_is_one_clear_line() -> None:
    done = Streams("127.0.0.1:1").run("list")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Kafka at 127.0.0.1:1 did not answer in time" in done.stderr
