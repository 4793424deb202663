"""The primitives of the Flax backend against those of PyTorch's, with the same weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from flax import nnx

from tests.backends.flax import models
from wordlight.backends import Conditioning, Trajectory
from wordlight.backends.attention import AttentionMeans, AttentionQuery, OtherKeys
from wordlight.backends.flax.backend import FlaxBackend
from wordlight.backends.flax.randomizing import randomize
from wordlight.backends.tokens import PromptTooLongError
from wordlight.backends.torch.backend import TorchBackend

Pair = tuple[FlaxBackend, TorchBackend]
GRID = (16, 16)
TIME = 401.0
#: float32's rounding, in sums of other orders; through a whole network and its derivative.
_VALUES, _SLOPES = 1e-5, 1e-4


@pytest.fixture(scope="module")
def pair(ours: FlaxBackend, theirs: TorchBackend) -> Pair:
    return ours, theirs


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def both(pair: Pair, ask: Any, *arrays: np.ndarray) -> list[np.ndarray]:
    """What both backends say, as numpy; the framework's own arrays go in."""
    said = []
    for backend in pair:
        with backend.no_gradients():
            answer = ask(backend, *(backend.asarray(array) for array in arrays))
        said.append(backend.to_numpy(answer))
    return said


def agree(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    """In L2, relative to theirs."""
    assert ours.shape == theirs.shape
    assert np.linalg.norm(theirs) > 0
    assert np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs)


def close(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    """Everywhere, relative to the largest value."""
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


def test_tokens_and_text(pair: Pair) -> None:
    prompts = ["a red circle", "zyzzogeton, to the left!", ""]
    for prompt in prompts:
        assert pair[0].tokenize(prompt) == pair[1].tokenize(prompt)
    close(*both(pair, lambda backend: backend.encode(prompts).embeddings), _VALUES)
    with pytest.raises(PromptTooLongError, match="cut off"):
        pair[0].sample("red " * 40)


def test_a_guided_run(pair: Pair) -> None:
    forward_before = pair[0].evaluations.forward  # other tests share the pair
    made = [
        backend.sample(
            "a red circle", seed=3, steps=5, guidance_scale=7.5, negative_prompt="a cross"
        )
        for backend in pair
    ]
    close(made[0].latents, made[1].latents, _VALUES)
    assert (made[0].timesteps == made[1].timesteps).all()
    assert np.abs(made[0].image.astype(int) - made[1].image).max() <= 1
    for name in ("embeddings", "empty_embeddings", "negative_embeddings"):
        close(getattr(made[0], name), getattr(made[1], name), _VALUES)
    for name in ("prompt", "tokens", "guidance_scale", "seed", "negative_prompt", "revision"):
        assert getattr(made[0], name) == getattr(made[1], name)
    assert made[0].framework == "flax"
    assert pair[0].evaluations.forward - forward_before == 10


# diffusers' Euler scheduler makes numpy arrays of tensors in the way that numpy 2 warns about.
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
)
def test_a_guided_run_by_euler(folder: Path) -> None:
    """The latents are as the denoiser sees them: scaled."""
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    made = [
        backend.sample("a red circle", seed=3, steps=5, guidance_scale=7.5)
        for backend in (FlaxBackend.load(folder, scheduler="euler"), TorchBackend(pipe))
    ]
    close(made[0].latents, made[1].latents, _VALUES)
    assert np.allclose(made[0].timesteps, made[1].timesteps)
    assert np.abs(made[0].image.astype(int) - made[1].image).max() <= 1
    assert made[0].latents[0].std() < 1.5


