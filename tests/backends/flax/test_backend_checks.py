"""The Flax backend keeps to the rules of backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backends.flax import models
from wordlight.backends import load
from wordlight.backends.flax.backend import FlaxBackend
from wordlight.backends.testing import Check, backend_checks, check_backend
from wordlight.backends.testing.subject import Subject


@pytest.fixture(scope="module")
def subject(one_level: Path) -> Subject:
    """What is asked once is asked once for all checks."""
    return Subject(FlaxBackend.load(one_level))


#: These ask for every primitive, or for DeepLIFT's, whose programs take longest to compile: in the
#: quick suite test_rescale_rule has its parts.
SLOW = {
    "parts-make-up-the-difference",
    "is-honest-about-its-capabilities",
    "counts-what-it-is-asked",
}


# On the smallest model, since what is asked for has to be compiled.
@pytest.mark.parametrize(
    "check",
    [pytest.param(c, marks=pytest.mark.slow) if str(c) in SLOW else c for c in backend_checks()],
    ids=str,
)
def test_conformance(check: Check, subject: Subject) -> None:
    check.examine(subject)


@pytest.mark.slow
def test_bfloat16(one_level: Path) -> None:
    check_backend(FlaxBackend.load(one_level, dtype="bfloat16"))


@pytest.mark.slow
def test_the_embedded_model() -> None:
    check_backend(load("scenes", framework="flax"))


@pytest.mark.slow
def test_stable_diffusion_xl(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With conditioning beside the embeddings, and without input embeddings to start from."""
    folder = models.saved(models.torch_xl_pipeline(), tmp_path_factory.mktemp("xl"))
    backend = FlaxBackend.load(folder)
    assert "encode_from" not in backend.capabilities
    check_backend(backend)
