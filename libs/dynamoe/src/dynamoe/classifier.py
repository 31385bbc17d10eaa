"""A small image classifier around the layer, and its form on disk: weights in safetensors, the rest in JSON.

Two convolutions, one row per image, residual mixture-of-experts layers, one linear head. It is what
`dynamoe.serve` serves; nothing in its files is code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dynamoe.errors import SettingError
from dynamoe.experts import FfnExperts
from dynamoe.kernels import Activation
from dynamoe.moe import MoE
from dynamoe.plan import Plan
from dynamoe.policies import Policy
from dynamoe.recompile import Observation
from dynamoe.routing import Mixing

SHAPE_FILE, WEIGHTS_FILE = "model.json", "model.safetensors"
# Raised with a change that older readers would take for something else.
_FORMAT = 1
_KIND = "image_classifier"
# Each of the two convolutions halves the image.
_STRIDE = 4


@dataclass(frozen=True)
class ClassifierShape:
    """What the weights are the weights of."""

    height: int
    """Pixels, a multiple of 4, as `width`."""
    width: int
    channels: tuple[int, int]
    """Outputs of the two convolutions."""
    d_model: int
    d_ff: int
    """Width of one expert. A dense network of equal active work has one expert of `k * d_ff`."""
    layers: int
    experts: int
    k: int
    """Experts per image and layer, where a call does not say."""
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        sizes = (self.height, self.width, *self.channels, self.d_model, self.d_ff, self.layers, self.experts, self.k)
        if not all(isinstance(size, int) and size > 0 for size in sizes) or len(self.channels) != 2:
            raise SettingError(f"classifier: every size is a whole number of at least 1, two channels; got {self}")
        if self.height % _STRIDE or self.width % _STRIDE:
            raise SettingError(f"classifier: images of {self.height}x{self.width}: both sides are multiples of 4")
        if self.k > self.experts:
            raise SettingError(f"classifier: k is {self.k}, there are {self.experts} experts")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise SettingError(f"classifier: labels are two or more, each once; got {self.labels}")

    def to_json(self) -> str:
        return json.dumps({"format": _FORMAT, "kind": _KIND, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ClassifierShape:
        """Raises SettingError naming what does not fit."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise SettingError(f"not JSON: {error}") from error
        if not isinstance(values, dict) or (values.pop("format", 0), values.pop("kind", "")) != (_FORMAT, _KIND):
            raise SettingError(
                f"not format {_FORMAT} of kind {_KIND}: it was written by another version, or for another"
            )
        names = {field.name for field in fields(cls)}
        if values.keys() != names:
            raise SettingError(f"has the fields {sorted(values)}, wanted are {sorted(names)}")
        lists = {name: tuple(values[name]) for name in ("channels", "labels") if isinstance(values[name], list)}
        if len(lists) != 2:
            raise SettingError("channels and labels are lists")
        return cls(**{**values, **lists})

    @classmethod
    def from_folder(cls, folder: Path) -> ClassifierShape:
        """Raises SettingError."""
        path = folder / SHAPE_FILE
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingError(f"{path} cannot be read: {error.strerror}") from error
        except (SettingError, UnicodeDecodeError) as error:
            raise SettingError(f"{path}: {error}") from error


class ImageClassifier(nn.Module):
    """uint8 images [B, height, width, 3] to logits [B, labels]."""

    def __init__(
        self, shape: ClassifierShape, *, plan: Plan | None = None, policy: Policy | None = None, balance: float = 0.0
    ) -> None:
        super().__init__()
        self.shape = shape
        first, second = shape.channels
        pixels = second * (shape.height // _STRIDE) * (shape.width // _STRIDE)
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(pixels, shape.d_model),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(shape.d_model) for _ in range(shape.layers))
        self.moes = nn.ModuleList(self._layer(shape, plan, policy, balance) for _ in range(shape.layers))
        self.head = nn.Sequential(nn.LayerNorm(shape.d_model), nn.Linear(shape.d_model, len(shape.labels)))

    @property
    def moe_layers(self) -> Sequence[MoE]:
        return [layer for layer in self.moes if isinstance(layer, MoE)]

    def forward(self, images: Tensor, *, k: int | None = None, active: int | None = None) -> Tensor:
        x = self._rows(images)
        for norm, layer in zip(self.norms, self.moes, strict=True):
            x = x + layer(norm(x), k=k, active=active)
        return self.head(x)  # type: ignore[no-any-return]

    @torch.no_grad()
    def evaluate(
        self, images: Tensor, *, k: int | None = None, active: int | None = None, capacity: float | None = None
    ) -> tuple[Tensor, list[Observation]]:
        """Logits, and each layer's observation, without a trace in the layers (`MoE.evaluate`)."""
        x = self._rows(images)
        seen = []
        for norm, layer in zip(self.norms, self.moe_layers, strict=True):
            added, observation = layer.evaluate(norm(x), k=k, active=active, capacity=capacity)
            x = x + added
            seen.append(observation)
        return self.head(x), seen

    def save(self, folder: Path) -> None:
        """`model.safetensors` and `model.json`, the latter last: a folder that has it is whole."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: weight.detach().contiguous() for name, weight in self.named_parameters()}, folder / WEIGHTS_FILE
        )
        (folder / SHAPE_FILE).write_text(self.shape.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, **settings: Any) -> ImageClassifier:
        """As `save` wrote it. Raises SettingError where files are missing or do not fit each other."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        shape = ClassifierShape.from_folder(folder)
        try:
            weights = load_file(folder / WEIGHTS_FILE)
        except (OSError, SafetensorError) as error:
            raise SettingError(f"{folder / WEIGHTS_FILE} cannot be read: {error}") from error
        model = cls(shape, **settings)
        wanted = {name: (weight.shape, weight.dtype) for name, weight in model.named_parameters()}
        given = {name: (weight.shape, weight.dtype) for name, weight in weights.items()}
        if wanted != given:
            wrong = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
            raise SettingError(
                f"{folder / WEIGHTS_FILE} does not fit {SHAPE_FILE}: {wrong[0]} and {len(wrong) - 1} more"
            )
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.copy_(weights[name])
        return model

    @staticmethod
    def _layer(shape: ClassifierShape, plan: Plan | None, policy: Policy | None, balance: float) -> MoE:
        experts = FfnExperts(shape.experts, shape.d_model, shape.d_ff, activation=Activation.RELU, gated=False)
        # With shares of the chosen experts' probabilities, fewer experts give an output of the same size.
        return MoE(experts, shape.k, plan=plan, policy=policy, balance=balance, mixing=Mixing.NORMALIZED)

    def _rows(self, images: Tensor) -> Tensor:
        """[B, d_model]."""
        return self.stem(images.permute(0, 3, 1, 2).float() / 255 - 0.5)  # type: ignore[no-any-return]
