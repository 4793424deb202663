"""GoCA: cross-attention of the heads and layers that have to do with what is drawn."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from wordlight.attribution.methods.attention_average import Maps, merge_words
from wordlight.attribution.methods.by_stream import ByStream
from wordlight.attribution.methods.relative_to import (
    RelativeTo,
    check_relative_to,
    divide_attention,
)
from wordlight.attribution.options import one_of
from wordlight.attribution.question import Answer, Question, Size
from wordlight.attribution.resize import resize
from wordlight.backends.attention import AttentionMean, AttentionQuery
from wordlight.backends.backend import Evaluations
from wordlight.backends.trajectory import Trajectory

#: How layers are weighted.
LayerWeighting = Literal["agreement", "equal"]
_Matrix = npt.NDArray[np.float64]


class GoCA(ByStream):
    """Cross-attention with heads weighted by their part in the layer's output, and layers by how
    far their self-attention agrees with the image's features (after GoCA, CVPR 2026,
    arXiv 2603.06178).

    At place p head h counts in proportion to ``max(0, ⟨A_h V_h W_h, Σ_j A_j V_j W_j⟩_p)``: how much
    of the layer's output there is the head's. A layer counts in proportion to the agreement of its
    block's self-attention with features of one reference layer. The weighted mean, upscaled to the
    latent grid, is divided by the attention to ``<start>``, ``<end>`` and ``<pad>`` together and by
    its maximum (``relative_to``), and averaged over steps.

    The weights of heads and what is divided by are the paper's, as read; how agreement is measured
    is our own: the correlation of a row of self-attention with the row of cosines between the
    reference layer's outputs, the mean over rows, zero where below. The reference is the last
    self-attention layer of the finest grid.

    Cost at a step: three forward passes, one with ``layer_weighting="equal"``.

    Args:
        backend: the model.
        steps: the steps; all where None.
        layer_weighting: ``"agreement"`` or ``"equal"``.
        relative_to: the divisor; see ``divide_attention``. None for none.

    Raises:
        ValueError: a model whose cross-attention layers don't each come with a self-attention
            layer on their grid, with ``"agreement"`` (when asked).
    """

    name: ClassVar[str] = "goca"
    question: ClassVar[str] = (
        "Where do the heads and layers look at the word that have to do with what is drawn there?"
    )
    family: ClassVar[Literal["attention"]] = "attention"
    needs: ClassVar[frozenset[str]] = frozenset(
        {"attention", "self_attention", "attention_measures"}
    )
    by_token: ClassVar[bool] = True
    paper: ClassVar[str] = "after GoCA, CVPR 2026, arXiv 2603.06178"

    layer_weighting: LayerWeighting = "agreement"
    relative_to: RelativeTo | None = "special"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("layer_weighting", self.layer_weighting, get_args(LayerWeighting))
        check_relative_to(self.relative_to)

    def cost(self, size: Size) -> Evaluations:
        return Evaluations(forward=size.steps * (1 if self.layer_weighting == "equal" else 3))

    def _attribute(self, question: Question) -> Answer:
        trajectory = question.trajectory
        total = np.zeros((len(trajectory.tokens), *trajectory.grid))
        for step in question.progress(question.steps):
            mean = self._weighted(trajectory, step).clip(0)
            total += divide_attention(mean, trajectory.tokens, self.relative_to)
        maps = merge_words(total / len(question.steps), question.players)
        return Answer(xr.DataArray(maps, dims=("word", "y", "x")))

    def _weighted(self, trajectory: Trajectory, step: int) -> Maps:
        """The tokens' maps at a step, ``(tokens, y, x)`` on the latent grid."""
        query = AttentionQuery(keep=("layer",), measure="weighted-heads")
        layers = self.backend.attention(trajectory, query, (step,)).means
        weights = np.array([float(layer.count) for layer in layers])
        if self.layer_weighting == "agreement":
            weights = self._agreements(trajectory, step, layers)
        maps = [resize(layer.values.astype(np.float64), trajectory.grid) for layer in layers]
        weighted: Maps = np.average(np.stack(maps), axis=0, weights=weights)
        return weighted

    def _agreements(
        self, trajectory: Trajectory, step: int, layers: tuple[AttentionMean, ...]
    ) -> _Matrix:
        """A weight for each cross-attention layer, 0 or more; alike where none agrees."""
        query = AttentionQuery(kind="self", keep=("layer",))
        within = self.backend.attention(trajectory, query, (step,)).means
        if [m.values.shape[1:] for m in within] != [m.values.shape[1:] for m in layers]:
            raise ValueError(
                f"goca weighs each cross-attention layer by the self-attention of its block, and "
                f"{self.backend.model_id} has {len(layers)} of the one and {len(within)} of the "
                "other, or on other grids: take layer_weighting='equal'"
            )
        # The last of the finest.
        reference = max(enumerate(within), key=lambda pair: (pair[1].values.shape[0], pair[0]))[1]
        assert reference.layer is not None
        likeness = AttentionQuery(
            kind="self", layers=(reference.layer,), keep=("layer",), measure="output-cosine"
        )
        (features,) = self.backend.attention(trajectory, likeness, (step,)).means
        found = np.array([agreement(layer.values, features.values) for layer in within])
        return found if found.any() else np.ones(len(layers))


def agreement(attention: npt.NDArray[np.float32], features: npt.NDArray[np.float32]) -> float:
    """Return the share of self-attention that goes to places with similar features, 0 to 1.

    Args:
        attention: ``(places, y, x)``, a map of each place as key.
        features: ``(places, y, x)`` likewise, how alike two places are; of any grid.

    Returns:
        The mean over queries of the correlation over keys, or 0 where that is below zero.
    """
    grid = (attention.shape[1], attention.shape[2])
    across = resize(features.astype(np.float64), grid).reshape(len(features), -1)
    alike = resize(across.T.reshape(-1, *features.shape[1:]), grid)
    alike = alike.reshape(len(attention), -1)
    attended = attention.astype(np.float64).reshape(len(attention), -1).T
    return max(0.0, float(np.mean(_correlations(attended, alike))))


def _correlations(
    one: npt.NDArray[np.floating[Any]], other: npt.NDArray[np.floating[Any]]
) -> _Matrix:
    """Return the correlations of two matrices' rows, 0 where one is constant."""
    first, second = (m - m.mean(axis=1, keepdims=True) for m in (one, other))
    sizes = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    products = (first * second).sum(axis=1)
    found: _Matrix = np.zeros_like(products)
    np.divide(products, sizes, out=found, where=sizes > 1e-12)
    return found
