"""KernelSHAP, GradientSHAP and methods that write the prompt anew, against answers on paper."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest

from tests.attribution.test_path_and_probes import TRAJECTORY, norm_of_push, pairs_trajectory
from tests.toys import Formula, Pairs, ToyBackend, toy_trajectory
from wordlight.attribution import (
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    NoiseDifference,
    Regeneration,
    Saliency,
    Shapley,
)
from wordlight.attribution.methods.kernel_shap import constrained_regression
from wordlight.attribution.methods.noise_difference import without
from wordlight.attribution.resize import average_down
from wordlight.attribution.testing.model import ToyModel
from wordlight.attribution.words import PromptWords, WordPlace
from wordlight.backends.backend import Conditioning


def test_kernel_shap_is_always_efficient() -> None:
    backend = ToyBackend(bend="saturating")
    norm = norm_of_push(backend)
    found = KernelShap(backend, n_samples=24).attribute(TRAJECTORY)
    assert np.abs(found.data.values.sum(0) - norm).max() < 1e-5 * norm.max()
    assert found.provenance.forward == 2 + 24


def test_kernel_shap_is_as_efficient_in_half_precision() -> None:
    """Its maps are as precise as the target, which is computed in float32 there."""

    class Half(ToyBackend):
        dtype = "float16"

        def asarray(self, array: Any) -> Any:
            return np.asarray(array, np.float16)

        def _denoise(self, latents: Any, timestep: float, conditioning: Conditioning) -> Any:
            return super()._denoise(latents, timestep, conditioning).astype(np.float16)

    method = KernelShap(Half(bend="saturating"), n_samples=24)
    _, delta = method.attribute(TRAJECTORY, return_convergence_delta=True)
    # float32 rounds to 6e-8, each of ten players' maps; float16 to 5e-4.
    assert delta.relative.max() < 1e-6


def test_kernel_shap_of_a_product() -> None:
    """The product's 4 is shared equally by the two words that make it."""
    maps = KernelShap(Pairs(), n_samples=4000).attribute(pairs_trajectory())
    # The regression's standard error at 4000 sets of 7 players, seen over seeds: about 0.03.
    assert np.asarray(maps["one"]).mean() == pytest.approx(2, abs=0.15)
    assert np.asarray(maps["three"]).mean() == pytest.approx(2, abs=0.15)
    assert np.asarray(maps["four"]).mean() == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (KernelShap, {"n_samples": 20}),
        (Shapley, {"n_samples": 1}),
        (Saliency, {"probes": 2}),
        (GradientShap, {"n_samples": 1}),
    ],
)
def test_other_seeds_draw_others(kind: Any, options: dict[str, int]) -> None:
    """h = e1·e2·e3: of a product of two, pairs of a set and its rest tell KernelSHAP everything."""

    def slope(e: Any) -> Any:
        found = np.zeros_like(e)
        for at in (1, 2, 3):
            found[:, at] = np.prod(np.delete(e[:, 1:4], at - 1, axis=1), axis=1)
        return found

    backend = Formula(lambda e: np.prod(e[:, 1:4], axis=1), slope)
    first, again, *others = (
        kind(backend, seed=seed, **options).attribute(pairs_trajectory()).data
        for seed in (0, 0, 1, 2, 3, 4)
    )
    assert first.equals(again)
    assert not all(np.allclose(first, other) for other in others)


def test_the_regression_over_all_sets_gives_exact_shapley_values() -> None:
    """Any game of four players: sets of one and of three count twice as often as those of two, as
    the kernel 1 / (C(4, s)·s·(4 - s)) has it."""
    values = np.random.default_rng(4).standard_normal(16)
    values[0] = 0.0

    def worth(players: Iterable[int]) -> float:
        return float(values[sum(1 << player for player in players)])

    exact = np.zeros(4)
    for order in permutations(range(4)):
        for place, player in enumerate(order):
            exact[player] += (worth(order[: place + 1]) - worth(order[:place])) / 24
    sets = [s for size in (1, 1, 2, 3, 3) for s in combinations(range(4), size)]
    design = np.array([[player in s for player in range(4)] for s in sets])
    worths = np.array([worth(s) for s in sets])[:, None, None]
    found = constrained_regression(design, worths, np.array([[worth(range(4))]]))
    assert np.abs(found[:, 0, 0] - exact).max() < 1e-12


