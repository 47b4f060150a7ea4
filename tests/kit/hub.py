"""Tiny models of Hugging Face's transformers, saved as their own library saves them; their weights are random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
RESNET = {"hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1], "layer_type": "basic", "embedding_size": 16}
HGNET = {
    "model_type": "hgnet_v2",
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 16, 24, 32],
    "stage_mid_channels": [8, 8, 16, 16],
    "stage_out_channels": [16, 24, 32, 40],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [2, 2, 2, 2],
    "hidden_sizes": [16, 24, 32, 40],
    "depths": [1, 1, 1, 1],
    "embedding_size": 8,
    "out_features": ["stage2", "stage3", "stage4"],
}
RT_DETR = {
    "backbone_config": RESNET | {"model_type": "rt_detr_resnet", "out_features": ["stage2", "stage3", "stage4"]},
    "encoder_in_channels": [24, 32, 40],
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "d_model": 32,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 48,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "num_queries": 12,
    "num_labels": 3,
    "num_denoising": 10,
}
DETR = {
    "backbone_config": RESNET | {"model_type": "resnet", "out_features": ["stage4"]},
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 12,
    "num_labels": 3,
}

DINO = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 84, "patch_size": 14}

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", "ViTConfig", VIT | {"image_size": 32, "patch_size": 8, "num_labels": 5}),
    "vit_backbone": ("ViTModel", "ViTConfig", VIT | {"image_size": 32, "patch_size": 8}),
    "dinov2": (
        "Dinov2Model",
        "Dinov2Config",
        {k: v for k, v in VIT.items() if k != "intermediate_size"} | {"image_size": 32, "patch_size": 8},
    ),
    "convnext": ("ConvNextModel", "ConvNextConfig", {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    "resnet": ("ResNetForImageClassification", "ResNetConfig", RESNET | {"num_labels": 5}),
    "dinov2_classifier": (
        "Dinov2ForImageClassification",
        "Dinov2Config",
        DINO | {"mlp_ratio": 2, "num_labels": 5},
    ),
    "dinov2_registers": (
        "Dinov2WithRegistersModel",
        "Dinov2WithRegistersConfig",
        DINO | {"mlp_ratio": 2, "num_register_tokens": 4},
    ),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", DINO | {"intermediate_size": 48, "num_register_tokens": 4}),
    "dinov3_convnext": (
        "DINOv3ConvNextModel",
        "DINOv3ConvNextConfig",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
    ),
    "segformer": (
        "SegformerForSemanticSegmentation",
        "SegformerConfig",
        {
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2],
            "decoder_hidden_size": 16,
            "num_labels": 4,
        },
    ),
    "rt_detr": ("RTDetrForObjectDetection", "RTDetrConfig", RT_DETR),
    "rt_detr_v2": ("RTDetrV2ForObjectDetection", "RTDetrV2Config", RT_DETR),
    "d_fine": ("DFineForObjectDetection", "DFineConfig", RT_DETR | {"backbone_config": HGNET}),
    "detr": ("DetrForObjectDetection", "DetrConfig", DETR),
    "yolos": (
        "YolosForObjectDetection",
        "YolosConfig",
        VIT | {"image_size": [64, 64], "patch_size": 16, "num_detection_tokens": 10, "num_labels": 3},
    ),
}
"""Name -> transformers' class, its settings' class, the settings."""


def saved(name: str, folder: Path, **pixels: Any) -> Any:
    """The model, at rest, after it was written into `folder`; `pixels` go into preprocessor_config.json.

    All weights are drawn anew: some that a fresh model begins with are zeros or equal, and then nothing would differ.
    """
    import transformers
    from transformers.utils import logging

    kind, settings, arguments = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, settings)(**arguments)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.add_(torch.randn_like(parameter) / fan**0.5)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    if pixels:
        (folder / "preprocessor_config.json").write_text(json.dumps(pixels), encoding="utf-8")
    return model
