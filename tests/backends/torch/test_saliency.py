"""Saliency on the tiny pipeline, against the whole Jacobian."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.backends.torch.tiny import build_tiny_pipe
from wordlight.attribution import Guidance, Saliency
from wordlight.attribution.question import Question
from wordlight.attribution.step import Inputs, prepare_step
from wordlight.attribution.words import PromptWords
from wordlight.backends.torch.backend import TorchBackend


@pytest.mark.slow
def test_probes_come_to_the_row_norms_of_the_jacobian() -> None:
    backend = TorchBackend(build_tiny_pipe().to(torch.float64), steps=2)
    trajectory = backend.sample("two triangles", seed=0, height=16, width=24)
    words = PromptWords.of(trajectory.tokens)
    word = words.find("triangles")
    # Of several tokens: the norm is over all of them together.
    assert len(word.tokens) > 1
    question = Question(trajectory, words.players, (0,), trajectory.empty_embeddings)
    assert isinstance(question.target, Guidance)
    with backend.no_gradients():
        step = prepare_step(question, Inputs.of(backend, question, "embeddings"), 0)
    # Every row of the Jacobian, in reverse mode: nothing of it is what saliency calls.
    embeddings = step.point.detach().clone().requires_grad_()
    values = step.values(embeddings)[0]
    rows = [
        torch.autograd.grad(value, embeddings, retain_graph=True)[0][0, list(word.tokens)]
        for value in values.flatten()
    ]
    wanted = torch.stack(rows).flatten(1).norm(dim=1).reshape(values.shape).numpy()
    saliency = Saliency(backend, probes=80)
    with backend.no_gradients():
        found = saliency._at_step(step, (word,))[0].numpy()
    # Five standard errors, 40 %, at each of the pixels; less is left of their mean.
    assert (np.abs(found / wanted - 1) < 5 * saliency.relative_error).all()
    assert abs(float((found / wanted).mean()) - 1) < 2 * saliency.relative_error
    # It is not one number everywhere.
    assert wanted.max() > 1.5 * wanted.min()
