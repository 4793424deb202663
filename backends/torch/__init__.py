"""PyTorch: diffusers pipelines, family by family (``families``)."""

from transformers.utils import logging as _logging

# diffusers' pipelines make transformers remark on torchvision, which nothing here needs; the
# remark comes once, when they are first imported.
_level = _logging.get_verbosity()
_logging.set_verbosity_error()
try:
    from diffusers import StableDiffusionPipeline as _StableDiffusionPipeline  # noqa: F401
finally:
    _logging.set_verbosity(_level)
