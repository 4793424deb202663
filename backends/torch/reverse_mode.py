"""Gradients of ⟨prediction, cotangent⟩, with respect to the embeddings or to the attention.

Nothing is left behind: weights get no gradients, and results hang on no graph. They are the same
whether or not the caller records for differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from wordlight.backends.attention import AttentionQuery
from wordlight.backends.torch.denoisers import Layout
from wordlight.backends.torch.explicit_attention import ExplicitAttention
from wordlight.backends.torch.model import Model

#: Takes latents and embeddings, gives the prediction.
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def embedding_gradient(
    predict: Predict, latents: torch.Tensor, embeddings: torch.Tensor, cotangent: torch.Tensor
) -> torch.Tensor:
    """The gradient with respect to the embeddings, of their shape."""
    with _recording():
        inputs = _leaf(embeddings)
        product = _product(predict(_constant(latents), inputs), cotangent)
        (gradient,) = torch.autograd.grad(product, inputs)
    return gradient


def attention_gradients(
    predict: Predict,
    model: Model,
    latents: torch.Tensor,
    embeddings: torch.Tensor,
    cotangent: torch.Tensor,
    query: AttentionQuery,
    layout: Layout,
) -> Iterator[tuple[str, tuple[int, ...], torch.Tensor, torch.Tensor]]:
    """Name, grid, probabilities ``(rows, heads, places, keys)`` and their gradient, of each layer
    that ``query`` asks for; in joint attention of the picture's queries and the text's keys."""
    seen: dict[str, tuple[tuple[int, ...], torch.Tensor]] = {}

    def look(name: str, grid: tuple[int, ...], probs: torch.Tensor) -> torch.Tensor:
        if query.wants_grid(grid, layout.latent_grid):
            # The first are those of the graph: checkpointing may compute a layer again.
            seen.setdefault(name, (grid, probs))
        return probs

    with ExplicitAttention(model, query, look, layout), _recording():
        product = _product(predict(_constant(latents), _leaf(embeddings)), cotangent)
        asked = [probs for _, probs in seen.values()]
        gradients = torch.autograd.grad(product, asked) if asked else ()
    for (name, (grid, probs)), gradient in zip(seen.items(), gradients, strict=True):
        both = (probs.detach(), gradient)
        if model.family.joint:
            both = (_text_columns(layout, both[0]), _text_columns(layout, both[1]))
        yield name, grid, *both


def _text_columns(layout: Layout, of_all: torch.Tensor) -> torch.Tensor:
    """The part of joint attention ``(rows, heads, queries, keys)`` that is from picture to text."""
    rows = []
    for row in range(len(of_all)):
        text, picture = layout.of_row(row)
        rows.append(layout.by_position(of_all[row, :, picture, text]))
    return torch.stack(rows)


@contextmanager
def recorded_experts(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """A context in which HiDream's experts are part of a gradient: outside of training diffusers
    computes them without, so that their part would be missing."""
    parts = (part for module in modules for part in module.modules())
    experts: list[Any] = [part for part in parts if hasattr(part, "moe_infer")]
    before = [(part.training, part._force_inference_output) for part in experts]
    try:
        for part in experts:
            # Of itself alone: what it consists of stays as it is.
            part.training, part._force_inference_output = True, False
        yield
    finally:
        for part, (training, forced) in zip(experts, before, strict=True):
            part.training, part._force_inference_output = training, forced


@contextmanager
def _recording() -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    # Copied, since what was made in inference mode can't be recorded.
    return tensor.detach().clone().requires_grad_()


def _constant(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone()


def _product(prediction: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    if prediction.shape != cotangent.shape:
        raise ValueError(
            f"the cotangent must have the prediction's shape {tuple(prediction.shape)}, not "
            f"{tuple(cotangent.shape)}"
        )
    # A sum in half precision overflows.
    wide = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(wide) * _constant(cotangent).to(wide)).sum()
