"""What goes wrong while a checkpoint is read."""

from __future__ import annotations


class UnsupportedConfigError(ValueError):
    """A configuration that this backend's networks can't express."""


class CheckpointError(ValueError):
    """Weights that aren't those of the configured network, or files that can't be read."""
