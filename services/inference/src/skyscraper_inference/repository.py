"""The model repository: `<name>/<version>/model.*` and `<name>/config.pbtxt`, as Triton lays it out.

`backend: "onnxruntime"` (or none) is a model.onnx, `backend: "dynamoe"` a model.json with its model.safetensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from google.protobuf import text_format
from skyscraper.errors import ConfigError
from tritonclient.grpc import model_config_pb2

from skyscraper_inference.backends import Backend
from skyscraper_inference.backends.onnx import OnnxBackend

log = structlog.get_logger()

ONNX, DYNAMOE = "onnxruntime", "dynamoe"


@dataclass(frozen=True)
class Model:
    """A model as it is served."""

    name: str
    version: str
    config: model_config_pb2.ModelConfig
    backend: Backend
    max_batch: int


@dataclass(frozen=True)
class Unavailable:
    """A model that is in the repository and cannot be served."""

    name: str
    reason: str


def load_repository(
    folder: Path, names: Sequence[str], *, execution_providers: Sequence[str], max_batch: int
) -> tuple[dict[str, Model], dict[str, Unavailable]]:
    """Every wanted model, or why not: one broken model does not stop the others. Raises ConfigError for no folder."""
    if not folder.is_dir():
        raise ConfigError(f"the model repository {folder} is not there; `make models` creates the default one")
    present = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    models: dict[str, Model] = {}
    broken: dict[str, Unavailable] = {}
    for name in names or present:
        try:
            models[name] = _load(folder, name, present, execution_providers, max_batch)
        except ConfigError as error:
            broken[name] = Unavailable(name, str(error))
            log.error("model_cannot_be_served", model=name, error=str(error))  # noqa: TRY400 - the message is the whole story
    return models, broken


def _load(folder: Path, name: str, present: Iterable[str], providers: Sequence[str], max_batch: int) -> Model:
    if not (folder / name).is_dir():
        raise ConfigError(f"model {name} is not in {folder}, which has {', '.join(present) or 'none'}")
    config = _read_config(folder / name / "config.pbtxt", name)
    versions = sorted(int(entry.name) for entry in (folder / name).iterdir() if entry.name.isdigit())
    if not versions:
        raise ConfigError(f"{folder / name} has no version folder (a number)")
    backend = _backend(folder / name / str(versions[-1]), config, providers)
    served = {spec.name for spec in backend.inputs}
    declared = {tensor.name for tensor in config.input}
    if declared and declared != served:
        raise ConfigError(f"config.pbtxt names the inputs {sorted(declared)}, the model has {sorted(served)}")
    return Model(name, str(versions[-1]), config, backend, max(1, min(max_batch, config.max_batch_size or 1)))


def _backend(version: Path, config: model_config_pb2.ModelConfig, providers: Sequence[str]) -> Backend:
    if config.backend == DYNAMOE:
        # torch takes seconds to import and half a gigabyte: only where such a model is served.
        from skyscraper_inference.backends.dynamoe import DynamoeBackend

        settings = {name: value.string_value for name, value in config.parameters.items()}
        return DynamoeBackend(config.name, version, settings)
    if config.backend not in ("", ONNX):
        raise ConfigError(f"config.pbtxt: backend {config.backend!r} is not served; there are {ONNX} and {DYNAMOE}")
    path = version / (config.default_model_filename or "model.onnx")
    if not path.is_file():
        raise ConfigError(f"{path} is not there")
    return OnnxBackend(path, providers)


def _read_config(path: Path, name: str) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), config)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except text_format.ParseError as error:
        raise ConfigError(f"{path} is not a Triton model configuration: {error}") from error
    if config.name and config.name != name:
        raise ConfigError(f"{path} is for model {config.name}, its folder is {name}")
    config.name = name
    return config