def test_sets_are_drawn_as_the_kernel_has_it() -> None:
    """A size s of n players with chance ∝ 1 / (s·(n - s)), each set with its complement."""
    players, samples = 7, 20_000
    sets = KernelShap(ToyBackend(), n_samples=samples)._sets(players, 1.0)
    assert (sets[::2] != sets[1::2]).all()
    sizes = np.arange(1, players)
    wanted = 1 / (sizes * (players - sizes))
    wanted /= wanted.sum()
    counts = np.bincount(sets.sum(1), minlength=players + 1)
    assert counts[0] == counts[players] == 0
    # Pairs are drawn, so that a share is of half as many draws; five standard errors.
    error = 5 * np.sqrt(wanted * (1 - wanted) / (samples / 2))
    assert (np.abs(counts[1:players] / samples - wanted) < error).all()
    # Of one size all players are alike.
    alike = sets[sets.sum(1) == 1].mean(0)
    assert (np.abs(alike - 1 / players) < 5 * np.sqrt(1 / players / counts[1] * 2)).all()


def test_kernel_shap_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match="at least 20 for 10 players"):
        KernelShap(ToyBackend(), n_samples=19).attribute(TRAJECTORY)
    with pytest.raises(ValueError, match="leave the answer open"):
        constrained_regression(np.ones((5, 3), bool), np.ones((5, 2, 2)), np.ones((2, 2)))


def test_gradient_shap_without_noise_is_integrated_gradients_by_chance() -> None:
    backend = ToyBackend()
    reference = InputXGradient(backend).attribute(TRAJECTORY).data.values
    assert np.allclose(
        GradientShap(backend).attribute(TRAJECTORY).data.values, reference, atol=1e-4
    )
    # A model that saturates gently, so that a few hundred random points resolve its path.
    backend = ToyBackend(bend="saturating")
    backend.jacobian = backend.jacobian * 0.1
    path = IntegratedGradients(backend, n_steps=64).attribute(TRAJECTORY).data.values
    chance = GradientShap(backend, n_samples=600).attribute(TRAJECTORY).data.values
    # Monte Carlo: 1/√600 = 4 % of the integrand's spread.
    assert np.abs(chance - path).mean() < 0.15 * np.abs(path).mean()
    again = GradientShap(backend, n_samples=600).attribute(TRAJECTORY).data.values
    assert (again == chance).all()


def test_gradient_shap_with_noise_by_hand() -> None:
    """On the linear toy a word's map is ⟨A_w·(Δ + noise)_w, u⟩: the noise is part of the way, and
    each draw moves a pixel by σ times the norm of A_w's row along u."""
    backend, sigma, seeds = ToyBackend(), 0.5, 400
    plain = InputXGradient(backend).attribute(TRAJECTORY)["red"]
    draws = [
        GradientShap(backend, n_samples=1, stdevs=sigma, seed=seed).attribute(TRAJECTORY)["red"]
        for seed in range(seeds)
    ]
    moved = np.array([np.asarray(one) - np.asarray(plain) for one in draws])
    delta = TRAJECTORY.embeddings - TRAJECTORY.empty_embeddings
    push = np.einsum("cyxtd,td->cyx", backend.jacobian, delta)
    unit = push / np.linalg.norm(push, axis=0)
    row = np.einsum("cyxd,cyx->yxd", backend.jacobian[..., 2, :], unit)
    wanted = sigma * np.linalg.norm(row, axis=-1)
    # Five standard errors: of a mean of 400, and of a deviation of 400 (1/√800 of it).
    assert (np.abs(moved.mean(0)) < 5 * wanted / np.sqrt(seeds)).all()
    assert (np.abs(moved.std(0) / wanted - 1) < 5 / np.sqrt(2 * seeds)).all()


