"""Every family through its tiny pipeline: traced, replayed, differentiated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from wordlight.attribution import DAAM
from wordlight.backends import AttentionQuery, trace
from wordlight.backends.backend import Conditioning
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.model import Model
from wordlight.backends.torch.tiny import build_tiny, draw_tiny

PROMPT = "a red circle"
APART = AttentionQuery(keep=("step", "layer", "head"))
JOINT = ("sd3 sd3.5 flux-dev flux-kontext flux.2-klein qwen-image z-image chroma lumina-2").split()
FAMILIES = ["sd", "lcm", "instruct-pix2pix", "sdxl", "sdxl-turbo", "pixart-sigma", "sana", *JOINT]
#: A few of each kind; the others run the same code, and are there for a whole run.
QUICK = {"sdxl", "flux-dev", "z-image", "lumina-2"}


def some(names: list[str]) -> list[Any]:
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names]


class Seen(TorchFunctionMode):
    """Notes each softmax of fused attention, written out in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.probs: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is F.scaled_dot_product_attention:
            names = ("query", "key", "value", "attn_mask")
            told = dict(zip(names, args, strict=False)) | given
            query, key = told["query"].double(), told["key"].double()
            key = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
            scores = query @ key.mT * (told.get("scale") or query.shape[-1] ** -0.5)
            if (mask := told.get("attn_mask")) is not None:
                unseen = torch.where(mask, 0.0, -torch.inf) if mask.dtype == torch.bool else mask
                scores = scores + unseen
            self.probs.append(scores.softmax(-1))
        return func(*args, **given)


@pytest.mark.parametrize("family", some(FAMILIES))
def test_traced_and_replayed(family: str) -> None:
    """The picture is the untraced one, bit for bit; the replay has the run's attention."""
    pipe = build_tiny(family)
    pipe.set_progress_bar_config(disable=True)
    plain = draw_tiny(family, pipe, PROMPT)
    with trace(pipe, APART) as traced:
        during = draw_tiny(family, pipe, PROMPT)
    assert (plain == during).all()
    (trajectory,) = traced.trajectories
    assert trajectory.not_replayable is None
    assert len(trajectory.tokens) == len(trajectory.embeddings)
    replayed = TorchBackend(pipe).attention(trajectory, APART, (0, 1))
    for own, again in zip(traced.attention[0].means, replayed.means, strict=True):
        assert (own.step, own.layer, own.head) == (again.step, again.layer, again.head)
        # A guided batch has more rows than the replay, which sums in another order: float32
        # rounding of logits of some tens.
        assert np.abs(own.values - again.values).max() < 1e-4
    maps = DAAM.from_trace(traced)
    assert np.asarray(maps["circle"]).std() > 0


@pytest.mark.parametrize("family", some(JOINT))
def test_columns_are_those_of_the_whole_softmax(family: str) -> None:
    """Though only the text's block is computed, with the kernel's own denominators."""
    pipe = build_tiny(family)
    pipe.set_progress_bar_config(disable=True)
    with trace(pipe, APART) as traced:
        draw_tiny(family, pipe, PROMPT)
    seen = Seen()
    with seen:
        draw_tiny(family, pipe, PROMPT)
    means = traced.attention[0].means
    places = means[0].values[0].size
    model = Model.of(pipe)
    row = 0 if model.conditional_first else -1
    length = min(p.shape[-1] for p in seen.probs if p.shape[-1] > places)
    assert length
    for mean in means:
        columns = torch.from_numpy(mean.values).flatten(1).T
        # Of a text's trailing padding that the pipeline left out there are no keys.
        columns = columns[:, columns.abs().sum(0) > 0].double()
        best = min(
            float((part - columns).abs().max())
            for probs in seen.probs
            if probs.shape[1] > (mean.head or 0)
            for whole in (probs[row, mean.head],)
            for queries in (whole[:places], whole[-places:], whole[columns.shape[1] :][:places])
            for first in (0, places, -(-places // 32) * 32)
            for part in (queries[:, first : first + columns.shape[1]],)
            if part.shape == columns.shape
        )
        # float32 against float64.
        assert best < 1e-5


class StaysWide(TorchFunctionMode):
    """Models go through float32 here and there; in float64 they don't, under this mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        wide = args and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float64
        if wide and func is torch.Tensor.float:
            return args[0]
        if wide and func is torch.Tensor.to:
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
            kwargs = {
                k: torch.float64 if v is torch.float32 else v for k, v in (kwargs or {}).items()
            }
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", some(FAMILIES))
def test_forward_and_reverse_mode(family: str) -> None:
    pipe = build_tiny(family)
    pipe.set_progress_bar_config(disable=True)
    with trace(pipe) as traced:
        draw_tiny(family, pipe, PROMPT)
    (trajectory,) = traced.trajectories
    model = Model.of(pipe)
    model.module.to(torch.float64)
    backend = TorchBackend(pipe)
    latents = backend.asarray(trajectory.latents[1][None])
    # At the first of a flow all is noise, whatever is predicted.
    time, told = float(trajectory.timesteps[1]), backend.step_conditioning(trajectory, 1)
    point = backend.asarray(trajectory.embeddings[None])
    generator = torch.Generator().manual_seed(0)
    tangents = torch.randn(2, *point.shape[1:], dtype=torch.float64, generator=generator)
    tangents = tangents * point.std()
    with torch.no_grad(), StaysWide():
        value, changes = backend.denoise_jvp(latents, time, Conditioning(point, told), tangents)
        step = 2e-6
        wanted = torch.cat(
            [
                backend.denoise(latents, time, Conditioning(point + step * one[None], told))
                - backend.denoise(latents, time, Conditioning(point - step * one[None], told))
                for one in tangents
            ]
        ) / (2 * step)
    assert changes.dtype == torch.float64
    # Central differences: step² times a third derivative, and rounding / step.
    assert (changes - wanted).norm() / wanted.norm() < 1e-6
    cotangent = torch.randn(value.shape, dtype=torch.float64, generator=generator)
    with StaysWide():
        gradient = backend.denoise_vjp(latents, time, Conditioning(point, told), cotangent)
        of_attention = backend.attention_vjp(
            latents, time, Conditioning(point, told), cotangent, AttentionQuery()
        )
    ahead, back = (changes * cotangent).sum((1, 2, 3)), (tangents * gradient).sum((1, 2))
    assert torch.allclose(ahead, back, rtol=1e-6)
    assert max(mean.values.max() for mean in of_attention.means) > 0


def test_a_pipeline_of_no_known_family() -> None:
    pipe = build_tiny("sd")
    pipe.unet = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="its denoiser is a Linear, and the families known here"):
        TorchBackend(pipe)
