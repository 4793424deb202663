"""Errors in reading a checkpoint."""

from __future__ import annotations

from wordlight.backends.model_folder import ModelLoadError


class UnsupportedConfigError(ModelLoadError):
    """A configuration that this backend's networks can't express."""


class CheckpointError(ModelLoadError):
    """Weights that aren't those of the configured network, or files that can't be read."""
