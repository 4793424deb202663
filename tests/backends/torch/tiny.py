"""A tiny random model with Stable Diffusion 1.5's blocks."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from wordlight.backends.scenes.tokenizer import BOS_ID, CONTEXT, EOS_ID, build_tokenizer, vocabulary


def build_tiny_pipe(
    prediction: str = "epsilon", *, levels: int = 4, layers: int = 2
) -> StableDiffusionPipeline:
    """The pipeline, with four levels of two layers, all levels but the last with attention.

    Of two levels with one layer it has a quarter of the attention layers and takes a third of the
    time, for what doesn't depend on what the layers are.
    """
    torch.manual_seed(0)
    between = levels - 1
    unet = UNet2DConditionModel(
        sample_size=16,
        down_block_types=("CrossAttnDownBlock2D",) * between + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * between,
        block_out_channels=(16,) + (32,) * between,
        layers_per_block=layers,
        cross_attention_dim=24,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary()),
            hidden_size=24,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            bos_token_id=BOS_ID,
            eos_token_id=EOS_ID,
            pad_token_id=EOS_ID,
        )
    )
    vae = AutoencoderKL(
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
    )
    # Random weights attend almost evenly; larger ones make maps that differ.
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "attn2.to_q" in name or "attn2.to_k" in name:
                weight *= 4
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=build_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.unet.eval(), pipe.vae.eval(), pipe.text_encoder.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def build_tiniest_pipe(prediction: str = "epsilon") -> StableDiffusionPipeline:
    """The pipeline of two levels with one layer."""
    return build_tiny_pipe(prediction, levels=2, layers=1)
