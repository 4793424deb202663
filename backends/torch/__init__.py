"""PyTorch: diffusers pipelines of the Stable Diffusion 1.x and 2.x kind."""
