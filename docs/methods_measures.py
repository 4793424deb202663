"""What ``make_methods.py`` measures itself: completeness, and words out of their sentence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from wordlight.attribution import DAAM, IntegratedGradients, OpenVocabulary
from wordlight.backends.backend import Backend
from wordlight.backends.scenes.render import rendered
from wordlight.backends.trajectory import Trajectory

#: How many evenly spaced steps are looked at.
STEPS = 4
_NODES = (8, 32)
_CONTEXTS = ("a {word}", "appended", "alone", "a photo of a {word}")
#: Parts of speech of the words that say what is drawn.
_TOLD = ("ADJ", "NOUN", "NUM")
#: Two embeddings are one where maps differ by less.
_EQUAL = 1e-3


def completeness(backend: Backend, trajectory: Trajectory) -> str:
    """How nearly integrated gradients share out the push, as a table."""
    lines = [
        "| varied | nodes | error, Σ of size over Σ‖g‖ | largest at a pixel, over max ‖g‖ |",
        "|---|---|---|---|",
    ]
    # Slopes are linear, so the whole prompt as one player has the sum of its words.
    words = [slice(0, len(trajectory.prompt))]
    for wrt in ("embeddings", "tokens"):
        for nodes in _NODES:
            method = IntegratedGradients(backend, steps=STEPS, wrt=wrt, n_steps=nodes)
            _, delta = method.attribute(trajectory, words, return_convergence_delta=True)
            lines.append(
                f'| `wrt="{wrt}"` | {nodes} | {delta.relative.mean():.2%} | '
                f"{delta.maximum.max():.2%} |"
            )
    lines += ["", f"{STEPS} steps of “{trajectory.prompt}”: the mean, and the largest of all."]
    return "\n".join(lines)


def out_of_the_sentence(backend: Backend, prompts: int) -> str:
    """How near open-vocabulary maps of the prompt's own words come to DAAM's, as a table."""
    found: dict[str, list[tuple[bool, float, float]]] = {context: [] for context in _CONTEXTS}
    for index in tqdm(range(prompts), desc="words out of their sentence", unit="prompt"):
        scene = rendered("calibration", index).scene
        drawn = backend.sample(scene.prompt, seed=index)
        daam = DAAM(backend, steps=STEPS).attribute(drawn)
        told = [word for word in scene.words if word.tag in _TOLD and word.referent is not None]
        for context, values in found.items():
            maps = OpenVocabulary(backend, steps=STEPS, context=context).attribute(drawn)
            for word in told:
                place = slice(word.start, word.stop)
                ours, theirs = np.asarray(maps[place]), np.asarray(daam[place])
                # A word that stands in such a context anyway says nothing.
                if not np.allclose(ours, theirs, rtol=_EQUAL):
                    ratio = float(ours.mean() / theirs.mean())
                    values.append((word.tag == "NOUN", _correlation(ours, theirs), ratio))
    lines = [
        "| context | correlation | nouns | ratio of means | nouns |",
        "|---|---|---|---|---|",
    ]
    for context, values in found.items():
        nouns = [value for value in values if value[0]]
        lines.append(f"| `{context}` | {_row(values, nouns)} |")
    lines += [
        "",
        f"Of the words for colours, sizes, numbers, shapes and grounds of {prompts} calibration "
        f"prompts, at {STEPS} steps: the mean correlation with DAAM's maps in the sentence, and "
        "the median ratio of the maps' means.",
    ]
    return "\n".join(lines)


def _correlation(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _row(values: list[tuple[bool, float, float]], nouns: list[tuple[bool, float, float]]) -> str:
    means = (f"{np.mean([value[1] for value in some]):.2f}" for some in (values, nouns))
    ratios = (f"{np.median([value[2] for value in some]):.2f}" for some in (values, nouns))
    return " | ".join((*means, *ratios))
