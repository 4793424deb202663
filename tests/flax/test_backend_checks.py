"""The Flax backend keeps to the rules of backends."""

from __future__ import annotations

import pytest

from wordlight.backends import load
from wordlight.backends.flax.backend import FlaxBackend
from wordlight.backends.testing import Check, backend_checks
from wordlight.backends.testing_subject import Subject


@pytest.fixture(scope="module")
def subject(ours: FlaxBackend) -> Subject:
    """What is asked once is asked once for all checks."""
    # As large as in other tests, which have most of the same programs.
    return Subject(ours, size=(ours.sampling.height, ours.sampling.width))


@pytest.mark.parametrize("check", backend_checks(), ids=str)
def test_conformance(check: Check, subject: Subject) -> None:
    check.examine(subject)


@pytest.mark.slow
def test_the_embedded_model() -> None:
    """In its own size, and on oblong images."""
    backend = load("scenes", framework="flax")
    for size in (None, (backend.sampling.height, backend.sampling.width)):
        subject = Subject(backend, size=size)
        for check in backend_checks():
            check.examine(subject)
