"""Attribution methods: a trajectory in, maps out, on any framework."""

from typing import TYPE_CHECKING

from wordlight.attribution.attributor import BudgetError as BudgetError
from wordlight.attribution.attributor import TextImageAttributor as TextImageAttributor
from wordlight.attribution.maps import AttributionMaps as AttributionMaps
from wordlight.attribution.maps import Provenance as Provenance
from wordlight.attribution.maps import WordMap as WordMap
from wordlight.attribution.methods.attention_chains import AttentionChains as AttentionChains
from wordlight.attribution.methods.attention_chains import TokenRank as TokenRank
from wordlight.attribution.methods.attention_x_gradient import (
    AttentionXGradient as AttentionXGradient,
)
from wordlight.attribution.methods.concept_attention import ConceptAttention as ConceptAttention
from wordlight.attribution.methods.controls import Center as Center
from wordlight.attribution.methods.controls import GuidanceNorm as GuidanceNorm
from wordlight.attribution.methods.controls import Random as Random
from wordlight.attribution.methods.controls import ShuffledWord as ShuffledWord
from wordlight.attribution.methods.controls import Uniform as Uniform
from wordlight.attribution.methods.daam import DAAM as DAAM
from wordlight.attribution.methods.deeplift import DeepLift as DeepLift
from wordlight.attribution.methods.goca import GoCA as GoCA
from wordlight.attribution.methods.gradient_shap import GradientShap as GradientShap
from wordlight.attribution.methods.gramcol import GramCol as GramCol
from wordlight.attribution.methods.head_selection import HeadSelection as HeadSelection
from wordlight.attribution.methods.information_decomposition import (
    InformationDecomposition as InformationDecomposition,
)
from wordlight.attribution.methods.input_x_gradient import InputXGradient as InputXGradient
from wordlight.attribution.methods.integrated_gradients import (
    IntegratedGradients as IntegratedGradients,
)
from wordlight.attribution.methods.kernel_shap import KernelShap as KernelShap
from wordlight.attribution.methods.noise_difference import NoiseDifference as NoiseDifference
from wordlight.attribution.methods.noise_tunnel import NoiseTunnel as NoiseTunnel
from wordlight.attribution.methods.occlusion import Occlusion as Occlusion
from wordlight.attribution.methods.open_vocabulary import OpenVocabulary as OpenVocabulary
from wordlight.attribution.methods.regeneration import Regeneration as Regeneration
from wordlight.attribution.methods.relative_attention import RelativeAttention as RelativeAttention
from wordlight.attribution.methods.saliency import Saliency as Saliency
from wordlight.attribution.methods.self_attention_refined import (
    SelfAttentionRefined as SelfAttentionRefined,
)
from wordlight.attribution.methods.shapley import Shapley as Shapley
from wordlight.attribution.question import Answer as Answer
from wordlight.attribution.question import ConvergenceDelta as ConvergenceDelta
from wordlight.attribution.question import Question as Question
from wordlight.attribution.question import Size as Size
from wordlight.attribution.step import Step as Step
from wordlight.attribution.stepwise import StepwiseAttributor as StepwiseAttributor
from wordlight.attribution.targets import DecodedChannel as DecodedChannel
from wordlight.attribution.targets import Guidance as Guidance
from wordlight.attribution.targets import PixelTarget as PixelTarget
from wordlight.attribution.targets import PredictionNorm as PredictionNorm
from wordlight.attribution.targets import Region as Region
from wordlight.attribution.words import PromptWords as PromptWords
from wordlight.attribution.words import Word as Word

if TYPE_CHECKING:
    from wordlight.attribution.plotting import plot_grid as plot_grid


def __getattr__(name: str) -> object:
    # Matplotlib takes a second to import: only who draws figures waits.
    if name == "plot_grid":
        from wordlight.attribution.plotting import plot_grid

        return plot_grid
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "plot_grid"})
