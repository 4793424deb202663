"""How much of a UNet's arithmetic is the product of queries and keys that maps of words need.

Counted on the shapes of Stable Diffusion 1.5, without weights: the UNet on a guided pair of rows at
512 pixels, and QKᵀ of its cross-attention layers for the prompt's row.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

CONTEXT, SIDE = 77, 64


def main() -> None:
    with torch.device("meta"):
        # Its defaults are Stable Diffusion 1.5's, but for the text's width.
        unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        latents = torch.empty(2, 4, SIDE, SIDE)
        text = torch.empty(2, CONTEXT, 768)
        time = torch.empty(2)
    places: list[tuple[int, int]] = []

    def seen(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        places.append((args[0].shape[1], args[0].shape[2]))

    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            module.to_q.register_forward_pre_hook(seen)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet(latents, time, text)
    looking = sum(2 * n_places * CONTEXT * channels for n_places, channels in places)
    total = counter.get_total_flops()
    print(f"{total / 1e9:.0f} GFLOP a guided step, of which the maps' QK^T {looking / 1e9:.1f}")
    print(f"in {len(places)} layers: {looking / total:.2%}; torch {torch.__version__}")


if __name__ == "__main__":
    main()
