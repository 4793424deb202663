"""Rules for integrating along the straight path from the baseline to the embeddings."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

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
    if rule not in get_args(PathRule):
        raise ValueError(f"method must be one of {', '.join(get_args(PathRule))}, not {rule!r}")
    if count < (least := least_nodes(rule)):
        raise ValueError(f"n_steps must be {least} or more for {rule}, not {count}")
    if rule == "gausslegendre":
        places, weights = np.polynomial.legendre.leggauss(count)
        return (places + 1) / 2, weights / 2
    if rule == "riemann_trapezoid":
        weights = np.full(count, 1.0 / (count - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0.0, 1.0, count), weights
    shift = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[rule]
    return (np.arange(count) + shift) / count, np.full(count, 1.0 / count)
