"""Fits a token to the masks of each noun, and writes open vocabulary's table of them.

    python docs/make_tokens.py -n 16

Fitted to images of the calibration split, judged on as many of the validation split. Takes some
minutes on a core; ``--out table.md`` writes elsewhere than into docs/methods/open-vocabulary.md.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from make_nodes import STEPS, items_of
from pages import write_table
from sklearn.metrics import average_precision_score, roc_auc_score

from wordlight.attribution import DAAM, OpenVocabulary
from wordlight.attribution.methods.token_fitting import fit_token
from wordlight.attribution.resize import average_down
from wordlight.backends.backend import Backend
from wordlight.backends.scenes.grammar import SHAPES, plural
from wordlight.backends.trajectory import Trajectory
from wordlight.comparisons.datasets.item import ScoredWord

Found = dict[str, list[tuple[Trajectory, ScoredWord]]]


def nouns_of(backend: Backend, split: str, n: int) -> Found:
    """The shapes of a split's images, by their name, with their masks."""
    found: Found = {shape: [] for shape in SHAPES}
    names = {text: shape for shape in SHAPES for text in (shape, plural(shape))}
    for item in items_of(backend, n, split):
        for word in item.words:
            if word.category == "shape-noun":
                found[names[word.word.text]].append((item.trajectory, word))
    return found


def measured(backend: Backend, n: int) -> str:
    """Return the table."""
    fitted_to, judged = (nouns_of(backend, split, n) for split in ("calibration", "validation"))
    scores: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for shape, seen in fitted_to.items():
        if not seen:
            continue
        token = fit_token(backend, [(run, word.mask) for run, word in seen], steps=STEPS)
        for run, word in judged[shape]:
            inside = average_down(word.mask.astype(float), run.grid).ravel() > 0.5
            given = {word.word.text: token}
            methods = {
                "`a {word}`, raw scores": OpenVocabulary(backend, steps=STEPS, scores="raw"),
                "fitted token, raw scores": OpenVocabulary(
                    backend, steps=STEPS, scores="raw", tokens=given
                ),
                "`daam`": DAAM(backend, steps=STEPS),
            }
            for name, method in methods.items():
                values = np.asarray(method.attribute(run)[word.word]).ravel()
                if inside.any():
                    scores[name].append(
                        (average_precision_score(inside, values), roc_auc_score(inside, values))
                    )
    lines = ["| token | AP | AUROC |", "|---|---|---|"]
    for name, found in scores.items():
        ap, auroc = np.mean(found, axis=0)
        lines.append(f"| {name} | {ap:.2f} | {auroc:.2f} |")
    n_fitted = sum(map(len, fitted_to.values()))
    n_judged = len(next(iter(scores.values()), ()))
    lines += [
        "",
        f"Means over {n_judged} shape nouns of {n} validation images, on the latent grid, at "
        f"{STEPS} steps; the tokens of {len(SHAPES)} shapes were fitted to the masks of {n_fitted} "
        f"nouns in {n} calibration images.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    write_table(str(__doc__), "open-vocabulary.md", "tokens", 16, measured)
