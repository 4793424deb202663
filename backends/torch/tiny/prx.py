"""PRX: the picture attends to itself and to T5Gemma's tokens, which attend to nothing."""

from __future__ import annotations

import warnings

from diffusers import PRXPipeline, PRXTransformer2DModel

from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import t5gemma_text_encoder
from wordlight.backends.torch.tiny.tokenizers import gemma_tokenizer


def prx() -> PRXPipeline:
    """PRX."""
    tokenizer = gemma_tokenizer(length=64)
    denoiser = PRXTransformer2DModel(
        in_channels=4,
        patch_size=2,
        context_in_dim=16,
        hidden_size=32,
        mlp_ratio=2.0,
        num_heads=2,
        depth=2,
        axes_dim=[8, 8],
    )
    with warnings.catch_warnings():
        # Its class is built on one that diffusers is about to drop.
        warnings.simplefilter("ignore", FutureWarning)
        pipe = PRXPipeline(
            tokenizer=tokenizer,
            text_encoder=t5gemma_text_encoder(tokenizer),
            transformer=rescaled(denoiser),
            vae=autoencoder(4, shift_factor=0.1),
            scheduler=flow_scheduler(),
        )
    return quiet(pipe)
