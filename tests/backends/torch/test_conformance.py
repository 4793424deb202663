"""Every registered method keeps to the rules on a torch pipeline too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline

from tests.backends.torch.tiny import build_tiniest_pipe
from wordlight.attribution import DAAM, Occlusion, ShuffledWord, TextImageAttributor
from wordlight.attribution.question import Size
from wordlight.attribution.registry import available
from wordlight.attribution.testing import check_attributor
from wordlight.backends.backend import Backend, MissingCapabilityError
from wordlight.backends.torch.backend import TorchBackend
from wordlight.backends.trajectory import Trajectory

METHODS = {name: kind for name, kind in available().items() if kind is not ShuffledWord}
#: More players than any specimen has.
LARGEST = Size(players=7, words=4, steps=1, drawing=2)


@pytest.fixture(scope="module")
def backend() -> TorchBackend:
    return TorchBackend(build_tiniest_pipe(), model_id="tiny", steps=3, guidance_scale=3.0)


@pytest.fixture
def fresh_pipe() -> StableDiffusionPipeline:
    """For tests that change the pipeline."""
    return build_tiniest_pipe()


@pytest.fixture(scope="module")
def specimens(backend: TorchBackend) -> list[Trajectory]:
    """The shortest and smallest that show everything, drawn once for all methods."""
    small: dict[str, Any] = {"steps": 1, "height": 16, "width": 16}
    drawn = [backend.sample(p, **small) for p in ("a turquoise dot", "dot", "dot dot")]
    drawn.append(backend.sample("a dot", **{**small, "width": 24}))
    return [*drawn, backend.sample("a dot", **small, guidance_scale=1.0)]


def cheapest(kind: type[TextImageAttributor]) -> Callable[[Backend], TextImageAttributor]:
    """With the least effort that there is: what is tested doesn't depend on it."""

    def make(backend: Backend) -> TextImageAttributor:
        method = kind(backend)
        if method.effort is None:
            return method
        return method.with_options(**{method.effort: method.least_effort(LARGEST)})

    return make


#: Forward mode is slow to start; these ask for it as input-x-gradient does, and DeepLIFT goes
#: operation by operation.
SLOW = ("deeplift", "gradient-shap", "integrated-gradients", "saliency")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in METHODS]
)
def test_registered_methods(name: str, backend: TorchBackend, specimens: list[Trajectory]) -> None:
    missing = METHODS[name].needs - backend.capabilities
    if missing:
        with pytest.raises(MissingCapabilityError):
            backend.require(METHODS[name].needs, name)
        return
    check_attributor(cheapest(METHODS[name]), specimens, backend=backend)


def test_a_hook_that_stays_is_found(fresh_pipe: StableDiffusionPipeline) -> None:
    class LeavesAHook(DAAM):
        def _attribute(self, question: Any) -> Any:
            attention = fresh_pipe.unet.mid_block.attentions[0]
            attention.register_forward_hook(lambda *_: None)
            return super()._attribute(question)

    with pytest.raises(
        AssertionError,
        match=r"leaves something behind on the model \(unet.mid_block.attentions.0: forward_hooks",
    ):
        check_attributor(LeavesAHook, backend=TorchBackend(fresh_pipe, model_id="tiny"))


def test_a_processor_that_stays_is_found(fresh_pipe: StableDiffusionPipeline) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    class ReplacesProcessors(DAAM):
        def _attribute(self, question: Any) -> Any:
            fresh_pipe.unet.set_attn_processor(AttnProcessor())
            return super()._attribute(question)

    with pytest.raises(AssertionError, match=r"unet.*: processor"):
        check_attributor(ReplacesProcessors, backend=TorchBackend(fresh_pipe, model_id="tiny"))


def test_a_pass_that_is_not_counted_is_found(fresh_pipe: StableDiffusionPipeline) -> None:
    class RunsTheUNet(Occlusion):
        def _attribute(self, question: Any) -> Any:
            trajectory = question.trajectory
            fresh_pipe.unet(
                self.backend.asarray(trajectory.latents[:1]),
                500,
                self.backend.asarray(trajectory.embeddings[None]),
            )
            return super()._attribute(question)

    with pytest.raises(AssertionError, match="runs the unet of the model behind the backend's"):
        check_attributor(RunsTheUNet, backend=TorchBackend(fresh_pipe, model_id="tiny"))
