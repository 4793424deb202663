"""This library's methods under Captum's tools: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from wordlight.attribution.attributor import partition
from wordlight.attribution.captum.region import captum_forward, prepare_steps
from wordlight.attribution.step import wide
from wordlight.attribution.stepwise import StepwiseAttributor
from wordlight.attribution.targets import PixelTarget
from wordlight.attribution.words import PromptWords, WordKey
from wordlight.backends.trajectory import Trajectory

if TYPE_CHECKING:
    import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _wrapped(function: _Function) -> _Function:
    """Captum's own tools call ``attribute.__wrapped__``."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return function(*args, **options)

    return call  # type: ignore[return-value]


class TensorAttribution:
    """A stepwise method of this library with the interface of Captum's ``Attribution``, for
    Captum's ``NoiseTunnel`` and ``sensitivity_max``.

    Its answer is maps of words, ``(B, words, y, x)``, not the inputs' shape, so that
    ``infidelity``, which multiplies attributions with inputs, has no meaning for it. The target's
    direction stays that of the trajectory, whatever the inputs.

    Args:
        attributor: the method; its own steps and weighting hold.
        trajectory: of the image.
        words: as in ``TextImageAttributor.attribute``.
        baselines, target: likewise.

    Raises:
        TypeError: a method that doesn't look at the target step by step.
    """

    def __init__(
        self,
        attributor: StepwiseAttributor,
        trajectory: Trajectory,
        words: Sequence[WordKey] | None = None,
        *,
        baselines: str = "empty",
        target: PixelTarget | None = None,
        internal_batch_size: int = 16,
    ) -> None:
        if not isinstance(attributor, StepwiseAttributor):
            raise TypeError(
                "only methods that look at the target step by step can be asked at other "
                f"embeddings, not {type(attributor).__name__}"
            )
        self.attributor = attributor
        self.players = partition(PromptWords.of(trajectory.tokens), words)
        self.forward_func = captum_forward(
            attributor.backend,
            trajectory,
            steps=attributor.steps,
            step_weighting=attributor.step_weighting,
            baselines=baselines,
            target=target,
            wrt=attributor.wrt,
            internal_batch_size=internal_batch_size,
        )
        self._steps = self.forward_func.steps
        if self._steps[0].backend is not attributor.backend:
            self._steps = prepare_steps(
                attributor.backend,
                trajectory,
                attributor.steps,
                baselines,
                target,
                attributor.wrt,
                internal_batch_size,
            )

    @property
    def multiplies_by_inputs(self) -> bool:
        """Captum's meaning."""
        return self.attributor.multiplies_by_inputs

    def has_convergence_delta(self) -> bool:
        """Return whether ``return_convergence_delta`` can be asked for."""
        return self.attributor.has_convergence_delta()

    @_wrapped
    def attribute(
        self,
        inputs: torch.Tensor | tuple[torch.Tensor, ...],
        return_convergence_delta: bool = False,
    ) -> Any:
        """Maps ``(B, words, y, x)`` of displacements ``(B, tokens, channels)``, as
        ``forward_func.inputs`` is; a tuple of one gives a tuple of one. With the delta, each row's
        Σ maps - f, ``(B,)``.

        Raises ValueError for several tensors, or a delta that the method hasn't.
        """
        import torch

        if return_convergence_delta and not self.has_convergence_delta():
            raise ValueError(f"{self.attributor.name} has no convergence delta")
        single = inputs if isinstance(inputs, tuple) else (inputs,)
        if len(single) != 1:
            raise ValueError(f"there is one input, the displacement, not {len(single)}")
        answers = [self._maps(row) for row in single[0].detach()]
        maps = torch.stack([maps for maps, _ in answers])
        answer = (maps,) if isinstance(inputs, tuple) else maps
        if not return_convergence_delta:
            return answer
        return answer, maps.sum((1, 2, 3)) - torch.stack([total for _, total in answers])

    def _maps(self, displacement: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The maps of one row ``(tokens, channels)``, and f there."""
        import torch

        backend = self.attributor.backend
        maps: Any = 0.0
        total: Any = 0.0
        with backend.no_gradients():
            for step, weight in zip(self._steps, self.forward_func.weights, strict=True):
                moved = step.baseline + backend.asarray(displacement.cpu().double().numpy()[None])
                there = replace(
                    step,
                    inputs=replace(step.inputs, point=moved),
                    total=step.values(moved)[0],
                )
                found = self.attributor._at_step(there, self.players)
                maps = maps + weight * backend.to_numpy(found)
                total = total + weight * backend.to_numpy(there.total).sum()
        like = wide(displacement)
        return torch.as_tensor(maps).to(like), torch.as_tensor(total).to(like)
