"""Models: each backend turns a real pipeline into the few primitives that methods need."""

from wordlight.backends.attention import AttentionQuery as AttentionQuery
from wordlight.backends.backend import Backend as Backend
from wordlight.backends.backend import Conditioning as Conditioning
from wordlight.backends.backend import Evaluations as Evaluations
from wordlight.backends.backend import MissingCapabilityError as MissingCapabilityError
from wordlight.backends.loading import frameworks as frameworks
from wordlight.backends.loading import load as load
from wordlight.backends.loading import trace as trace
from wordlight.backends.model_folder import ModelLoadError as ModelLoadError
from wordlight.backends.tokens import Tokens as Tokens
from wordlight.backends.trajectory import Trajectory as Trajectory