def test_gradient_shap_noise_is_seeded() -> None:
    backend = ToyBackend()
    maps = [
        GradientShap(backend, stdevs=0.5, seed=s).attribute(TRAJECTORY).data.values
        for s in (0, 0, 1)
    ]
    assert (maps[0] == maps[1]).all()
    assert np.abs(maps[0] - maps[2]).max() > 1e-3
    with pytest.raises(ValueError, match="stdevs"):
        GradientShap(backend, stdevs=-1)


def test_a_word_is_taken_out_of_the_prompt() -> None:
    words = PromptWords.of(TRAJECTORY.tokens)
    assert without(TRAJECTORY.prompt, words.find("red")) == "a circle and a blue circle"
    assert without(TRAJECTORY.prompt, words.find(("circle", 1))) == "a red circle and a blue"
    group = words.find(["red", ("circle", 1), ("a", 1)])
    assert without(TRAJECTORY.prompt, group) == "a circle and blue"


class Counting(ToyBackend):
    """Pushes by how many words a prompt has; draws one white pixel a word."""

    capabilities = frozenset({"denoise", "encode", "sample"})

    def encode(self, prompts: Any) -> Conditioning:
        rows = np.zeros((len(prompts), 12, 5))
        rows[:, 0, 0] = [len(p.split()) for p in prompts]
        return Conditioning(rows)

    def _denoise(self, latents: Any, timestep: float, conditioning: Conditioning) -> Any:
        return latents + conditioning.embeddings[:, :1, :1, None]

    def sample(self, prompts: Any, **options: Any) -> Any:
        self.asked = options
        image = np.zeros((16, 24, 3), np.uint8)
        image[0, : 4 * len(prompts.split())] = 255
        return replace(TRAJECTORY, prompt=prompts, image=image)


def counted(steps: int = 1) -> Any:
    embeddings = Counting().encode([TRAJECTORY.prompt]).embeddings[0]
    return replace(toy_trajectory(steps=steps), embeddings=embeddings)


def test_noise_difference_by_hand() -> None:
    """One word less changes every channel by 1, so every pixel by √3."""
    maps = NoiseDifference(Counting()).attribute(counted(steps=3))
    assert np.allclose(np.asarray(maps["red"]), np.sqrt(3), atol=1e-6)
    assert (np.asarray(maps["<pad>"]) == 0).all()
    assert maps.provenance.forward == 3 * 8
    phrase = NoiseDifference(Counting()).attribute(counted(), words=["red circle"])
    assert np.allclose(np.asarray(phrase["red circle"]), 2 * np.sqrt(3), atol=1e-6)
    key: list[WordPlace] = ["red", "blue", ("circle", 1)]
    group = NoiseDifference(Counting()).attribute(counted(), words=[key])
    assert np.allclose(np.asarray(group[key]), 3 * np.sqrt(3), atol=1e-6)


def test_noise_difference_in_small_passes() -> None:
    """As many rows at once as were asked for, and the same answer."""

    class Watched(Counting):
        most = 0

        def _denoise(self, latents: Any, timestep: float, conditioning: Conditioning) -> Any:
            self.most = max(self.most, len(latents))
            return super()._denoise(latents, timestep, conditioning)

    backend = Watched()
    small = NoiseDifference(backend).attribute(counted(), internal_batch_size=3)
    assert backend.most == 3
    large = NoiseDifference(backend).attribute(counted())
    assert backend.most == 8
    assert (small.data.values == large.data.values).all()
    assert small.provenance.forward == large.provenance.forward == 8