def test_a_run_on_another_schedule(one_level: Path, tmp_path: Path) -> None:
    """The fixture's own is of v-predictions, at leading timesteps."""
    copy = Path(shutil.copytree(one_level, tmp_path / "model"))
    models.change(
        copy / "scheduler" / "scheduler_config.json",
        prediction_type="epsilon",
        timestep_spacing="trailing",
        beta_end=0.02,
    )
    pair = FlaxBackend.load(copy), TorchBackend.load(copy)
    runs = [
        backend.sample("a red circle", seed=3, steps=5, guidance_scale=7.5, height=16, width=24)
        for backend in pair
    ]
    assert (runs[0].timesteps == runs[1].timesteps).all()
    close(runs[0].latents, runs[1].latents, _VALUES)
    noised = [backend.invert([runs[1].image], ["a cross"], steps=4)[0] for backend in pair]
    close(noised[0].latents, noised[1].latents, _VALUES)
    for time in (0.0, 401.5, 999.0):
        # PyTorch's table is float32, which has few digits left of how much it lacks to one.
        assert pair[0].noise_level(time) == pytest.approx(pair[1].noise_level(time), rel=1e-4)
    latents, text = draw(0, 1, 4, 8, 12), runs[1].embeddings[None]
    close(
        *both(
            pair, lambda backend, x, e: backend.denoise(x, 999.0, Conditioning(e)), latents, text
        ),
        _VALUES,
    )


def test_a_batch_without_guidance(one_level: Path) -> None:
    small = FlaxBackend.load(one_level)
    asked: dict[str, Any] = {"steps": 2, "guidance_scale": 1.0, "height": 16, "width": 24}
    many = small.sample(["a red circle", "two squares"], seed=[5, 9], **asked)
    alone = small.sample("two squares", seed=9, **asked)
    assert isinstance(many, list)
    assert many[1].image.shape == (16, 24, 3)
    assert many[1].negative_embeddings is None
    close(many[1].latents, alone.latents, _VALUES)


def test_noising_a_given_image(pair: Pair) -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 24, 3)).astype(np.uint8)
    made = [backend.invert([image], ["a red circle"], seed=1, steps=4)[0] for backend in pair]
    close(made[0].latents, made[1].latents, _VALUES)
    assert made[0].noise_source == "noising"
    assert (made[0].timesteps == made[1].timesteps).all()


def test_denoise(pair: Pair) -> None:
    """Three rows: cut into two and one."""
    arrays = draw(0, 3, 4, *GRID), draw(1, 3, 32, models.TEXT_CHANNELS)
    got = both(pair, lambda backend, x, e: backend.denoise(x, TIME, Conditioning(e)), *arrays)
    close(*got, _VALUES)
    latents, embeddings = (jnp.asarray(array[2:]) for array in arrays)
    one = pair[0].denoise(latents, TIME, Conditioning(embeddings))
    close(np.asarray(one), got[0][2:], _VALUES)


def test_rows_are_neither_filled_up_nor_dropped(ours: FlaxBackend) -> None:
    """Parts of a batch are filled up, a batch isn't: neither with the last row again nor less."""
    latents = jnp.zeros((3, 4, *GRID))
    for rows in (1, 2, 4):
        with pytest.raises(ValueError, match=f"one row each, not 3, {rows}"):
            ours.denoise(latents, TIME, Conditioning(jnp.zeros((rows, 32, models.TEXT_CHANNELS))))


def test_forward_and_reverse_mode(pair: Pair) -> None:
    x, e, v = draw(0, 1, 4, *GRID), draw(1, 1, 32, models.TEXT_CHANNELS), draw(2, 1, 4, *GRID)
    tangents = draw(3, 2, 32, models.TEXT_CHANNELS)
    jvp = both(
        pair,
        lambda backend, x, e, t: backend.denoise_jvp(x, TIME, Conditioning(e), t)[1],
        x,
        e,
        tangents,
    )
    agree(*jvp, _SLOPES)
    vjp = both(
        pair, lambda backend, x, e, v: backend.denoise_vjp(x, TIME, Conditioning(e), v), x, e, v
    )
    agree(*vjp, _SLOPES)
    # ⟨v, J u⟩ = ⟨Jᵀ v, u⟩
    forward = (jvp[0] * v).sum((1, 2, 3), dtype=np.float64)
    reverse = (vjp[0] * tangents).sum((1, 2), dtype=np.float64)
    assert np.abs(forward - reverse).max() <= _SLOPES * np.abs(forward).max()
    with pytest.raises(ValueError, match="prediction's shape"):
        pair[0].denoise_vjp(x, TIME, Conditioning(e), v[:, :2])


