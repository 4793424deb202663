"""The numpy model that methods are tested on: its derivatives and its attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.attention import AttentionQuery, OtherKeys
from wordlight.backends.backend import Conditioning, Evaluations
from wordlight.backends.tokens import PromptTooLongError
from wordlight.backends.trajectory import Trajectory

PROMPT = "a turquoise circle, a square"
#: Central differences of step h are off by h² and by rounding over h: 1e-10 and 1e-11 here.
H, EXACT = 1e-5, 1e-7
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model() -> ToyModel:
    return ToyModel()


@pytest.fixture(scope="module")
def trajectory(model: ToyModel) -> Trajectory:
    return model.sample(PROMPT, seed=1)


def test_tokens(model: ToyModel) -> None:
    tokens = model.tokenize(PROMPT)
    assert tokens.texts[:9] == (
        "<start>", "a", "turquo", "ise", "circle", ",", "a", "square", "<end>",
    )  # fmt: skip
    assert [PROMPT[a:b] for a, b in tokens.offsets[2:4]] == ["turquo", "ise"]
    assert len(tokens) == 16
    with pytest.raises(PromptTooLongError, match="15 tokens"):
        model.tokenize("a " * 15)


def test_encoder(model: ToyModel) -> None:
    tokens = np.stack([model.token_embeddings("a red circle"), model.token_embeddings("a dog")])
    made = model.encode(["a red circle", "a dog"]).embeddings
    assert np.array_equal(model.encode_from(tokens).embeddings, made)
    # Causal: "a" comes first and knows nothing of the rest.
    assert np.array_equal(made[0, :2], made[1, :2])
    assert not np.allclose(made[0, 2], made[1, 2])
    tangents = RNG.standard_normal((3, *tokens.shape[1:]))
    conditioning, changes = model.encode_from_jvp(tokens[:1], tangents)
    assert np.array_equal(conditioning.embeddings, made[:1])
    ahead, behind = (model.encode_from(tokens[:1] + s * H * tangents).embeddings for s in (1, -1))
    assert np.allclose(changes, (ahead - behind) / (2 * H), atol=EXACT)


def test_derivatives_of_the_denoiser(model: ToyModel, trajectory: Trajectory) -> None:
    x, e, t = trajectory.latents[:1], trajectory.embeddings[None], float(trajectory.timesteps[0])
    tangents = RNG.standard_normal((2, *e.shape[1:]))
    prediction, changes = model.denoise_jvp(x, t, Conditioning(e), tangents)
    assert np.array_equal(prediction, model.denoise(x, t, Conditioning(e)))
    both = np.repeat(x, 2, axis=0)
    ahead, behind = (model.denoise(both, t, Conditioning(e + s * H * tangents)) for s in (1, -1))
    assert np.allclose(changes, (ahead - behind) / (2 * H), atol=EXACT)
    # ⟨Jv, w⟩ = ⟨v, Jᵀw⟩, to rounding.
    cotangent = RNG.standard_normal(x.shape)
    gradient = model.denoise_vjp(x, t, Conditioning(e), cotangent)
    for tangent, change in zip(tangents, changes, strict=True):
        assert np.isclose((change * cotangent).sum(), (tangent * gradient).sum(), rtol=1e-12)


def test_derivatives_of_the_decoder(model: ToyModel, trajectory: Trajectory) -> None:
    x, tangents = trajectory.latents[:1], RNG.standard_normal((2, *trajectory.latents.shape[1:]))
    pixels, changes = model.decode_jvp(x, tangents)
    assert pixels.shape == (1, 3, 16, 24)
    ahead, behind = (model.decode(x + s * H * tangents) for s in (1, -1))
    assert np.allclose(changes, (ahead - behind) / (2 * H), atol=EXACT)


def test_attention(model: ToyModel, trajectory: Trajectory) -> None:
    steps = (0, 2)
    means = model.attention(trajectory, AttentionQuery(), steps).means
    assert [mean.values.shape for mean in means] == [(16, 4, 6), (16, 2, 3)]
    assert [mean.count for mean in means] == [4, 4]
    for mean in means:
        # Each place shares out one unit of attention; float32 keeps seven digits.
        assert np.allclose(mean.values.sum(0), 1, atol=1e-6)
    kept = model.attention(trajectory, AttentionQuery(keep=("step", "layer", "head")), steps)
    assert len(kept.means) == 8
    fine = [mean.values for mean in kept.means if mean.layer == "fine"]
    assert np.allclose(np.mean(fine, axis=0), means[0].values, atol=1e-6)
    only = model.attention(trajectory, AttentionQuery(layers=("coarse",), heads=(1,)), (0,))
    (expected,) = [m for m in kept.means if (m.step, m.layer, m.head) == (0, "coarse", 1)]
    assert np.array_equal(only.means[0].values, expected.values)
    assert model.attention(trajectory, AttentionQuery(factors=(2,)), (0,)).means[0].count == 2


def test_self_attention(model: ToyModel, trajectory: Trajectory) -> None:
    means = model.attention(trajectory, AttentionQuery(kind="self"), (0,)).means
    assert [mean.values.shape for mean in means] == [(24, 4, 6), (6, 2, 3)]
    # A map of each place as key: every place's attention, summed over keys, is one.
    assert all(np.allclose(mean.values.sum(0), 1, atol=1e-6) for mean in means)


def test_attention_to_other_words(model: ToyModel, trajectory: Trajectory) -> None:
    """The prompt's own tokens, asked for as other words, get their own probabilities."""
    own = model.attention(trajectory, AttentionQuery(), (0, 1))
    words = [((k,), (k + 2,)) for k in range(3)]
    keys = OtherKeys.of(trajectory.embeddings[2:5], words, len(trajectory.tokens))
    again = model.attention(trajectory, AttentionQuery(), (0, 1), keys)
    for mine, same in zip(own.means, again.means, strict=True):
        assert np.allclose(same.values, mine.values[2:5], atol=1e-6)


