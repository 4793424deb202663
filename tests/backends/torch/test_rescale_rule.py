"""The rescale rule: answers on paper, another implementation, and a whole model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift as CaptumDeepLift
from torch import Tensor, nn

from wordlight.attribution import DecodedChannel, DeepLift, InputXGradient, PredictionNorm, Region
from wordlight.attribution.testing.model import ToyModel
from wordlight.backends.backend import Conditioning
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.torch.rescale_rule import rescaled_parts
from wordlight.backends.torch.tiny import build_tiny
from wordlight.backends.trajectory import Trajectory


def shared(
    function: Callable[[Tensor], Tensor], point: Sequence[float], baseline: Sequence[float]
) -> npt.NDArray[Any]:
    """The part of each number of the input in the function's, ``(numbers, *shape)``."""
    after, before = (torch.tensor([one], dtype=torch.float64) for one in (point, baseline))
    parts = torch.diag((after - before)[0])
    return rescaled_parts(function, after, before, parts).numpy()


@pytest.mark.parametrize(
    ("function", "point", "baseline", "wanted"),
    [
        # Linear: each its own.
        (lambda x: x @ torch.tensor([3.0, -1.0]).double() + 7, (2, 5), (1, 1), (3, -4)),
        # tanh(a + b) from 0 to (2, 1): two thirds of tanh(3), and one.
        (lambda x: torch.tanh(x.sum(1)), (2, 1), (0, 0), (np.tanh(3) * 2 / 3, np.tanh(3) / 3)),
        # a·b + c from (1, -1, 0) to (2, 3, 1): 1·(3 - 1)/2, 4·(2 + 1)/2 and 1.
        (lambda x: x[:, 0] * x[:, 1] + x[:, 2], (2, 3, 1), (1, -1, 0), (1, 6, 1)),
        # A square is a product with itself: all of 9 - 4, in the proportion of the steps.
        (lambda x: x.sum(1) ** 2, (1, 2), (1, 1), (0, 5)),
        # a / b from (1, 1) to (3, 2), so from 1 to 3/2: 2 / 1.5, and -(1 + 1.5)/2 / 1.5.
        (lambda x: x[:, 0] / x[:, 1], (3, 2), (1, 1), (4 / 3, -5 / 6)),
        (lambda x: 6 / x.sum(1), (2, 1), (1, 1), (-1, 0)),
        # ReLU, where the gradient at the point has nothing to say: -1 + 3 of the way is dead.
        (lambda x: F.relu(x.sum(1)), (2, 0), (-1, 0), (2, 0)),
        (lambda x: F.relu(x.sum(1)), (-1, -1), (1, 0), (-2 / 3, -1 / 3)),
        # Where both passes meet, the slope is the derivative.
        (lambda x: torch.exp(x.sum(1)), (1, 0), (0, 1), (np.e, -np.e)),
    ],
)
def test_on_paper(
    function: Callable[[Tensor], Tensor],
    point: Sequence[float],
    baseline: Sequence[float],
    wanted: Sequence[float],
) -> None:
    assert np.abs(shared(function, point, baseline) - wanted).max() < 1e-12


def test_softmax_on_paper() -> None:
    """From (0, 0) to (ln 3, 0): the shares move from ½ to ¾ and ¼. Their slopes over their
    logarithms are m₁ = ¼ / ln 1.5 and m₂ = ¼ / ln 2, and the first score's part in the first share
    is m₁·ln 3·(1 - m₁ / (m₁ + m₂)) = ¼, all of it. A step of both scores moves nothing."""
    found = shared(lambda x: x.softmax(1), (np.log(3), 0), (0, 0))
    assert np.abs(found - [[0.25, -0.25], [0, 0]]).max() < 1e-12
    both = shared(lambda x: (x[:, :1] + x[:, 1:] * torch.eye(1, 2)).softmax(1), (5, 1), (0, 0))
    assert np.abs(both[0]).max() < 1e-12
    # Scores so far apart that exponentials of one pass are nothing beside the other's.
    far = shared(lambda x: (x * 1000).softmax(1), (1, 0), (0, 1))
    assert np.isfinite(far).all()
    assert np.abs(far.sum(0) - [1, -1]).max() < 1e-12


def smoothly(x: Tensor) -> Tensor:
    return F.gelu(x) + F.silu(x) * x.sigmoid() + x.sin() + (x * x + 1).rsqrt() + (x**3).exp()


