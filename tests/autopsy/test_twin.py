"""Copies of a network have the hooks of its parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yolo_stable.autopsy.case import doubled
from yolo_stable.autopsy.twin import other_weights, twin


def sevens(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.fill_(7.0)


def hooked() -> nn.Linear:
    model = nn.Linear(3, 2)
    model.weight.register_hook(lambda gradient: gradient * float("nan"))
    model.bias.register_post_accumulate_grad_hook(sevens)
    return model


def test_each_copy_that_is_compared_has_them() -> None:
    model = hooked()
    for made in (twin(model), doubled(model), other_weights(model, None), other_weights(model, model.state_dict())):
        x = torch.ones(1, 3, dtype=made.weight.dtype)  # pyright: ignore[reportCallIssue, reportArgumentType]
        made(x).sum().backward()
        grads = [p.grad for p in made.parameters()]
        assert grads[0] is not None
        assert grads[1] is not None
        assert bool(grads[0].isnan().all())
        assert bool((grads[1] == 7).all())
    assert model.weight.grad is None