def test_attention_gradient(model: ToyModel, trajectory: Trajectory) -> None:
    """S is linear in A, so Σ A ⊙ ∂S/∂A of one layer is that layer's part of S."""
    x, e, t = trajectory.latents[:1], trajectory.embeddings[None], float(trajectory.timesteps[0])
    cotangent = RNG.standard_normal(x.shape)
    signed = [
        model.attention_vjp(x, t, Conditioning(e), sign * cotangent, AttentionQuery()).means
        for sign in (1, -1)
    ]
    # ReLU(a) - ReLU(-a) = a; the means are over two heads.
    parts = [2 * (up.values - down.values).sum() for up, down in zip(*signed, strict=True)]
    whole = ((model.denoise(x, t, Conditioning(e)) - 0.5 * x) * cotangent).sum()
    assert np.isclose(sum(parts), whole, rtol=1e-5)


def test_sampling(model: ToyModel) -> None:
    before = model.evaluations.forward
    guided, other = model.sample(["a dog", "a red circle"], seed=[5, 6], steps=4)
    assert model.evaluations.forward - before == 2 * 2 * 4
    assert guided.latents.shape == (4, 3, 4, 6)
    assert guided.image.shape == (16, 24, 3)
    alone = model.sample("a red circle", seed=6, steps=4)
    assert np.array_equal(alone.image, other.image)
    assert np.array_equal(alone.latents, other.latents)
    before = model.evaluations.forward
    plain = model.sample("a dog", steps=4, guidance_scale=1.0, height=20, width=28)
    assert model.evaluations.forward - before == 4
    assert plain.negative_embeddings is None
    assert plain.grid == (5, 7)
    # Coarse places of an odd grid are smaller at its end.
    means = model.attention(plain, AttentionQuery(factors=(2,)), (0,)).means
    assert means[0].values.shape == (16, 3, 4)


def test_arguments_that_pipelines_call_otherwise(model: ToyModel) -> None:
    given: dict[str, Any] = {"num_inference_steps": 4}
    with pytest.raises(TypeError, match="sample takes no num_inference_steps: say steps=4"):
        model.sample("a dog", **given)
    with pytest.raises(TypeError, match="sample takes no eta: it takes prompts, steps, "):
        model.sample("a dog", eta=1.0)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("steps must be a whole number, not '4'", {"steps": "4"}),
        ("steps must be a whole number, not 4.5", {"steps": 4.5}),
        ("a seed must be a whole number, not 'x'", {"seed": "x"}),
        ("a seed must be a whole number, not '12'", {"seed": "12"}),
        ("height must be a whole number, not '64'", {"height": "64"}),
        ("images_per_prompt must be a whole number, not '2'", {"images_per_prompt": "2"}),
        ("guidance_scale must be a number, not '3'", {"guidance_scale": "3"}),
        ("a negative prompt is a text, not 3", {"negative_prompt": 3}),
        ("a prompt is a text, not 3", {"prompts": 3}),
        ("a prompt is a text, not 3", {"prompts": ["a dog", 3]}),
    ],
)
def test_arguments_of_another_kind(model: ToyModel, said: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError) as raised:
        model.sample(**({"prompts": "a dog"} | wrong))
    assert str(raised.value) == said


