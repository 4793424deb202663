"""Tiny segmenters with random weights, built from the real configurations, saved to folders."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    OneFormerConfig,
    OneFormerForUniversalSegmentation,
    OneFormerProcessor,
    SwinConfig,
)
from transformers.models.mask2former.image_processing_pil_mask2former import (
    Mask2FormerImageProcessorPil,
)
from transformers.models.oneformer.image_processing_pil_oneformer import (
    OneFormerImageProcessorPil,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from wordlight.backends.embedded import SCENES

NAMES = {0: "person", 1: "dog", 2: "cat", 3: "sky-other-merged"}
LABELS = {"id2label": NAMES, "label2id": {name: number for number, name in NAMES.items()}}


def swin():
    return SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def mask2former(folder: Path) -> Path:
    torch.manual_seed(0)
    config = Mask2FormerConfig(
        backbone_config=swin(),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=5,
        **LABELS,
    )
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    size = {"shortest_edge": 32, "longest_edge": 64}
    Mask2FormerImageProcessorPil(size=size).save_pretrained(folder)
    return folder


def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(SCENES / "tokenizer")


def oneformer(folder: Path) -> Path:
    torch.manual_seed(0)
    config = OneFormerConfig(
        backbone_config=swin(),
        conv_dim=32,
        mask_dim=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=5,
        text_encoder_width=16,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=len(tokenizer()),
        text_encoder_n_ctx=2,
        is_training=False,
        **LABELS,
    )
    OneFormerForUniversalSegmentation(config).save_pretrained(folder)
    classes = {str(k): {"name": name, "isthing": int(k < 3)} for k, name in NAMES.items()}
    folder.mkdir(exist_ok=True)
    (folder / "classes.json").write_text(json.dumps(classes))
    images = OneFormerImageProcessorPil(
        size={"shortest_edge": 32, "longest_edge": 64},
        repo_path=str(folder),
        class_info_file="classes.json",
        num_text=5,
    )
    OneFormerProcessor(images, tokenizer()).save_pretrained(folder)
    return folder


def clipseg(folder: Path) -> Path:
    torch.manual_seed(0)
    words = tokenizer()
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = CLIPSegConfig(
        text_config={
            **small,
            "vocab_size": len(words),
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.pad_token_id,
        },
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=16,
        extract_layers=[0, 1],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    images = ViTImageProcessorPil(size={"height": 32, "width": 32})
    CLIPSegProcessor(images, words).save_pretrained(folder)
    return folder
