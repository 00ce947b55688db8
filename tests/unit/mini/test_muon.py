"""Muon: updates are nearly orthogonal, matrices without gradient stay, and a resumed optimizer goes
on as if nothing had happened.
"""

import pytest

pytest.importorskip("torch", reason="training needs the train extra")

import torch

from seg_research.mini.muon import MuonAdamW, orthogonalised


def test_singular_values_are_pushed_to_one():
    matrices = torch.randn(3, 12, 30, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalised(matrices))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    assert torch.allclose(
        orthogonalised(matrices.transpose(1, 2)),
        orthogonalised(matrices).transpose(1, 2),
        atol=1e-5,
    )


def network():
    torch.manual_seed(0)
    return torch.nn.ModuleDict({"seen": torch.nn.Linear(4, 4), "unseen": torch.nn.Linear(4, 4)})


def optimizer_of(model):
    return MuonAdamW(model, matrix_lr=0.1, other_lr=0.01, schedule=lambda step: 1.0)


def step(model, optimizer, number):
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(number))
    model["seen"](x).square().mean().backward()
    optimizer.step()


def test_matrices_without_gradient_stay_though_others_of_their_shape_move():
    model = network()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    step(model, optimizer_of(model), 0)
    moved = {
        name
        for name, parameter in model.named_parameters()
        if not torch.equal(parameter, before[name])
    }
    assert moved == {"seen.weight", "seen.bias"}


def test_a_resumed_optimizer_goes_on_as_before():
    model = network()
    optimizer = optimizer_of(model)
    for number in range(3):
        step(model, optimizer, number)
    weights, state = {k: v.clone() for k, v in model.state_dict().items()}, optimizer.state_dict()
    other = network()
    other.load_state_dict(weights)
    resumed = optimizer_of(other)
    resumed.load_state_dict(
        {
            "adamw": state["adamw"],
            "momentum": [m.clone() for m in state["momentum"]],
            "step": state["step"],
        }
    )
    step(model, optimizer, 7)
    step(other, resumed, 7)
    assert torch.equal(model["seen"].weight, other["seen"].weight)
