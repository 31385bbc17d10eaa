"""A mixture of experts behind the real server: parameters, refusals, and plans that move under a live load."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skyscraper.errors import BadSegment
from skyscraper.rpc.model_client import OipModelClient, open_channel
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

torch = pytest.importorskip("torch")
from dynamoe.classifier import ClassifierShape, ImageClassifier  # noqa: E402 - only where torch is
from dynamoe.serve import first_plan  # noqa: E402

SHAPE = ClassifierShape(
    height=16, width=16, channels=(8, 16), d_model=128, d_ff=512, layers=2, experts=8, k=2, labels=("a", "b", "c", "d")
)
IMAGES = np.random.default_rng(3).integers(0, 256, (32, 16, 16, 3), dtype=np.uint8)
# Batches may be summed up in another order; a plan of another precision differs in the third digit.
ROUNDING = 1e-5
# Of which the second slowest is the 99th percentile.
_STEADY_REQUESTS = 200


def lay_out(folder: Path, name: str, follow: str) -> None:
    torch.manual_seed(7)
    ImageClassifier(SHAPE).save(folder / name / "1")
    parameters = {"follow": follow, "int8_rows": "6"}
    entries = ", ".join(f'{{ key: "{key}" value: {{ string_value: "{value}" }} }}' for key, value in parameters.items())
    (folder / name / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "dynamoe"\nmax_batch_size: 64\nparameters [ {entries} ]\n'
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moe")
    lay_out(folder, "still", "")
    lay_out(folder, "moving", "capacity precision")
    return folder


@pytest.fixture
def server(new_server: Callable[..., Any], models: Path) -> Any:
    return new_server(folder=models, models=[], max_batch=64).start()


def ask(client: Any, model: str, images: NDArray[np.uint8], **settings: Any) -> NDArray[np.float32]:
    tensor = InferInput("images", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images)
    answer = client.infer(model, [tensor], client_timeout=20, **settings).as_numpy("probabilities")
    return np.asarray(answer, dtype=np.float32)


def by_library(folder: Path, **settings: Any) -> NDArray[np.float32]:
    model = ImageClassifier.load(folder / "still" / "1", plan=first_plan(SHAPE.experts)).eval()
    logits, _ = model.evaluate(torch.from_numpy(IMAGES), **settings)
    return np.asarray(logits.softmax(dim=1).numpy(), dtype=np.float32)


def test_parameters_restrict_the_experts_as_in_the_library_and_bad_ones_are_refused(server: Any, models: Path) -> None:
    client = server.client()
    assert client.get_model_metadata("still").platform == "dynamoe_classifier"
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"top_k": 1}, {"k": 1}),
        ({"active_experts": 2}, {"active": 2}),
        ({"top_k": 3, "active_experts": 5}, {"k": 3, "active": 5}),
        ({"capacity": 0.5}, {"capacity": 0.5}),
        ({"capacity": 100.0}, {}),
    ]
    wanted = [by_library(models, **settings) for _, settings in cases]
    for (parameters, _), answer in zip(cases, wanted, strict=True):
        np.testing.assert_allclose(ask(client, "still", IMAGES, parameters=parameters), answer, atol=ROUNDING)
    assert all(np.abs(other - wanted[0]).max() > 100 * ROUNDING for other in wanted[1:5])
    # The model's own k gives way to a smaller number of experts; Triton's own parameters change nothing.
    np.testing.assert_allclose(
        ask(client, "still", IMAGES, parameters={"active_experts": 1}), by_library(models, k=1, active=1), atol=ROUNDING
    )
    np.testing.assert_allclose(ask(client, "still", IMAGES, priority=3, timeout=10_000_000), wanted[0], atol=ROUNDING)
    # Together with requests of other parameters, and in batches of any size, each gets what it gets alone.
    alone = [(case, row, image) for case in range(4) for row, image in enumerate(IMAGES)]
    with ThreadPoolExecutor(16) as pool:
        asked = pool.map(lambda one: ask(client, "still", one[2][None], parameters=cases[one[0]][0]), alone)
        for (case, row, _), answer in zip(alone, asked, strict=True):
            np.testing.assert_allclose(answer[0], wanted[case][row], atol=ROUNDING)
    for parameters, said in (
        ({"top_k": 0}, r"0 is no value of top_k \(whole number from 1 to 8\)"),
        ({"top_k": 1.5}, "1.5 is no value of top_k"),
        ({"active_experts": 9}, r"9 is no value of active_experts \(whole number from 1 to 8\)"),
        ({"capacity": 0.0}, r"0.0 is no value of capacity \(number from 0.01 to 100\)"),
        ({"top_k": 3, "active_experts": 2}, "top_k is 3, it is from 1 to active_experts, here 2"),
        ({"experts": 2}, "no parameter 'experts'; it takes top_k .*, active_experts .*, capacity"),
    ):
        with pytest.raises(InferenceServerException, match=said) as told:
            ask(client, "still", IMAGES, parameters=parameters)
        assert told.value.status() == "StatusCode.INVALID_ARGUMENT"
    ours = OipModelClient(open_channel(server.target), max_rows=8, call_seconds=20, retry_seconds=20)
    through_ours = ours.infer("still", {"images": IMAGES}, {"top_k": 1})["probabilities"]
    np.testing.assert_allclose(np.asarray(through_ours, dtype=np.float32), wanted[1], atol=ROUNDING)
    with pytest.raises(BadSegment, match="top_k"):
        ours.infer("still", {"images": IMAGES}, {"top_k": 99})
    page = server.page("metrics")
    assert re.search(r'inference_expert_rows_total\{expert="0",layer="1",model="still"\} [1-9]', page)
    assert re.search(r'inference_dropped_rows_total\{model="still",reason="capacity"\} [1-9]', page)


class Load:
    """Clients that ask without a pause; the sizes of their requests can be changed."""

    def __init__(self, target: str, clients: int) -> None:
        self.rows = 1
        self.seconds: list[float] = []
        self.answers: list[float] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(clients)
        self._running = [self._pool.submit(self._ask, target) for _ in range(clients)]

    def take(self) -> list[float]:
        """Seconds of the requests since the last call."""
        taken, self.seconds = self.seconds, []
        return taken

    def stop(self) -> None:
        """Raises what a client met."""
        self._stop.set()
        for one in self._running:
            one.result(30)
        self._pool.shutdown()

    def _ask(self, target: str) -> None:
        client = InferenceServerClient(target)
        ask(client, "moving", IMAGES[:1])
        while not self._stop.is_set():
            rows, started = self.rows, time.monotonic()
            answer = ask(client, "moving", IMAGES[:rows])
            self.seconds.append(time.monotonic() - started)
            self.answers.append(float(answer[0, 0]))


def recompilations(server: Any, reason: str) -> int:
    found = re.search(
        rf'inference_recompilations_total\{{model="moving",reason="{reason}"\}} (\d+)', server.page("metrics")
    )
    return 0 if found is None else int(found.group(1))


def test_plans_follow_the_live_load_without_a_failed_or_a_slow_request(server: Any, models: Path) -> None:
    load = Load(server.target, clients=2)
    ratios: list[float] = []
    try:
        for turn, rows in enumerate((1, 16, 1), start=1):
            load.rows = rows
            load.take()
            wait_for(lambda turn=turn: recompilations(server, "precision") >= turn * SHAPE.layers)  # type: ignore[misc]
            around = load.take()
            wait_for(lambda: len(load.seconds) >= _STEADY_REQUESTS)
            ratios.append(float(np.percentile(around, 99) / np.percentile(load.take(), 99)))
    finally:
        load.stop()
    assert recompilations(server, "failed") == 0
    # int8 and bfloat16 are within a hundredth of single precision.
    assert np.abs(np.array(load.answers) - by_library(models)[0, 0]).max() < 0.02
    print(f"p99 of requests around a swap, over that of the same requests after it: {ratios}")
    # A machine that is busy with other things may stretch one of the three; a request that waited for a plan to be
    # built would stretch all.
    assert sorted(ratios)[1] < 4, "requests wait for plans"


def wait_for(check: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
