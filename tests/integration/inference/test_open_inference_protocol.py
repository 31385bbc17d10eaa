"""What Triton's unmodified client sees: descriptions, answers, and refusals that say what is wanted."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

_CLIENTS = 16
_CALLS_PER_CLIENT = 6


def given(name: str, values: NDArray[Any]) -> Any:
    tensor = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    tensor.set_data_from_numpy(values)
    return tensor


def echo_inputs(rows: int = 1) -> list[Any]:
    return [
        given("floats", np.arange(4 * rows, dtype=np.float32).reshape(rows, 4) / 7),
        given("counts", np.array([[2**62, -1]] * rows)),
        given("flags", np.array([[True, False]] * rows)),
    ]


@pytest.fixture
def client(shared_server: Any) -> Any:
    return shared_server.client()


@pytest.fixture
def stub(shared_server: Any) -> Any:
    return service_pb2_grpc.GRPCInferenceServiceStub(grpc.insecure_channel(shared_server.target))


def test_metadata_names_every_input_and_output(client: Any) -> None:
    assert client.is_server_live()
    assert client.get_server_metadata().name == "skyscraper-inference"
    metadata = client.get_model_metadata("picture")
    assert metadata.versions == ["1"]
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [
        ("images", "UINT8", [-1, -1, -1, 3])
    ]
    assert [(one.name, one.datatype, list(one.shape)) for one in metadata.outputs] == [("means", "FP32", [-1, 8])]


def test_config_is_the_repositorys(client: Any) -> None:
    config = client.get_model_config("slow").config
    assert (config.name, config.backend, config.max_batch_size) == ("slow", "onnxruntime", 1)


def test_raw_contents_come_back_bit_for_bit(client: Any) -> None:
    inputs = echo_inputs(rows=3)
    result = client.infer("echo", inputs, request_id="r-1")
    assert result.get_response().id == "r-1"
    for sent in inputs:
        assert result.as_numpy(f"same_{sent.name()}").tobytes() == sent._get_content()


def test_typed_contents_are_taken_too(stub: Any) -> None:
    request = service_pb2.ModelInferRequest(model_name="echo")
    request.inputs.add(name="floats", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend([0.5, 1, 2, 3])
    request.inputs.add(name="counts", datatype="INT64", shape=[1, 2]).contents.int64_contents.extend([2**62, -1])
    request.inputs.add(name="flags", datatype="BOOL", shape=[1, 2]).contents.bool_contents.extend([True, False])
    response = stub.ModelInfer(request, timeout=20)
    answers = dict(zip([one.name for one in response.outputs], response.raw_output_contents, strict=True))
    assert np.frombuffer(answers["same_floats"], np.float32).tolist() == [0.5, 1, 2, 3]
    assert np.frombuffer(answers["same_counts"], np.int64).tolist() == [2**62, -1]
    assert np.frombuffer(answers["same_flags"], np.bool_).tolist() == [True, False]


def test_only_the_outputs_asked_for_are_sent(client: Any) -> None:
    response = client.infer("echo", echo_inputs(), outputs=[InferRequestedOutput("same_counts")]).get_response()
    assert [output.name for output in response.outputs] == ["same_counts"]


def test_every_response_says_the_work_it_took(client: Any) -> None:
    images = np.zeros((4, 96, 96, 3), np.uint8)
    parameters = client.infer("picture", [given("images", images)]).get_response().parameters
    assert parameters["skyscraper_work_core_seconds"].double_param > 0
    assert parameters["skyscraper_queue_seconds"].double_param >= 0
    assert parameters["skyscraper_batch_rows"].int64_param >= 4


def test_many_clients_get_bitwise_what_each_gets_alone(shared_server: Any) -> None:
    rng = np.random.default_rng(4)
    images = rng.integers(0, 255, (_CLIENTS, _CALLS_PER_CLIENT, 1, 48, 64, 3), dtype=np.uint8)

    def ask(number: int) -> list[tuple[bytes, int]]:
        client, answers = InferenceServerClient(shared_server.target), []
        for one in images[number]:
            result = client.infer("picture", [given("images", one)], client_timeout=30)
            rows = result.get_response().parameters["skyscraper_batch_rows"].int64_param
            answers.append((result.as_numpy("means").tobytes(), rows))
        return answers

    alone = [[answer for answer, _ in ask(number)] for number in range(_CLIENTS)]
    with ThreadPoolExecutor(_CLIENTS) as pool:
        together = list(pool.map(ask, range(_CLIENTS)))
    assert [[answer for answer, _ in one] for one in together] == alone
    assert max(rows for one in together for _, rows in one) > 1, "nothing was ever batched, so nothing was shown"


def test_a_model_that_is_not_there_is_refused_with_those_that_are(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"'absent' is not served here; served are echo, lookup") as told:
        client.infer("absent", echo_inputs())
    assert told.value.status() == "StatusCode.NOT_FOUND"
    assert not client.is_model_ready("absent")


def test_a_version_that_is_not_there_is_refused(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="served in version 1, not 9"):
        client.infer("echo", echo_inputs(), model_version="9")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        pytest.param(
            [given("images", np.zeros((1, 8, 8, 4), np.uint8))], r"images wants shape \[n, -1, -1, 3\]", id="shape"
        ),
        pytest.param([given("images", np.zeros((8, 8, 3), np.uint8))], r"wants shape .* got \[8, 8, 3\]", id="rank"),
        pytest.param(
            [given("images", np.zeros((1, 8, 8, 3), np.float32))], "images wants UINT8, got FP32", id="datatype"
        ),
        pytest.param([given("frames", np.zeros((1, 8, 8, 3), np.uint8))], r"takes the inputs \['images'\]", id="name"),
        pytest.param([given("images", np.zeros((9, 8, 8, 3), np.uint8))], "takes 1 to 8 rows", id="rows"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_with_what_is_wanted(client: Any, inputs: list[Any], said: str) -> None:
    with pytest.raises(InferenceServerException, match=said) as told:
        client.infer("picture", inputs)
    assert told.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_an_unknown_output_is_refused_with_those_there_are(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="no output 'boxes'; it has .*same_counts"):
        client.infer("echo", echo_inputs(), outputs=[InferRequestedOutput("boxes")])


def test_too_few_bytes_for_the_shape_are_refused(stub: Any) -> None:
    request = service_pb2.ModelInferRequest(model_name="picture", raw_input_contents=[b"\0" * 10])
    request.inputs.add(name="images", datatype="UINT8", shape=[1, 8, 8, 3])
    with pytest.raises(grpc.RpcError, match=r"does not fill shape \[1, 8, 8, 3\]"):
        stub.ModelInfer(request, timeout=20)


def test_one_clients_bad_input_costs_no_other_client(shared_server: Any) -> None:
    def ask(index: int) -> str | float:
        client = InferenceServerClient(shared_server.target)
        try:
            result = client.infer("lookup", [given("indices", np.array([[index]]))], client_timeout=30)
        except InferenceServerException as error:
            return str(error.status())
        return float(result.as_numpy("values")[0, 0])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [0, 1, 9, 3] * 8))
    assert answers == [0.0, 10.0, "StatusCode.INTERNAL", 30.0] * 8


def test_a_broken_model_is_listed_with_its_reason_beside_the_good_ones(client: Any) -> None:
    index = {model.name: model for model in client.get_model_repository_index().models}
    assert index["broken"].state == "UNAVAILABLE"
    assert "model.onnx cannot be loaded" in index["broken"].reason
    assert index["echo"].state == "READY"
    assert not client.is_server_ready()
    assert client.is_model_ready("echo")
    with pytest.raises(InferenceServerException, match="broken.*cannot be loaded"):
        client.infer("broken", echo_inputs())


def test_health_and_reflection_answer_their_standard_clients(shared_server: Any) -> None:
    channel = grpc.insecure_channel(shared_server.target)
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "inference.GRPCInferenceService"):
        status = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
        assert status == health_pb2.HealthCheckResponse.SERVING
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=10)
    services = {service.name for service in next(iter(answers)).list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= services


def test_the_metrics_page_counts_requests_by_status(shared_server: Any, client: Any) -> None:
    client.infer("echo", echo_inputs())
    page = shared_server.page("metrics")
    assert 'skyscraper_inference_requests_total{code="OK",model="echo"}' in page
    assert 'skyscraper_inference_models{state="unavailable"} 1.0' in page


def test_the_log_is_json_even_where_the_runtime_complains(shared_server: Any, client: Any) -> None:
    with pytest.raises(InferenceServerException, match="lookup failed"):
        client.infer("lookup", [given("indices", np.array([[9]]))])
    assert all(json.loads(line)["event"] for line in shared_server.log.splitlines())
