"""Relative attention: cross-attention as a multiple of what special positions get, spread by
self-attention."""

from __future__ import annotations

from typing import ClassVar

from wordlight.attribution.methods.relative_to import RelativeTo
from wordlight.attribution.methods.self_attention_refined import SelfAttentionRefined


class RelativeAttention(SelfAttentionRefined):
    """``S^power r`` with ``r = A_w / Σ A_special`` at each place, divided by its maximum.

    The same as ``SelfAttentionRefined`` with ``relative_to="special"``: a place that attends little
    to the words at all, and so mostly to ``<start>``, ``<end>`` and ``<pad>``, no longer counts for
    every word. The division is GoCA's (CVPR 2026, arXiv 2603.06178), the propagation
    DiffSegmenter's (Wang et al. 2023, arXiv 2309.02773), and their combination our own; the divisor
    was chosen among ``"start"``, ``"special"`` and none on 20 calibration and validation images of
    the first embedded model. Maps run from 0 to 1, so words are not on one scale.

    Cost at a step: two forward passes.

    Args:
        backend: the model.
        steps: the steps; all where None.
        power, factors, head_weighting: see ``SelfAttentionRefined``.
        relative_to: the divisor; None gives ``SelfAttentionRefined``.
    """

    name: ClassVar[str] = "relative-attention"
    question: ClassVar[str] = (
        "Where does the image look at the word more than it looks at nothing in particular?"
    )
    paper: ClassVar[str] = (
        "after Wang et al. 2023, arXiv 2309.02773, and GoCA, CVPR 2026, arXiv 2603.06178"
    )

    relative_to: RelativeTo | None = "special"