def test_noise_difference_needs_the_prompts_own_embeddings() -> None:
    """Other embeddings would differ from the shorter prompts' by more than the word."""
    trajectory = counted()
    weighted = replace(trajectory, embeddings=1.5 * trajectory.embeddings)
    with pytest.raises(ValueError, match="of the prompt alone"):
        NoiseDifference(Counting()).attribute(weighted)


def test_noise_difference_of_a_prompt_that_was_cut() -> None:
    """What the encoder never read doesn't move up where a word is taken out."""
    tokens = replace(TRAJECTORY.tokens, prompt=TRAJECTORY.prompt + " and more", cut_at=30)
    cut = replace(counted(), prompt=tokens.prompt, tokens=tokens)
    maps = NoiseDifference(Counting()).attribute(cut)
    assert np.allclose(np.asarray(maps["red"]), np.sqrt(3), atol=1e-6)


def test_regeneration_with_other_weights_than_the_image_s() -> None:
    """The word's change is the random model's own: the trained one's image is of no matter."""
    model = ToyModel()
    prompt, seed = "a red circle", 2
    trajectory = model.sample(prompt, seed=seed)
    size = 2 * trajectory.steps
    trained = Regeneration(model).attribute(trajectory)
    assert trained.provenance.forward == 3 * size
    with model.randomized("fine", seed=1):
        maps = Regeneration(model).attribute(trajectory)
        whole, without_red = model.sample([prompt, "a circle"], seed=[seed, seed])
        drawn_so = Regeneration(model).attribute(whole)
    assert maps.provenance.forward == 4 * size
    change = (whole.image.astype(float) - without_red.image) / 255
    wanted = average_down(np.linalg.norm(change, axis=-1), trajectory.grid)
    # Maps are stored in float32.
    assert np.allclose(np.asarray(maps["red"]), wanted, rtol=1e-6)
    assert np.abs(whole.image.astype(float) - trajectory.image).max() > 10
    # An image that these very weights drew is taken as it is.
    assert drawn_so.provenance.forward == 3 * size
    assert (drawn_so.data.values == maps.data.values).all()
    # Nothing to draw, nothing to compare with.
    with model.randomized("fine", seed=1):
        alone = Regeneration(model).attribute(model.sample("circle", seed=seed))
    assert alone.provenance.forward == 0


def test_regeneration_by_hand() -> None:
    """Without a word the white line ends four pixels, one latent cell, earlier."""
    image = np.zeros((16, 24, 3), np.uint8)
    image[0, :24] = 255
    trajectory = replace(counted(), image=image, negative_prompt="dull")
    backend = Counting()
    maps = Regeneration(backend).attribute(trajectory)
    wanted = np.zeros((4, 6))
    # Seven words fill 28 pixels, of which the image has 24; six fill them all, five leave a cell.
    assert (np.asarray(maps["red"]) == wanted).all()
    phrase = Regeneration(backend).attribute(trajectory, words=["red circle"])
    # One of four rows of the cell changes, by √3 in grey levels of 1.
    wanted[0, 5] = np.sqrt(3) / 4
    assert np.allclose(np.asarray(phrase["red circle"]), wanted, atol=1e-6)
    assert backend.asked["negative_prompt"] == "dull"
    assert backend.asked["seed"] == 0
    # Without three words there are two cells fewer: four words fill 16 of 24 pixels.
    wanted[0, 4] = np.sqrt(3) / 4
    group = Regeneration(backend).attribute(trajectory, words=[["red", "blue", ("circle", 1)]])
    assert np.allclose(np.asarray(group[["red", "blue", ("circle", 1)]]), wanted, atol=1e-6)
    with pytest.raises(ValueError, match="other timesteps"):
        Regeneration(backend).attribute(replace(trajectory, timesteps=trajectory.timesteps + 1))
    with pytest.raises(ValueError, match="traced or given"):
        Regeneration(backend).attribute(replace(trajectory, seed=None))
    with pytest.raises(ValueError, match="drawn by other"):
        Regeneration(backend).attribute(replace(trajectory, model_id="other"))
