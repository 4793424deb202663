"""Layouts by a probe, batches, and the families that ``test_families`` leaves out, built tiny."""

import math
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from tests.backends.torch.test_families import FAMILIES as SEEN_THERE
from wordlight import trace
from wordlight.attribution import DAAM, DeepLift
from wordlight.backends import AttentionQuery
from wordlight.backends.backend import Conditioning, MissingCapabilityError
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.families import FAMILIES
from wordlight.backends.torch.tiny import TINY, build_tiny, draw_tiny, picture

OTHERS = [name for name in TINY if name not in SEEN_THERE]
PROMPT = "a red circle"
#: Families that compute in float64 throughout. Others have norms, angles or a softmax in float32,
#: whatever they are told, whose rounding a difference divides by its length.
IN_FLOAT64 = {"sdxl-refiner"}
#: Those that can't be float64 at all.
FLOAT32_ALONE = {"kandinsky-5", "krea-2"}
#: What pipelines need for several prompts at once: one negative prompt each; no guidance, with
#: which PRX's gives two timesteps whatever the number of rows.
OF_BATCHES = {"longcat-image": {"negative_prompt": ["", ""]}, "prx": {"guidance_scale": 1.0}}
#: Those whose shorter prompts are filled up with zeros that are attended to, and whose batches are
#: drawn by the first seed.
ATTENDS_TO_PADDING = {"glm-image"}
APART = AttentionQuery(keep=("step", "layer", "head"))
#: Of two denoisers, whose layers have steps of their own.
LAYERS_APART = AttentionQuery(keep=("layer", "head"))
#: One of each kind of layout, and those whose arguments are peculiar.
QUICK = {"sd3", "flux-dev", "z-image", "lumina-2", "kandinsky-5", "pixart-sigma", "hidream"}


def some(names):
    """All names, those slow that show what another has shown."""
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in names]


@cache
def pipe_of(family):
    return build_tiny(family)


@cache
def traced(family):
    """The picture without tracing and with, and the trace."""
    pipe = pipe_of(family)
    plain = draw_tiny(family, pipe, PROMPT)
    with trace(pipe, LAYERS_APART if family == "wan-2.2" else APART) as run:
        picture = draw_tiny(family, pipe, PROMPT)
    return plain, picture, run


def test_every_family_has_a_tiny_pipeline():
    classes = {c for family in FAMILIES for c in family.classes}
    tiny = {type(getattr(p, "unet", None) or p.transformer).__name__ for p in map(pipe_of, TINY)}
    assert classes == tiny


@pytest.mark.parametrize("family", OTHERS)
def test_a_trace_changes_nothing_and_a_replay_gives_its_maps(family):
    plain, picture, run = traced(family)
    np.testing.assert_array_equal(plain, picture)
    pipe = pipe_of(family)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in _modules(pipe))
    maps = DAAM.from_trace(run)
    assert maps["circle"].word.tokens
    again = DAAM(TorchBackend(pipe), keep=run.query.keep).attribute(run.trajectories[0])
    # A batch of one row multiplies in another order than one of two.
    for word in ("red", "circle", "<pad>" if maps.tokens.positions("pad") else "a"):
        np.testing.assert_allclose(np.asarray(again[word]), np.asarray(maps[word]), atol=1e-5)


