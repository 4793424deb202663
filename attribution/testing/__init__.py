"""A conformance suite for attribution methods: ``check_attributor``, as scikit-learn's
``check_estimator``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.testing import checks as testing_checks
from wordlight.attribution.testing.specimens import Specimens
from wordlight.attribution.testing.subject import Subject
from wordlight.backends.backend import Backend
from wordlight.backends.loading import loaded
from wordlight.backends.trajectory import Trajectory

#: A class of attributor, or anything else that makes one on a backend.
Make = Callable[[Backend], TextImageAttributor]


@dataclass(frozen=True)
class Check:
    """One thing that every method must do; called with a class of attributor, it raises
    AssertionError where the method doesn't do it."""

    name: str
    examine: Callable[[Subject], None]

    def __call__(
        self,
        make: Make,
        trajectories: Sequence[Trajectory] | None = None,
        *,
        backend: Backend | None = None,
    ) -> None:
        self.examine(Subject(make, Specimens(backend, trajectories)))

    def __str__(self) -> str:
        return self.name


def attributor_checks() -> tuple[Check, ...]:
    """Every check, in the order in which ``check_attributor`` runs them.

    For ``pytest.mark.parametrize("check", attributor_checks(), ids=str)`` and a test that calls
    ``check(MyMethod)``.
    """
    return tuple(
        Check(examine.__name__.replace("_", "-"), examine) for examine in testing_checks.CHECKS
    )


def check_attributor(
    make: Make,
    trajectories: Sequence[Trajectory] | None = None,
    *,
    backend: Backend | str | Path | None = None,
    device: str | None = None,
    dtype: str | None = None,
) -> None:
    """Check that a method keeps to the rules of ``TextImageAttributor``.

    Without a backend it runs on ``ToyModel``, a small model in numpy that has every primitive, and
    takes about a second; no framework is needed.

    Args:
        make: a class of attributor, or a function from backend to attributor (to set options).
        trajectories: of images of the backend; what they don't show (a repeated word, a word of
            several tokens, ...) is drawn.
        backend: a real model to check on; a name or a folder is loaded for it.
        device, dtype: the device and precision for a name or a folder.

    Raises:
        AssertionError: the first check that fails, with what is wrong and what would be right.
        MissingCapabilityError: the backend hasn't what the method needs.
        ValueError: the backend can't draw, and a trajectory is lacking.
    """
    model = None if backend is None else loaded(backend, device, dtype)
    subject = Subject(make, Specimens(model, trajectories))
    with nullcontext() if model is None else model.exact_products():
        for examine in testing_checks.CHECKS:
            examine(subject)
