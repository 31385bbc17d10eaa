"""Blocks come back when their last tensor dies; Adam inside backward is Adam; experts in files train the same."""

from __future__ import annotations

from pathlib import Path

import torch
from dynamoe import Activation, FfnExperts, MoE
from dynamoe.fused_optimizer import AdamSettings, FusedAdam
from dynamoe.memory import HUGE_PAGE_BYTES, Arena
from dynamoe.offload import MappedExperts, coldest


def test_a_block_is_used_again_only_after_its_last_view_has_died() -> None:
    arena = Arena(keep_bytes=64 * 1024**2)
    first = arena.take(1024, 1024, dtype=torch.float32)
    view, address = first[3:5], first.data_ptr()
    assert address % HUGE_PAGE_BYTES == 0
    del first
    second = arena.take(1024, 1024, dtype=torch.float32)
    assert second.data_ptr() != address
    del view
    assert arena.take(1024, 1024, dtype=torch.bfloat16).dtype is torch.bfloat16
    assert arena.take(1024, 1024, dtype=torch.float32).data_ptr() == address
    assert arena.fresh_blocks == 3


def test_blocks_beyond_the_bound_go_back_to_the_system() -> None:
    arena = Arena(keep_bytes=4 * 1024**2)
    tensors = [arena.take(1024, 1024, dtype=torch.float32) for _ in range(3)]
    assert arena.live_bytes == 12 * 1024**2
    del tensors
    assert (arena.live_bytes, arena.idle_bytes) == (0, 4 * 1024**2)
    arena.trim()
    assert arena.idle_bytes == 0


def test_a_gradient_that_the_user_keeps_is_not_overwritten() -> None:
    torch.manual_seed(0)
    layer = MoE(FfnExperts(2, 512, 1024, activation=Activation.RELU, gated=False), 1, arena=Arena(keep_bytes=1 << 30))
    x = torch.rand(8, 512)
    layer(x).sum().backward()
    kept = next(layer.experts.parameters()).grad
    assert kept is not None
    before = kept.clone()
    layer.zero_grad()
    layer(x * 2).sum().backward()
    assert torch.equal(kept, before)


def _trained(layer: MoE, steps: int, optimizers: list[torch.optim.Optimizer]) -> None:
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        for one in optimizers:
            one.zero_grad()
        layer(torch.rand(64, 16, generator=generator)).square().mean().backward()
        for one in optimizers:
            one.step()


def _layer() -> MoE:
    torch.manual_seed(0)
    return MoE(FfnExperts(4, 16, 32), 2)


def test_adam_inside_backward_gives_adams_weights() -> None:
    plain, fused = _layer(), _layer()
    _trained(plain, 5, [torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.1)])
    FusedAdam(fused.experts, AdamSettings(learning_rate=1e-2, weight_decay=0.1))  # type: ignore[arg-type]
    _trained(fused, 5, [torch.optim.AdamW(fused.gate.parameters(), lr=1e-2, weight_decay=0.1)])
    for mine, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
    assert fused.experts.up.grad is None


def test_experts_in_files_train_to_the_same_weights(tmp_path: Path) -> None:
    inside, mapped = _layer(), _layer()
    for layer in (inside, mapped):
        optimizer = FusedAdam(layer.experts, AdamSettings(learning_rate=1e-2))  # type: ignore[arg-type]
        if layer is mapped:
            storage = MappedExperts(layer.experts, tmp_path)  # type: ignore[arg-type]
            storage.optimizer(optimizer)
    _trained(inside, 3, [])
    _trained(mapped, 2, [])
    assert storage.keep_resident([5, 1, 9, 7], limit_bytes=0) == [1, 0, 3, 2]
    generator = torch.Generator().manual_seed(5)
    batches = [torch.rand(64, 16, generator=generator) for _ in range(3)]
    mapped(batches[2]).square().mean().backward()
    assert torch.allclose(mapped.experts.up, inside.experts.up, atol=1e-6)  # type: ignore[arg-type]


def test_experts_made_on_meta_are_initialised_in_their_files(tmp_path: Path) -> None:
    experts = FfnExperts(3, 16, 32, device="meta")
    MappedExperts(experts, tmp_path)
    assert 0 < float(experts.up.detach().abs().max()) <= 0.25
    assert (tmp_path / "up.bin").stat().st_size == experts.up.nbytes


def test_the_coldest_leave_first() -> None:
    assert coldest([5, 0, 7, 0], keep=2) == [1, 3]
    assert coldest([1, 2], keep=5) == []
