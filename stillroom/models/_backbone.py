"""Any timm model as a pyramid: what its stages say, shallow to deep, instead of a class.

A model stays what it is, with timm's own names for its parts, so that a file of a classifier's weights fits: only its
`forward` is another one. What runs behind the last map that is taken is cut off, for nothing would ever teach it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from typing import Any, cast

from torch import Tensor, nn

from stillroom.models._errors import NoFeatureMaps

CUTS = 4
"""Maps that are offered of a network of one resolution, a ViT or a mixer: the ends of its four quarters."""


class Backbone(nn.Module):
    """A timm model that answers with maps; `pyramid` makes one.

    Attributes:
        channels: C of each map.
        strides: pixels of the input from one point of a map to the next; they never fall.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    _taken: tuple[int, ...]
    _normed: bool

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, C, H, W] normalised -> maps [B, channels[i], H / strides[i], W / strides[i]], rounded up."""
        give = cast(Any, self).forward_intermediates
        return list(give(images, indices=list(self._taken), norm=self._normed, intermediates_only=True))


def as_backbone(model: nn.Module, *, maps: int = 3) -> Backbone:
    """The model itself, changed in place to give its coarsest maps, one for each stride, as a `Backbone`.

    A network of one resolution gives maps of one size: of the ends of its four quarters the last ones.

    Args:
        model: of timm.
        maps: how many; 3 of most convolutional networks have the strides 8, 16 and 32.

    Raises:
        ValueError: the model does not have so many.
        NoFeatureMaps: SR-M345 the model has no maps.
    """
    info = _info(model)
    places = _places([stride for _, stride in info])
    if not 1 <= maps <= len(places):
        raise ValueError(f"maps must be 1 to {len(places)} for this model, got {maps}")
    taken = places[-maps:]
    # Behind the blocks of one resolution stands one norm, which brings the ends of all quarters to one scale.
    one = len({stride for _, stride in info}) == 1
    cast(Any, model).prune_intermediate_layers(list(taken), prune_norm=not one, prune_head=True)
    model.__class__ = _kind(cast(Hashable, type(model)))
    backbone = cast(Backbone, model)
    backbone.channels, backbone.strides = tuple(info[i][0] for i in taken), tuple(info[i][1] for i in taken)
    backbone._taken, backbone._normed = taken, one
    return backbone


def removed_parts(before: Sequence[str], backbone: nn.Module) -> tuple[str, ...]:
    """Parts of which the model had weights `before`, as names of its state, and which the backbone has no more."""
    left = set(backbone.state_dict())
    return tuple(dict.fromkeys(name.rpartition(".")[0] or name for name in before if name not in left))


class Embedder(nn.Module):
    """A classifier's network without the classifier: `vector` is where the embedding [B, D] can be listened to.

    Args:
        backbone: takes [B, C, H, W], answers with [B, D].
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.vector = backbone, nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] normalised -> [B, D]."""
        said = self.backbone(images)
        return self.vector(said if isinstance(said, Tensor) else said[0])  # auxiliary heads, in training, come behind


def _info(model: Any) -> list[tuple[int, int]]:
    """Channels and stride of every map that timm says the model has."""
    known = getattr(model, "feature_info", None) or []
    known = known if isinstance(known, list) else list(getattr(known, "info", []))
    if not known or not hasattr(model, "forward_intermediates") or not hasattr(model, "prune_intermediate_layers"):
        raise NoFeatureMaps(model=type(model).__name__)
    return [(int(one["num_chs"]), int(one["reduction"])) for one in known]


def _places(strides: list[int]) -> tuple[int, ...]:
    """The last map of each stride; of one resolution the ends of its quarters."""
    if len(set(strides)) > 1:
        return tuple(sorted({stride: place for place, stride in enumerate(strides)}.values()))
    count = min(CUTS, len(strides))
    return tuple(round((i + 1) * len(strides) / count) - 1 for i in range(count))


@cache
def _kind(kind: type[nn.Module]) -> type[nn.Module]:
    """The model's class with a backbone's `forward`: parts, names and everything else stay the model's."""
    return type(f"{kind.__name__}Backbone", (Backbone, kind), {})
