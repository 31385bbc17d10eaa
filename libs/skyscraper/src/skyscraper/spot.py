"""Spot machines that are about to be taken away: the clouds' notices behind one small interface.

A container orchestrator also sends SIGTERM when it drains the node, but not always, and later: the metadata server is
what the clouds promise. `seconds_left` asks once; call it every second or so.

| cloud | notice | source |
|---|---|---|
| AWS (EKS) | 120 s | Amazon EC2 User Guide, "Spot Instance interruption notices" (`spot/instance-action`, IMDSv2) |
| Google (GKE) | 30 s | Compute Engine, "Spot VMs": `instance/preempted` |
| Azure (AKS) | 30 s | "Scheduled Events": event type `Preempt` |
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from http import HTTPStatus
from typing import Protocol

from skyscraper.errors import SkyscraperError

# Metadata servers answer from the machine itself.
_TIMEOUT_SECONDS = 2.0
# Of an IMDSv2 token; asked for anew long before.
_TOKEN_SECONDS = 21_600
_GOOGLE_NOTICE_SECONDS = 30.0
# An event without a time is about to begin.
_AZURE_NOTICE_SECONDS = 30.0


class Cloud(Enum):
    AWS = "aws"
    GOOGLE = "google"
    AZURE = "azure"


class NoticeUnreadable(SkyscraperError):
    """The metadata server does not answer, or not as documented. Ask again."""

    retriable = True


class Notices(Protocol):
    def seconds_left(self) -> float | None:
        """Until the machine is taken away; None while nobody says so. Raises NoticeUnreadable."""
        ...


def notices(cloud: Cloud, *, base_url: str | None = None, wall: Callable[[], float] = time.time) -> Notices:
    """The adapter of a cloud. `base_url`: of another metadata server than the cloud's own, for tests."""
    match cloud:
        case Cloud.AWS:
            return AwsNotices(base_url or "http://169.254.169.254", wall)
        case Cloud.GOOGLE:
            return GoogleNotices(base_url or "http://metadata.google.internal", wall)
        case Cloud.AZURE:
            return AzureNotices(base_url or "http://169.254.169.254", wall)


class AwsNotices:
    """404 until there is a notice; then a JSON object with the time of the action."""

    def __init__(self, base_url: str, wall: Callable[[], float]) -> None:
        self._base_url = base_url
        self._wall = wall
        self._token = ""
        self._token_until = 0.0

    def seconds_left(self) -> float | None:
        if self._wall() >= self._token_until:
            token = _ask(
                f"{self._base_url}/latest/api/token",
                {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)},
                method="PUT",
            )
            self._token, self._token_until = token or "", self._wall() + _TOKEN_SECONDS / 2
        told = _ask(
            f"{self._base_url}/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": self._token}
        )
        if told is None:
            return None
        try:
            at = datetime.fromisoformat(json.loads(told)["time"].replace("Z", "+00:00"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NoticeUnreadable(f"the notice {told!r:.200} has no time") from error
        return max(0.0, at.timestamp() - self._wall())


class GoogleNotices:
    """FALSE, then TRUE; the machine is stopped 30 s after that."""

    def __init__(self, base_url: str, wall: Callable[[], float]) -> None:
        self._base_url = base_url
        self._wall = wall
        self._seen: float | None = None

    def seconds_left(self) -> float | None:
        url = f"{self._base_url}/computeMetadata/v1/instance/preempted"
        if (_ask(url, {"Metadata-Flavor": "Google"}) or "").strip() != "TRUE":
            return None
        if self._seen is None:
            self._seen = self._wall()
        return max(0.0, self._seen + _GOOGLE_NOTICE_SECONDS - self._wall())


class AzureNotices:
    """A list of events; one of type Preempt concerns this machine. Not before `NotBefore`; at once if that is empty."""

    def __init__(self, base_url: str, wall: Callable[[], float]) -> None:
        self._base_url = base_url
        self._wall = wall
        self._seen: float | None = None

    def seconds_left(self) -> float | None:
        told = _ask(f"{self._base_url}/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"})
        try:
            events = json.loads(told or "{}").get("Events", [])
            times = [event.get("NotBefore") or "" for event in events if event["EventType"] == "Preempt"]
            if not times:
                return None
            if self._seen is None:
                self._seen = self._wall()
            until = min(
                parsedate_to_datetime(text).timestamp() if text else self._seen + _AZURE_NOTICE_SECONDS
                for text in times
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NoticeUnreadable(f"the scheduled events {told!r:.200} cannot be read") from error
        return max(0.0, until - self._wall())


def _ask(url: str, headers: Mapping[str, str], *, method: str = "GET") -> str | None:
    """The text, or None where there is nothing (404)."""
    request = urllib.request.Request(url, headers=dict(headers), method=method)  # noqa: S310 - a fixed link-local URL
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.NOT_FOUND:
            return None
        raise NoticeUnreadable(f"{url} answers {error.code}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise NoticeUnreadable(f"{url} does not answer: {error}") from error
