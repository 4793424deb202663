"""A pipeline's denoiser, whatever its family: how it is found, told and called."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from wordlight.backends.attention import Layer
from wordlight.backends.torch.attention_layers import n_heads
from wordlight.backends.torch.call_arguments import (
    NOISE_LEVEL,
    CallArguments,
    arguments_of,
    called_as_given,
    flatten,
    unflatten,
)
from wordlight.backends.torch.compiled import uncompiled
from wordlight.backends.torch.denoisers import Denoiser, Kind, Layout
from wordlight.backends.torch.families import FAMILIES
from wordlight.backends.torch.module_tree import parts_of

#: Where each pipeline computes, and in which precision, with what says that it still holds.
_PLACED: weakref.WeakKeyDictionary[Any, tuple[Any, tuple[torch.device, torch.dtype]]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True, eq=False)
class Model:
    """A pipeline's denoiser, as it stands now, with the facts of its family.

    Attributes:
        module: the denoiser itself, without wrappers of compilers and adapters.
    """

    pipe: Any
    family: Denoiser

    @classmethod
    def of(cls, pipe: Any) -> Model:
        """The denoiser of a pipeline; raises ValueError for one of no known family."""
        seen = None
        for family in FAMILIES:
            module = getattr(pipe, family.part, None)
            if module is None:
                continue
            seen = type(uncompiled(module)).__name__
            if inner_module(module, family.classes) is not None:
                return cls(pipe, family)
        from wordlight.backends.torch.probe import ProbeError, probed

        try:
            return cls(pipe, probed(pipe))
        except ProbeError as error:
            why = f"; a probe found nothing either: {error}"
        what = f"its denoiser is a {seen}" if seen else "it has no unet and no transformer"
        raise ValueError(
            f"{type(pipe).__name__} is not supported: {what}, and the families known here are "
            + ", ".join(family.name for family in FAMILIES)
            + why
        )

    @property
    def whole(self) -> torch.nn.Module:
        """The denoiser, or a list of both, with whatever wraps them."""
        found: torch.nn.Module = getattr(self.pipe, self.family.part)
        second = self.family.second(self.pipe)
        if second is None:
            return found
        return torch.nn.ModuleList([found, getattr(self.pipe, second[0])])

    @property
    def module(self) -> torch.nn.Module:
        """The denoiser, the first of two; raises ValueError where the pipeline has another kind by
        now."""
        return self._inner(self.family.part)

    @property
    def modules(self) -> tuple[torch.nn.Module, ...]:
        """The denoisers: one, or also one for the steps of little noise."""
        second = self.family.second(self.pipe)
        return (self.module,) if second is None else (self.module, self._inner(second[0]))

    def at(self, timestep: float) -> torch.nn.Module:
        """The denoiser that draws a step."""
        second = self.family.second(self.pipe)
        if second is None or timestep >= second[1]:
            return self.module
        return self._inner(second[0])

    def _inner(self, part: str) -> torch.nn.Module:
        found = inner_module(getattr(self.pipe, part), self.family.classes)
        if found is None:
            raise ValueError(f"the pipeline's {part} is no {self.family.name} denoiser any more")
        return found

    @property
    def config(self) -> Any:
        """The denoiser's configuration."""
        return self.module.config

    @property
    def device(self) -> torch.device:
        """The device that the pipeline computes on; its weights may be kept elsewhere."""
        return self._placed[0]

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the denoiser's weights."""
        return self._placed[1]

    @property
    def _placed(self) -> tuple[torch.device, torch.dtype]:
        # diffusers goes through all modules for either, which takes milliseconds.
        module = self.module
        first = next(module.parameters())
        hooks = vars(module).get("_hf_hook"), vars(module).get("_diffusers_hook")
        key = (weakref.ref(module), first.device, first.dtype, hooks)
        known = _PLACED.get(self.pipe)
        if known is None or known[0] != key:
            known = key, (self.pipe._execution_device, cast("torch.dtype", module.dtype))
            _PLACED[self.pipe] = known
        return known[1]

    def layers(self, kind: Kind) -> tuple[Layer, ...]:
        """The attention layers of one kind, as an ``AttentionQuery`` names them."""
        return tuple(Layer(name, n_heads(module)) for name, module in self.attending(kind).items())

    def attending(self, kind: Kind) -> dict[str, torch.nn.Module]:
        """The modules whose attention of one kind is looked at, by their layers' names; those of a
        second denoiser have its name in front."""
        found = self.family.layers(self.module, kind)
        second = self.family.second(self.pipe)
        if second is not None:
            others = self.family.layers(self._inner(second[0]), kind)
            found |= {f"{second[0]}.{name}": module for name, module in others.items()}
        return found

    def arguments_by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CallArguments:
        """The arguments of one call of the denoiser, by name."""
        return arguments_of(self.module, args, kwargs)

    @property
    def conditional_first(self) -> bool:
        """True if the pipeline puts a guided batch's conditional rows first."""
        names = {kind.__name__ for kind in type(self.pipe).__mro__}
        return bool(names & self.family.conditional_first)

    def layout(self, told: CallArguments) -> Layout:
        """Return the places of text and picture in a call."""
        return self.family.layout(self.module, told)

    def text(self, told: CallArguments) -> Any:
        """The text embeddings of a call, ``(rows, positions, channels)`` or a list of rows."""
        read = self.family.read_text
        return told[self.family.text] if read is None else read(self.module, told)

    def recorded(self, told: CallArguments) -> dict[str, Any]:
        """Return the further conditioning of a call, by the names of ``Trajectory.added``."""
        family = self.family
        own = {family.latents, family.time, family.text, *family.more_text, "return_dict"}
        own |= family.ignored
        rest = {name: value for name, value in told.items() if name not in own}
        found = flatten({**rest, **family.besides(self.module, told)})
        return {self._named(name, value): value for name, value in found.items()}

    def _named(self, name: str, value: Any) -> str:
        """A recorded name, with the mark of what all rows share."""
        shared = isinstance(value, torch.Tensor) and value.ndim < 3 and self.is_shared(name)
        return f"{name}*" if shared else name

    def is_shared(self, name: str) -> bool:
        """Return whether a recorded name is of an argument that all rows share."""
        return name.strip("+*").split(".")[0] in self.family.shared

    def call_arguments(
        self,
        latents: torch.Tensor,
        timestep: float | Sequence[float],
        embeddings: torch.Tensor,
        added: Mapping[str, torch.Tensor],
    ) -> CallArguments:
        """The arguments of a call, from latents ``(rows, channels, height, width)``, a timestep of
        all rows or one of each, embeddings and what else was recorded."""
        family = self.family
        told = unflatten({n: value for n, value in added.items() if n != NOISE_LEVEL})
        told[family.latents] = family.pack(self.module, latents, told)
        if family.told_text is None:
            told[family.text] = embeddings
        else:
            told |= family.told_text(self.module, embeddings)
        told[family.time] = self._told_time(timestep, latents)
        return told

    def _told_time(self, timestep: float | Sequence[float], latents: torch.Tensor) -> Any:
        if not isinstance(timestep, Sequence):
            # Whole timesteps go in as integers, as schedulers hand them over.
            whole = float(timestep).is_integer()
            return self.family.told_time(int(timestep) if whole else timestep, latents)
        if len(timestep) == 1:
            return self._told_time(timestep[0], latents)
        each = [
            self._told_time(own, row) for own, row in zip(timestep, latents.split(1), strict=True)
        ]
        if all(isinstance(one, torch.Tensor) for one in each):
            return torch.cat([torch.atleast_1d(one) for one in each])
        return torch.tensor(each, device=latents.device)

    def call(
        self,
        latents: torch.Tensor,
        timestep: float | Sequence[float],
        embeddings: torch.Tensor,
        added: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """The denoiser's output for such arguments, ``(rows, channels, height, width)``."""
        told = self.call_arguments(latents, timestep, embeddings, added)
        times = timestep if isinstance(timestep, Sequence) else (timestep,)
        modules = {id(module): module for module in map(self.at, times)}
        if len(modules) > 1:
            raise ValueError("steps of two denoisers can't be replayed in one pass")
        (module,) = modules.values()
        with called_as_given(module):
            output = module(**told, return_dict=False)
        # Kandinsky's gives no tuple.
        output = output[0] if isinstance(output, tuple) else output
        return self.family.read(self.module, output, told)


def inner_module(module: torch.nn.Module, classes: Sequence[str]) -> torch.nn.Module | None:
    """The module of one of some classes that wrappers (compilers, peft) hold; None for none."""
    module = uncompiled(module)
    if any(kind.__name__ in classes for kind in type(module).__mro__):
        return module
    for inner in parts_of(module):
        if any(kind.__name__ in classes for kind in type(inner).__mro__):
            return inner
    return None
