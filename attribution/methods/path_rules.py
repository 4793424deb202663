"""Rules for integrating along the straight path from the baseline to the embeddings."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from wordlight.attribution.options import one_of, whole

#: Captum's names.
PathRule = Literal[
    "gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"
]

Nodes = npt.NDArray[np.floating[Any]]


def least_nodes(rule: PathRule) -> int:
    """The fewest nodes with which a rule is one."""
    return 2 if rule == "riemann_trapezoid" else 1


def path_nodes(rule: PathRule, count: int) -> tuple[Nodes, Nodes]:
    """Places in 0..1 and their weights, which sum to 1 (Captum's own for ``"riemann_trapezoid"``
    sum to 1 - 1/count).

    Raises ValueError for an unknown rule or too few nodes.
    """
    one_of("method", rule, get_args(PathRule))
    whole(f"n_steps of {rule}", count, least_nodes(rule))
    if rule == "gausslegendre":
        places, weights = np.polynomial.legendre.leggauss(count)
        return (places + 1) / 2, weights / 2
    if rule == "riemann_trapezoid":
        weights = np.full(count, 1.0 / (count - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0.0, 1.0, count), weights
    shift = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[rule]
    return (np.arange(count) + shift) / count, np.full(count, 1.0 / count)
