"""``load`` a model, ``trace`` a pipeline: where a backend comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from wordlight.backends.attention import AttentionQuery
from wordlight.backends.backend import Backend
from wordlight.backends.installed import entry_points
from wordlight.backends.model_folder import ModelLoadError
from wordlight.backends.traces import Trace

if TYPE_CHECKING:
    from wordlight.backends.torch.tracing import Tracing

#: The packages that our own backends need, in the order in which a framework is chosen.
_PACKAGES = {
    "torch": ("torch", "diffusers", "transformers"),
    "flax": ("jax", "flax", "transformers"),
}


def frameworks() -> tuple[str, ...]:
    """The frameworks for which a backend is installed."""
    return tuple(entry.name for entry in entry_points("wordlight.backends"))


def default_framework() -> str:
    """Return the framework that ``load`` uses where none is named.

    PyTorch where its packages are installed, else Flax where its packages are, else PyTorch, whose
    error then says what to install.
    """
    for framework, packages in _PACKAGES.items():
        if all(_is_installed(package) for package in packages):
            return framework
    return "torch"


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # a module without a spec, as tests and notebooks put into sys.modules
        return False


def load(
    model: str | Path | Any,
    *,
    framework: str | None = None,
    device: str | None = None,
    dtype: str | Any | None = None,
    revision: str | None = None,
    scheduler: str | None = None,
    precision: str | None = None,
    mesh: Mapping[str, int] | Any | None = None,
) -> Backend:
    """Make a model ready for attribution.

    Args:
        model: ``"scenes"``, ``"things"`` or ``"things-dit"`` (embedded), a folder in diffusers'
            format, a Hub id such as ``"stable-diffusion-v1-5/stable-diffusion-v1-5"`` (safetensors
            only), or a live pipeline, which is used as it is.
        framework: ``"torch"`` or ``"flax"``, or another that is installed. With None
            PyTorch where it is installed, else Flax; ``backend.framework`` says which.
        device: ``"cpu"``, ``"cuda"``, ``"tpu"``, ...; a GPU or TPU where there is one, if None.
        dtype: ``"float32"``, ``"float64"``, ``"float16"`` or ``"bfloat16"``, or PyTorch's own, such
            as ``torch.float16``; on Flax the first and the last. With None that of the denoiser's
            files (on Flax float32 for float16); the embedded models are computed in float32.
        revision: of a Hub id.
        scheduler: ``"ddim"`` or ``"euler"``, with the noise that the checkpoint's own scheduler
            has; that scheduler itself if None. On Flax there are only these two.
        precision: in which float32 is multiplied on a GPU: ``"highest"``, exactly, or ``"high"``,
            by tensor cores (TF32), which is faster and off by 1e-3. With None as PyTorch is set,
            whose convolutions are TF32; on Flax exactly. ``backend.precision`` says what holds.
        mesh: on Flax several devices in place of one: ``{"data": 8}`` cuts batches up over eight,
            ``{"data": 4, "fsdp": 2}`` also the weights over two each, for models that don't fit
            one (-1: all that are left); or a ``jax.sharding.Mesh`` with such axes. For several
            hosts see ``wordlight.backends.flax.devices.connect_hosts``.

    Raises:
        ModelLoadError: no such model, none of a known family (``wordlight models --families``; on
            Flax Stable Diffusion alone), no safetensors weights, an unknown framework, device,
            dtype or precision.
    """
    found = {entry.name: entry for entry in entry_points("wordlight.backends")}
    framework = framework or default_framework()
    if framework not in found:
        there = ", ".join(sorted(found)) or "none is installed"
        raise ModelLoadError(f"no backend for framework {framework!r}; there is: {there}")
    try:
        backend_class = found[framework].load()
    except ImportError as error:
        raise ModelLoadError(_not_installed(framework, error)) from None
    if dtype is not None:
        dtype = str(dtype).removeprefix("torch.")
    options: dict[str, Any] = {"device": device, "dtype": dtype, "revision": revision}
    for option, value in (("scheduler", scheduler), ("precision", precision), ("mesh", mesh)):
        if value is not None:
            if option not in signature(backend_class.load).parameters:
                raise ModelLoadError(f"the {framework} backend takes no {option}")
            options[option] = value
    backend: Backend = backend_class.load(model, **options)
    return backend


def loaded(model: Backend | str | Path, device: str | None, dtype: str | None) -> Backend:
    """Return a model that is loaded already as it is, any other loaded on a device in a precision.

    Raises TypeError where a loaded one is to be elsewhere, and as ``load`` does.
    """
    if not isinstance(model, Backend):
        return load(model, device=device, dtype=dtype)
    if device is not None or dtype is not None:
        raise TypeError(
            f"{model!r} is loaded already: give the model's name or folder to have it on a device "
            "or in a precision"
        )
    return model


@overload
def trace(
    pipe: Backend,
    query: AttentionQuery | None = None,
    *,
    prompts: Sequence[str] | None = None,
    negative: bool = False,
) -> Trace: ...


@overload
def trace(
    pipe: Any,
    query: AttentionQuery | None = None,
    *,
    prompts: Sequence[str] | None = None,
    negative: bool = False,
) -> Tracing: ...


def trace(
    pipe: Any,
    query: AttentionQuery | None = None,
    *,
    prompts: Sequence[str] | None = None,
    negative: bool = False,
) -> Trace:
    """Trace any call of a diffusers pipeline, or of a backend's ``sample``, without changing what
    it draws.

        with trace(pipe) as traced:
            image = pipe("a dog and a cat", num_inference_steps=30).images[0]
        maps = DAAM.from_trace(traced)["dog"]

    Attention is averaged while it is drawn, on the device: memory doesn't grow with the number of
    steps, unless they are kept apart.

    Args:
        pipe: a pipeline whose denoiser is of a known family (``backends/torch/families.py``), with
            whatever LoRA, ControlNet or attention processor it carries; or a backend that ``load``
            made, on any framework, whose ``sample`` is called inside the block. On Flax it is one
            compiled run.
        query: the layers and heads that are averaged, and the axes kept apart; all, as one, if
            None. Self-attention (``kind="self"``) is in ``traced.attention``: DAAM's maps of words
            need cross-attention.
        prompts: the words, where the pipeline is given embeddings instead.
        negative: whether attention to the negative prompt is averaged too, for
            ``DAAM.from_trace(trace, words_of="negative")``.

    Raises:
        ModelLoadError: not a backend, and PyTorch isn't installed.
    """
    if isinstance(pipe, Backend):
        # Backends of others may know nothing of it.
        return pipe.trace(query, prompts, **({"negative": True} if negative else {}))
    try:
        from wordlight.backends.torch.backend import TorchBackend
    except ImportError as error:
        raise ModelLoadError(
            f"a {type(pipe).__name__} is no backend, and {_not_installed('torch', error)}; "
            "without PyTorch, trace a backend: `with trace(load('scenes')) as traced:`"
        ) from None
    return TorchBackend(pipe).trace(query, prompts, negative=negative)


def _not_installed(framework: str, error: ImportError) -> str:
    return (
        f"the {framework} backend needs packages that aren't installed ({error}): "
        f"pip install 'wordlight[{framework}]'"
    )
