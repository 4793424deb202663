"""Models: each backend turns a real pipeline into the few primitives that methods need."""

from wordlight.backends.attention import AttentionQuery as AttentionQuery
from wordlight.backends.backend import Backend as Backend
from wordlight.backends.backend import Conditioning as Conditioning
from wordlight.backends.load import ModelLoadError as ModelLoadError
from wordlight.backends.load import frameworks as frameworks
from wordlight.backends.load import load as load
from wordlight.backends.load import trace as trace
from wordlight.backends.tokens import Tokens as Tokens
from wordlight.backends.trajectory import Trajectory as Trajectory
