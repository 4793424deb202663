"""Tokens fitted to masks: a planted one is found, and open vocabulary takes what is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LogisticRegression

from wordlight.attribution import DAAM, OpenVocabulary, PromptWords
from wordlight.attribution.methods.token_fitting import fit_token, load_tokens, save_tokens
from wordlight.attribution.testing import check_attributor
from wordlight.attribution.testing.model import TEXT, ToyModel
from wordlight.backends.arrays_file import FileFormatError, write_arrays
from wordlight.backends.backend import MissingCapabilityError
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.rows.row import build_rows

MODEL = ToyModel()
RUNS = [MODEL.sample(prompt, seed=k) for k, prompt in enumerate(("a red circle", "two dogs"))]


def raw(token: Any, run: Trajectory, **options: Any) -> npt.NDArray[Any]:
    method = OpenVocabulary(MODEL, scores="raw", tokens={"thing": token}, **options)
    return np.asarray(method.attribute(run, ["thing"])["thing"]).astype(np.float64)


def above_median(run: Trajectory, planted: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    values = raw(planted, run)
    return np.asarray(values > np.median(values))


def test_a_planted_token_is_found() -> None:
    """Masks where its scores are high are found again, on an image that wasn't fitted to."""
    planted = np.random.default_rng(0).standard_normal(TEXT)
    masks = [above_median(run, planted) for run in RUNS]
    token = fit_token(MODEL, [(RUNS[0], masks[0])], penalty=1e-6)
    for run, mask, least in zip(RUNS, masks, (1.0, 0.9), strict=True):
        found = raw(token, run)
        inside, outside = found[mask], found[~mask]
        assert np.mean(inside[:, None] > outside) >= least


def test_it_is_a_logistic_regression() -> None:
    """Against scikit-learn's, on the maps of unit vectors."""
    planted = np.random.default_rng(1).standard_normal(TEXT)
    masks = [above_median(run, planted) ^ (np.indices(run.grid).sum(0) % 5 == 0) for run in RUNS]
    token = fit_token(MODEL, list(zip(RUNS, masks, strict=True)), penalty=1e-2, steps=(1,))
    units = np.eye(TEXT)
    maps = np.concatenate(
        [np.stack([raw(u, run, steps=(1,)) for u in units]).reshape(TEXT, -1).T for run in RUNS]
    )
    scale = np.sqrt(np.mean(maps**2))
    model = LogisticRegression(C=1 / (1e-2 * len(maps)), tol=1e-8, max_iter=1000)
    model.fit(maps / scale, np.concatenate([mask.ravel() for mask in masks]))
    assert np.abs(np.array(token) * scale - model.coef_[0]).max() < 1e-3
    # The map of the fitted token is the sum of those of its channels.
    whole = raw(token, RUNS[0], steps=(1,)).ravel()
    assert np.abs(maps[: whole.size] @ token - whole).max() < 1e-5


def test_open_vocabulary_takes_given_tokens() -> None:
    run = RUNS[0]
    dog = MODEL.encode(["a dog"]).embeddings[0, 2]
    given = OpenVocabulary(MODEL, tokens={"Dog": dog.tolist()})
    wanted = OpenVocabulary(MODEL).attribute(run, ["dog"])
    maps = given.attribute(run, ["dog"])
    assert np.allclose(maps.data.values, wanted.data.values, atol=1e-6)
    # A word of the prompt, in its own place.
    (position,) = PromptWords.of(run.tokens).find("red").tokens
    own = OpenVocabulary(MODEL, tokens={"red": run.embeddings[position].tolist()}, context="prompt")
    found, daam = own.attribute(run), DAAM(MODEL).attribute(run)
    assert np.allclose(np.asarray(found["red"]), np.asarray(daam["red"]), atol=1e-5)
    assert maps.provenance.settings["tokens"] == {"Dog": tuple(dog.tolist())}
    check_attributor(lambda b: OpenVocabulary(b, tokens={"dog": [0.5] * TEXT}))


def test_tokens_in_a_file(tmp_path: Path) -> None:
    token = np.random.default_rng(2).standard_normal(TEXT).astype(np.float32).tolist()
    save_tokens(tmp_path / "tokens", {"Dog": token, "../cat": token[::-1]}, MODEL.model_id)
    assert load_tokens(tmp_path / "tokens") == {"Dog": tuple(token), "../cat": tuple(token[::-1])}
    named, given = (
        OpenVocabulary(MODEL, tokens=tokens)
        for tokens in (str(tmp_path / "tokens"), {"Dog": token, "../cat": token[::-1]})
    )
    assert named.settings() == given.settings()
    assert named.saw_masks
    assert not OpenVocabulary(MODEL).saw_masks
    (row,) = build_rows(
        MODEL, [{"method": "open-vocabulary", "tokens": str(tmp_path / "tokens")}], {}, 4
    )
    assert row.extra
    assert row.label == "open-vocabulary (fitted to masks)"
    with pytest.raises(FileNotFoundError, match="no file dog"):
        OpenVocabulary(MODEL, tokens="dog")
    RUNS[0].save(tmp_path / "run")
    with pytest.raises(FileFormatError, match="run"):
        OpenVocabulary(MODEL, tokens=tmp_path / "run")
    for arrays, facts in (
        ({"0": np.ones(3)}, {"words": ["a", "b"]}),
        ({"0": np.ones((1, 3))}, {"words": ["a"]}),
    ):
        write_arrays(tmp_path / "wrong", "tokens", 1, arrays, facts)
        with pytest.raises(FileFormatError, match="token"):
            load_tokens(tmp_path / "wrong")


def test_what_is_refused() -> None:
    run = RUNS[0]
    full = np.ones(run.grid)
    for items in ([], [(run, full)], [(run, 0 * full)]):
        with pytest.raises(ValueError, match="something inside and something outside"):
            fit_token(MODEL, items)
    with pytest.raises(ValueError, match="does not divide"):
        fit_token(MODEL, [(run, np.ones((5, 7)))])
    with pytest.raises(TypeError, match="embeddings by word"):
        OpenVocabulary(MODEL, tokens=[1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'dog' has numbers that are not finite"):
        OpenVocabulary(MODEL, tokens={"dog": [np.nan] * TEXT})
    with pytest.raises(ValueError, match=f"has 3 channels, and .* have {TEXT}"):
        OpenVocabulary(MODEL, tokens={"dog": [1.0, 2.0, 3.0]}).attribute(run, ["dog"])

    class Carrying(ToyModel):
        carries_words = True

    with pytest.raises(ValueError, match="linear in the embedding"):
        fit_token(Carrying(), [(run, full)])

    class Scoreless(ToyModel):
        @property
        def capabilities(self) -> frozenset[str]:
            return super().capabilities - {"attention_measures"}

    with pytest.raises(MissingCapabilityError, match="attention_measures"):
        fit_token(Scoreless(), [(run, full)])
