"""NoiseTunnel: another method, averaged over noisy copies of its inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np

from wordlight.attribution.attributor import TextImageAttributor
from wordlight.attribution.options import number, one_of, whole
from wordlight.attribution.question import Answer, InputNoise, Question, Size
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.backends.backend import Evaluations

NoiseTunnelType = Literal["smoothgrad", "smoothgrad_sq", "vargrad"]


class NoiseTunnel(TextImageAttributor):
    """SmoothGrad and its relatives over any method that looks at the target step by step
    (Smilkov et al. 2017, arXiv 1706.03825; Adebayo et al. 2018, arXiv 1810.03307), as Captum's
    ``NoiseTunnel``.

    Gaussian noise is added to the inputs (of all positions, the same at every step) and the method
    asked each time; the target stays that of the clean prompt. Cost: ``nt_samples`` times the
    method's, and a forward pass a step and sample.

    Args:
        attributor: the method.
        nt_type: ``"smoothgrad"``, the mean; ``"smoothgrad_sq"``, the mean of the squares;
            ``"vargrad"``, the variance. The last two are never negative, and of several words
            asked for together they are not the sum of the words' own.
        nt_samples: noisy copies.
        stdevs: the noise's standard deviation, in the inputs' own units.
        seed: of the noise.

    Raises:
        TypeError: a method that takes no noise (of the attention family, say).
        ValueError: numbers out of range, an unknown type.
    """

    name: ClassVar[str] = "noise-tunnel"
    question: ClassVar[str] = (
        "What does another method say on average, when the inputs are a little noisy?"
    )
    paper: ClassVar[str] = "Smilkov et al. 2017, arXiv 1706.03825"
    takes_targets: ClassVar[bool] = True
    effort: ClassVar[str | None] = "nt_samples"

    def __init__(
        self,
        attributor: StepwiseAttributor,
        *,
        nt_type: NoiseTunnelType = "smoothgrad",
        nt_samples: int = 5,
        stdevs: float = 0.1,
        seed: int = 0,
    ) -> None:
        if not isinstance(attributor, StepwiseAttributor):
            raise TypeError(
                "a noise tunnel takes an attributor that looks at the target step by step, such as "
                f"InputXGradient(backend), not {attributor!r}"
            )
        self.nt_type: NoiseTunnelType = one_of("nt_type", nt_type, get_args(NoiseTunnelType))
        self.family = attributor.family  # type: ignore[misc]
        self.needs = attributor.needs  # type: ignore[misc]
        self.merge = attributor.merge  # type: ignore[misc]
        self.signed = attributor.signed and nt_type == "smoothgrad"  # type: ignore[misc]
        super().__init__(attributor.backend, steps=attributor.steps)
        self.attributor = attributor
        self.nt_samples = whole("nt_samples", nt_samples)
        self.stdevs = number("stdevs", stdevs)
        self.seed = whole("seed", seed, 0)

    def _own_settings(self) -> dict[str, Any]:
        return {
            "nt_type": self.nt_type,
            "nt_samples": self.nt_samples,
            "stdevs": self.stdevs,
            "seed": self.seed,
        }

    def settings(self) -> dict[str, Any]:
        """Return the options; the inner method's own stand under its name."""
        inner = {"method": self.attributor.name, **self.attributor.settings()}
        return {"steps": self.steps, **self._own_settings(), "of": inner}

    def with_options(self, **options: Any) -> Self:
        """Return a copy with other options, those of the inner method included."""
        own = self._own_settings()
        inner = {name: value for name, value in options.items() if name not in own}
        changed = own | {name: value for name, value in options.items() if name in own}
        return type(self)(self.attributor.with_options(**inner), **changed)

    def cost(self, size: Size) -> Evaluations:
        one = self.attributor.cost(size)
        return Evaluations(
            forward=self.nt_samples * (one.forward + size.steps),
            jvp=self.nt_samples * one.jvp,
            vjp=self.nt_samples * one.vjp,
        )

    def _attribute(self, question: Question) -> Answer:
        answers = []
        for sample in question.progress(range(self.nt_samples), "samples"):
            seed = int(np.random.default_rng([self.seed, sample]).integers(2**31))
            noisy = replace(question, noise=InputNoise(self.stdevs, seed), show_progress=False)
            answers.append(self.attributor._attribute(noisy).maps)
        stack = np.stack([maps.values.astype(np.float64) for maps in answers])
        match self.nt_type:
            case "smoothgrad":
                values = stack.mean(0)
            case "smoothgrad_sq":
                values = (stack**2).mean(0)
            case "vargrad":
                values = stack.var(0)
        return Answer(answers[0].copy(data=values))
