"""The clouds' interruption notices, from an HTTP server that answers as their metadata servers are documented to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from skyscraper.spot import Cloud, NoticeUnreadable, notices

NOW = 1_700_000_000.0


@dataclass
class Metadata:
    """path -> answer; other paths are 404. Requests without the header that a cloud wants are refused."""

    url: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    wants: str = ""


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    state = Metadata()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            text = state.answers.get(self.path)
            allowed = self.command == "PUT" or not state.wants or self.headers.get(state.wants)
            self.send_response(403 if not allowed else 404 if text is None else 200)
            self.end_headers()
            if allowed and text is not None:
                self.wfile.write(text.encode())

        do_GET = do_PUT = _answer  # noqa: N815 - the base class's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()


def test_aws_says_nothing_until_the_notice_and_then_the_time(metadata: Metadata) -> None:
    metadata.wants = "X-aws-ec2-metadata-token"
    metadata.answers["/latest/api/token"] = "secret"
    source = notices(Cloud.AWS, base_url=metadata.url, wall=lambda: NOW)
    assert source.seconds_left() is None
    at = datetime.fromtimestamp(NOW + 120, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata.answers["/latest/meta-data/spot/instance-action"] = json.dumps({"action": "terminate", "time": at})
    assert source.seconds_left() == pytest.approx(120)
    metadata.answers["/latest/meta-data/spot/instance-action"] = "soon"
    with pytest.raises(NoticeUnreadable):
        source.seconds_left()


def test_google_gives_thirty_seconds_from_the_first_sight(metadata: Metadata) -> None:
    now = [NOW]
    metadata.wants = "Metadata-Flavor"
    metadata.answers["/computeMetadata/v1/instance/preempted"] = "FALSE"
    source = notices(Cloud.GOOGLE, base_url=metadata.url, wall=lambda: now[0])
    assert source.seconds_left() is None
    metadata.answers["/computeMetadata/v1/instance/preempted"] = "TRUE\n"
    assert source.seconds_left() == 30
    now[0] += 12
    assert source.seconds_left() == 18


def test_azure_tells_of_preemption_among_other_events(metadata: Metadata) -> None:
    metadata.wants = "Metadata"
    path = "/metadata/scheduledevents?api-version=2020-07-01"
    metadata.answers[path] = json.dumps({"DocumentIncarnation": 1, "Events": [{"EventType": "Reboot"}]})
    source = notices(Cloud.AZURE, base_url=metadata.url, wall=lambda: NOW)
    assert source.seconds_left() is None
    at = format_datetime(datetime.fromtimestamp(NOW + 25, UTC), usegmt=True)
    metadata.answers[path] = json.dumps({"Events": [{"EventType": "Preempt", "NotBefore": at}]})
    assert source.seconds_left() == 25
    metadata.answers[path] = json.dumps({"Events": [{"EventType": "Preempt", "NotBefore": ""}]})
    assert source.seconds_left() == 30


@pytest.mark.parametrize("cloud", Cloud)
def test_a_silent_metadata_server_is_told_apart_from_no_notice(cloud: Cloud) -> None:
    with pytest.raises(NoticeUnreadable, match="does not answer"):
        notices(cloud, base_url="http://127.0.0.1:9").seconds_left()
