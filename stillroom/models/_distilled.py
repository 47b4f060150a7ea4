"""A ViT with a distillation token. Touvron et al. 2021, https://arxiv.org/abs/2012.12877, section 4."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

HEADS = ("head", "head_dist")
"""The classifier of the class token, trained on the labels, and that of the distillation token."""


def add_distillation_token(vit: Any) -> nn.Module:
    """The model with a distillation token and a second head: timm's own if it has them, else a `DistilledVit`.

    The logits are the mean of the two heads'. `Network` separates them when a method taps the second head.

    Raises:
        ValueError: it is not a ViT whose classifier uses a class token.
    """
    if hasattr(vit, "set_distilled_training"):
        return vit
    if type(vit) is not VisionTransformer or vit.cls_token is None:
        raise ValueError("distilled: only a plain ViT with a class token can have a distillation token")
    if vit.global_pool != "token":
        raise ValueError(
            f'distilled: its classifier uses {vit.global_pool!r}, not the class token; set global_pool="token"'
        )
    return DistilledVit(vit)


class DistilledVit(nn.Module):
    """A ViT with the submodules of a timm ViT, under the same names, and in addition `dist_token` and `head_dist`.

    New parameters are D for the token, D for its position and (D + 1) K for its head, initialised as in timm; all
    others keep their weights. If the prefix tokens have no positions (`no_embed_class`), neither has the distillation
    token. The names are those of timm's `VisionTransformerDistilled`.

    Args:
        vit: of timm; its submodules become part of this one.
    """

    def __init__(self, vit: Any):
        super().__init__()
        width = vit.embed_dim
        self.cls_token, self.reg_token = vit.cls_token, vit.reg_token
        self.dist_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))
        self.pos_embed, self.prefix_has_positions = vit.pos_embed, not vit.no_embed_class
        if vit.pos_embed is not None and self.prefix_has_positions:
            new = nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02)
            before, after = vit.pos_embed.detach()[:, :1], vit.pos_embed.detach()[:, 1:]
            self.pos_embed = nn.Parameter(torch.cat([before, new, after], 1))
        self.patch_embed, self.pos_drop, self.patch_drop = vit.patch_embed, vit.pos_drop, vit.patch_drop
        if hasattr(vit.patch_drop, "num_prefix_tokens"):
            vit.patch_drop.num_prefix_tokens += 1
        self.norm_pre, self.blocks, self.norm, self.fc_norm = vit.norm_pre, vit.blocks, vit.norm, vit.fc_norm
        self.head_drop, self.head = vit.head_drop, vit.head
        self.head_dist = nn.Linear(width, vit.head.out_features)
        nn.init.trunc_normal_(self.head_dist.weight, std=0.02)
        nn.init.zeros_(self.head_dist.bias)

    def forward_features(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> tokens [B, N, D]: class, distillation, registers if any, patches."""
        x = self._embed(self.patch_embed(images))
        return self.norm(self.blocks(self.norm_pre(self.patch_drop(self.pos_drop(x)))))

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> logits [B, K], the mean of the two heads'."""
        tokens = self.forward_features(images)
        of_class, of_distillation = (self.head_drop(self.fc_norm(tokens[:, index])) for index in (0, 1))
        return (self.head(of_class) + self.head_dist(of_distillation)) / 2

    def _embed(self, patches: Tensor) -> Tensor:
        """Prefix tokens and patches with positions; patches are [B, N, D], or [B, h, w, D] for any image size."""
        prefix = [token for token in (self.cls_token, self.dist_token, self.reg_token) if token is not None]
        positions = self.pos_embed
        if patches.ndim == 4:
            size, grid = list(patches.shape[1:3]), list(self.patch_embed.grid_size)
            if positions is not None and size != grid:
                count = sum(token.shape[1] for token in prefix) if self.prefix_has_positions else 0
                positions = resample_abs_pos_embed(positions, size, grid, num_prefix_tokens=count)
            patches = patches.flatten(1, 2)
        if positions is not None and not self.prefix_has_positions:
            patches = patches + positions
        images = patches.shape[0]  # `len` would fix the batch size of an exported program
        x = torch.cat([*(token.expand(images, -1, -1) for token in prefix), patches], 1)
        return x + positions if positions is not None and self.prefix_has_positions else x
