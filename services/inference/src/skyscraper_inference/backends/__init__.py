"""What runs a model: ONNX Runtime, mixtures of experts (dynamoe), whole pipeline stages; one protocol."""

from skyscraper_inference.backends.protocol import Backend, ModelFailed, Tensor, TensorSpec

__all__ = ["Backend", "ModelFailed", "Tensor", "TensorSpec"]