@pytest.mark.parametrize("apart", [1e-12, 1e-6, 5e-3, 2e-2, 1.0])
def test_smooth_functions_add_up_however_near_the_passes(apart: float) -> None:
    """Slopes are derivatives below a difference of 0.01, which leaves 1e-6 of the difference."""
    before = np.linspace(-1, 1, 7)
    after = before + apart
    found = shared(smoothly, after.tolist(), before.tolist())
    one, other = (smoothly(torch.tensor(x)).numpy() for x in (after, before))
    assert np.abs(found.sum(0) - (one - other)).max() < 1e-5 * apart + 1e-15


@pytest.mark.parametrize("norm", ["layer", "group", "rms"])
def test_norms_are_written_out(norm: str) -> None:
    """Their values are PyTorch's, and their parts those of means, products and a root."""
    rng = torch.Generator().manual_seed(0)
    after, before = torch.randn(2, 1, 6, 4, generator=rng, dtype=torch.float64)
    weight, bias = torch.randn(2, 4, generator=rng, dtype=torch.float64)

    def theirs(x: Tensor) -> Tensor:
        if norm == "layer":
            return F.layer_norm(x, (4,), weight, bias)
        if norm == "rms":
            return F.rms_norm(x, (4,), weight, 1e-5)
        return F.group_norm(x.transpose(1, 2), 2, weight, bias)

    def plainly(x: Tensor) -> Any:
        if norm == "group":
            grouped = x.transpose(1, 2).reshape(1, 2, 12)
            centred = grouped - grouped.mean(2, keepdim=True)
            scaled = centred * ((centred * centred).mean(2, keepdim=True) + 1e-5).rsqrt()
            return scaled.reshape(1, 4, 6) * weight[:, None] + bias[:, None]
        centred = x if norm == "rms" else x - x.mean(2, keepdim=True)
        scaled = centred * ((centred * centred).mean(2, keepdim=True) + 1e-5).rsqrt()
        return scaled * weight + (0 if norm == "rms" else bias)

    parts = torch.eye(6)[:, :, None] * (after - before)
    found, wanted = (rescaled_parts(f, after, before, parts) for f in (theirs, plainly))
    assert (found - wanted).abs().max() < 1e-12
    assert (found.sum(0) - (theirs(after) - theirs(before))[0]).abs().max() < 1e-12


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_against_captum() -> None:
    """On a network of linear layers and elementwise functions Captum's rule is the same. It goes
    backward, from one output at a time."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4), nn.Sigmoid(),
        nn.Linear(4, 3),
    ).double()  # fmt: skip
    after, before = (torch.randn(1, 5, dtype=torch.float64).requires_grad_() for _ in range(2))
    found = rescaled_parts(network, after, before, torch.diag((after - before)[0])).detach()
    for output in range(3):
        wanted = CaptumDeepLift(network).attribute(after, before, target=output)
        assert (found[:, output] - wanted[0]).abs().max() < 1e-9


def into_another(x: Tensor) -> Tensor:
    made = torch.zeros(1, 2)
    made[:, 1] = x[:, 0]
    return made


def test_what_has_no_rule_is_said() -> None:
    with pytest.raises(ValueError, match=r"no rule for a power of 2\.5"):
        shared(lambda x: x.abs() ** 2.5, (1, 2), (0, 1))
    with pytest.raises(ValueError, match="parts sum to something else"):
        shared(lambda x: torch.cosh(x), (1, 2), (0, 1))
    with pytest.raises(ValueError, match="decides by the text what is computed"):
        shared(lambda x: x[:, torch.argsort(x[0])], (1, 2), (2, 1))
    with pytest.raises(ValueError, match="what depends on the text is written into another"):
        shared(lambda x: torch.zeros(1, 2).double().add_(x), (1, 2), (2, 1))
    with pytest.raises(ValueError, match="what depends on the text is written into another"):
        shared(into_another, (1, 2), (2, 1))
    with pytest.raises(ValueError, match="decides by the text what is computed"):
        shared(lambda x: torch.ones(1, 1) * x.sum().item(), (1, 2), (2, 2))
    # What doesn't hang on the text has no parts.
    assert not shared(lambda x: torch.ones(1, 4), (1, 2), (2, 1)).any()


def in_place(x: Tensor) -> Tensor:
    made = x * 2
    made += x
    made = made.mul_(x)
    other = torch.zeros_like(x)
    other[:, 1:] = made[:, 1:]
    other[:, 0] = 5.0
    return other


def test_writing_in_place() -> None:
    found = shared(in_place, (3, 4), (1, 1))
    wanted = shared(lambda x: 3 * x * x * torch.tensor([0, 1]), (3, 4), (1, 1))
    assert np.array_equal(found, wanted)


def test_the_model_for_tests_in_numpy_is_the_same() -> None:
    """Its parts are worked out by hand."""
    toy = ToyModel()
    run = toy.sample("a red circle and a blue square", seed=0)
    latents, time = run.latents[:1], float(run.timesteps[0])
    looks = toy._looks(latents[0], time)

    def prediction(embeddings: Tensor) -> Any:
        total: Any = 0.0
        for look in looks:
            queries, keys, values, carry = map(
                torch.as_tensor,
                (look.queries, look.layer.key, look.layer.value, look.carry),
            )
            # Four channels a head.
            scores = queries @ (embeddings @ keys).transpose(1, 2) / 2
            total = total + carry @ (scores.softmax(-1) @ (embeddings @ values)).mean(0)
        made = (total @ torch.as_tensor(toy._output)).T
        return made.reshape(latents.shape) + torch.as_tensor(latents) / 2

    ends = run.embeddings[None], run.empty_embeddings[None]
    parts = np.eye(len(run.tokens))[:, :, None] * (ends[0] - ends[1])
    wanted = rescaled_parts(prediction, *map(torch.as_tensor, (*ends, parts)))
    found = toy.denoise_parts(latents, time, Conditioning(ends[0]), ends[1], parts)
    assert np.abs(found - wanted.numpy()).max() < 1e-12 * np.abs(found).max()

    def encoded(tokens: Tensor) -> Tensor:
        placed = (tokens + torch.as_tensor(toy._positions))[0]
        means = placed.cumsum(0) / torch.arange(1, len(placed) + 1)[:, None]
        return (placed + means @ torch.as_tensor(toy._mixing) / 2).tanh()[None]

    point, start = (toy.token_embeddings(text)[None] for text in (run.prompt, ""))
    parts = np.eye(len(run.tokens))[:, :, None] * (point - start)
    wanted = rescaled_parts(encoded, *map(torch.as_tensor, (point, start, parts)))
    found = toy.encode_from_parts(point, start, parts)
    assert np.abs(found - wanted.numpy()).max() < 1e-9 * np.abs(found).max()


PHRASES = ["a red circle", "and a blue square"]


@pytest.fixture(scope="module")
def tiny() -> tuple[TorchBackend, Trajectory]:
    backend = TorchBackend(build_tiny("sd"))
    run = backend.sample("a red circle and a blue square", seed=0, steps=1)
    assert isinstance(run, Trajectory)
    return backend, run


def test_a_whole_denoiser_shares_out_the_push(tiny: tuple[TorchBackend, Trajectory]) -> None:
    """Stable Diffusion's blocks, with random weights: to float32's rounding, where the slopes at
    the end alone leave much."""
    backend, run = tiny
    maps, delta = DeepLift(backend).attribute(run, PHRASES, return_convergence_delta=True)
    assert (delta.maximum < 1e-4).all()
    _, slopes = InputXGradient(backend).attribute(run, PHRASES, return_convergence_delta=True)
    assert (slopes.relative > 10 * delta.relative).all()
    # The first position sees nothing but itself, so its embedding is the empty prompt's.
    assert np.abs(np.asarray(maps["<start>"])).max() < 1e-6 * float(np.abs(maps.data.values).max())


def test_parts_go_through_the_text_encoder_too(tiny: tuple[TorchBackend, Trajectory]) -> None:
    """Causal: what comes before a word keeps its embeddings, and what comes after moves."""
    backend, run = tiny
    point, before = (backend.token_embeddings(text)[None] for text in (run.prompt, ""))
    parts = torch.zeros_like(torch.cat([point, point]))
    parts[0, 3:], parts[1, :3] = (point - before)[0, 3:], (point - before)[0, :3]
    moved = backend.encode_from_parts(point, before, parts)
    assert not moved[0, :3].any()
    assert (moved[1, 3:].norm(dim=1) > 0).all()
    after, start = (backend.encode_from(one).embeddings[0] for one in (point, before))
    assert ((moved.sum(0) - (after - start)).norm() < 1e-5 * (after - start).norm()).all()


def test_deeplift_says_what_it_cannot_do(tiny: tuple[TorchBackend, Trajectory]) -> None:
    backend, run = tiny
    with pytest.raises(ValueError, match="isn't linear in the prediction"):
        DeepLift(backend).attribute(run, PHRASES, target=PredictionNorm())
    toy = ToyModel()
    with pytest.raises(ValueError, match="isn't linear in the prediction"):
        DeepLift(toy).attribute(toy.sample("a dog", seed=0), target=DecodedChannel("red"))


def test_a_region_is_the_same_maps_inside() -> None:
    toy = ToyModel()
    run = toy.sample("a red circle", seed=0)
    region = np.zeros(run.grid)
    region[1:3, 2:4] = 1
    inside = DeepLift(toy).attribute(run, target=Region(region)).data.values
    whole = DeepLift(toy).attribute(run).data.values
    assert np.abs(inside - region * whole).max() < 1e-6 * np.abs(whole).max()
