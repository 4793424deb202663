"""Self-attention refined: DAAM's maps, spread to the places that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from wordlight.attribution.methods.attention_average import Maps, average_on_grid
from wordlight.attribution.methods.relative_to import (
    RelativeTo,
    check_relative_to,
    divide_attention,
)
from wordlight.attribution.methods.self_attention import (
    HeadWeighting,
    Matrix,
    WithSelfAttention,
    by_grid,
    check_head_weighting,
    mean_of_heads,
    self_query,
)
from wordlight.attribution.options import list_of, whole
from wordlight.attribution.resize import resize
from wordlight.backends.attention import AttentionMeans, AttentionQuery
from wordlight.backends.trajectory import Trajectory


class SelfAttentionRefined(WithSelfAttention):
    """The cross-attention to a word, propagated through the self-attention of the image's places
    (DiffSegmenter, Wang et al. 2023, arXiv 2309.02773).

    At each step the map is ``S^power c``: ``c`` is the word's cross-attention, the mean over
    layers and heads as in DAAM; ``S`` is ``(places, places)``, row by row how much a place
    attends to each other one, the mean over the self-attention's layers and heads on one grid,
    rows made to sum to one. So every place gets the mean of what the places have that it attends
    to. Both are on ``S``'s grid, the result is upscaled to the latents'. Maps are averaged over
    steps and then clamped at zero, where upscaling overshot.

    Of the paper this is the score map with its completion, power 1 on the finest grid. The paper
    goes on otherwise in four points: it works on real images, at one step (an average over several
    is in its code); weighs the cross-attention's four grids 0.3, 0.5, 0.1, 0.1 (coarsest first)
    after bringing each to 0..1, where here every layer and head counts alike, as in DAAM;
    interpolates bilinearly, not bicubically; and writes the prompt for the class that it looks for.

    Cost at a step: two forward passes, and the memory of several copies of ``S``, ``places²``
    numbers each (for a latent grid of 64 x 64, 64 MiB in float32 and 128 MiB in float64).

    Args:
        backend: the model.
        steps: the steps; all where None.
        power: the number of times the map is propagated, 1 or more.
        factors: grids whose self-attention counts, by how much smaller they are than the
            latents'; the finest one that there is where None. Each grid propagates by itself;
            the results are averaged, every layer and head with equal weight.
        relative_to: divides ``c`` at each step, pixel by pixel, by the attention to ``"start"``, to
            all ``"special"`` positions or to the prompt's ``"words"``, before it is propagated; see
            ``divide_attention``.
        head_weighting: of the heads of ``S``: ``"equal"``, or ``"second-eigenvalue"``, which holds
            every head's matrix at once.

    Raises:
        ValueError: a power below 1; factors that the model hasn't, or a reference that the prompt
            hasn't (when asked).
    """

    name: ClassVar[str] = "self-attention-refined"
    question: ClassVar[str] = (
        "Where does the image look at the word, and at places that look at the word?"
    )
    family: ClassVar[Literal["attention"]] = "attention"
    paper: ClassVar[str] = "Wang et al. 2023, arXiv 2309.02773"

    power: int = 1
    factors: Sequence[int] | None = None
    relative_to: RelativeTo | None = None
    head_weighting: HeadWeighting = "equal"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.power = whole("power", self.power)
        if self.factors is not None:
            self.factors = list_of("factors", self.factors, "[1, 2]")
        check_relative_to(self.relative_to)
        check_head_weighting(self.head_weighting)
        self._self_query()  # checks the factors

    def _self_query(self) -> AttentionQuery:
        return self_query(self.head_weighting, self.factors)

    def _at_step(
        self, cross: AttentionMeans, within: AttentionMeans, trajectory: Trajectory
    ) -> Maps:
        grid = trajectory.grid
        grids = by_grid(within.means)
        chosen = list(grids.items())[:1] if self.factors is None else list(grids.items())
        total = np.zeros((cross.tokens, *grid))
        counted = 0
        for places, means in chosen:
            plain, _ = average_on_grid(cross, places)
            maps = divide_attention(plain, trajectory.tokens, self.relative_to)
            rows, count = mean_of_heads(means, self.head_weighting), sum(m.count for m in means)
            total += resize(propagate(rows, maps, self.power), grid) * count
            counted += count
        return total / counted


def propagate(rows: Matrix, maps: Maps, power: int) -> Maps:
    """``S^power c`` for maps c on a grid.

    Args:
        rows: S, ``(places, places)``: how much every place attends to each other one.
        maps: ``(tokens, y, x)``.
        power: 1 or more.
    """
    columns = maps.reshape(len(maps), -1)
    for _ in range(power):
        columns = columns @ rows.T
    spread: Maps = columns.reshape(maps.shape)
    return spread
