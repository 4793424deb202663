"""The networks of ``scenes``: a Stable Diffusion in every part, only small."""

from __future__ import annotations

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from wordlight.backends.scenes.tokenizer import BOS_ID, CONTEXT, EOS_ID, vocabulary

TEXT_WIDTH = 96
#: Channels of the UNet's levels, at 16x16, 8x8 and 4x4. Nothing tells the network where a pixel is
#: but the zeros around the image; at 4x4 every pixel has them beside it, and the words that say
#: where things are ("left of") need to know.
UNET_WIDTHS = (48, 64, 96)
#: The last step's share of new noise; 0.012 in Stable Diffusion (see ``build_scheduler``).
BETA_END = 0.02


def build_autoencoder() -> AutoencoderKL:
    """64x64x3 pixels to 16x16x4 latents and back."""
    return AutoencoderKL(
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
    )


def build_text_encoder() -> CLIPTextModel:
    """A CLIP text model, trained together with the UNet."""
    config = CLIPTextConfig(
        vocab_size=len(vocabulary()),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        hidden_act="quick_gelu",
        projection_dim=TEXT_WIDTH,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=EOS_ID,
    )
    return CLIPTextModel(config)


def build_unet(widths: tuple[int, ...] = UNET_WIDTHS) -> UNet2DConditionModel:
    """A UNet with cross-attention on every level: 16x16, 8x8, ..."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(2, *(4,) * (len(widths) - 1)),  # heads, whatever it is called
        norm_num_groups=8,
    )


def build_scheduler() -> DDIMScheduler:
    """DDIM with v-prediction (with epsilon the text stays unused), and noise that hides everything.

    Stable Diffusion's own noise ends at a signal of 0.068, and a few dozen latent pixels of one
    colour are still told from that: what lies where was read off the noise, and the words that say
    so stayed unused. Ending at 0.016, and drawing from there (``trailing``), they are all there is
    (Lin et al., arXiv 2305.08891).
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,  # means nothing here, but the pipeline insists
    )