class SeenQueriesAndKeys(TorchFunctionMode):
    """Notes what each call of PyTorch's attention is given."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False))
            self.calls.append({**given, **(kwargs or {})})
        return func(*args, **(kwargs or {}))


def _calls(backend, trajectory, embeddings, latents, step=0):
    conditioning = Conditioning(embeddings[None], backend.step_conditioning(trajectory, step))
    with SeenQueriesAndKeys() as seen, torch.no_grad():
        backend.model.call(
            latents[None],
            float(trajectory.timesteps[step]),
            conditioning.embeddings,
            conditioning.added,
        )
    return seen.calls


@pytest.mark.parametrize("family", TINY)
def test_the_layout_is_what_a_probe_finds(family):
    """Keys that move with the text's embeddings are the table's text; those that move with the
    latents are none of them."""
    _, _, run = traced(family)
    trajectory, backend = run.trajectories[0], TorchBackend(pipe_of(family))
    embeddings, latents = (
        backend.asarray(a) for a in (trajectory.embeddings, trajectory.latents[0])
    )
    layout = backend.model.layout(
        backend.model.call_arguments(
            latents[None],
            float(trajectory.timesteps[0]),
            embeddings[None],
            backend.step_conditioning(trajectory, 0),
        )
    )
    noise = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(1))
    other = embeddings + noise.to(embeddings) * embeddings.std()
    runs = [
        _calls(backend, trajectory, *given)
        for given in ((embeddings, latents), (other, latents), (embeddings, -latents))
    ]
    # The first attention that has both; in those before, text and picture are still apart.
    place = next(
        i
        for i, c in enumerate(runs[0])
        if c["key"].shape[2] == layout.length
        and (
            not backend.model.family.joint
            or c["query"].shape[2] == layout.length
            or c["query"].shape[2] == math.prod(layout.grid)
        )
    )
    own, by_text, by_latents = (calls[place]["key"][0] for calls in runs)
    moved = [
        (own != changed).any(-1).any(0).nonzero().flatten().tolist()
        for changed in (by_text, by_latents)
    ]
    text, _ = layout.of_row(0)
    expected = list(range(text.start, text.stop))
    assert set(expected) <= set(moved[0])
    # Masked text may still be told apart by a refiner; nothing else moves with the text.
    extra = set(moved[0]) - set(expected)
    assert extra <= set(range(text.stop, layout.length)) - set(moved[1])
    if backend.model.family.joint:
        picture = layout.keys_of_row(0, "self")
        assert set(range(picture.start, picture.stop)) <= set(moved[1])
        assert not set(expected) & set(moved[1])


@pytest.mark.parametrize("family", OTHERS)
def test_probabilities_are_an_explicit_softmax(family):
    _, _, run = traced(family)
    trajectory, backend = run.trajectories[0], TorchBackend(pipe_of(family))
    embeddings, latents = (
        backend.asarray(a) for a in (trajectory.embeddings, trajectory.latents[0])
    )
    told = backend.model.call_arguments(
        latents[None],
        float(trajectory.timesteps[0]),
        embeddings[None],
        backend.step_conditioning(trajectory, 0),
    )
    layout = backend.model.layout(told)
    wanted = [
        _explicit(call, layout, backend.model.family.joint)
        for call in _calls(backend, trajectory, embeddings, latents)
        if _is_shown(call, layout, backend.model.family)
    ]
    found = backend.attention(trajectory, APART, (0,))
    layers = found.values_along("layer")
    assert len(layers) == len(wanted)
    for layer, probs in zip(layers, wanted, strict=True):
        heads = [mean.values for mean in found.means if mean.layer == layer]
        shown = np.stack(heads).reshape(*probs.shape[:1], -1, probs.shape[1]).swapaxes(1, 2)
        n_text = probs.shape[2]
        np.testing.assert_allclose(shown[..., :n_text], probs, atol=1e-5)
        # What the pipeline left out of the text gets nothing.
        assert not shown[..., n_text:].any()


def _is_shown(call, layout, family):
    n_queries, n_keys = call["query"].shape[2], call["key"].shape[2]
    if family.feature_maps:
        return n_keys == layout.length
    places = math.prod(layout.grid)
    return n_keys == layout.length and (n_queries == places or family.joint)


def _explicit(call, layout, joint):
    """Probabilities ``(heads, places, tokens)`` of the first row, in float64."""
    query, key = call["query"][0].double(), call["key"][0].double()
    key = key.repeat_interleave(len(query) // len(key), 0)
    logits = query @ key.mT * (call.get("scale") or query.shape[-1] ** -0.5)
    mask = call.get("attn_mask")
    if mask is not None and mask.dtype == torch.bool:
        logits = logits.masked_fill(~mask[0], -torch.inf)
    elif mask is not None:
        logits = logits + mask[0]
    probs = logits.softmax(-1)
    text, picture = layout.of_row(0)
    return (layout.by_position(probs[:, picture, text]) if joint else probs).numpy()


@pytest.mark.parametrize("family", some(f for f in TINY if f not in ATTENDS_TO_PADDING))
def test_images_of_a_batch_have_the_maps_that_each_has_alone(family):
    """In float64, where only what is wrong differs: in float32 rows of a batch round otherwise
    than alone, and two steps carry it on (PixArt's to 1.1e-5). Kandinsky 5, which can't be
    float64, rounds what it has rotated to bfloat16."""
    alone_in_float32 = family in FLOAT32_ALONE
    pipe = pipe_of(family) if alone_in_float32 else build_tiny(family).to(torch.float64)
    prompts, seeds = ["a red circle", "a blue square"], [3, 4]

    def draw(prompt, seed):
        generator = [torch.Generator().manual_seed(s) for s in seed]
        edits = TINY[family].edits and family != "flux-kontext"
        more = {"image": [picture()] * len(seed)} if edits else {}
        if "negative_prompt" in TINY[family].call:
            more["negative_prompt"] = [" "] * len(seed)
        more |= OF_BATCHES.get(family, {})
        if "negative_prompt" in more:
            more["negative_prompt"] = more["negative_prompt"][: len(seed)]
        with trace(pipe) as run:
            # Z-Image writes its template into the list that it is given.
            draw_tiny(family, pipe, list(prompt), generator=generator, **more)
        return [DAAM.from_trace(run, image=i) for i in range(len(seed))]

    together = draw(prompts, seeds)
    for prompt, seed, maps in zip(prompts, seeds, together, strict=True):
        (alone,) = draw([prompt], [seed])
        for word in alone.words:
            np.testing.assert_allclose(
                np.asarray(maps[word.text]),
                np.asarray(alone[word.text]),
                atol=3e-5 if alone_in_float32 else 1e-7,
            )


@pytest.mark.parametrize("family", some(OTHERS))
def test_forward_mode_is_the_limit_of_differences(family):
    """At the last step: at the first a flow-matching model's latents are all noise, whatever it
    predicts."""
    _, _, run = traced(family)
    trajectory = run.trajectories[0]
    precision = torch.float32 if family in FLOAT32_ALONE else torch.float64
    backend = TorchBackend(build_tiny(family).to(precision))
    if "denoise_jvp" not in backend.capabilities:
        with pytest.raises(MissingCapabilityError):
            backend.require(frozenset({"denoise_jvp"}), "forward mode")
        return
    latents = backend.asarray(trajectory.latents[-1][None])
    embeddings = backend.asarray(trajectory.embeddings[None])
    time, added = (
        float(trajectory.timesteps[-1]),
        backend.step_conditioning(trajectory, trajectory.steps - 1),
    )
    noise = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(2))
    tangent = noise.to(embeddings) * embeddings.std()

    @torch.no_grad()
    def denoise(length):
        return backend.denoise(latents, time, Conditioning(embeddings + length * tangent, added))

    _, change = backend.denoise_jvp(latents, time, Conditioning(embeddings, added), tangent)
    change, errors = change.detach(), []
    for length in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        differences = (denoise(length) - denoise(-length)) / (2 * length)
        far = (change.reshape(differences.shape) - differences).abs().max()
        errors.append((far / differences.abs().max()).item())
    # Kandinsky rounds what it has rotated to bfloat16.
    rounding = 0.1 if family == "kandinsky-5" else 1e-2
    assert min(errors) < (1e-6 if family in IN_FLOAT64 else rounding), errors


@pytest.mark.parametrize("family", some(OTHERS))
def test_parts_of_the_text_make_up_the_difference(family):
    """The rescale rule has every operation of the denoiser."""
    _, _, run = traced(family)
    trajectory, backend = run.trajectories[0], TorchBackend(pipe_of(family))
    if "denoise_parts" not in backend.capabilities:
        with pytest.raises(MissingCapabilityError, match="DeepLIFT"):
            DeepLift(backend)
        return
    latents, told = (
        backend.asarray(trajectory.latents[-1:]),
        backend.step_conditioning(trajectory, -1),
    )
    point = backend.asarray(trajectory.embeddings[None])
    noise = torch.randn(point.shape, generator=torch.Generator().manual_seed(2))
    baseline, time = point + noise * point.std(), float(trajectory.timesteps[-1])
    half = (torch.arange(point.shape[1]) % 2)[:, None]
    parts = torch.cat([half * (point - baseline), (1 - half) * (point - baseline)])
    with torch.no_grad():
        found = backend.denoise_parts(latents, time, Conditioning(point, told), baseline, parts)
        after, before = (
            backend.denoise(latents, time, Conditioning(e, told)) for e in (point, baseline)
        )
    # Kandinsky rounds what it has rotated to bfloat16.
    rounding = 5e-2 if family == "kandinsky-5" else 1e-3
    # Of predictions that differ little, float32 leaves the difference few digits.
    least = rounding * (after - before).norm() + 1e-5 * after.norm()
    assert (found.sum(0) - (after - before)[0]).norm() < least


@pytest.mark.parametrize("family", some(TINY))
def test_several_rows_are_predicted_as_each_by_itself(family):
    """What all rows share, such as places' numbers, is told once."""
    _, _, run = traced(family)
    trajectory, backend = run.trajectories[0], TorchBackend(pipe_of(family))
    latents, told = (
        backend.asarray(trajectory.latents[:1]),
        backend.step_conditioning(trajectory, 0),
    )
    ends = np.stack([trajectory.embeddings, trajectory.embeddings[::-1]])
    three = backend.asarray(ends[[0, 1, 0]])
    time = float(trajectory.timesteps[0])
    if "denoise" not in backend.capabilities:
        with pytest.raises(MissingCapabilityError, match="denoise"):
            backend.denoise(latents, time, Conditioning(three[:1], told))
        return
    with torch.no_grad():
        alone, other = (
            backend.denoise(latents, time, Conditioning(row[None], told)) for row in three[:2]
        )
        added = {name: value.expand(3, *value.shape[1:]) for name, value in told.items()}
        rows = backend.denoise(
            latents.expand(3, *latents.shape[1:]), time, Conditioning(three, added)
        )
    # Kandinsky rounds what it has rotated to bfloat16.
    rounding = 5e-2 if family == "kandinsky-5" else 1e-4
    largest = alone.abs().max().item()
    for row, one in zip(rows, (alone[0], other[0], alone[0]), strict=True):
        np.testing.assert_allclose(row.numpy(), one.numpy(), atol=rounding * largest)


def _modules(pipe):
    return (pipe.unet if hasattr(pipe, "unet") else pipe.transformer).modules()
