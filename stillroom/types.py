"""The values that travel. Every other module either makes one of these or turns one into the next.

Letters used in shapes, here and everywhere:
B images, V views, C channels, H W size, K classes, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

Terms = dict[str, Tensor]
"""Named scalar losses, raw: weights are kept apart, so that runs with other weights can be compared."""


OutputKind = Literal["classes", "pixels", "boxes", "vector"]
"""What a network says of an image, and so what its `pred` is:

classes: logits [B, K].
pixels: logits [B, K, H, W], as large as the images.
boxes: [B, A, 4 + K]. Each of A places offers a box (left, top, right, bottom, in shares of the image's width and
    height) and a logit for each class, whose sigmoid is the score.
vector: [B, D].
"""

TargetKind = Literal["labels", "masks", "boxes"]
"""What is known of an image beside its pixels, and so what a batch's `target` is:

labels: [B] int64, a class; -1 where it is not known.
masks: [B, H, W] int64, a class for each pixel; -1 where nobody says (void).
boxes: a dictionary, padded to the M boxes of the image that has most: `boxes` [B, M, 4] float32 in shares of the
    image, `labels` [B, M] int64 with -1 where there is no box, `crowd` [B, M] bool for boxes around a group, `size`
    [B, 2] int64 height and width of the image as stored, `known` [B] bool, False where nobody has looked for boxes.
"""


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """What else is in a batch's images: each holds `share` of the image that the batch's target is of, the rest of
    another one.

    Attributes:
        target: the other images', in the form of the batch's own.
        share: [B] float32 in 0.5..1.
    """

    target: Any
    share: Tensor

    def map(self, change: Any) -> Mixed:
        """The same with `change` applied to every tensor in it."""
        return replace(self, target=_map(self.target, change), share=change(self.share))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one step sees.

    Attributes:
        images: [B, C, H, W] float in 0..1, *not normalised*: every network normalises for itself.
        target: whatever the task reads, see `Kind`. Besides the task only methods that treat the true class, or what
            lies inside a box, apart read it.
        keys: [B] int64; equal keys mean equal pixels, so they may index a cache.
        views: further crops, each [B, C, h, w]; only self-distillation asks for them.
        mixed: what of the images is another image's; None where each shows one alone.
    """

    images: Tensor
    target: Any
    keys: Tensor
    views: tuple[Tensor, ...] = ()
    mixed: Mixed | None = None

    def __len__(self) -> int:
        return len(self.images)

    def map(self, change: Any) -> Batch:
        """The batch with `change` applied to every tensor in it."""
        return replace(
            self,
            images=change(self.images),
            target=_map(self.target, change),
            keys=change(self.keys),
            views=tuple(change(view) for view in self.views),
            mixed=None if self.mixed is None else self.mixed.map(change),
        )

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`, copied without waiting where the memory allows it.

        Keys stay where they are: answers are looked up by them, and nobody calculates with them.
        """
        return replace(self.map(lambda tensor: tensor.to(device, non_blocking=True)), keys=self.keys)

    def split(self, parts: int) -> Iterator[Batch]:
        """The batch cut into `parts` batches of equal length, in order.

        Raises:
            ValueError: B is not a multiple of `parts`.
        """
        if len(self) % parts:
            raise ValueError(f"a batch of {len(self)} can't be cut into {parts} equal parts")
        size = len(self) // parts
        for start in range(0, len(self), size):
            yield self.map(lambda tensor, at=slice(start, start + size): tensor[at])


@dataclass(frozen=True, kw_only=True)
class Output:
    """What any network says about images: its prediction, and the inner features somebody asked for.

    The only thing that networks, caches, metrics and exports exchange.

    Attributes:
        pred: see `Answers`.
        taps: name -> [B, C, h, w] feature map, [B, N, D] tokens or [B, D] vector.
    """

    pred: Tensor
    taps: dict[str, Tensor] = field(default_factory=dict)


PredictFn = Callable[[Tensor], Output]
"""Images [B, C, H, W] in 0..1 to an `Output`: a network, a `Predictor`, or an exported file that was loaded."""


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are. Exponentials and sums need the range."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _map(target: Any, change: Any) -> Any:
    if isinstance(target, Tensor):
        return change(target)
    if isinstance(target, dict):
        return {name: _map(value, change) for name, value in target.items()}
    return target
