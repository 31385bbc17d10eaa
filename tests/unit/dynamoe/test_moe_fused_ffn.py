"""The fused kernel: gradients by finite differences, and against plain autograd in every form the library has."""

from __future__ import annotations

import pytest
import torch
from dynamoe.combine import combine
from dynamoe.dispatch import capacities, group, padded
from dynamoe.experts import FfnExperts
from dynamoe.grouped import grouped_ffn
from dynamoe.int8 import Int8Kernel, fastest_kernel, pack, prepare_rows, scales
from dynamoe.kernels import Activation, FfnShape, activate, fused_ffn
from dynamoe.memory import Arena
from dynamoe.plan import Precision
from dynamoe.prepared import prepare, prepared_ffn
from dynamoe.products import Products, onednn_multiplies
from torch import Tensor

_ARENA = Arena(keep_bytes=64 * 1024**2)
_FORMS = [(activation, gated) for activation in Activation for gated in (False, True)]


def _layer(
    activation: Activation, gated: bool, dtype: torch.dtype = torch.float64, n: int = 4
) -> tuple[FfnShape, Tensor, Tensor]:
    torch.manual_seed(0)
    experts = FfnExperts(n, 8, 16, activation=activation, gated=gated, dtype=dtype)
    return experts.shape, experts.up.data.requires_grad_(), experts.down.data.requires_grad_()


