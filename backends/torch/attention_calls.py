"""The one place where a denoiser's attention is seen: its calls, named by the module they are in.

Every denoiser of diffusers ends up in ``scaled_dot_product_attention``, in a kernel of diffusers'
own registry, or in a softmax and a product that it writes itself. The first and the last are seen
by a ``TorchFunctionMode``, the second by a wrapper in the registry. Nothing of a model is patched.

A mode is told of every function of PyTorch, at ten microseconds each, for which a GPU waits. Where
a processor of diffusers' own was once seen to attend through one of two gates, the mode is on
inside the gate alone: ``F.scaled_dot_product_attention`` by the name ``F`` of the file that the
processor is in, and the registry's kernels that are PyTorch's own.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode
from torch.utils.hooks import RemovableHandle

_SOFTMAX = frozenset((torch.softmax, torch.Tensor.softmax, F.softmax))
_PRODUCTS = frozenset(
    (
        torch.bmm,
        torch.matmul,
        torch.Tensor.bmm,
        torch.Tensor.matmul,
        torch.Tensor.__matmul__,
        torch.einsum,
    )
)


@dataclass(eq=False)
class AttentionCall:
    """One attention of one module, with queries and keys as they go into the softmax: after norms,
    rotary embeddings and repeated key-value heads.

    Attributes:
        name, module: the layer it belongs to; a module may attend several times in a pass.
        query, key, value: ``(batch, heads, length, channels)``; None where the module computes the
            probabilities itself.
        mask: boolean (True is seen) or added to the scores; None for none.
        scale: of the scores; one over the root of the channels where None.
        causal: whether a query sees the keys up to its own place alone.
        probs: where the module computes them itself, those that it multiplies the values with,
            ``(batch * heads or a part, queries, keys)`` or with heads apart.
        dropout: the share of probabilities that training drops.
        other_kernel: whether a kernel of diffusers' registry computes it that isn't PyTorch's own.
    """

    name: str
    module: torch.nn.Module
    query: torch.Tensor | None = None
    key: torch.Tensor | None = None
    value: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    scale: float | None = None
    causal: bool = False
    probs: torch.Tensor | None = None
    dropout: float = 0.0
    other_kernel: bool = False

    @property
    def keys(self) -> int:
        """The number of keys."""
        seen = self.key if self.key is not None else self.probs
        assert seen is not None
        return int(seen.shape[-2] if self.key is not None else seen.shape[-1])

    @property
    def by_own_processor(self) -> bool:
        """True if a processor computes it that isn't diffusers' own."""
        processor = getattr(self.module, "processor", None)
        return processor is not None and not _is_of_diffusers(processor)

    @property
    def is_plain(self) -> bool:
        """True for the softmax of products alone, by a processor of diffusers' own: it changes
        neither queries nor keys afterwards."""
        assert self.query is not None
        assert self.key is not None
        masked = self.causal or self.mask is not None
        alike = self.query.ndim == 4 and self.query.shape[1] == self.key.shape[1]
        return alike and not masked and _is_of_diffusers(getattr(self.module, "processor", None))

    def products(self, rows: slice, key: torch.Tensor) -> torch.Tensor:
        """QKᵀ·scale of some rows' queries: ``(rows, heads, queries, keys)``, float32 or wider."""
        assert self.query is not None
        query = self.query[rows]
        if key.shape[1] != query.shape[1]:
            key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
        scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        return wide_product(query, key.transpose(-1, -2)) * scale

    def scores(self, rows: slice = slice(None)) -> torch.Tensor:
        """The same of the call's own keys, masked."""
        assert self.key is not None
        products = self.products(rows, self.key[rows])
        if self.causal:
            allowed = torch.ones(products.shape[-2:], dtype=torch.bool, device=products.device)
            products = products.masked_fill(~allowed.tril(), -torch.inf)
        if self.mask is not None:
            mask = self.mask[rows] if self.mask.ndim == 4 and self.mask.shape[0] > 1 else self.mask
            products = _masked(products, mask)
        return products

    def columns(
        self, row: int, queries: slice, keys: slice, lse: torch.Tensor | None
    ) -> torch.Tensor:
        """Some columns of one row's probabilities, ``(heads, queries, keys)``.

        Args:
            row: of the batch.
            queries, keys: the slices of each.
            lse: the logarithm of each query's sum over all keys, ``(heads, queries)``; without it
                the whole softmax is computed.
        """
        assert self.query is not None
        assert self.key is not None
        if lse is None or self.causal:
            probs: torch.Tensor = self.scores(slice(row, row + 1))[0, :, queries].softmax(-1)
            return probs[..., keys]
        query, key = self.query[row, :, queries], self.key[row, :, keys]
        if key.shape[0] != query.shape[0]:
            key = key.repeat_interleave(query.shape[0] // key.shape[0], 0)
        scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
        products = wide_product(query, key.transpose(-1, -2)) * scale
        if self.mask is not None:
            mask = self.mask.expand(*self.mask.shape[:-2], self.query.shape[-2], -1)
            mask = mask[row if mask.shape[0] > 1 else 0][..., queries, keys]
            products = _masked(products, mask)
        # A row that sees no key at all has no sum.
        return (products - lse[:, queries, None].to(products.dtype)).exp().nan_to_num(0.0)

    def row(self, row: int) -> AttentionCall:
        """Return the attention of one row of the batch."""
        rows = slice(row, row + 1)
        mask = self.mask
        if mask is not None and mask.ndim == 4 and mask.shape[0] > 1:
            mask = mask[rows]
        query, key, value = (
            None if part is None else part[rows] for part in (self.query, self.key, self.value)
        )
        return replace(self, query=query, key=key, value=value, mask=mask)

    def mask_of(self, queries: Sequence[int] | slice, keys: Sequence[int]) -> torch.Tensor | None:
        """The mask of some queries and keys, ``(rows or 1, heads or 1, queries, keys)``; None where
        there is none."""
        if self.mask is None:
            return None
        assert self.query is not None
        lengths = int(self.query.shape[-2]), self.keys
        whole = self.mask.expand(*self.mask.shape[:-2], *lengths)
        whole = whole.reshape(*[1] * (4 - whole.ndim), *whole.shape)
        return whole[:, :, queries][..., list(keys)]

    def masked(
        self, scores: torch.Tensor, queries: Sequence[int] | slice, keys: Sequence[int]
    ) -> torch.Tensor:
        """Scores of some queries and keys, as the call's mask leaves them."""
        mask = self.mask_of(queries, keys)
        return scores if mask is None else _masked(scores, mask)

    def attended(self) -> torch.Tensor:
        """softmax(QKᵀ·scale)V by PyTorch's own attention."""
        assert self.query is not None
        assert self.key is not None
        assert self.value is not None
        grouped = self.key.shape[1] != self.query.shape[1]
        return F.scaled_dot_product_attention(
            self.query,
            self.key,
            self.value,
            self.mask,
            is_causal=self.causal,
            scale=self.scale,
            enable_gqa=grouped,
        )

    def explicit(self, look: Callable[[torch.Tensor], torch.Tensor] | None = None) -> torch.Tensor:
        """softmax(QKᵀ·scale)V as part of the computation, in the kernel's own precision or wider.

        ``look`` sees the probabilities and gives those that are used.
        """
        assert self.value is not None
        probs = self.scores().softmax(-1)
        if look is not None:
            probs = look(probs)
        value = self.value
        if value.shape[1] != probs.shape[1]:
            value = value.repeat_interleave(probs.shape[1] // value.shape[1], 1)
        result: torch.Tensor = probs.to(value.dtype) @ value
        return result


def _masked(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Scores under a boolean mask (True is seen), or one that is added."""
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, -torch.inf)
    return scores + mask.to(scores.dtype)


def wide_product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """A product of matrices in float32, or float64 where the factors are, also within autocast."""
    wide = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    kind = left.device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    with torch.autocast(kind, enabled=False) if casts else nullcontext():
        return left.to(wide) @ right.to(wide)


#: Sees an attention; gives its output, or None to let it be computed as it is.
See = Callable[[AttentionCall], torch.Tensor | None]


class AttentionCalls(TorchFunctionMode):
    """Shows the attention of some modules to a listener, call by call.

    The mode is on only inside those modules, or their gates, and only in the thread for which
    ``thread`` is set. ``install`` puts hooks on the modules and ``remove`` takes them away.

    Args:
        modules: by name.
        see: the listener; where it gives probabilities for a call that computed its own, those go
            on in their place.
        on_error: told of what goes wrong in listening, which is raised where it is None.
    """

    def __init__(
        self,
        modules: Mapping[str, torch.nn.Module],
        see: See,
        on_error: Callable[[Exception], None] | None = None,
    ) -> None:
        super().__init__()
        self._modules, self._see, self._on_error = modules, see, on_error
        self._handles: list[RemovableHandle] = []
        self._inside: list[tuple[str, torch.nn.Module]] = []
        #: For each of them, whether the mode is on in the whole of it.
        self._on: list[bool] = []
        #: By module, the processor that attends through a gate.
        self._gated: dict[str, Any] = {}
        self._at_gate = False
        self._softmaxed: tuple[int, ...] | None = None
        self._busy = False
        self.thread: int | None = None

    def install(self) -> None:
        """Put a pair of hooks on each module, and a wrapper round each kernel of diffusers."""
        for name, module in self._modules.items():
            # A hook that is taken away while another thread is about to call it comes without the
            # keywords, or a moment too late: both are borne.
            enter = functools.partial(self._enter_module, name)
            self._handles.append(module.register_forward_pre_hook(enter))
            leave = functools.partial(self._leave_module, name)
            self._handles.append(module.register_forward_hook(leave, always_call=True))
        processors = (getattr(module, "processor", None) for module in self._modules.values())
        KERNELS.add(self, {type(one).__module__ for one in processors if _is_of_diffusers(one)})

    def remove(self) -> None:
        """Take away everything, also what an interrupted pass left."""
        KERNELS.discard(self)
        while self._handles:
            self._handles.pop().remove()
        self._inside.clear()
        self._on.clear()
        self._gated.clear()
        self.thread = None
        while self in _get_current_function_mode_stack():
            # An interrupt leaves no mode of later making above.
            _pop_mode()

    def _enter_module(self, name: str, module: torch.nn.Module, *_: object) -> None:
        if self.thread == threading.get_ident():
            self._inside.append((name, module))
            self._softmaxed = None
            gated = self._gated.get(name)
            on = gated is None or gated is not getattr(module, "processor", None)
            self._on.append(on)
            if on:
                self.__enter__()  # type: ignore[no-untyped-call]

    def _leave_module(self, name: str, *_: object) -> None:
        if self.thread == threading.get_ident() and self._inside and self._inside[-1][0] == name:
            self._inside.pop()
            if self._on.pop():
                self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def through_gate(self, call: Callable[[], Any]) -> Any:
        """Show the attention in a call of a gate; the mode is on there, if it isn't already."""
        if self.thread != threading.get_ident() or not self._inside:
            return call()
        self._at_gate = True
        try:
            if any(self._on):
                return call()
            with self:
                return call()
        finally:
            self._at_gate = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and self._inside and not self._busy:
            output = self._show(lambda: self._of_torch(*args, **kwargs))
            return func(*args, **kwargs) if output is None else output
        if func in _PRODUCTS and self._softmaxed is not None and self._inside:
            return self._product(func, args, kwargs)
        result = func(*args, **kwargs)
        if func in _SOFTMAX and isinstance(result, torch.Tensor):
            self._softmaxed = tuple(result.shape)
        return result

    def _of_torch(self, *args: Any, **kwargs: Any) -> AttentionCall:
        name, module = self._inside[-1]
        if self._at_gate and _is_of_diffusers(getattr(module, "processor", None)):
            self._gated[name] = module.processor
        return of_torch(name, module, *args, **kwargs)

    def _show(self, call: Callable[[], AttentionCall]) -> torch.Tensor | None:
        # Looking may attend itself, which is none of the module's.
        before, self._busy = self._busy, True
        try:
            return self._see(call())
        except Exception as error:
            if self._on_error is None:
                raise
            self._on_error(error)
            return None
        finally:
            self._busy = before

    def _product(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        place = 1 if func is torch.einsum else 0
        left = args[place] if len(args) > place else None
        if isinstance(left, torch.Tensor) and tuple(left.shape) == self._softmaxed:
            call = AttentionCall(*self._inside[-1], probs=left)
            if not call.by_own_processor:
                # A user's may multiply values with something else of this shape yet.
                self._softmaxed = None
            used = self._show(lambda: call)
            if used is not None:
                args = (*args[:place], used, *args[place + 1 :])
        return func(*args, **kwargs)

    def through_kernel(self, call: Callable[[], Any], arguments: dict[str, Any]) -> Any:
        """Show a call of one of diffusers' own kernels; they take ``(batch, length, heads,
        channels)``."""
        if self.thread != threading.get_ident() or not self._inside or self._busy:
            return call()
        output = self._show(lambda: _of_kernel(*self._inside[-1], arguments))
        if output is not None:
            return output.transpose(1, 2)
        # A kernel may call PyTorch's, which is not to be seen twice.
        self._busy = True
        try:
            return call()
        finally:
            self._busy = False


def of_torch(
    name: str,
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool | None = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    """A call of ``scaled_dot_product_attention``, as it is given its arguments."""
    return AttentionCall(
        name, module, query, key, value, attn_mask, scale, bool(is_causal), dropout=dropout_p
    )


def _of_kernel(name: str, module: torch.nn.Module, arguments: Mapping[str, Any]) -> AttentionCall:
    """A call of one of diffusers' kernels, as it is given its arguments."""
    query, key, value = (arguments[n].transpose(1, 2) for n in ("query", "key", "value"))
    options: dict[str, Any] = {n: arguments.get(n) for n in ("attn_mask", "scale", "is_causal")}
    return replace(of_torch(name, module, query, key, value, **options), other_kernel=True)


def _is_of_diffusers(processor: Any) -> bool:
    """Return whether a processor is of a class of diffusers, which attends in one way alone."""
    return type(processor).__module__.startswith("diffusers.")


@dataclass
class _Kernels:
    """The wrappers round diffusers' attention kernels, there while anyone listens.

    Attributes:
        listeners: those who listen.
        own: the registry's kernels, by their names there.
        files: the names of diffusers' modules in which ``F`` stands for a copy of
            ``torch.nn.functional``, whose attention is a gate.
    """

    listeners: list[AttentionCalls] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    own: dict[Any, Any] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)

    def add(self, listener: AttentionCalls, files: Iterable[str] = ()) -> None:
        with self.lock:
            self.listeners = [*self.listeners, listener]
            if len(self.listeners) == 1:
                self._wrap()
            for file in set(files) - self.files:
                if vars(sys.modules[file]).get("F") is F:
                    self.files.add(file)
                    vars(sys.modules[file])["F"] = self._functional()

    def discard(self, listener: AttentionCalls) -> None:
        with self.lock:
            left = [one for one in self.listeners if one is not listener]
            if not left and self.listeners:
                # The listener goes last: where this fails half-way, it can be done again.
                _registered().update(self.own)
                for file in self.files:
                    vars(sys.modules[file])["F"] = F
                self.own.clear()
                self.files.clear()
            self.listeners = left

    def _wrap(self) -> None:
        registered = _registered()
        self.own = dict(registered)
        for name, kernel in self.own.items():
            # The native ones call PyTorch's attention.
            native = str(getattr(name, "value", name)).lstrip("_").startswith("native")
            registered[name] = self._gate(kernel) if native else self._seen(kernel)

    def _functional(self) -> ModuleType:
        copied = ModuleType(F.__name__)
        vars(copied).update(vars(F))
        # Looked up at each call, since others put a function of their own there.
        own = functools.wraps(F.scaled_dot_product_attention)(
            lambda *args, **kwargs: F.scaled_dot_product_attention(*args, **kwargs)
        )
        vars(copied)["scaled_dot_product_attention"] = self._gate(own)
        return copied

    def _gate(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(kernel)
        def gate(*args: Any, **kwargs: Any) -> Any:
            # A graph that another thread compiles just now holds nothing of listening.
            if torch.compiler.is_compiling():
                return kernel(*args, **kwargs)
            call: Callable[[], Any] = functools.partial(kernel, *args, **kwargs)
            for listener in self.listeners:
                call = functools.partial(listener.through_gate, call)
            return call()

        return gate

    def _seen(self, kernel: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(kernel)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call: Callable[[], Any] = functools.partial(kernel, *args, **kwargs)
            # diffusers names all arguments.
            if not args and {"query", "key", "value"} <= set(kwargs):
                for listener in self.listeners:
                    call = functools.partial(listener.through_kernel, call, kwargs)
            return call()

        return wrapper


def _registered() -> dict[Any, Any]:
    try:
        from diffusers.models.attention_dispatch import _AttentionBackendRegistry
    except ImportError:
        return {}
    found: dict[Any, Any] = _AttentionBackendRegistry._backends
    return found


KERNELS = _Kernels()
