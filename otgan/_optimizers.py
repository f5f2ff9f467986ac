"""State of torch's optimisers as named tensors, for checkpoints that go on to the same numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


def optimizer_tensors(name: str, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """What the optimiser keeps of each parameter, as ``name.k.moment``."""
    return {
        f"{name}.{k}.{key}": torch.as_tensor(value)
        for k, parameter in enumerate(parameters)
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def restore_optimizer(
    name: str, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Take over what :func:`optimizer_tensors` returned, on the device of each parameter."""
    # Adam keeps its count of steps on the CPU, unless it is fused.
    host = () if optimizer.defaults.get("fused") else ("step",)
    for k, parameter in enumerate(parameters):
        prefix = f"{name}.{k}."
        held = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if held:
            optimizer.state[parameter] = {
                key: value if key in host else value.to(parameter.device) for key, value in held.items()
            }
