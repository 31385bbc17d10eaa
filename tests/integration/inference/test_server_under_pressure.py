"""A server that is full, stopping, killed, or started wrongly."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from skyscraper.rpc.model_client import OipModelClient, open_channel
from tiny_models import SLOW_WIDTH
from tritonclient.grpc import service_pb2, service_pb2_grpc

NewServer = Callable[..., Any]
_ROW = np.ones((1, SLOW_WIDTH), np.float32)


def slow_request() -> Any:
    request = service_pb2.ModelInferRequest(model_name="slow", raw_input_contents=[_ROW.tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=_ROW.shape)
    return request


def stub_of(server: Any) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(server.target))


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(new_server: NewServer) -> None:
    # One request runs, four wait; the others do not fit.
    server = new_server(instances=1, queue_bytes=4 * _ROW.nbytes, max_message_bytes=4 * _ROW.nbytes).start()
    stub = stub_of(server)
    calls = [stub.ModelInfer.future(slow_request(), timeout=60) for _ in range(12)]
    codes = [call.code() for call in calls]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(grpc.StatusCode.OK) >= 4
    refused = next(call for call in calls if call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED)
    waits = [int(value) for name, value in refused.trailing_metadata() if name == "retry-after-ms"]
    assert waits
    assert waits[0] > 0
    assert 'skyscraper_inference_refused_total{reason="queue_full"}' in server.page("metrics")


def test_our_client_comes_back_to_a_full_server_until_it_is_served(new_server: NewServer) -> None:
    server = new_server(instances=1, queue_bytes=4 * _ROW.nbytes, max_message_bytes=4 * _ROW.nbytes).start()

    def ask(_: int) -> bytes:
        client = OipModelClient(open_channel(server.target), max_rows=1, call_seconds=60, retry_seconds=60)
        return client.infer("slow", {"x": _ROW})["y"].tobytes()

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert len(set(answers)) == 1


def test_a_message_over_the_limit_is_refused_by_name(new_server: NewServer) -> None:
    server = new_server(max_message_bytes=2048).start()
    request = slow_request()
    request.raw_input_contents[0] = b"\0" * 5000
    with pytest.raises(grpc.RpcError, match="larger than max") as told:
        stub_of(server).ModelInfer(request, timeout=20)
    assert told.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_request_whose_deadline_is_gone_is_not_run(new_server: NewServer) -> None:
    server = new_server(instances=1).start()
    stub = stub_of(server)
    stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=20)
    first = stub.ModelInfer.future(slow_request(), timeout=60)
    late = [stub.ModelInfer.future(slow_request(), timeout=0.2) for _ in range(3)]
    assert [call.code() for call in late] == [grpc.StatusCode.DEADLINE_EXCEEDED] * 3
    assert first.code() == grpc.StatusCode.OK
    assert stub.ModelInfer.future(slow_request(), timeout=60).code() == grpc.StatusCode.OK
    page = server.page("metrics")
    assert 'skyscraper_inference_batch_rows_count{model="slow"} 2.0' in page
    # On a slow machine a call may end before the server has seen it.
    assert re.search(r'skyscraper_inference_refused_total\{reason="deadline"\} [123]\.0', page)


def test_sigterm_finishes_what_is_queued_and_refuses_what_is_new(new_server: NewServer) -> None:
    server = new_server(instances=1).start()
    stub = stub_of(server)
    taken = [stub.ModelInfer.future(slow_request(), timeout=60) for _ in range(4)]
    until = time.monotonic() + 20
    while f"skyscraper_inference_queue_bytes {3.0 * _ROW.nbytes}" not in server.page("metrics"):
        assert time.monotonic() < until, "the four requests did not arrive"
        time.sleep(0.01)
    server.signal(signal.SIGTERM)
    while server.page("readyz"):
        assert time.monotonic() < until, "the server still says it is ready"
        time.sleep(0.01)
    refused = stub.ModelInfer.future(slow_request(), timeout=60)
    assert refused.code() == grpc.StatusCode.UNAVAILABLE
    assert [call.code() for call in taken] == [grpc.StatusCode.OK] * 4
    assert server.wait() == 0
    assert '"complete": true' in server.log


def test_a_client_goes_on_after_the_server_is_killed_and_back_on_its_port(new_server: NewServer) -> None:
    server = new_server().start()
    channel = open_channel(server.target)
    stop, answers = threading.Event(), []

    def ask() -> None:
        client = OipModelClient(channel, max_rows=1, call_seconds=5, retry_seconds=60)
        while not stop.is_set():
            answers.append(client.infer("slow", {"x": _ROW})["y"].tobytes())

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        for _ in range(2):
            before = len(answers)
            wait_for(lambda before=before: len(answers) > before + 1)  # type: ignore[misc]
            server.signal(signal.SIGKILL)
            server.wait()
            server.start()
        before = len(answers)
        wait_for(lambda: len(answers) > before + 1)
        stop.set()
        asking.result(60)
    assert len(set(answers)) == 1


def test_a_taken_port_is_said_and_is_a_configuration_error(new_server: NewServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = new_server(models=["echo"], port=taken.getsockname()[1]).start(wait=False)
        assert server.wait() == 2
    assert "cannot listen there; is the port taken?" in server.log


def test_a_repository_that_is_not_there_is_said_and_is_a_configuration_error(
    new_server: NewServer, tmp_path: Path
) -> None:
    server = new_server(folder=tmp_path / "nowhere").start(wait=False)
    assert server.wait() == 2
    assert f"the model repository {tmp_path / 'nowhere'} is not there" in server.log


def test_settings_that_contradict_each_other_name_both_and_the_remedy(tmp_path: Path) -> None:
    config = tmp_path / "bad.toml"
    config.write_text("queue_bytes = 10\nmax_message_bytes = 20\nunknown = 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "skyscraper_inference", "--config", str(config), "--check-config"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "unknown" in done.stderr


def wait_for(check: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
