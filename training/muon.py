"""Muon (Jordan et al., 2024) for a CPU: in 32 bits, or in bfloat16 where the CPU has units for it.

torch's own takes one matrix after another, and always in bfloat16: forty times slower on a CPU that has none.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

STEPS = 5
A, B, C = 3.4445, -4.775, 2.0315  # Coefficients of the Newton-Schulz iteration.


def orthogonalise(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Matrices [count, rows, columns] with singular values brought close to 1 by Newton-Schulz iteration."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)).to(dtype)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    x = x.to(matrices.dtype)
    return x.mT if tall else x


class Muon:
    """Nesterov momentum whose every update is orthogonalised, and scaled to the size of AdamW's updates.

    Matrices of one shape are orthogonalised together, in `dtype`.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        dtype: torch.dtype = torch.float32,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        self.groups: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            self.groups.setdefault(matrix.shape, []).append(matrix)
        self.dtype = dtype
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.averages = {shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Update every matrix from its gradient, and drop the gradient."""
        for shape, group in self.groups.items():
            gradients = torch.stack([matrix.grad for matrix in group if matrix.grad is not None])
            average = self.averages[shape]
            average.lerp_(gradients, 1 - self.momentum)
            updates = orthogonalise(gradients.lerp(average, self.momentum), self.dtype)
            for matrix, update in zip(group, updates, strict=True):
                matrix.mul_(1 - rate * self.weight_decay)
                matrix.add_(update, alpha=-rate * 0.2 * max(shape) ** 0.5)
                matrix.grad = None
