"""Words carried beside the prompt through joint attention, on tiny pipelines of each family."""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from tests.backends.torch.test_families_tiny import PROMPT, SeenQueriesAndKeys, pipe_of
from wordlight import trace
from wordlight.attribution import DAAM, ConceptAttention, OpenVocabulary
from wordlight.attribution.resize import resize
from wordlight.attribution.testing import check_attributor
from wordlight.backends import AttentionQuery
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.tiny import TINY, draw_tiny

APART = AttentionQuery(keep=("layer", "head"))


@cache
def drawn(family):
    """A tiny family's backend and a run of it."""
    pipe = pipe_of(family)
    with trace(pipe) as run:
        draw_tiny(family, pipe, PROMPT)
    return TorchBackend(pipe), run.trajectories[0]


#: Those that draw pictures; videos have frames.
KNOWN = [name for name in TINY if not name.startswith(("wan", "ltx"))]
#: By what the table says, so that a new family is asked, too.
CAN = {name: "concept_attention" in TorchBackend(pipe_of(name)).capabilities for name in KNOWN}
JOINT = [name for name in KNOWN if CAN[name]]
OPEN = [
    name
    for name in KNOWN
    if "attention_keys" in TorchBackend(pipe_of(name)).capabilities
    and TorchBackend(pipe_of(name)).carries_words
]
#: One of each layout; the others are asked in the whole suite.
_FEW = ("sd3", "flux-dev", "qwen-image", "z-image")


def some(families, few=_FEW):
    """Families as parameters, most of them slow."""
    return [
        name if name in few else pytest.param(name, marks=pytest.mark.slow) for name in families
    ]


class AppendedConcepts(TorchFunctionMode):
    """Masks the last tokens of the text: nobody attends to them, and they to each other and to the
    picture alone. Keeps the outputs."""

    def __init__(self, text, picture, concepts, length):
        super().__init__()
        self.text, self.picture, self.concepts, self.length = text, picture, concepts, length
        self.outputs = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        given = {**dict(zip(("query", "key", "value"), args, strict=False)), **(kwargs or {})}
        if func is not F.scaled_dot_product_attention or given["key"].shape[2] != self.length:
            return func(*args, **(kwargs or {}))
        mask = torch.ones(self.length, self.length, dtype=torch.bool)
        mask[:, self.concepts] = False
        mask[self.concepts, self.text] = False
        mask[self.concepts, self.concepts] = True
        output = func(**{**given, "attn_mask": mask})
        self.outputs.append(output[0])
        return output


def appended(family, concepts):
    """⟨o_concept, o_place⟩ by concepts at the end of the text, layer by layer: for the families
    whose text has no positions."""
    backend, trajectory = drawn(family)
    text = torch.cat([backend.asarray(trajectory.embeddings), concepts])[None]
    latents = backend.asarray(trajectory.latents[-1])[None]
    told = backend.step_conditioning(trajectory, trajectory.steps - 1)
    if "+txt_ids*" in told:
        ids = told["+txt_ids*"]
        told["+txt_ids*"] = torch.cat([ids, ids[:, -1:].expand(-1, len(concepts), -1)], 1)
    time = float(trajectory.timesteps[-1])
    layout = backend.model.layout(backend.model.call_arguments(latents, time, text, told))
    own, picture = layout.of_row(0)
    new = slice(own.stop - len(concepts), own.stop)
    mode = AppendedConcepts(slice(own.start, new.start), picture, new, layout.length)
    with mode, torch.no_grad():
        backend.model.call(latents, time, text, told)
    grid = layout.grid
    return [
        (out[:, new] @ out[:, picture].transpose(1, 2)).reshape(len(out), -1, *grid).numpy()
        for out in mode.outputs
    ]


@pytest.mark.parametrize("family", ["sd3", "sd3.5", "flux-dev", "flux-schnell"])
def test_concepts_at_the_end_of_the_text_give_the_same(family):
    backend, trajectory = drawn(family)
    concepts = backend.encode(["dog"]).embeddings[0][:3]
    means = backend.concept_attention(trajectory, APART, (trajectory.steps - 1,), concepts).means
    wanted = appended(family, concepts)
    layers = list(dict.fromkeys(mean.layer for mean in means))
    assert len(layers) == len(wanted)
    for mean in means:
        own = wanted[layers.index(mean.layer)][mean.head]
        scale = np.abs(own).max()
        # Products of float32 outputs, summed in another order.
        assert np.allclose(mean.values[len(trajectory.tokens) :], own, atol=1e-5 * scale)


