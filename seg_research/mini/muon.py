"""Muon for small models on CPUs: momentum, made orthogonal by a Newton-Schulz iteration, for all
matrices; AdamW for everything else.

`torch.optim.Muon` iterates in bfloat16, which CPUs without such units emulate at a twentieth of
their speed; here it is float32, and matrices of one shape are iterated together. Jordan et al. 2024
(the coefficients are theirs).
"""

# Types of torch and transformers are partly unknown.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


def orthogonalised(matrices_KMN: torch.Tensor) -> torch.Tensor:
    """Push the singular values of each matrix to about 1."""
    x = matrices_KMN / (matrices_KMN.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    for _ in range(_ITERATIONS):
        gram = x @ x.transpose(1, 2)
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


class MuonAdamW:
    """One optimizer for a whole model; a schedule scales both learning rates."""

    def __init__(
        self,
        model: Any,
        *,
        matrix_lr: float,
        other_lr: float,
        schedule: Callable[[int], float],
        weight_decay: float = 0.01,
    ) -> None:
        """Split the parameters; embeddings and everything that is not a matrix go to AdamW."""
        matrices: dict[tuple[int, ...], list[torch.nn.Parameter]] = defaultdict(list)
        others: list[torch.nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name and "lm_head" not in name:
                matrices[tuple(parameter.shape)].append(parameter)
            else:
                others.append(parameter)
        self._matrices = list(matrices.values())
        self._momentum = [torch.zeros(len(group), *group[0].shape) for group in self._matrices]
        self._adamw = torch.optim.AdamW(
            others, lr=other_lr, betas=(0.9, 0.98), weight_decay=weight_decay
        )
        self._parameters = [p for group in self._matrices for p in group] + others
        self._matrix_lr, self._other_lr, self._decay = matrix_lr, other_lr, weight_decay
        self._schedule, self._step = schedule, 0

    @torch.no_grad()
    def step(self) -> None:
        """Clip the gradients to norm 1, update, and forget them."""
        scale = self._schedule(self._step)
        self._step += 1
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        for group in self._adamw.param_groups:
            group["lr"] = self._other_lr * scale
        self._adamw.step()
        for group, momentum in zip(self._matrices, self._momentum, strict=True):
            # Matrices without gradient (the image encoder, in a step of text alone) keep their
            # momentum and stay where they are.
            active = [i for i, parameter in enumerate(group) if parameter.grad is not None]
            if not active:
                continue
            gradients = torch.stack([group[i].grad for i in active])  # type: ignore[misc]
            momentum[active] = momentum[active].lerp(gradients, 0.05)
            update = orthogonalised(gradients.lerp(momentum[active], 0.95))
            shape = max(1.0, group[0].shape[0] / group[0].shape[1]) ** 0.5
            for i, change in zip(active, update, strict=True):
                group[i].mul_(1 - self._matrix_lr * scale * self._decay).sub_(
                    change, alpha=self._matrix_lr * scale * shape
                )
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs."""
        return {"adamw": self._adamw.state_dict(), "momentum": self._momentum, "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._adamw.load_state_dict(state["adamw"])
        self._momentum, self._step = state["momentum"], state["step"]
