"""What runs a model: ONNX Runtime today; PyTorch, DynaMoE and Python stages join behind the same protocol."""

from skyscraper_inference.backends.protocol import Backend, ModelFailed, Tensor, TensorSpec

__all__ = ["Backend", "ModelFailed", "Tensor", "TensorSpec"]