def test_drawing_with_other_numbers_than_recommended() -> None:
    model = ToyModel()
    recommended = model.sampling
    model.draw_with(steps=5, guidance_scale=2.0)
    assert model.sampling == recommended
    drawn = model.sample("a dog")
    assert (drawn.steps, drawn.guidance_scale) == (5, 2.0) == (model.denoising_steps(), 2.0)
    assert model.invert([drawn.image], ["a dog"])[0].steps == 5
    assert model.sample("a dog", steps=2).steps == 2
    with pytest.raises(ValueError, match="steps must be 1 to 1000"):
        model.draw_with(steps=0)
    model.draw_with()
    assert model.drawing == recommended


def test_inversion(model: ToyModel) -> None:
    image = np.repeat(np.repeat(RNG.integers(20, 236, (4, 6, 3), np.uint8), 4, 0), 4, 1)
    (given,) = model.invert([image], ["a dog"], steps=3)
    alpha, sigma = model.noise_level(float(given.timesteps[-1]))
    noise = np.random.default_rng(0).standard_normal(given.latents[0].shape)
    clean = (given.latents[-1] - sigma * noise) / alpha
    # The decoder undoes the encoder, to the rounding of a grey level.
    assert np.abs(model.decode(clean[None])[0].transpose(1, 2, 0) * 255 - image).max() < 0.51


def test_randomized(model: ToyModel, trajectory: Trajectory) -> None:
    def prediction() -> np.ndarray:
        conditioning = Conditioning(trajectory.embeddings[None])
        return np.asarray(model.denoise(trajectory.latents[:1], 500.0, conditioning))

    trained, seen = prediction(), []
    revisions: list[str | None] = []
    for stage in model.stages:
        with model.randomized(stage, seed=3):
            seen.append(prediction())
            assert model.revision not in (None, *revisions)
            revisions.append(model.revision)
    assert model.revision is None
    with pytest.raises(KeyboardInterrupt), model.randomized("fine"):
        raise KeyboardInterrupt
    assert model.revision is None
    assert np.array_equal(prediction(), trained)
    assert all(
        np.abs(one - two).max() > 0.01 for one, two in zip([trained, *seen], seen, strict=False)
    )
    with model.randomized("coarse", seed=3):
        assert np.array_equal(prediction(), seen[1])
    with pytest.raises(ValueError, match="no stage"), model.randomized("nowhere"):
        pass


def test_hooks_and_counts() -> None:
    model = ToyModel()
    heard: list[tuple[str, str]] = []
    model.hooks.append(lambda name, kind, _probabilities: heard.append((name, kind)))
    trajectory = model.sample("a dog", steps=1, guidance_scale=1.0)
    assert heard == [(n, k) for n in ("fine", "coarse") for k in ("cross", "self")]
    model.attention(trajectory, AttentionQuery(), (0,))
    assert model.evaluations == Evaluations(forward=2)


def test_ddim_inversion_comes_back_to_the_image() -> None:
    """Refined until it stands still, each step is what the sampler's step would undo."""
    model = ToyModel()
    image = model.sample("a red circle", seed=0).image
    before = model.evaluations.forward
    (run,) = model.invert([image], ["a red circle"], by="ddim", n_refine=400, steps=4)
    assert model.evaluations.forward - before == 4 * 401
    assert run.noise_source == "ddim"
    x = run.latents[0][None]
    for step, time in enumerate(run.timesteps):
        assert np.allclose(x[0], run.latents[step], atol=1e-6)
        noise = model.denoise(x, float(time), Conditioning(run.embeddings[None]))
        alpha, sigma = model.noise_level(float(time))
        last = step + 1 == run.steps
        after = (1.0, 0.0) if last else model.noise_level(float(run.timesteps[step + 1]))
        x = after[0] * (x - sigma * noise) / alpha + after[1] * noise
    assert np.allclose(x, model.encode_image(image), atol=1e-6)
    # Without refinement it comes near.
    (rough,) = model.invert([image], ["a red circle"], by="ddim", steps=4)
    assert np.abs(rough.latents - run.latents).max() > 0


def test_ddim_inversion_on_paper() -> None:
    """Noise that is 1 everywhere: x at a level is α·clean + σ."""

    class Ones(ToyModel):
        def _denoise(self, latents: Any, timestep: float, conditioning: Conditioning) -> Any:
            return np.ones_like(latents)

    model = Ones()
    image = model.sample("a red circle", seed=0).image
    (run,) = model.invert([image], ["a red circle"], by="ddim")
    clean = model.encode_image(image)[0]
    for latents, time in zip(run.latents, run.timesteps, strict=True):
        alpha, sigma = model.noise_level(float(time))
        assert np.allclose(latents, alpha * clean + sigma)
    with pytest.raises(ValueError, match="by must be 'noising' or 'ddim', not 'ddpm'"):
        model.invert([image], ["a red circle"], by="ddpm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n_refine must be 0 or more, and is of by='ddim' alone"):
        model.invert([image], ["a red circle"], n_refine=2)
