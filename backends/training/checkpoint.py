"""Training checkpoints in one safetensors file: no pickle, written by atomic rename."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file


def save_checkpoint(
    path: Path,
    step: int,
    settings: dict[str, Any],
    model: torch.nn.Module,
    average: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    compact: bool = False,
) -> None:
    """Write everything a run needs to go on exactly where it was.

    ``compact`` keeps a seventh of it, small enough for version control and no longer exact: the
    moving average (float16), which stands for the weights too, and the second moments (bfloat16,
    whose range they need). A few hundred steps make up for the rest.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    if compact:
        tensors = {f"average.{k}": _narrow(v, torch.float16) for k, v in average.items()}
    else:
        tensors = {f"model.{k}": v.detach().clone() for k, v in model.state_dict().items()}
        tensors |= {f"average.{k}": v.clone() for k, v in average.items()}
    for parameter, state in optimizer.state.items():
        name = names[id(parameter)]
        if compact:
            tensors[f"exp_avg_sq.{name}"] = _narrow(state["exp_avg_sq"], torch.bfloat16)
        else:
            tensors[f"exp_avg.{name}"] = state["exp_avg"].clone()
            tensors[f"exp_avg_sq.{name}"] = state["exp_avg_sq"].clone()
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    meta = {"step": str(step), "settings": json.dumps(settings)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata=meta)
    os.replace(partial, path)


def load_checkpoint(
    path: Path,
    model: torch.nn.Module,
    average: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
) -> tuple[int, dict[str, Any]]:
    """Restore what ``save_checkpoint`` wrote; returns the step reached and the run's settings.

    Raises KeyError when a tensor of the model is missing.
    """
    with safe_open(path, framework="pt") as file:
        meta = file.metadata()
        step = int(meta["step"])
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    whole = f"model.{next(iter(average))}" in stored
    kind = "model" if whole else "average"
    model.load_state_dict({k: stored[f"{kind}.{k}"] for k in model.state_dict()})
    for name, tensor in average.items():
        tensor.copy_(stored[f"average.{name}"])
    # A fused optimizer counts its steps on the device, any other on the CPU.
    fused = bool(optimizer.defaults.get("fused"))
    for name, parameter in model.named_parameters():
        if step and parameter.requires_grad:
            first = stored.get(f"exp_avg.{name}", torch.zeros_like(parameter))
            device = parameter.device if fused else torch.device("cpu")
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step), device=device),
                "exp_avg": _laid_out_as(parameter, first),
                "exp_avg_sq": _laid_out_as(parameter, stored[f"exp_avg_sq.{name}"]),
            }
    return step, json.loads(meta["settings"])


def _laid_out_as(parameter: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """``values`` in the parameter's memory order, dtype and device.

    A fused optimizer walks through parameter and moments as they lie in memory: with a moment in
    another order (a channels-last model, a file is always contiguous) it pairs the wrong elements.
    """
    return torch.empty_like(parameter, requires_grad=False).copy_(values)


def _narrow(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor.clone()
