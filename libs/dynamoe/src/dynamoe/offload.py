"""Experts in files: their weights and moments are mapped, and the cold ones' pages leave the memory.

A mapped page can be dropped by the kernel at any time and read back when it is touched, so a layer larger than the
memory trains, at the speed of the disk for what does not fit. `keep_resident` tells the kernel which experts to drop
first: those with the fewest rows.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dynamoe.errors import SettingError
from dynamoe.experts import FfnExperts
from dynamoe.fused_optimizer import FusedAdam


class MappedFile:
    """One tensor [n, ...] in a file of its own, shared with the page cache. The file is created and zero."""

    def __init__(self, path: Path, shape: Sequence[int], dtype: torch.dtype) -> None:
        size_bytes = math.prod(shape) * dtype.itemsize
        with path.open("wb+") as file:
            file.truncate(size_bytes)
            self._map = mmap.mmap(file.fileno(), size_bytes)
        self._expert_bytes = size_bytes // shape[0]
        flat = torch.from_numpy(np.frombuffer(self._map, dtype=np.uint8))
        self.tensor: Tensor = flat.view(dtype).view(*shape)

    def drop(self, expert: int) -> None:
        """Write an expert's pages to the file and take them out of this process. Touching it again reads them."""
        start, length = self._pages(expert)
        if length:
            self._map.flush(start, length)
            self._map.madvise(mmap.MADV_DONTNEED, start, length)

    def fetch(self, expert: int) -> None:
        """Ask the kernel to read an expert's pages ahead of their use."""
        start, length = self._pages(expert)
        if length:
            self._map.madvise(mmap.MADV_WILLNEED, start, length)

    def _pages(self, expert: int) -> tuple[int, int]:
        """Whole pages only: a page that two experts share stays with the other one."""
        start = -(-expert * self._expert_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (expert + 1) * self._expert_bytes // mmap.PAGESIZE * mmap.PAGESIZE
        return start, max(0, end - start)


class MappedExperts:
    """The weights of `experts`, and of its optimizer the moments, in `folder`.

    Experts built on the `meta` device are initialised in their files one after the other and never exist elsewhere.
    """

    def __init__(self, experts: FfnExperts, folder: Path) -> None:
        if experts.up.device.type not in ("cpu", "meta"):
            raise SettingError(f"experts on {experts.up.device} cannot lie in files: move them to the CPU first")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._experts = experts
        self.files = [self._mapped("up", experts.up), self._mapped("down", experts.down)]
        fresh = experts.up.is_meta
        for name, old, file in zip(("up", "down"), (experts.up, experts.down), self.files, strict=True):
            if not fresh:
                file.tensor.copy_(old.detach())
            setattr(experts, name, nn.Parameter(file.tensor, requires_grad=old.requires_grad))
        if fresh:
            experts.reset_parameters()

    def optimizer(self, optimizer: FusedAdam) -> FusedAdam:
        """Put the moments of this optimizer, of the same experts, into files too."""
        moved = []
        for name, pair in zip(("up", "down"), optimizer.moments, strict=True):
            files = [self._mapped(f"{name}_{kind}", old) for kind, old in zip(("mean", "square"), pair, strict=True)]
            for file, old in zip(files, pair, strict=True):
                if not old.is_meta:
                    file.tensor.copy_(old)
            self.files += files
            moved.append((files[0].tensor, files[1].tensor))
        optimizer.moments = (moved[0], moved[1])
        return optimizer

    def keep_resident(self, counts: Sequence[int], *, limit_bytes: int) -> list[int]:
        """Drop the pages of the experts with the fewest rows beyond `limit_bytes`. Returns who was dropped."""
        each = sum(file.tensor.nbytes for file in self.files) // len(self._experts)
        cold = coldest(counts, keep=limit_bytes // each)
        for expert in cold:
            for file in self.files:
                file.drop(expert)
        return cold

    def _mapped(self, name: str, like: Tensor) -> MappedFile:
        return MappedFile(self._folder / f"{name}.bin", like.shape, like.dtype)


def coldest(counts: Sequence[int], *, keep: int) -> list[int]:
    """All experts but the `keep` busiest, coldest first; the lower number first among equals."""
    order = sorted(range(len(counts)), key=lambda expert: (counts[expert], expert))
    return order[: max(0, len(counts) - keep)]
