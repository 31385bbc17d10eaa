"""The layer on a GPU, against the same layer on the CPU: outputs, gradients, capacity, plans, a captured graph."""

from __future__ import annotations

import copy

import pytest
import torch
from dynamoe import FfnExperts, Loss, MoE, Plan, Precision, SettingError
from dynamoe.kernels import Activation
from dynamoe.policies import local_capacity
from torch import Tensor, nn

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU for CUDA")

_D, _F = 64, 128


def _pair(n: int = 8, k: int = 2, **settings: object) -> tuple[MoE, MoE]:
    """One layer on the CPU in single precision, and its copy on the GPU in bfloat16."""
    torch.manual_seed(0)
    on_cpu = MoE(FfnExperts(n, _D, _F), k, **settings)  # type: ignore[arg-type]
    for parameter in on_cpu.parameters():
        parameter.data = parameter.data.bfloat16().float()
    on_gpu = copy.deepcopy(on_cpu).cuda().bfloat16()
    return on_cpu, on_gpu


def _experts(layer: MoE) -> FfnExperts:
    assert isinstance(layer.experts, FfnExperts)
    return layer.experts


def _mixed(layer: MoE, rows: int = 200, k: int = 2) -> tuple[Tensor, list[Tensor]]:
    """Output and gradients (x, weights, up, down) for one fixed routing."""
    generator = torch.Generator().manual_seed(1)
    device, dtype = _experts(layer).up.device, _experts(layer).up.dtype
    x = torch.randn(rows, _D, generator=generator).bfloat16().to(device, dtype).requires_grad_()
    weights = torch.rand(rows, k, generator=generator).bfloat16().to(device, dtype).requires_grad_()
    # Expert 7 gets nothing.
    chosen = torch.stack([torch.randperm(7, generator=generator)[:k] for _ in range(rows)]).to(device)
    out = layer.mix(x, chosen, weights)
    towards = torch.randn(out.shape, generator=generator).bfloat16().to(device, dtype)
    leaves = [x, weights, *layer.experts.parameters()]
    return out, list(torch.autograd.grad(out, leaves, towards))


def _error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.cpu().float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("gated", [False, True])
def test_outputs_and_gradients_are_those_of_the_cpu(activation: Activation, gated: bool) -> None:
    on_cpu, on_gpu = _pair()
    for layer, device in ((on_cpu, "cpu"), (on_gpu, "cuda")):
        torch.manual_seed(0)
        experts = FfnExperts(8, _D, _F, activation=activation, gated=gated)
        layer.experts = experts.bfloat16().to(device, _experts(layer).up.dtype)
    expected, to_leaves = _mixed(on_cpu)
    actual, from_gpu = _mixed(on_gpu)
    # bfloat16 products: three digits.
    assert _error(actual, expected) < 0.01
    for mine, theirs in zip(from_gpu, to_leaves, strict=True):
        assert _error(mine, theirs) < 0.02


@pytest.mark.parametrize("alpha", [0.7, (2.0, 0.3, 1.0, 1.0, 1.0, 1.0, 1.0, 0.7)])
def test_the_same_rows_are_dropped_as_on_the_cpu(alpha: float | tuple[float, ...]) -> None:
    on_cpu, on_gpu = _pair(capacity=alpha)
    expected, _ = _mixed(on_cpu)
    actual, _ = _mixed(on_gpu)
    assert _error(actual, expected) < 0.01
    assert on_cpu.observed is not None
    assert on_gpu.observed is not None
    torch.cuda.synchronize()
    assert int(on_gpu.observed.dropped) == on_cpu.observed.dropped > 0


def test_results_are_bitwise_equal_from_run_to_run() -> None:
    _, on_gpu = _pair()
    first, gradients = _mixed(on_gpu)
    again, same = _mixed(on_gpu)
    assert torch.equal(first, again)
    assert all(map(torch.equal, gradients, same))


def test_a_row_does_not_depend_on_the_rest_of_its_batch() -> None:
    _, on_gpu = _pair()
    x = torch.randn(256, _D, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        assert _error(on_gpu.eval()(x)[:3], on_gpu(x[:3]).cpu().float()) < 0.005


def test_a_step_is_captured_in_a_graph_and_replayed_on_other_rows() -> None:
    _, on_gpu = _pair(capacity=1.0)
    on_gpu.eval()
    x = torch.randn(256, _D, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        for _ in range(3):
            on_gpu(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = on_gpu(x)
        x.copy_(torch.randn_like(x))
        graph.replay()
        assert torch.equal(out, on_gpu(x))


def test_capacity_follows_the_load_and_training_goes_down() -> None:
    torch.manual_seed(0)
    layer = MoE(
        FfnExperts(8, _D, _F, device="cuda", dtype=torch.bfloat16),
        2,
        balance=0.01,
        capacity=1.25,
        policy=local_capacity(steps=2),
    )
    optimizer = torch.optim.SGD(layer.parameters(), lr=20.0)
    x = torch.randn(512, _D, device="cuda", dtype=torch.bfloat16)
    losses = []
    for _ in range(60):
        loss = (layer(x).float() - x.float()).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        layer.step()
        losses.append(float(loss.detach()))
    layer.wait_for_plan(timeout_seconds=10)
    assert layer.events
    assert all(not event.error for event in layer.events)
    assert losses[-1] < 0.5 * losses[0]


def test_modules_as_experts_run_there_too() -> None:
    torch.manual_seed(0)
    experts = [nn.Sequential(nn.Linear(6, 3), nn.Softmax(dim=-1)) for _ in range(4)]
    on_cpu = MoE(experts, 2, d_model=6, loss=Loss.SPECIALISED, cache_samples=50)
    on_gpu = copy.deepcopy(on_cpu).cuda()
    x, ids = torch.rand(50, 6), torch.arange(50)
    for _ in range(2):
        expected = on_cpu(x, sample_ids=ids)
        actual = on_gpu(x.cuda(), sample_ids=ids.cuda())
    assert torch.allclose(actual.cpu(), expected, atol=1e-5)
    actual.sum().backward()


def test_a_plan_for_the_cpu_is_refused_in_words() -> None:
    _, on_gpu = _pair()
    with pytest.raises(SettingError, match="accelerator"):
        on_gpu.set_plan(Plan(precision=Precision.INT8))