def _batch(dtype: torch.dtype = torch.float64, rows: int = 9, n: int = 4, k: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 8, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    weights = torch.rand(rows, k, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    # Expert 3 gets nothing: its gradient must be zero, not what lay in the buffer.
    experts = torch.stack([torch.randperm(n - 1, generator=generator)[:k] for _ in range(rows)])
    return x, weights, experts


def _plain(
    x: Tensor, weights: Tensor, up: Tensor, down: Tensor, experts: Tensor, shape: FfnShape, alpha: float | None
) -> Tensor:
    limits = capacities(alpha, n=shape.experts, k=experts.shape[1], batch=len(x))
    dispatch = group(experts, shape.experts, limits)
    act = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "silu": torch.nn.functional.silu}[shape.activation]
    outputs = []
    for expert, rows in enumerate(x[dispatch.rows].split(list(dispatch.places))):
        first = rows @ up[expert].t()
        hidden = act(first[:, : shape.d_ff]) * (first[:, shape.d_ff :] if shape.gated else 1)
        outputs.append(hidden @ down[expert].t())
    return combine(torch.cat(outputs), weights, dispatch)


@pytest.mark.parametrize(("activation", "gated"), _FORMS)
def test_gradcheck(activation: Activation, gated: bool) -> None:
    shape, up, down = _layer(activation, gated)
    x, weights, experts = _batch(rows=4)
    dispatch = group(experts, 4, capacities(1.2, n=4, k=2, batch=4))

    def layer(x: Tensor, weights: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return fused_ffn(x, weights, up, down, dispatch, shape, _ARENA, Products())

    assert torch.autograd.gradcheck(layer, (x, weights, up, down), fast_mode=True)


@pytest.mark.parametrize("alpha", [None, 0.8])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("activation", "gated"), _FORMS)
def test_outputs_and_gradients_are_those_of_plain_autograd(
    activation: Activation, gated: bool, static: bool, alpha: float | None
) -> None:
    shape, up, down = _layer(activation, gated)
    x, weights, experts = _batch()
    leaves = (x, weights, up, down)
    expected = _plain(x, weights, up, down, experts, shape, alpha)
    limits = capacities(alpha, n=4, k=2, batch=9)
    dispatch = group(experts, 4, limits, room=(lambda kept: limits or kept) if static else None)
    actual = fused_ffn(x, weights, up, down, dispatch, shape, _ARENA, Products())
    towards = torch.rand_like(expected)
    assert torch.allclose(actual, expected)
    for mine, theirs in zip(
        torch.autograd.grad(actual, leaves, towards), torch.autograd.grad(expected, leaves, towards), strict=True
    ):
        assert torch.allclose(mine, theirs)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(("activation", "gated"), _FORMS)
def test_blocks_of_many_experts_give_the_same_as_experts_one_by_one(
    activation: Activation, gated: bool, batched: bool
) -> None:
    n = 24
    shape, up, down = _layer(activation, gated, torch.float32, n)
    x, weights, experts = _batch(torch.float32, 90, n)
    leaves = (x, weights, up, down)
    expected = _plain(x, weights, up, down, experts, shape, None)
    dispatch = group(experts, n, None, room=padded if batched else None)
    assert (len(set(dispatch.places[:20])) == 1) == batched
    actual = fused_ffn(x, weights, up, down, dispatch, shape, _ARENA, Products(batched=batched))
    towards = torch.rand_like(expected)
    assert torch.allclose(actual, expected, atol=1e-6)
    wanted = torch.autograd.grad(expected, leaves, towards)
    for mine, theirs in zip(torch.autograd.grad(actual, leaves, towards), wanted, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)

    handed: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(expert: int, to_up: Tensor, to_down: Tensor) -> None:
        handed[expert] = to_up.clone(), to_down.clone()

    out = fused_ffn(x, weights, up, down, dispatch, shape, _ARENA, Products(batched=batched), keep)
    out.backward(towards)
    assert sorted(handed) == [expert for expert, count in enumerate(dispatch.places) if count]
    for expert, (to_up, to_down) in handed.items():
        assert torch.allclose(to_up, wanted[2][expert], atol=1e-5)
        assert torch.allclose(to_down, wanted[3][expert], atol=1e-5)


@pytest.mark.parametrize(("activation", "gated"), _FORMS)
@pytest.mark.parametrize("alpha", [None, 0.8])
def test_the_form_for_accelerators_and_export_gives_the_same(
    activation: Activation, gated: bool, alpha: float | None
) -> None:
    shape, up, down = _layer(activation, gated, torch.float32)
    x, weights, experts = _batch(torch.float32)
    expected = _plain(x, weights, up, down, experts, shape, alpha)
    limits = capacities(alpha, n=4, k=2, batch=9)
    most = None if limits is None else torch.tensor(limits)
    actual, counts = grouped_ffn(x, weights, experts, up, down, shape, most)
    assert torch.allclose(actual, expected, atol=1e-6)
    assert counts.tolist() == torch.bincount(experts.reshape(-1), minlength=4).tolist()
    towards = torch.rand_like(expected)
    leaves = (x, weights, up, down)
    for mine, theirs in zip(
        torch.autograd.grad(actual, leaves, towards), torch.autograd.grad(expected, leaves, towards), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_the_form_for_accelerators_has_shapes_on_meta_tensors() -> None:
    shape, up, down = _layer(Activation.SILU, True, torch.float32)
    x, weights, experts = _batch(torch.float32)
    limits = torch.tensor([3, 3, 3, 3]).to("meta")
    x, weights, experts, up, down = (one.to("meta") for one in (x, weights, experts, up, down))
    out, counts = grouped_ffn(x, weights, experts, up, down, shape, limits)
    assert (out.device.type, out.shape, counts.shape) == ("meta", (9, 8), (4,))


@pytest.mark.skipif(not onednn_multiplies(torch.float32), reason="this torch has no oneDNN")
@pytest.mark.parametrize(
    ("precision", "tolerance"), [(Precision.PACKED, 1e-5), (Precision.BFLOAT16, 0.02), (Precision.INT8, 0.03)]
)
@pytest.mark.parametrize(("activation", "gated"), _FORMS)
def test_prepared_weights_give_the_same_within_their_precision(
    activation: Activation, gated: bool, precision: Precision, tolerance: float
) -> None:
    if precision is Precision.BFLOAT16 and not onednn_multiplies(torch.bfloat16):
        pytest.skip("this CPU has no bfloat16")
    shape, up, down = _layer(activation, gated, torch.float32)
    x, weights, experts = _batch(torch.float32)
    with torch.no_grad():
        dispatch = group(experts, 4, None)
        expected = _plain(x, weights, up, down, experts, shape, None)
        actual = prepared_ffn(x, weights, prepare(up, down, precision), dispatch, shape)
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def test_an_int8_row_does_not_depend_on_its_batch() -> None:
    shape, up, down = _layer(Activation.RELU, False, torch.float32)
    x, weights, experts = _batch(torch.float32)
    prepared = prepare(up, down, Precision.INT8)

    def run(rows: slice) -> Tensor:
        dispatch = group(experts[rows], 4, None)
        return prepared_ffn(x.detach()[rows], weights.detach()[rows], prepared, dispatch, shape)

    assert torch.equal(run(slice(0, 9))[:2], run(slice(0, 2)))


@pytest.mark.skipif(not hasattr(torch.ops.onednn, "qlinear_pointwise"), reason="this torch has no oneDNN")
@pytest.mark.parametrize(("height", "width"), [(2048, 512), (10, 32)])
def test_both_kernels_of_int8_add_the_same_integers(height: int, width: int) -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(height, width), torch.randn(9, width)
    made = {
        kernel: pack(weight, kernel)(prepare_rows(rows, scales(rows), kernel), False) * scales(rows)
        for kernel in Int8Kernel
    }
    exact = rows @ weight.t()
    # Where a weight lies between two steps, they may round it to different sides.
    assert (made[Int8Kernel.ONEDNN] - made[Int8Kernel.FBGEMM]).abs().max() <= 2e-3 * exact.abs().max()
    for product in made.values():
        assert (product - exact).norm() <= 0.015 * exact.norm()
    assert fastest_kernel(width, height) in Int8Kernel


def test_activations_work_in_place_of_a_strided_half() -> None:
    shape = FfnShape(1, 4, 6, Activation.GELU, gated=True)
    first = torch.randn(5, 12)
    out = activate(first, shape, torch.empty(5, 6))
    assert torch.allclose(out, torch.nn.functional.gelu(first[:, :6]) * first[:, 6:])
