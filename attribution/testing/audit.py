"""Watches what a backend really does while a method is asked, and what a method leaves behind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, Self

from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.backend import Backend, Evaluations

#: What is watched, and the capability that a method must name to ask for it.
_PRIMITIVES = {
    "_denoise": "denoise",
    "_denoise_jvp": "denoise_jvp",
    "_denoise_parts": "denoise_parts",
    "_denoise_vjp": "denoise_vjp",
    "_attention": "attention",
    "_concept_attention": "concept_attention",
    "_attention_vjp": "attention_vjp",
    "_token_embeddings": "encode_from",
    "_encode_from": "encode_from",
    "_encode_from_jvp": "encode_from",
    "_encode_from_parts": "encode_from",
    "_decode": "decode",
    "_decode_jvp": "decode",
    "encode": "encode",
    "sample": "sample",
    "invert": "invert",
}


class PlantedError(RuntimeError):
    """Raised in the middle of an ``attribute`` call, on purpose."""


class Audit:
    """Notes every primitive of a backend that runs inside a ``with`` block, below the methods that
    count: so it sees what is called past the counters, and what counters that were reset forget.

    Args:
        backend: the backend to watch; it is as it was after the block.
        fail_at: the number, from 1, of the primitive that raises ``PlantedError`` when it is done.

    Attributes:
        spent: the cost so far, in rows.
        calls: the number of primitives that ran.
        used: their capabilities.
        behind: parts of the model that ran outside any primitive.
    """

    def __init__(self, backend: Backend, fail_at: int | None = None) -> None:
        self.spent, self.calls = Evaluations(), 0
        self.used: set[str] = set()
        self.behind: list[str] = []
        self._backend, self._fail_at = backend, fail_at
        self._depth = 0
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        own = vars(self._backend)
        for name in _PRIMITIVES:
            watched = self._watched(name, getattr(self._backend, name))
            if name in own:
                self._undo.append(partial(own.__setitem__, name, own[name]))
            else:
                self._undo.append(partial(own.pop, name, None))
            own[name] = watched
        if isinstance(self._backend, ToyModel):
            hooks = self._backend.hooks

            def hook(layer: str, _kind: str, _maps: object) -> None:
                self._note_run(f"the layer {layer!r}")

            hooks.append(hook)
            self._undo.append(lambda: hooks.remove(hook) if hook in hooks else None)
        for name, module in torch_parts(self._backend).items():
            handle = module.register_forward_pre_hook(partial(self._note_module, f"the {name}"))
            self._undo.append(handle.remove)
        return self

    def __exit__(self, *error: object) -> None:
        while self._undo:
            self._undo.pop()()

    def _note_module(self, part: str, *_call: object) -> None:
        self._note_run(part)

    def _note_run(self, part: str) -> None:
        if self._depth == 0:
            self.behind.append(part)

    def _watched(self, name: str, primitive: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(getattr(Backend, name))

        @wraps(primitive)
        def call(*args: Any, **options: Any) -> Any:
            if self._depth:
                return primitive(*args, **options)
            given = signature.bind(self._backend, *args, **options).arguments
            before = self._backend.evaluations.forward
            self._depth += 1
            try:
                answer = primitive(*args, **options)
            finally:
                self._depth -= 1
            self._note(name, given, self._backend.evaluations.forward - before)
            if self.calls == self._fail_at:
                raise PlantedError(f"raised on purpose, in call number {self.calls}")
            return answer

        return call

    def _rows(self, given: Mapping[str, Any], n_tokens: int) -> int:
        return self._backend.rows_for_words(given["trajectory"], n_tokens)

    def _note(self, name: str, given: Mapping[str, Any], counted: int) -> None:
        self.calls += 1
        self.used.add(_PRIMITIVES[name])
        match name:
            case "_denoise":
                self.spent.forward += int(given["latents"].shape[0])
            case "_denoise_jvp":
                self.spent.jvp += int(given["tangents"].shape[0])
            case "_denoise_parts":
                self.spent.jvp += int(given["parts"].shape[0])
            case "_denoise_vjp":
                self.spent.vjp += int(given["latents"].shape[0])
            case "_attention":
                keys = given.get("keys")
                carried = 0 if keys is None else keys.n_carried
                rows = self._rows(given, carried) if self._backend.carries_words else 0
                self.spent.forward += (1 + rows) * len(given["steps"])
                if given["query"].kind == "self":
                    self.used.add("self_attention")
                if keys is not None:
                    self.used.add("attention_keys")
            case "_concept_attention":
                rows = 1 + self._rows(given, len(given["concepts"]))
                self.spent.forward += rows * len(given["steps"])
            case "_attention_vjp":
                self.spent.vjp += 1
            case "sample" | "invert":
                # The denoiser runs deep inside: here the backend's own count is taken.
                self.spent.forward += counted


def footprint(backend: Backend) -> dict[str, object]:
    """Everything on a backend and its model through which others can listen or change what it
    does: methods that were replaced, listeners, hooks, attention processors, modes."""
    found: dict[str, object] = {}
    for name, value in vars(backend).items():
        if callable(value) and not _is_module(value):
            found[f"backend.{name}"] = id(value)
        elif isinstance(value, (list, tuple, set, dict)):
            inside = value.values() if isinstance(value, dict) else value
            found[f"backend.{name}"] = [id(one) for one in inside if callable(one)]
    for part, whole in torch_parts(backend).items():
        for path, module in whole.named_modules():
            place = f"{part}.{path}" if path else part
            for kind in _HOOKS:
                found[f"{place}: {kind.strip('_')}"] = len(getattr(module, kind, None) or ())
            found[f"{place}: replaced forward"] = id(vars(module).get("forward"))
            found[f"{place}: processor"] = id(getattr(module, "processor", None))
            found[f"{place}: training mode"] = module.training
        for path, parameter in whole.named_parameters():
            found[f"{part}.{path}: hooks"] = len(parameter._backward_hooks or ())
            found[f"{part}.{path}: requires_grad"] = parameter.requires_grad
    return found


#: Where torch keeps a module's hooks.
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def torch_parts(backend: Backend) -> dict[str, Any]:
    """The modules that a torch backend holds, itself or in a pipeline, by name; none of another."""
    if backend.framework != "torch":
        return {}
    found: dict[str, Any] = {}
    for name, value in vars(backend).items():
        parts = getattr(value, "components", None)
        inside = parts if isinstance(parts, dict) else {name: value}
        found |= {key: one for key, one in inside.items() if _is_module(one)}
    return found


def _is_module(value: object) -> bool:
    # Told without importing torch.
    return hasattr(value, "register_forward_pre_hook") and hasattr(value, "named_modules")
