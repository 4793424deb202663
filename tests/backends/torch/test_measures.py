"""Measures of attention on a diffusers UNet, against what its own modules compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from wordlight.backends.attention import AttentionQuery
from wordlight.backends.measures import Measure
from wordlight.backends.torch.backend import TorchBackend

STEP = 1


@pytest.mark.parametrize("kind", ["cross", "self"])
@pytest.mark.parametrize("measure", ["scores", "output-product", "output-cosine", "weighted-heads"])
def test_a_layer_by_its_modules(backend: TorchBackend, measure: Measure, kind: Any) -> None:
    trajectory = backend.sample("a red circle", seed=0)
    cross = backend.layers[-1].name
    name = cross if kind == "cross" else cross.removesuffix("attn2") + "attn1"
    query = AttentionQuery(kind=kind, layers=(name,), measure=measure)
    (mean,) = backend.attention(trajectory, query, (STEP,)).means
    heads, projection = computed(backend, trajectory, name)
    wanted = np.mean(by_hand(heads, projection, measure, kind), axis=0)
    found = mean.values.reshape(len(mean.values), -1).T
    # Float32 in another order.
    assert np.allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def computed(
    backend: TorchBackend, trajectory: Any, name: str
) -> tuple[list[tuple[npt.NDArray[Any], ...]], npt.NDArray[Any]]:
    """Of each head its scores and outputs, and the projections of the heads."""
    attention: Any = backend.pipe.unet.get_submodule(name)
    kept: dict[str, torch.Tensor] = {}
    hooks = [
        getattr(attention, part).register_forward_hook(
            lambda _module, _inputs, output, part=part: kept.__setitem__(part, output[-1])
        )
        for part in ("to_q", "to_k", "to_v")
    ]
    try:
        with torch.no_grad():
            backend.pipe.unet(
                backend.asarray(trajectory.latents[STEP][None]),
                int(trajectory.timesteps[STEP]),
                backend.asarray(trajectory.embeddings[None]),
            )
    finally:
        for hook in hooks:
            hook.remove()
    query, key, value = (
        kept[part].double().unflatten(-1, (attention.heads, -1)).transpose(0, 1).numpy()
        for part in ("to_q", "to_k", "to_v")
    )
    found = []
    for q, k, v in zip(query, key, value, strict=True):
        scores = q @ k.T * attention.scale
        powers = np.exp(scores - scores.max(1, keepdims=True))
        found.append((scores, powers / powers.sum(1, keepdims=True) @ v))
    weight = attention.to_out[0].weight.detach().double().numpy()
    return found, weight.T.reshape(attention.heads, -1, len(weight))


def by_hand(
    heads: list[tuple[npt.NDArray[Any], ...]], projection: npt.NDArray[Any], measure: str, kind: str
) -> list[npt.NDArray[Any]]:
    """``(places, keys)`` of each head."""
    if measure == "scores":
        return [scores for scores, _ in heads]
    if measure == "weighted-heads":
        made = [out @ own for (_, out), own in zip(heads, projection, strict=True)]
        along = [np.maximum(0, (one * sum(made)).sum(1)) for one in made]
        each = [np.exp(s) / np.exp(s).sum(1, keepdims=True) for s, _ in heads]
        return [
            len(heads) * (a / sum(along))[:, None] * probs
            for a, probs in zip(along, each, strict=True)
        ]
    found = []
    for scores, out in heads:
        outputs = out
        if measure == "output-cosine":
            outputs = out / np.linalg.norm(out, axis=1, keepdims=True)
        others = outputs if kind == "self" else outputs[np.argmax(scores, axis=0)]
        found.append(outputs @ others.T)
    return found
