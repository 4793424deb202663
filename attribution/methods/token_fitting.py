"""Token embeddings that are fitted to masks, for open vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from wordlight.attribution.methods.attention_average import average_on_grid
from wordlight.attribution.options import number
from wordlight.attribution.resize import average_down
from wordlight.backends.arrays_file import FileFormatError, read_arrays, write_arrays
from wordlight.backends.attention import AttentionQuery, OtherKeys
from wordlight.backends.backend import Backend
from wordlight.backends.trajectory import Trajectory

#: The kind of file that holds tokens, and its version.
_FILE = ("tokens", 1)
Floats = npt.NDArray[np.float64]


def fit_token(
    backend: Backend,
    items: Iterable[tuple[Trajectory, npt.NDArray[Any]]],
    *,
    steps: int | Sequence[int] | None = None,
    layers: Sequence[str] | None = None,
    penalty: float = 1e-3,
) -> tuple[float, ...]:
    """Fit the embedding of a token whose raw scores find masks, for ``OpenVocabulary(tokens=...)``
    (after the token optimisation of OVAM, Marcos-Manchón et al. 2024, arXiv 2403.14291).

    The paper optimises the embedding by gradient descent. A UNet's keys are linear in it, so the
    mean of the scores QKᵀ·scale is Σ_d e_d·B_d, with B_d the map of the d-th unit vector, and the
    best e for the mean cross-entropy of σ(map + c) and the masks is that of a logistic regression:
    one replay an image, no gradient, on any framework. An honest fit looks at images of a
    calibration split, never at those that are judged afterwards.

    Args:
        backend: a model with a UNet.
        items: trajectories, each with the mask ``(height, width)`` of the thing, boolean or from 0
            to 1, at the image's size or a multiple of the latent grid's.
        steps, layers: as in ``OpenVocabulary``, which must be asked with the same.
        penalty: of the embedding's squared norm, where the B_d have a mean square of 1.

    Returns:
        The embedding, ``(channels,)``.

    Raises:
        ValueError: no items, masks that are all empty or all full, one of another size; a model
            whose layers make keys on the way (transformers).
        MissingCapabilityError: a model without scores of other words.
    """
    check_fits(backend)
    weight = number("penalty", penalty)
    query = AttentionQuery(None if layers is None else tuple(layers), measure="scores")
    maps, wanted = [], []
    for trajectory, mask in items:
        maps.append(_basis(backend, trajectory, query, trajectory.at_steps(steps)))
        wanted.append(average_down(np.asarray(mask, float), trajectory.grid).ravel())
    if not maps or not 0 < np.concatenate(wanted).mean() < 1:
        raise ValueError("masks with something inside and something outside are needed to fit to")
    return _fitted(np.concatenate(maps), np.concatenate(wanted), weight)


def check_fits(backend: Backend) -> None:
    """Raise ValueError or MissingCapabilityError, as ``fit_token`` does, for a model that tokens
    can't be fitted to."""
    needs = frozenset({"attention", "attention_keys", "attention_measures"})
    backend.require(needs, "fit_token")
    if backend.carries_words:
        raise ValueError("fit_token needs keys that are linear in the embedding, as a UNet's are")


def save_tokens(path: Path, tokens: Mapping[str, Sequence[float]], model_id: str) -> None:
    """Write tokens by word, for ``OpenVocabulary(tokens="FILE")``, and the model of their
    channels."""
    arrays = {str(k): np.asarray(token, np.float32) for k, token in enumerate(tokens.values())}
    write_arrays(path, *_FILE, arrays, {"words": list(tokens), "model": model_id})


def load_tokens(path: Path) -> dict[str, tuple[float, ...]]:
    """Read what ``save_tokens`` wrote; raises FileNotFoundError, FileFormatError."""
    arrays, facts = read_arrays(path, *_FILE)
    words = facts.get("words")
    if not isinstance(words, list) or sorted(arrays) != sorted(map(str, range(len(words)))):
        raise FileFormatError(f"{path} doesn't have one token for each of its words")
    if any(token.ndim != 1 for token in arrays.values()):
        raise FileFormatError(f"{path} has a token that is no row of numbers")
    return {str(word): tuple(arrays[str(k)].tolist()) for k, word in enumerate(words)}


def _basis(
    backend: Backend, trajectory: Trajectory, query: AttentionQuery, steps: tuple[int, ...]
) -> Floats:
    """The mean scores of each unit vector, ``(places, channels)``."""
    channels = trajectory.embeddings.shape[1]
    units = backend.asarray(np.eye(channels))
    keys = OtherKeys.of(units, [((k,), ()) for k in range(channels)], len(trajectory.tokens))
    with backend.no_gradients():
        means = backend.attention(trajectory, query, steps, keys)
    return average_on_grid(means, trajectory.grid)[0].reshape(channels, -1).T


def _fitted(maps: Floats, wanted: Floats, penalty: float) -> tuple[float, ...]:
    """The coefficients of a logistic regression with an intercept."""
    scale = np.sqrt(np.mean(maps**2))
    inputs = np.column_stack([maps / scale, np.ones(len(maps))])
    kept = np.append(np.ones(maps.shape[1]), 0.0)

    def loss(x: Floats) -> tuple[float, Floats]:
        scores = inputs @ x
        cross_entropy = float(np.mean(np.logaddexp(0, scores) - wanted * scores))
        slope = inputs.T @ (expit(scores) - wanted) / len(wanted)
        return cross_entropy + penalty / 2 * float(kept * x @ x), slope + penalty * kept * x

    start = np.zeros(inputs.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000}).x
    return tuple(float(value) for value in found[:-1] / scale)