def test_the_text_encoder_from_its_input_on(pair: Pair) -> None:
    ours, _ = pair
    tokens = both(pair, lambda backend: backend.token_embeddings("a red circle"))
    close(*tokens, _VALUES)
    whole = ours.encode_from(jnp.asarray(tokens[0][None])).embeddings
    close(np.asarray(whole), np.asarray(ours.encode(["a red circle"]).embeddings), _VALUES)
    agree(
        *both(
            pair,
            lambda backend, e, t: backend.encode_from_jvp(e, t)[1],
            tokens[0][None],
            draw(1, 2, *tokens[0].shape),
        ),
        _SLOPES,
    )
    with pytest.raises(ValueError, match=r"input embeddings must be \(batch, up to 32 tokens"):
        ours.encode_from(jnp.zeros((1, 33, models.TEXT_CHANNELS)))


def test_pixels(pair: Pair) -> None:
    x, tangents = draw(0, 1, 4, 8, 6), draw(1, 2, 4, 8, 6)
    close(*both(pair, lambda backend, x: backend.decode(x), x), 2e-5)
    agree(*both(pair, lambda backend, x, t: backend.decode_jvp(x, t)[1], x, tangents), _SLOPES)


def same_means(ours: AttentionMeans, theirs: AttentionMeans, tolerance: float) -> None:
    labels = [
        [(m.values.shape, m.count, m.step, m.layer, m.head) for m in means.means]
        for means in (ours, theirs)
    ]
    assert labels[0] == labels[1]
    for mine, other in zip(ours.means, theirs.means, strict=True):
        assert np.abs(mine.values - other.values).max() <= tolerance


@pytest.mark.parametrize(
    "query",
    [
        AttentionQuery(),
        AttentionQuery(keep=("step", "layer", "head"), without_layers=("up_blocks",)),
        AttentionQuery(heads=(1,), factors=(1,)),
        AttentionQuery(kind="self", layers=("mid_block",)),
    ],
    ids=["all", "kept-apart", "chosen", "self"],
)
def test_attention(pair: Pair, trajectory: Trajectory, query: AttentionQuery) -> None:
    ours, theirs = (backend.attention(trajectory, query, (0, 3)) for backend in pair)
    same_means(ours, theirs, 1e-6)
    # Each place's probabilities sum to one.
    assert np.abs(ours.means[0].values.sum(0) - 1).max() < 1e-5


def test_attention_to_other_words(pair: Pair, trajectory: Trajectory) -> None:
    """Of the prompt's own embeddings it is the prompt's own attention."""
    tokens, words = len(trajectory.tokens), [((k,), (k + 1,)) for k in range(4)]
    ours, theirs = (
        backend.attention(
            trajectory,
            AttentionQuery(),
            (2,),
            OtherKeys.of(backend.asarray(trajectory.embeddings[1:5]), words, tokens),
        )
        for backend in pair
    )
    same_means(ours, theirs, 1e-6)
    own = pair[0].attention(trajectory, AttentionQuery(), (2,))
    for mean, other in zip(own.means, ours.means, strict=True):
        assert np.abs(mean.values[1:5] - other.values).max() < 1e-6
    narrow = OtherKeys.of(jnp.zeros((1, 5)), [((0,), ())], tokens)
    with pytest.raises(ValueError, match="24 channels"):
        pair[0].attention(trajectory, AttentionQuery(), (2,), narrow)


