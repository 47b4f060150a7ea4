"""Any timm model as a backbone that returns feature maps of several stages instead of logits.

The model keeps its submodules and their names, so that a classifier's weights fit; only `forward` is replaced. Layers
behind the last returned map are removed, because they would never receive a gradient.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any, cast

from torch import Tensor, nn

from stillroom.models._errors import NoFeatureMaps

QUARTERS = 4
"""Maps available from a network of constant resolution, such as a ViT or a mixer: the ends of the quarters of its
depth."""


class Backbone(nn.Module):
    """A timm model that returns feature maps, made by `as_backbone`.

    Attributes:
        channels: C of each map.
        strides: of each map, in input pixels, in non-decreasing order.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    _indices: tuple[int, ...]
    _final_norm: bool

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, C, H, W] normalised -> maps [B, channels[i], H / strides[i], W / strides[i]], rounded up."""
        forward = cast(Any, self).forward_intermediates
        return list(forward(images, indices=list(self._indices), norm=self._final_norm, intermediates_only=True))


def as_backbone(model: nn.Module, *, maps: int = 3) -> Backbone:
    """The model itself, changed in place to return its `maps` coarsest feature maps, one per stride.

    For a network of constant resolution these are the last of the ends of its quarters, which have the same size.

    Args:
        model: of timm.
        maps: number of maps; 3 maps of most convolutional networks have the strides 8, 16 and 32.

    Raises:
        ValueError: the model has fewer maps.
        NoFeatureMaps: SR-M345 the model has no maps.
    """
    info = _feature_info(model)
    available = _map_indices([stride for _, stride in info])
    if not 1 <= maps <= len(available):
        raise ValueError(f"maps must be 1 to {len(available)} for this model, got {maps}")
    indices = available[-maps:]
    # A network of constant resolution has one norm behind its last block; applied to all maps, it gives them one scale.
    constant = len({stride for _, stride in info}) == 1
    cast(Any, model).prune_intermediate_layers(list(indices), prune_norm=not constant, prune_head=True)
    model.__class__ = _backbone_class(cast(Hashable, type(model)))
    backbone = cast(Backbone, model)
    backbone.channels, backbone.strides = tuple(info[i][0] for i in indices), tuple(info[i][1] for i in indices)
    backbone._indices, backbone._final_norm = indices, constant
    return backbone


def removed_parts(before: Sequence[str], backbone: nn.Module) -> tuple[str, ...]:
    """The submodules with weights `before`, names of the model's state dict, that the backbone does not have."""
    remaining = set(backbone.state_dict())
    return tuple(dict.fromkeys(name.rpartition(".")[0] or name for name in before if name not in remaining))


class Embedder(nn.Module):
    """A classification network without its classifier; the embedding [B, D] can be tapped as `vector`.

    Args:
        backbone: [B, C, H, W] -> [B, D].
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.vector = backbone, nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> [B, D]."""
        output = self.backbone(images)
        return self.vector(output if isinstance(output, Tensor) else output[0])  # others are of auxiliary heads


def _feature_info(model: Any) -> list[tuple[int, int]]:
    """Channels and stride of every feature map, from timm's `feature_info`."""
    info = getattr(model, "feature_info", None) or []
    info = info if isinstance(info, list) else list(getattr(info, "info", []))
    if not info or not hasattr(model, "forward_intermediates") or not hasattr(model, "prune_intermediate_layers"):
        raise NoFeatureMaps(model=type(model).__name__)
    return [(int(entry["num_chs"]), int(entry["reduction"])) for entry in info]


def _map_indices(strides: list[int]) -> tuple[int, ...]:
    """The last map of each stride; for constant resolution the ends of the quarters."""
    if len(set(strides)) > 1:
        return tuple(sorted({stride: index for index, stride in enumerate(strides)}.values()))
    count = min(QUARTERS, len(strides))
    return tuple(round((i + 1) * len(strides) / count) - 1 for i in range(count))


@cache
def _backbone_class(model_class: type[nn.Module]) -> type[nn.Module]:
    """A subclass of the model's class with the `forward` of `Backbone`."""
    return type(f"{model_class.__name__}Backbone", (Backbone, model_class), {})
