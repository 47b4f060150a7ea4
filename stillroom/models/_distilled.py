"""A ViT with a distillation token. Touvron et al. 2021, https://arxiv.org/abs/2012.12877, section 4."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

HEADS = ("head", "head_dist")
"""The classifier of the class token, which learns the labels, and that of the distillation token."""


def add_distillation_token(vit: Any) -> nn.Module:
    """The same model with a second token and a second head: timm's own if it has them, else a `Distilled`.

    Either answers with the mean of the two heads' logits. `Network` keeps them apart where a method taps the second.

    Raises:
        ValueError: it is no ViT whose classifier reads a class token.
    """
    if hasattr(vit, "set_distilled_training"):
        return vit
    if type(vit) is not VisionTransformer or vit.cls_token is None:
        raise ValueError("distilled: only a plain ViT with a class token can have a distillation token beside it")
    if vit.global_pool != "token":
        raise ValueError(
            f'distilled: its classifier reads {vit.global_pool!r}, not the class token; global_pool="token"'
        )
    return DistilledVit(vit)


class DistilledVit(nn.Module):
    """The parts of a ViT under the names they have in timm, and beside them `dist_token` and `head_dist`.

    D for the token, D for its position and (D + 1) K for its head are added, drawn as timm draws them; the parts are
    taken over as they are, with their weights. A ViT whose prefix has no positions (`no_embed_class`) gets none here.
    The state dict is that of timm's `VisionTransformerDistilled`.

    Args:
        vit: of timm; it must not be used any more.
    """

    def __init__(self, vit: Any):
        super().__init__()
        width = vit.embed_dim
        self.cls_token, self.reg_token = vit.cls_token, vit.reg_token
        self.dist_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02))
        self.pos_embed, self.prefix_has_positions = vit.pos_embed, not vit.no_embed_class
        if vit.pos_embed is not None and self.prefix_has_positions:
            own = nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02)
            before, behind = vit.pos_embed.detach()[:, :1], vit.pos_embed.detach()[:, 1:]
            self.pos_embed = nn.Parameter(torch.cat([before, own, behind], 1))
        self.patch_embed, self.pos_drop, self.patch_drop = vit.patch_embed, vit.pos_drop, vit.patch_drop
        if hasattr(vit.patch_drop, "num_prefix_tokens"):
            vit.patch_drop.num_prefix_tokens += 1
        self.norm_pre, self.blocks, self.norm, self.fc_norm = vit.norm_pre, vit.blocks, vit.norm, vit.fc_norm
        self.head_drop, self.head = vit.head_drop, vit.head
        self.head_dist = nn.Linear(width, vit.head.out_features)
        nn.init.trunc_normal_(self.head_dist.weight, std=0.02)
        nn.init.zeros_(self.head_dist.bias)

    def forward_features(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> tokens [B, N, D]: class, distillation, registers where there are, patches."""
        x = self._placed(self.patch_embed(images))
        return self.norm(self.blocks(self.norm_pre(self.patch_drop(self.pos_drop(x)))))

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> logits [B, K], the mean of the two heads'."""
        tokens = self.forward_features(images)
        said, distilled = (self.head_drop(self.fc_norm(tokens[:, place])) for place in (0, 1))
        return (self.head(said) + self.head_dist(distilled)) / 2

    def _placed(self, patches: Tensor) -> Tensor:
        """Patches [B, N, D], or as a map [B, h, w, D] where any size is taken, behind the prefix, positions added."""
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
        images = patches.shape[0]  # `len` would tie an exported program to one number of images
        x = torch.cat([*(token.expand(images, -1, -1) for token in prefix), patches], 1)
        return x + positions if positions is not None and self.prefix_has_positions else x
