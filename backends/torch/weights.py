"""A digest, in a few letters, of the weights that a pipeline computes with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from wordlight.backends.torch.module_tree import named_parts

#: How many sums of a weight there are, each over an equal stretch of it.
_SUMS = 8
#: What a scheduler's configuration says of noise, and of what is predicted.
_OF_NOISE = (
    "prediction_type beta_schedule beta_start beta_end trained_betas rescale_betas_zero_snr "
    "num_train_timesteps"
).split()
#: What makes layers of PyTorch compute something else with the same weights.
_SETTINGS = "padding_mode stride padding dilation groups num_groups eps approximate".split()
#: Bytes of weights of one size that are read together: a GPU waits for each operation's launch,
#: and a processor's cache holds a few small weights.
_TOGETHER, _TOGETHER_ON_CPU = 2**26, 2**22


def fingerprint(
    modules: Iterable[torch.nn.Module],
    decoders: Iterable[torch.nn.Module] = (),
    scheduler: Any = None,
) -> str | None:
    """A digest of every number of each weight, of the adapters that are on, of FreeU's factors, of
    attention processors that aren't diffusers' own, and of a scheduler's noise and prediction.

    The precision stands in front; behind it the digest of ``decoders``, which draw the image and
    change no map, and that of what PyTorch's own layers do beside their weights
    (``"float32:0c1f...:9a3b...:77e0..."``): how convolutions pad and stride, the constants of
    norms, which activations there are. None where weights are elsewhere (offloaded), or packed so
    that their bytes can't be read.

    All weights are read once, as integers, whose sum any change of one number changes: at the speed
    of the device's memory (14 GB a second on one CPU core), and it waits for the device once.
    """
    config = getattr(scheduler, "config", {})
    modules = list(modules)
    made = _digest(modules, [config.get(name) or None for name in _OF_NOISE])
    drawn = _digest(decoders)
    if made is None or drawn is None:
        return None
    return f"{made}:{drawn.partition(':')[2]}:{_layers(modules)}"


def _layers(modules: Iterable[torch.nn.Module]) -> str:
    """The digest of the settings of PyTorch's own layers."""
    digest = hashlib.sha256()
    for module in modules:
        for name, part in named_parts(module):
            kind = type(part)
            if kind.__module__.startswith("torch.nn."):
                own = vars(part)
                said = [own.get(setting) for setting in _SETTINGS]
                name = name.replace(".base_layer", "")
                digest.update(f"{name} {kind.__name__} {said}".encode())
    return digest.hexdigest()[:16]


class Watched:
    """What may be switched in a denoiser's parts from one step to the next, read without waiting
    for the device: adapters, attention processors, and how often PyTorch counts that weights were
    changed in place (nothing where hooks move them)."""

    def __init__(self, parts: Iterable[torch.nn.Module]) -> None:
        parts = list(parts)
        self._adapted = [part for part in parts if _adapter("", part)]
        self._attending = [part for part in parts if "processor" in vars(part)]
        own = [part for part in parts if part._parameters]
        moving = any("_hf_hook" in vars(part) or "_diffusers_hook" in vars(part) for part in parts)
        weights = [] if moving else [w for part in own for w in part._parameters.values()]
        self._weights = [w for w in weights if w is not None and not w.is_inference()]
        self._before = self._read()

    def _read(self) -> list[Any]:
        return [
            [_adapter("", part) for part in self._adapted],
            [type(part.processor) for part in self._attending],
            sum(weight._version for weight in self._weights),
        ]

    def changed(self) -> bool:
        """Return whether anything is switched otherwise than when this was made."""
        return self._read() != self._before


def _digest(modules: Iterable[torch.nn.Module], said: Sequence[Any] = ()) -> str | None:
    digest = hashlib.sha256(repr(said).encode() if any(said) else b"")
    weights: dict[torch.device, list[torch.Tensor]] = {}
    dtype = ""
    for module in modules:
        adapters: list[Any] = []
        for name, weight in _weights_of(module, adapters):
            dtype = dtype or str(weight.dtype).removeprefix("torch.")
            digest.update(f"{name.replace('.base_layer', '')}{tuple(weight.shape)}".encode())
            numbers = weight.data
            if numbers.is_meta or type(numbers) is not torch.Tensor:
                return None
            weights.setdefault(numbers.device, []).append(numbers)
        digest.update(repr(adapters).encode())
    for device, of_device in weights.items():
        digest.update(_sums(of_device, device.type))
    return f"{dtype}:{digest.hexdigest()[:16]}"


