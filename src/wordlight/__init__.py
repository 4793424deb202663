"""Which pixels does each word of a prompt light up?

Text-to-image diffusion models, explained word by word, by many attribution methods.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wordlight.backends.loading import load as load
    from wordlight.backends.loading import trace as trace
    from wordlight.comparisons import compare as compare

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "load", "trace"]


def __getattr__(name: str) -> Any:
    # Each brings its imports when it is first asked for: those of judging take seconds, and the
    # command line answers to Ctrl-C meanwhile.
    if name in ("load", "trace"):
        from wordlight.backends import loading

        return getattr(loading, name)
    if name == "compare":
        from wordlight.comparisons import compare

        return compare
    raise AttributeError(f"module 'wordlight' has no attribute {name!r}")


def __dir__() -> list[str]:
    hidden = {"Any", "TYPE_CHECKING"}
    return sorted({*globals(), *__all__} - hidden)
