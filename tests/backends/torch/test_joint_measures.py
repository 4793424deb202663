"""Measures of joint attention, written out again, and the methods made of them on transformers."""

import numpy as np
import pytest
import torch

from tests.backends.torch.test_concepts import drawn
from tests.backends.torch.test_families_tiny import SeenQueriesAndKeys
from wordlight.attribution import GoCA, GramCol
from wordlight.backends import AttentionQuery
from wordlight.backends.backend import MissingCapabilityError


def first_call(family):
    """Queries, keys and values of the first joint attention at the last step."""
    backend, trajectory = drawn(family)
    step = trajectory.steps - 1
    latents = backend.asarray(trajectory.latents[step])[None]
    text, told = (
        backend.asarray(trajectory.embeddings)[None],
        backend.step_conditioning(trajectory, step),
    )
    time = float(trajectory.timesteps[step])
    layout = backend.model.layout(backend.model.call_arguments(latents, time, text, told))
    with SeenQueriesAndKeys() as seen, torch.no_grad():
        backend.model.call(latents, time, text, told)
    call = next(c for c in seen.calls if c["key"].shape[2] == layout.length)
    assert call.get("attn_mask") is None
    return layout, *(call[name][0].double() for name in ("query", "key", "value"))


@pytest.mark.parametrize("family", ["sd3", "flux-dev", "z-image"])
@pytest.mark.parametrize("measure", ["scores", "output-product", "output-cosine", "weighted-heads"])
def test_the_first_layer_by_hand(family, measure):
    backend, trajectory = drawn(family)
    layout, q, k, v = first_call(family)
    text, picture = layout.of_row(0)
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    attention = scores.softmax(-1)
    outputs = (attention @ v)[:, picture]
    of_text = scores[:, picture, text]
    first = backend.layers[0].name
    if measure == "scores":
        wanted = of_text
    elif measure == "weighted-heads":
        matrix = backend.model.module.get_submodule(first).to_out[0].weight.detach().double()
        parts = outputs @ matrix.T.reshape(len(q), q.shape[-1], -1)
        along = (parts * parts.sum(0)).sum(-1).clamp(min=0)
        mean = along.mean(0)
        weights = torch.where(mean > 0, along / mean.clamp(min=1e-30), torch.ones_like(along))
        wanted = attention[:, picture, text] * weights[..., None]
    else:
        if measure == "output-cosine":
            outputs = outputs / outputs.norm(dim=-1, keepdim=True)
        best = of_text.argmax(1)
        chosen = torch.stack([o[b] for o, b in zip(outputs, best, strict=True)])
        wanted = outputs @ chosen.transpose(1, 2)
    query = AttentionQuery(layers=(first,), keep=("head",), measure=measure)
    for mean in backend.attention(trajectory, query, (trajectory.steps - 1,)).means:
        own = wanted[mean.head].T.reshape(-1, *layout.grid).numpy()
        # The tokens that the pipeline gave; some families fill up beyond them.
        assert np.allclose(mean.values[: len(own)], own, rtol=1e-3, atol=1e-4 * np.abs(own).max())


@pytest.mark.parametrize("family", ["sd3", "qwen-image", "pixart-sigma", "lumina-2"])
def test_gramcol_and_goca(family):
    backend, trajectory = drawn(family)
    maps = GramCol(backend).attribute(trajectory)
    assert np.isfinite(maps.data.values).all()
    assert np.asarray(maps["circle"]).std() > 0
    maps = GoCA(backend, relative_to=None).attribute(trajectory)
    assert 0 < np.asarray(maps["circle"]).max() <= 1
    assert maps.provenance.forward == 3 * trajectory.steps


def test_what_cannot_says_so():
    backend, trajectory = drawn("flux-dev")
    with pytest.raises(ValueError, match=r"single_transformer_blocks\.0\.attn has no to_out"):
        GoCA(backend, relative_to=None).attribute(trajectory)
    backend, _ = drawn("hidream")
    with pytest.raises(MissingCapabilityError, match="gramcol needs attention_measures"):
        GramCol(backend)
