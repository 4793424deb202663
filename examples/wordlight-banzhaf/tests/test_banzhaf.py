"""The conformance suite, one test a rule; and an answer that is known on paper."""

import itertools

import numpy as np
import pytest
from wordlight_banzhaf import Banzhaf

from wordlight.attribution.question import Question
from wordlight.attribution.step import Inputs, player_masks, prepare_step
from wordlight.attribution.testing import attributor_checks
from wordlight.attribution.testing.model import ToyModel
from wordlight.attribution.words import PromptWords


@pytest.mark.parametrize("check", attributor_checks(), ids=str)
def test_conformance(check):
    """Each rule by itself."""
    check(Banzhaf)


def test_by_enumeration():
    """Of six players there are 64 sets; 2000 random pairs come near their mean."""
    model = ToyModel()
    trajectory = model.sample("a red circle", steps=1)
    players = PromptWords.of(trajectory.tokens).players
    question = Question(trajectory, players, (0,), trajectory.empty_embeddings)
    step = prepare_step(question, Inputs.of(model, question, "embeddings"), 0)
    sets = np.array(list(itertools.product([0.0, 1.0], repeat=len(players))))
    masks = player_masks(players, len(trajectory.tokens))
    values = step.values_with(np.einsum("sp,ptd->std", sets, masks))
    exact = np.einsum("sp,syx->pyx", 2 * sets - 1, values) / (len(sets) / 2)
    found = Banzhaf(model, n_pairs=2000).attribute(trajectory).data.values
    # A pair's difference has at most twice the deviation of its sets' values: four standard errors.
    assert np.abs(found - exact).max() < 4 * 2 * values.std(0).max() / np.sqrt(2000)
    assert np.abs(exact).max() > values.std(0).max()