def _weights_of(
    module: torch.nn.Module, adapters: list[Any]
) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The weights of ``named_parameters()``, and beside them the adapters that are on."""
    seen = set()
    for prefix, part in named_parts(module):
        adapters += _adapter(prefix, part) + _changes(prefix, part)
        for name, weight in part._parameters.items():
            if weight is not None and id(weight) not in seen:
                seen.add(id(weight))
                yield f"{prefix}.{name}" if prefix else name, weight


def _sums(weights: Sequence[torch.Tensor], kind: str) -> bytes:
    """The sums of each weight of a kind of device, one after the other."""
    alike: dict[tuple[int, torch.dtype], list[int]] = {}
    for index, weight in enumerate(weights):
        alike.setdefault((weight.numel(), weight.dtype), []).append(index)
    parts = [part for (n, t), own in alike.items() for part in _parts(own, n * t.itemsize, kind)]
    made = [_sums_of_alike([weights[index] for index in part]) for part in parts]
    numbers = torch.cat([sums.reshape(-1) for sums in made]).cpu().numpy()
    found: dict[int, bytes] = {}
    start = 0
    for part, sums in zip(parts, made, strict=True):
        rows = numbers[start : start + sums.numel()].reshape(sums.shape)
        found |= {index: row.tobytes() for index, row in zip(part, rows, strict=True)}
        start += sums.numel()
    return b"".join(found[index] for index in range(len(weights)))


def _parts(indices: list[int], n_bytes: int, kind: str) -> Iterator[list[int]]:
    """Weights of one size, those cut up that are read together."""
    most = _TOGETHER_ON_CPU if kind == "cpu" else _TOGETHER
    each = 1 if n_bytes % 8 else max(1, most // max(1, n_bytes))
    return (indices[at : at + each] for at in range(0, len(indices), each))


def _sums_of_alike(weights: list[torch.Tensor]) -> torch.Tensor:
    """Sums of each weight's bytes, eight to an integer, which wrap around, and what bytes are left:
    ``(weights, numbers)``."""
    flat = [weight.contiguous().reshape(-1) for weight in weights]
    raw = (flat[0] if len(flat) == 1 else torch.cat(flat)).view(torch.uint8)
    if raw.storage_offset() % 8:  # Part of a larger tensor, over which integers can't be laid.
        raw = raw.clone()
    raw = raw.view(len(weights), raw.numel() // len(weights))
    whole = raw.shape[1] // (8 * _SUMS) * 8 * _SUMS
    body = raw[:, :whole] if len(raw) > 1 else raw[0, :whole][None]
    sums: torch.Tensor = body.view(torch.int64).unflatten(1, (_SUMS, whole // (8 * _SUMS))).sum(2)
    if whole == raw.shape[1]:
        return sums
    return torch.cat([sums, raw[:, whole:].to(torch.int64)], 1)


def _changes(name: str, layer: torch.nn.Module) -> list[Any]:
    """What else makes a layer compute something else: FreeU's factors, and whose processor it
    has."""
    factors = [vars(layer).get(factor) for factor in ("s1", "s2", "b1", "b2")]
    found: list[Any] = [(name, factors)] if any(one is not None for one in factors) else []
    kind = type(vars(layer).get("processor"))
    if not kind.__module__.startswith(("builtins", "diffusers.")):
        found.append((name, f"{kind.__module__}.{kind.__qualname__}"))
    return found


def _adapter(name: str, layer: torch.nn.Module) -> list[Any]:
    """What peft has switched on in a layer, with its scales; nothing where it has no adapters."""
    if "scaling" not in vars(layer) and not hasattr(type(layer), "scaling"):
        return []
    active = getattr(layer, "active_adapters", None)
    if not isinstance(active, (list, tuple)):
        return []
    off = bool(getattr(layer, "disable_adapters", False))
    scales = [(one, layer.scaling.get(one)) for one in active]  # type: ignore[operator, union-attr]
    return [(name, off, bool(getattr(layer, "merged", False)), scales)]
