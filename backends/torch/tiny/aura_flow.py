"""AuraFlow: joint attention to UMT5's tokens behind eight registers."""

from __future__ import annotations

from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel

from wordlight.backends.torch.tiny.parts import autoencoder, flow_scheduler, quiet, rescaled
from wordlight.backends.torch.tiny.text_encoders import umt5_text_encoder
from wordlight.backends.torch.tiny.tokenizers import t5_tokenizer


def aura_flow() -> AuraFlowPipeline:
    """AuraFlow."""
    tokenizer = t5_tokenizer()
    denoiser = AuraFlowTransformer2DModel(
        sample_size=16,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=32,
        pos_embed_max_size=256,
    )
    return quiet(
        AuraFlowPipeline(
            tokenizer=tokenizer,
            text_encoder=umt5_text_encoder(tokenizer),
            transformer=rescaled(denoiser),
            vae=autoencoder(4),
            scheduler=flow_scheduler(),
        )
    )
