"""Random weights from the output down, for sanity checks, and the trained ones back."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


def stages_of(
    unet: torch.nn.Module, text_encoder: torch.nn.Module
) -> dict[str, tuple[torch.nn.Module, ...]]:
    """The parts of a model, from the output down to the input, the text encoder last.

    ``"conv_out"`` has its norm with it; ``"conv_in"`` all that is left: the convolution and the
    embeddings of timestep and classes. Together they are every weight of both models.
    """
    left = dict(unet.named_children())
    stages = {"conv_out": [left.pop(n) for n in ("conv_out", "conv_norm_out") if n in left]}
    for blocks in ("up_blocks", "mid_block", "down_blocks"):
        part = left.pop(blocks, None)
        if isinstance(part, torch.nn.ModuleList):
            for index in reversed(range(len(part))):
                stages[f"{blocks}.{index}"] = [part[index]]
        elif part is not None:
            stages[blocks] = [part]
    stages["conv_in"] = list(left.values())
    stages["text_encoder"] = [text_encoder]
    return {name: tuple(parts) for name, parts in stages.items()}


#: What the modules that make a transformer's output are called.
_OUTPUT = re.compile(r"(^|_)(out|final)(_|$)")


def stages_of_transformers(
    transformers: Sequence[torch.nn.Module], text_encoders: Sequence[torch.nn.Module]
) -> dict[str, tuple[torch.nn.Module, ...]]:
    """The parts of transformers that are built alike, from the output down to the input, their text
    encoders last.

    ``"output"`` are the last norms and projections; then each block by its name; ``"input"`` all
    that is left. Together they are every weight of all models.
    """
    stages: dict[str, list[torch.nn.Module]] = {}
    for transformer in transformers:
        for name, parts in _stages_of_one(transformer).items():
            stages.setdefault(name, []).extend(parts)
    return {
        **{name: tuple(parts) for name, parts in stages.items()},
        "text_encoder": tuple(text_encoders),
    }


def _stages_of_one(transformer: torch.nn.Module) -> dict[str, list[torch.nn.Module]]:
    left = dict(transformer.named_children())
    outputs = [left.pop(name) for name in list(left) if _OUTPUT.search(name)]
    stages: dict[str, list[torch.nn.Module]] = {"output": outputs}
    lists = [n for n, part in left.items() if isinstance(part, torch.nn.ModuleList) and len(part)]
    for name in reversed(lists):
        blocks = list(left.pop(name).children())
        for index in reversed(range(len(blocks))):
            stages[f"{name}.{index}"] = [blocks[index]]
    own = torch.nn.ParameterList(transformer.parameters(recurse=False))
    stages["input"] = [*left.values(), *([own] if len(own) else [])]
    return stages


def can_be_randomized(parts: Sequence[torch.nn.Module], *, as_library: bool = False) -> bool:
    """Return whether the framework knows how to draw every weight of some modules."""
    try:
        _layers(parts, as_library)
    except ValueError:
        return False
    return True


@contextmanager
def random_weights(
    parts: Sequence[torch.nn.Module], seed: int, *, as_library: bool = False
) -> Iterator[None]:
    """Every weight in some modules drawn anew by its layer's ``reset_parameters``.

    With ``as_library`` layers of diffusers and transformers that have none are drawn as their
    library does.
    They are drawn in float32 on the CPU, one layer after the other, so that they depend on the seed
    and on the layers before alone, not on device or precision. Buffers stay. The trained weights
    are kept aside and put back, the very same memory.

    Raises ValueError, before anything is changed, for a layer that has weights and no
    ``reset_parameters``, or whose weights are elsewhere (offloaded) or no floats (quantised).
    """
    layers = _layers(parts, as_library)
    trained: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    generator = torch.default_generator
    state = generator.get_state()
    try:
        try:
            generator.manual_seed(seed)
            for layer in layers:
                for name, fresh in _drawn(layer):
                    weight = layer.get_parameter(name)
                    trained.append((weight, weight.data))
                    weight.data = fresh.to(weight.device, weight.dtype)
        finally:
            generator.set_state(state)
        yield
    finally:
        while trained:
            weight, data = trained.pop()
            weight.data = data


def _drawn(layer: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Random weights of one layer, by name; the layer itself isn't touched."""
    # Without the layer's hooks' world, which a deep copy of all of it would take along.
    twin = copy.copy(layer)
    twin._parameters = {
        name: None
        if weight is None
        else torch.nn.Parameter(weight.detach().to("cpu", torch.float32, copy=True))
        for name, weight in layer._parameters.items()
    }
    twin._buffers, twin._modules = copy.deepcopy((layer._buffers, layer._modules))
    if callable(getattr(twin, "reset_parameters", None)):
        twin.reset_parameters()  # type: ignore[operator]
    else:
        _reset(twin)
    return [(name, weight.detach()) for name, weight in twin.named_parameters(recurse=False)]


def _reset(layer: torch.nn.Module) -> None:
    """Draw weights that their library initialises from outside the layer: a norm's weights are
    ones and its biases zeros, all else is normal with the standard deviation that it had."""
    is_norm = "Norm" in type(layer).__name__
    for name, weight in layer.named_parameters(recurse=False):
        if is_norm and weight.ndim == 1:
            torch.nn.init.constant_(weight, 0.0 if "bias" in name else 1.0)
        else:
            deviation = float(weight.detach().std(unbiased=False))
            torch.nn.init.normal_(weight, std=deviation or 0.02)


def _is_known(layer: torch.nn.Module, as_library: bool) -> bool:
    """Return True for a layer whose weights can be drawn."""
    if callable(getattr(layer, "reset_parameters", None)) or not as_library:
        return callable(getattr(layer, "reset_parameters", None))
    library = type(layer).__module__.partition(".")[0]
    return library in ("diffusers", "transformers") or isinstance(layer, torch.nn.ParameterList)


def _is_plain(weight: torch.nn.Parameter) -> bool:
    """Return True for a weight that is an array of floating numbers, not one packed into bits."""
    return weight.is_floating_point() and type(weight.data) is torch.Tensor


def _layers(parts: Sequence[torch.nn.Module], as_library: bool) -> list[torch.nn.Module]:
    """The modules that have weights of their own, in order."""
    found = []
    for part in parts:
        for name, layer in part.named_modules():
            weights = dict(layer.named_parameters(recurse=False))
            if not weights:
                continue
            what = f"{type(layer).__name__} {name!r}"
            if not _is_known(layer, as_library):
                raise ValueError(f"{what} has no reset_parameters: it can't be randomised")
            if any(weight.is_meta for weight in weights.values()):
                raise ValueError(f"{what} is offloaded: its weights can't be randomised")
            if not all(_is_plain(weight) for weight in weights.values()):
                raise ValueError(f"{what} is quantised: its weights can't be randomised")
            found.append(layer)
    return found
