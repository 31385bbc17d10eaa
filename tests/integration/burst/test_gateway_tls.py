"""A gateway with mutual TLS to both sides: callers and machines with the certificate, and nobody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from burst_processes import DECLARED, DeclaredMachine, GatewayProcess, declared, request
from certificates import make_certificates
from skyscraper.rpc.burst_client import BurstClient
from skyscraper.rpc.tls import ClientTls, ServerTls, channel_credentials
from tritonclient.grpc import service_pb2_grpc

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def machine(pki: Path, tmp_path: Path) -> Iterator[DeclaredMachine]:
    one = DeclaredMachine(tmp_path / "machines", "secure", tls=server(pki))
    yield one
    one.process.kill()
    one.process.wait(10)


def server(pki: Path) -> ServerTls:
    return ServerTls(certificate_path=pki / "tls.crt", key_path=pki / "tls.key", client_ca_path=pki / "ca.crt")


def client(pki: Path) -> ClientTls:
    return ClientTls(ca_path=pki / "ca.crt", certificate_path=pki / "tls.crt", key_path=pki / "tls.key")


def test_callers_and_machines_are_known_by_their_certificates(
    gateway: Callable[..., GatewayProcess], machine: DeclaredMachine, pki: Path, tenant: str
) -> None:
    one = gateway(
        # Found by address, known by name: the certificate says `localhost`.
        pools=[{"targets": [f"localhost:{machine.port}"]}],
        budgets={tenant: {"usd": 1.0}},
        tls=server(pki).model_dump(mode="json"),
        machine_tls=client(pki).model_dump(mode="json"),
    )
    one.start()
    target = f"localhost:{one.port}"
    known = BurstClient([target], in_flight_bytes=1 << 20, credentials=channel_credentials(client(pki)))
    try:
        answer = known.infer(
            DECLARED,
            declared(0.01),
            tenant=tenant,
            estimated_core_seconds=0.01,
            bid_per_byte=0.0,
            deadline_seconds=10.0,
        )
        assert (answer.core_seconds, answer.nano_usd > 0) == (0.01, True)
    finally:
        known.close()
    nameless = grpc.secure_channel(target, grpc.ssl_channel_credentials((pki / "ca.crt").read_bytes()))
    for stranger in (nameless, grpc.insecure_channel(target)):
        with stranger, pytest.raises(grpc.RpcError) as refused:
            service_pb2_grpc.GRPCInferenceServiceStub(stranger).ModelInfer(request(0.01), timeout=2.0)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
