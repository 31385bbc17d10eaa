"""The publisher process against a real broker: nothing lost, in order, through outages and kills."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.broker

MakeService = Callable[..., Any]
Eventually = Callable[..., None]


def places(segments: list[Any]) -> list[int]:
    """Sequence numbers in the order of the topic, repeats of the same id left out, as a decoder does."""
    seen: list[int] = []
    for segment in segments:
        if segment.place[1] not in seen:
            seen.append(segment.place[1])
    return seen


def test_a_file_is_published_whole_and_the_process_ends(
    kafka: Any, service: MakeService, make_clip: Callable[..., Path]
) -> None:
    publisher = service(kafka.servers, [{"id": "whole", "source": str(make_clip()), "pace": "max", "pipeline": "x"}])
    assert publisher.start().wait() == 0
    segments = kafka.segments("whole")
    assert [one.place[1] for one in segments] == [0, 1, 2, 3]
    assert sum(one.headers.frames for one in segments) == 200
    assert len({one.partition for one in segments}) == 1


def test_a_directory_is_published_in_name_order_on_one_clock(
    kafka: Any, service: MakeService, make_clip: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("b", "a"):
        (folder / f"{name}.mp4").write_bytes(make_clip(frames=100).read_bytes())
    publisher = service(kafka.servers, [{"id": "folder", "source": str(folder), "pace": "max"}])
    assert publisher.start().wait() == 0
    segments = kafka.segments("folder")
    ends = [one.headers.pts_seconds + one.headers.duration_seconds for one in segments]
    assert [one.headers.pts_seconds for one in segments[1:]] == pytest.approx(ends[:-1])
    assert ends[-1] == pytest.approx(8.0)


def test_a_stream_keeps_its_partition_over_restarts_and_two_streams_never_share_one(
    kafka: Any, service: MakeService, make_clip: Callable[..., Path]
) -> None:
    streams = [{"id": name, "source": str(make_clip(frames=50)), "pace": "max"} for name in ("keep-a", "keep-b")]
    for _ in range(2):
        assert service(kafka.servers, streams).start().wait() == 0
    used = [{one.partition for one in kafka.segments(name)} for name in ("keep-a", "keep-b")]
    assert [len(one) for one in used] == [1, 1]
    assert used[0] != used[1]


def test_broker_killed_while_publishing_loses_nothing_and_keeps_order(
    kafka: Any, service: MakeService, make_clip: Callable[..., Path], eventually: Eventually
) -> None:
    clip = make_clip(frames=500)
    stream = {"id": "outage", "source": str(clip), "pace": 8.0, "loop": True, "max_segments": 80}
    publisher = service(kafka.servers, [stream]).start()
    eventually(lambda: publisher.metric('skyscraper_publisher_segments_total{stream="outage"}') >= 5)
    kafka.broker.kill()
    eventually(lambda: publisher.metric('skyscraper_publisher_spilled_segments_total{stream="outage"}') >= 10)
    kafka.broker.start()
    assert publisher.wait(90) == 0
    segments = kafka.segments("outage")
    assert [one.place[1] for one in segments] == list(range(80))


def test_publisher_killed_while_the_broker_is_away_replays_its_spill_first(
    kafka: Any, service: MakeService, make_clip: Callable[..., Path], eventually: Eventually
) -> None:
    stream = {"id": "killed", "source": str(make_clip(frames=500)), "pace": 8.0, "loop": True}
    publisher = service(kafka.servers, [stream]).start()
    sent = 'skyscraper_publisher_segments_total{stream="killed"}'
    spilled = 'skyscraper_publisher_spilled_segments_total{stream="killed"}'
    eventually(lambda: publisher.metric(sent) >= 5)
    sent_before, spilled_before = publisher.metric(sent), publisher.metric(spilled)
    kafka.broker.kill()
    eventually(lambda: publisher.metric(spilled) >= spilled_before + 10)
    publisher.kill()
    kafka.broker.start()
    publisher.start()
    eventually(lambda: publisher.metric(sent) >= 20)
    assert publisher.kill(signal.SIGTERM) == 0
    segments = kafka.segments("killed")
    epochs = sorted({one.place[0] for one in segments})
    assert len(epochs) == 2
    assert [one.place[0] for one in segments] == sorted(one.place[0] for one in segments)
    first = places([one for one in segments if one.place[0] == epochs[0]])
    assert len(first) >= sent_before + 10
    assert first == list(range(len(first)))
    assert places([one for one in segments if one.place[0] == epochs[1]])[0] == 0


def test_a_full_spill_drops_the_newest_and_says_so(
    service: MakeService, make_clip: Callable[..., Path], eventually: Eventually
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        servers = f"127.0.0.1:{nobody.getsockname()[1]}"
        clip = make_clip("mjpeg", ".avi", frames=250, qscale="1")
        stream = {"id": "full", "source": str(clip), "pace": 60.0, "loop": True, "segment_seconds": 10.0}
        publisher = service(servers, [stream], spill={"max_bytes_per_stream": 8 * 1024**2}, register_seconds=2.0)
        publisher.start()
        dropped = 'skyscraper_publisher_segments_dropped_total{reason="spill_full",stream="full"}'
        eventually(lambda: publisher.metric(dropped) >= 2)
        assert publisher.metric('skyscraper_publisher_spill_bytes{stream="full"}') <= 8 * 1024**2
        assert "spill.max_bytes_per_stream" in publisher.log
        publisher.kill()


def test_a_camera_that_falls_silent_holds_nobody_up_and_its_password_is_never_shown(
    kafka: Any, service: MakeService, make_clip: Callable[..., Path], eventually: Eventually
) -> None:
    body = make_clip("libx264", ".ts").read_bytes()
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as camera:
        camera.settimeout(0.2)

        def answer() -> None:
            held = []
            while not stop.is_set():
                try:
                    connection, _ = camera.accept()
                except TimeoutError:
                    continue
                held.append(connection)
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + body[: len(body) // 2])
            for connection in held:
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://admin:hunter2@127.0.0.1:{camera.getsockname()[1]}/live.ts"
        streams = [
            {"id": "silent", "source": url},
            {"id": "well", "source": str(make_clip(frames=500)), "pace": "max"},
        ]
        patience = {"open_seconds": 3.0, "read_seconds": 1.0, "backoff_seconds": 0.1, "backoff_max_seconds": 0.2}
        publisher = service(kafka.servers, streams, input=patience).start()
        try:
            eventually(lambda: publisher.metric('skyscraper_publisher_segments_total{stream="well"}') >= 9)
            lost = 'skyscraper_publisher_reconnects_total{reason="timeout",stream="silent"}'
            eventually(lambda: publisher.metric(lost) >= 2)
            # What came before the silence is published, and the clock runs on over the reconnection.
            eventually(lambda: len(kafka.segments("silent")) >= 3)
        finally:
            publisher.kill(signal.SIGTERM)
            stop.set()
            thread.join(10)
    starts = [one.headers.pts_seconds for one in kafka.segments("silent")]
    assert starts == sorted(set(starts))
    assert "hunter2" not in publisher.log
    assert not any(b"hunter2" in (one.headers.source or "").encode() for one in kafka.segments("silent"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source": "/nowhere/at/all.mp4"}, "no such file or directory"),
        ({"partition": 9999}, "has 24 partitions"),
        ({"id": "Wrong Id"}, "is not a stream id"),
        ({"pace": -1.0}, "is no speed"),
        ({"loop": True, "watch": True}, "remove loop"),
    ],
)
def test_what_cannot_be_published_is_said_clearly(
    kafka: Any, service: MakeService, make_clip: Callable[..., Path], options: dict[str, Any], words: str
) -> None:
    stream = {"id": "bad", "source": str(make_clip(frames=50)), "pace": "max", **options}
    publisher = service(kafka.servers, [stream]).start()
    assert publisher.wait() in {1, 2}
    assert words in publisher.log


def test_audio_only_and_text_files_are_said_clearly(kafka: Any, service: MakeService, tmp_path: Path) -> None:
    import wave

    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(b"\0\1" * 8000)
    (tmp_path / "notes.mp4").write_text("not a video")
    for name, words in (("sound.wav", "no video stream (found: audio)"), ("notes.mp4", "no video that FFmpeg knows")):
        publisher = service(kafka.servers, [{"id": "bad", "source": str(tmp_path / name), "pace": "max"}]).start()
        assert publisher.wait() == 1
        assert words in publisher.log


def test_more_streams_than_partitions_says_how_to_add_some(
    kafka: Any, service: MakeService, make_clip: Callable[..., Path]
) -> None:
    clip = str(make_clip(frames=50))
    streams = [{"id": f"many-{number}", "source": clip, "pace": "max"} for number in range(25)]
    publisher = service(kafka.servers, streams).start()
    assert publisher.wait() == 2
    assert "kafka-topics.sh --alter --topic sky.segments" in publisher.log
