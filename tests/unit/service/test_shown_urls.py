from __future__ import annotations

import pytest
from skyscraper.service.logs import without_credentials


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://admin:hunter2@camera/stream",
        "rtsp://admin:hunter2@camera:554/stream?x=1",
        "http://camera/video.cgi?user=admin&pwd=hunter2&x=1",
        "http://camera/video.cgi?Password=hunter2",
        "http://admin:p@hunter2@camera/",
        "http://admin:hunter2@[broken/",
    ],
)
def test_no_password_is_shown(url: str) -> None:
    assert "hunter2" not in without_credentials(url)


def test_what_is_no_secret_stays() -> None:
    for url in ("rtsp://camera:554/stream?channel=1", "/videos/a.mp4", "street:gate?people=3"):
        assert without_credentials(url) == url
