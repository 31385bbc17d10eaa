"""The inference process: load, warm up, serve, drain."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import grpc
import numpy as np
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from skyscraper.pipeline import load_pipeline
from skyscraper.rpc.pings import ALLOW_PINGS
from skyscraper.rpc.stage import stage_model
from skyscraper.rpc.tls import listen
from skyscraper.service import Health
from skyscraper.spot import Cloud, NoticeUnreadable, notices
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from skyscraper_inference import metrics
from skyscraper_inference.backends import ModelFailed
from skyscraper_inference.config import InferenceServiceConfig
from skyscraper_inference.engine import Engine
from skyscraper_inference.repository import Model, load_repository
from skyscraper_inference.servicer import OipServicer

log = structlog.get_logger()

# Metadata servers ask not to be polled faster; a notice is 30 s at least.
_NOTICE_POLL_SECONDS = 1.0
# Of a notice, what is left for stopping the process once all is answered.
_MARGIN_SECONDS = 2.0
# For the last answers to leave the process.
_LAST_ANSWERS_SECONDS = 1.0


def serve(config: InferenceServiceConfig, state: Health, stop: threading.Event) -> None:
    models, broken = load_repository(
        config.repository,
        config.models,
        execution_providers=config.execution_providers,
        max_batch=config.max_batch,
    )
    metrics.MODELS.labels("ready").set(len(models))
    metrics.MODELS.labels("unavailable").set(len(broken))
    for model in models.values():
        warm_up(model, config)
    models |= load_stages(config.stages, models)
    engine = Engine(
        instances=config.instances, queue_bytes=config.queue_bytes, max_window_seconds=config.max_window_seconds
    )
    server = grpc.server(
        ThreadPoolExecutor(config.max_requests, thread_name_prefix="grpc"),
        maximum_concurrent_rpcs=config.max_requests,
        options=[
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", config.max_message_bytes),
            # Two servers on one port would share its clients silently.
            ("grpc.so_reuseport", 0),
            ("grpc.max_connection_age_ms", int(config.max_connection_age_seconds * 1000)),
            # What is under way ends by itself: the queue is bounded, and every request has a deadline.
            ("grpc.max_connection_age_grace_ms", 60_000),
            *ALLOW_PINGS,
        ],
    )
    oip_name = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
        OipServicer(engine, models, broken, version("skyscraper-inference")), server
    )
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    reflection.enable_server_reflection([oip_name, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = listen(server, config.host, config.port, config.tls)
    server.start()
    for name in ("", oip_name):
        health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    if config.port_file is not None:
        config.port_file.write_text(str(port), encoding="utf-8")
    state.alive = lambda: engine.alive
    state.set_ready(True)
    log.info("serving", port=port, models=sorted(models), unavailable=sorted(broken), instances=config.instances)
    left_seconds = wait_for_the_end(config, stop)
    # Clients that watch the health service turn to another server before this one refuses them.
    health_servicer.enter_graceful_shutdown()
    state.set_ready(False)
    drained = engine.close(deadline_seconds=left_seconds)
    server.stop(grace=min(_LAST_ANSWERS_SECONDS, left_seconds)).wait()
    log.info("drained", complete=drained)


def load_stages(pipelines: Sequence[str], models: Mapping[str, Model]) -> dict[str, Model]:
    """Stage models by name. Raises ConfigError where a pipeline is not installed."""
    if not pipelines:
        return {}
    # Video decoding takes a second to import and memory, which the pool's own servers do without.
    from skyscraper_inference.backends.stage import StageBackend

    found = {}
    for name in pipelines:
        pipeline = load_pipeline(name)
        stage = stage_model(name)
        configuration = model_config_pb2.ModelConfig(name=stage)
        found[stage] = Model(stage, "1", configuration, StageBackend(pipeline, models), max_batch=1)
    return found


def wait_for_the_end(config: InferenceServiceConfig, stop: threading.Event) -> float:
    """Until SIGTERM or the cloud's notice. Returns how many seconds there are to finish."""
    if config.cloud == "none":
        stop.wait()
        return config.shutdown_seconds
    source = notices(Cloud(config.cloud), base_url=config.cloud_metadata_url)
    while not stop.wait(_NOTICE_POLL_SECONDS):
        try:
            left = source.seconds_left()
        except NoticeUnreadable as error:
            metrics.NOTICE_FAILURES.inc()
            log.warning("notice_unreadable", error=str(error))
            continue
        if left is not None:
            metrics.NOTICES.labels("cloud").inc()
            log.warning("spot_notice", seconds_left=round(left, 1))
            return max(0.0, left - _MARGIN_SECONDS)
    metrics.NOTICES.labels("sigterm").inc()
    return config.shutdown_seconds


def warm_up(model: Model, config: InferenceServiceConfig) -> None:
    """Run every batch size once at every warm-up shape: allocation and kernel choice happen now, not on live frames."""
    started = time.monotonic()
    for shape in config.warmup_shapes:
        for rows in range(1, model.max_batch + 1):
            inputs = {}
            for spec in model.backend.inputs:
                free = iter((shape.height, shape.width))
                sizes = [next(free, 1) if size == -1 else size for size in spec.shape]
                inputs[spec.name] = np.zeros((rows, *sizes), dtype=spec.dtype)
            try:
                model.backend.warm_up(inputs)
            except ModelFailed as error:
                log.warning("warm_up_failed", model=model.name, shape=str(shape), rows=rows, error=str(error))
                break
    log.info("warm", model=model.name, seconds=round(time.monotonic() - started, 3))
