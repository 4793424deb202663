"""Attention chains: where a walk from a word along the attention comes to."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from wordlight.attribution.methods.attention_average import Maps, average_on_grid
from wordlight.attribution.methods.self_attention import (
    HeadWeighting,
    Matrix,
    WithSelfAttention,
    by_grid,
    check_head_weighting,
    mean_of_heads,
    self_query,
)
from wordlight.attribution.options import number, whole
from wordlight.attribution.resize import resize
from wordlight.backends.attention import AttentionMeans, AttentionQuery
from wordlight.backends.trajectory import Trajectory


class _Chain(WithSelfAttention):
    """Methods on the Markov chain of a step's attention, with image places and tokens as states."""

    family: ClassVar[Literal["attention", "control"]] = "attention"
    paper: ClassVar[str] = "Erel et al. 2025, arXiv 2507.17657"

    teleport: float = 0.01
    head_weighting: HeadWeighting = "second-eigenvalue"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.teleport = number("teleport", self.teleport)
        if not 0 < self.teleport < 1:
            raise ValueError(f"teleport must be above 0 and below 1, not {self.teleport}")
        check_head_weighting(self.head_weighting)

    def _self_query(self) -> AttentionQuery:
        return self_query(self.head_weighting)

    def _at_step(
        self, cross: AttentionMeans, within: AttentionMeans, trajectory: Trajectory
    ) -> Maps:
        attention, grid = self._attention(cross, within)
        visits = self._visits(attention).reshape(-1, *grid)
        return np.asarray(resize(visits, trajectory.grid), np.float64)

    def _visits(self, attention: Matrix) -> Matrix:
        """The tokens' maps, ``(tokens, places)``, from the attention of the places."""
        raise NotImplementedError

    def _attention(
        self, cross: AttentionMeans, within: AttentionMeans
    ) -> tuple[Matrix, tuple[int, int]]:
        """Return the attention of each place of the finest grid to each state, ``(places, places +
        tokens)`` with rows that sum to one, and that grid."""
        grid, finest = next(iter(by_grid(within.means).items()))
        own = mean_of_heads(finest, self.head_weighting)
        told, _ = average_on_grid(cross, grid)
        both = np.concatenate([own, told.clip(0).reshape(len(told), -1).T], axis=1)
        return both / both.sum(axis=1, keepdims=True), grid


class AttentionChains(_Chain):
    """The attention to a word, followed on over several bounces (Erel et al. 2025,
    arXiv 2507.17657).

    The states of a Markov chain are the image's places and the prompt's tokens. A place moves on
    to what it attends to: to places by self-attention (the finest grid, the mean over layers and
    heads) and to tokens by cross-attention (the mean over all layers and heads, on that grid), both
    together made to sum to one. A token moves to the places that attend to it, in proportion. With
    ``teleport`` t the matrix is ``T = (1 - t) P + t / n`` over n states. From a token alone, a
    bounce is ``x <- x T``: the first one gives DAAM's map of that step as shares, each further one
    passes a place's share on to what the place attends to. The map is x over the places after
    ``bounces`` bounces, upscaled to the latent grid and averaged over steps.

    From the paper and its code (yoterel/attention_chains_code) come the bounces from a one-hot
    token, the teleport and the weighting of heads by the size of their matrices' second eigenvalue:
    where it is large, attention has groups that it rarely leaves. The code walks through the joint
    attention of FLUX, in which text attends too. With cross-attention text attends to nothing, and
    where a token moves to is our own. The number of bounces was chosen among 1, 2, 3, 4, 6 and 10
    on 20 calibration and validation images of the first embedded model.

    Cost at a step: two forward passes, and a matrix of ``places²`` numbers for each head of the
    finest grid (one in all with ``head_weighting="equal"``).

    Args:
        backend: the model.
        steps: the steps; all where None.
        bounces: the number of bounces, 1 or more.
        teleport: share of each row that goes to all states alike, above 0 and below 1.
        head_weighting: of the self-attention's heads: ``"second-eigenvalue"`` or ``"equal"``.
    """

    name: ClassVar[str] = "attention-chains"
    question: ClassVar[str] = (
        "Which places does one come to from the word when attention is followed over "
        "several bounces?"
    )
    family: ClassVar[Literal["attention", "control"]] = "attention"

    bounces: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bounces = whole("bounces", self.bounces)

    def _visits(self, attention: Matrix) -> Matrix:
        return walk(attention, self.bounces, self.teleport)


class TokenRank(_Chain):
    """The stationary distribution of the attention's Markov chain over the image's places: the same
    map for every word (Erel et al. 2025, arXiv 2507.17657).

    The stationary distribution of the chain of ``AttentionChains``, as PageRank has it for pages. A
    control: it knows which places the model looks at, and no word.

    Cost at a step: two forward passes.
    """

    name: ClassVar[str] = "token-rank"
    question: ClassVar[str] = (
        "Where does the image's attention to itself gather, whatever the word?"
    )
    family: ClassVar[Literal["attention", "control"]] = "control"

    def _visits(self, attention: Matrix) -> Matrix:
        places, states = attention.shape
        ranks = stationary(attention, self.teleport)[:places]
        return np.broadcast_to(ranks, (states - places, places))


def walk(attention: Matrix, bounces: int, teleport: float) -> Matrix:
    """Shares of the places after some bounces from each token, ``(tokens, places)``.

    Args:
        attention: ``(places, places + tokens)``, rows sum to one.
        bounces: 1 or more.
        teleport: above 0 and below 1.
    """
    places, states = attention.shape
    moves = (1 - teleport) * _chain(attention) + teleport / states
    shares = np.eye(states)[places:]
    for _ in range(bounces):
        shares = shares @ moves
    return shares[:, :places]


def stationary(attention: Matrix, teleport: float) -> Matrix:
    """The stationary distribution of the chain, ``(states,)``, tokens last."""
    states = attention.shape[1]
    moved = np.eye(states) - (1 - teleport) * _chain(attention).T
    return np.linalg.solve(moved, np.full(states, teleport / states))


def _chain(attention: Matrix) -> Matrix:
    """The chain without teleports, ``(states, states)``: a token that no place attends to moves on
    to all states alike."""
    places, states = attention.shape
    to_tokens = attention[:, places:].sum(axis=0)
    chain = np.zeros((states, states))
    chain[:places] = attention
    chain[places:][to_tokens == 0] = 1 / states
    seen = places + np.flatnonzero(to_tokens)
    chain[seen, :places] = (attention[:, seen] / attention[:, seen].sum(axis=0)).T
    return chain