def test_gradients_with_respect_to_attention(pair: Pair) -> None:
    arrays = (draw(0, 1, 4, *GRID), draw(1, 1, 32, models.TEXT_CHANNELS), draw(2, 1, 4, *GRID))
    query = AttentionQuery(keep=("layer",))
    ours, theirs = (
        backend.attention_vjp(
            backend.asarray(arrays[0]),
            TIME,
            Conditioning(backend.asarray(arrays[1])),
            backend.asarray(arrays[2]),
            query,
        )
        for backend in pair
    )
    for mine, other in zip(ours.means, theirs.means, strict=True):
        assert (mine.layer, mine.count) == (other.layer, other.count)
        agree(mine.values, other.values, _SLOPES)


def test_random_weights_and_the_trained_ones_back(pair: Pair, trajectory: Trajectory) -> None:
    ours, theirs = pair
    assert ours.stages == theirs.stages

    def predict() -> np.ndarray:
        point = Conditioning(jnp.asarray(trajectory.embeddings[None]))
        return np.asarray(ours.denoise(jnp.asarray(trajectory.latents[:1]), TIME, point))

    before, encoded = predict(), np.asarray(ours.encode(["a"]).embeddings)
    with ours.randomized("conv_out"):
        first = predict()
        assert (ours.encode(["a"]).embeddings == encoded).all()
    with ours.randomized("conv_out"):
        assert (predict() == first).all()
    with ours.randomized("conv_out", seed=1):
        assert np.abs(predict() - first).max() > 0.01
    with ours.randomized("text_encoder"):
        assert np.abs(predict() - first).max() > 0.01
        assert np.abs(ours.encode(["a"]).embeddings - encoded).max() > 0.01
    with pytest.raises(KeyError), ours.randomized("text_encoder"):
        raise KeyError
    assert (predict() == before).all()
    with pytest.raises(ValueError, match="no stage 'elsewhere'; there are conv_out, up_blocks"):
        ours.randomized("elsewhere")


def test_random_weights_are_drawn_as_flax_draws_them() -> None:
    """In mean and spread, layer by layer, against layers that Flax itself initialises."""
    rngs = nnx.Rngs(0)
    layers = {
        "dense": nnx.Linear(60, 50, rngs=rngs),
        "convolution": nnx.Conv(16, 40, (3, 3), rngs=rngs),
        "table": nnx.Embed(500, 30, rngs=rngs),
        "norm": nnx.GroupNorm(32, 8, rngs=rngs),
    }
    state = nnx.state(nnx.Dict(layers))
    ours = randomize({"unet": nnx.state(nnx.Dict({})), "text_encoder": state}, ["text_encoder"], 0)
    again = randomize({"unet": nnx.state(nnx.Dict({})), "text_encoder": state}, ["text_encoder"], 0)
    for (path, mine), (_, same), (_, theirs) in zip(
        *(nnx.to_flat_state(s) for s in (ours["text_encoder"], again["text_encoder"], state)),
        strict=True,
    ):
        drawn, wanted = np.asarray(mine[...]), np.asarray(theirs[...])
        assert (drawn == np.asarray(same[...])).all()
        assert drawn.shape == wanted.shape
        if path[-1] in ("bias", "scale"):
            assert (drawn == wanted).all()
            continue
        # Three thousand draws and more: 5 % is four standard errors of a standard deviation.
        assert drawn.std() == pytest.approx(wanted.std(), rel=0.05)
        assert np.abs(drawn).max() == pytest.approx(np.abs(wanted).max(), rel=0.25)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_decoder_that_gives_no_numbers_is_an_error(
    ours: FlaxBackend, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """Cut to the range first, infinity would be white pixels."""
    monkeypatch.setattr(ours, "_decode", lambda latents: np.full((1, 3, 2, 2), value, np.float32))
    monkeypatch.setattr(ours, "to_numpy", np.asarray)
    with pytest.raises(ValueError, match="pixels that are no numbers"):
        ours._images_of(None)