@pytest.mark.parametrize("family", some(JOINT))
def test_the_first_layer_by_hand(family):
    """Concepts with the embeddings of the prompt's words stand where these do, so in the first
    joint layer they have the run's own queries, keys and values. With a refiner of the text before
    it, too: the second row's text is then the first's."""
    backend, trajectory = drawn(family)
    places = list(trajectory.tokens.positions("text"))
    step = trajectory.steps - 1
    latents = backend.asarray(trajectory.latents[step])[None]
    text, told = (
        backend.asarray(trajectory.embeddings)[None],
        backend.step_conditioning(trajectory, step),
    )
    time = float(trajectory.timesteps[step])
    layout = backend.model.layout(backend.model.call_arguments(latents, time, text, told))
    with SeenQueriesAndKeys() as seen, torch.no_grad():
        plain = backend.model.call(latents, time, text, told)
    own, picture = layout.of_row(0)
    first = next(
        c for c in seen.calls
        if c["key"].shape[2] == layout.length == c["query"].shape[2]
        # Text-only refiners may be as long.
        and layout.length != len(trajectory.tokens)
    )  # fmt: skip
    q, k, v = (first[name][0] for name in ("query", "key", "value"))
    if k.shape[0] != q.shape[0]:
        k, v = (t.repeat_interleave(q.shape[0] // t.shape[0], 0) for t in (k, v))
    words = [own.start + p for p in places]
    scores = q[:, words] @ torch.cat([k[:, words], k[:, picture]], 1).transpose(1, 2)
    scale = first.get("scale") or q.shape[-1] ** -0.5
    outputs = (scores * scale).softmax(-1) @ torch.cat([v[:, words], v[:, picture]], 1)
    rows = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=None if first.get("attn_mask") is None else first["attn_mask"][0],
        scale=scale,
    )
    wanted = (outputs @ rows[:, picture].transpose(1, 2)).numpy()

    concepts = backend.asarray(trajectory.embeddings[places])
    means = backend.concept_attention(trajectory, APART, (step,), concepts).means
    layer = means[0].layer
    for mean in (m for m in means if m.layer == layer):
        own_maps = mean.values[len(trajectory.tokens) :].reshape(len(places), -1)
        assert np.allclose(own_maps, wanted[mean.head], atol=1e-5 * np.abs(wanted).max())
    # Nothing is left behind, and the model does what it did.
    with torch.no_grad():
        assert torch.equal(plain, backend.model.call(latents, time, text, told))


@pytest.mark.parametrize("family", some(JOINT))
def test_words_that_are_not_in_the_prompt(family):
    backend, trajectory = drawn(family)
    method = ConceptAttention(backend)
    maps = method.attribute(trajectory, words=["dog", "circle"])
    size = method.size_of(trajectory, ["dog", "circle"])
    assert maps.provenance.forward == method.cost(size).forward == 2 * (1 + size.carried)
    # Where padding is among the keys, or in a template, there is room; else for a few tokens.
    assert size.carried >= 1
    if family in _FEW:
        assert (size.carried == 1) == (family not in ("qwen-image", "z-image"))
    assert np.isfinite(maps.data.values).all()
    dog, circle = np.asarray(maps["dog"]), np.asarray(maps["circle"])
    assert np.abs(dog - circle).max() > 1e-4 * np.abs(circle).max()
    # The prompt's own tokens have the run's own outputs, whatever else is asked.
    alone = method.attribute(trajectory, words=["red"])
    for special in (p for p in maps.players if p.in_prompt and not p.is_text):
        assert np.allclose(maps.at(special), alone.at(special), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "family",
    some(OPEN, ("sd3", "chroma", "pixart-sigma", "prx")),
)
def test_open_vocabulary_of_the_prompts_own_words_is_daam(family):
    backend, trajectory = drawn(family)
    wanted = DAAM(backend).attribute(trajectory)
    maps = OpenVocabulary(backend, context="prompt").attribute(trajectory, words=["circle", "dog"])
    for word in ("red", "circle"):
        assert np.allclose(maps[word], wanted[word], atol=1e-5)
    dog = np.asarray(maps["dog"])
    assert 0 < dog.max() <= 1
    method = OpenVocabulary(backend, context="prompt")
    size = method.size_of(trajectory, ["circle", "dog"])
    assert maps.provenance.forward == method.cost(size).forward


def test_one_stream_of_stable_diffusion_3():
    """77 positions of CLIP, then T5's: a word has both one's, or those of one by name."""
    backend, trajectory = drawn("sd3")
    means = backend.attention(trajectory, AttentionQuery(), (0, 1)).means
    (mean,) = means
    for stream, inside in (("clip", range(77)), ("t5", range(77, len(trajectory.tokens)))):
        maps = DAAM(backend, stream=stream).attribute(trajectory)
        places = maps["circle"].word.tokens
        assert places
        assert set(places) <= set(inside)
        wanted = resize(mean.values[list(places)].astype(float), trajectory.grid).clip(0).mean(0)
        assert np.allclose(maps["circle"], wanted, atol=1e-6)
        words = ConceptAttention(backend, stream=stream).attribute(trajectory, ["dog"])
        assert np.isfinite(words["dog"].values).all()
    both = DAAM(backend).attribute(trajectory)
    own = [DAAM(backend, stream=s).attribute(trajectory)["circle"] for s in ("clip", "t5")]
    counts = [len(one.word.tokens) for one in own]
    union = np.average([one.values for one in own], axis=0, weights=counts)
    assert np.allclose(both["circle"], union, atol=1e-6)
    with pytest.raises(ValueError, match="no stream 'gemma': there are clip, t5"):
        DAAM(backend, stream="gemma").attribute(trajectory)
    assert 0 < both.shares["<pad>"] < 1


@pytest.mark.slow
def test_conformance_on_joint_attention():
    backend, trajectory = drawn("flux-dev")
    check_attributor(lambda b: ConceptAttention(b, scores="softmax"), [trajectory], backend=backend)


def test_what_is_refused():
    unet, _ = drawn("sd")
    with pytest.raises(MissingCapabilityError, match="concept-attention needs concept_attention"):
        ConceptAttention(unet)
    backend, trajectory = drawn("qwen-image")
    with pytest.raises(ValueError, match=r"concepts must be \(concepts, \d+ channels\)"):
        backend.concept_attention(trajectory, APART, (0,), torch.zeros(2, 3))
