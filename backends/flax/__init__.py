"""Flax NNX: Stable Diffusion 1.x, 2.x and XL on JAX, from checkpoints in diffusers' format."""
