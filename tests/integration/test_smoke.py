"""Waiting for topics, and the smoke command that `helm test` runs, on a small installation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from skyscraper.bus.errors import BusTimeout
from skyscraper.bus.register import read_register
from skyscraper.bus.wait_for_topics import main, wait_for_topics
from skyscraper.demo.stack import Stack
from skyscraper.localkafka import LocalBroker
from skyscraper.models.repository import install_models

COMMAND = str(Path(sys.executable).with_name("skyscraper"))
CLIP = "street:people?seed=1&density=5&seconds=6"


@pytest.mark.broker
def test_a_topic_that_is_missing_is_named_when_time_is_out(session_broker: LocalBroker) -> None:
    client = {"bootstrap.servers": session_broker.bootstrap_servers}
    with pytest.raises(BusTimeout, match=r"there is no topic never-made"):
        wait_for_topics(client, ["never-made"], deadline_seconds=0)


@pytest.mark.broker
@pytest.mark.models
def test_a_clip_goes_in_and_its_rows_come_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_models(["nanodet-g"])
    with Stack(tmp_path / "stack", partitions=2) as stack:
        stack.start_broker()
        stack.add_inference(models=["nanodet-g"])
        stack.add_decoder()
        stack.start()
        stack.wait_ready()
        monkeypatch.setenv("SKYSCRAPER_CLI_KAFKA__BOOTSTRAP_SERVERS", stack.broker.bootstrap_servers)
        assert main(["sky.segments", "sky.state", "--deadline-seconds", "5"]) == 0
        options = ("--bootstrap", stack.broker.bootstrap_servers, "--source", CLIP, "--seconds", "120")
        done = subprocess.run((COMMAND, "smoke", *options), capture_output=True, text=True, timeout=150, check=False)
        assert done.returncode == 0, done.stderr
        assert " segments, " in done.stdout
        # It leaves no stream behind.
        register, _ = read_register(stack.client, deadline_seconds=15)
        assert not [name for name in register if name.startswith("smoke-")]


def test_kafkas_settings_come_from_the_environment() -> None:
    environment = {**os.environ, "SKYSCRAPER_CLI_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}
    command = (COMMAND, "stream", "list", "--bootstrap", "127.0.0.1:1")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 1
    assert "set sasl_mechanism, sasl_username and sasl_password too" in done.stderr
