"""A conformance suite for backends: ``check_backend``, as ``check_attributor`` is for methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wordlight.backends.backend import Backend
from wordlight.backends.loading import loaded
from wordlight.backends.testing import checks as testing_checks
from wordlight.backends.testing.subject import Subject
from wordlight.backends.trajectory import Trajectory


@dataclass(frozen=True)
class Check:
    """One thing that every backend must do; called with a backend, it raises AssertionError where
    the backend doesn't do it."""

    name: str
    examine: Callable[[Subject], None]

    def __call__(
        self,
        backend: Backend,
        trajectory: Trajectory | None = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> None:
        with backend.exact_products():
            self.examine(Subject(backend, trajectory, size))

    def __str__(self) -> str:
        return self.name


def backend_checks() -> tuple[Check, ...]:
    """Every check, in the order in which ``check_backend`` runs them.

    For ``pytest.mark.parametrize("check", backend_checks(), ids=str)`` and a test that calls
    ``check(backend)``.
    """
    return tuple(
        Check(examine.__name__.replace("_", "-"), examine) for examine in testing_checks.CHECKS
    )


def check_backend(
    backend: Backend | str | Path,
    trajectory: Trajectory | None = None,
    *,
    size: tuple[int, int] | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Check that a backend's primitives are what methods take them for.

    Primitives that ``capabilities`` doesn't name must raise MissingCapabilityError; all others are
    run on small images, about a hundred rows of the denoiser in all. Derivatives are held against
    each other, and against differences unless the model computes in half precision, whose rounding
    drowns them. In float32 products are computed exactly, where a GPU's tensor cores would round
    them.

    Args:
        backend: any model; it is as before afterwards, but for its counters. A name or a folder is
            loaded for it.
        trajectory: an image of its own, of two steps or more and with guidance: needed where it
            can't ``sample``.
        size: height and width in pixels of the images that are drawn. Where None, the model's own
            height and half of its width, so that the two can't be mixed up.

        device, dtype: the device and precision for a name or a folder.

    Raises:
        AssertionError: the first check that fails, with what is wrong and what would be right.
        ValueError: the backend can't draw, and no trajectory was given.
    """
    subject = Subject(loaded(backend, device, dtype), trajectory, size)
    with subject.backend.exact_products():
        for examine in testing_checks.CHECKS:
            examine(subject)
