"""The types that rooms exchange: batches, network outputs, loss terms.

Letters used in shapes, here and everywhere:
B images, V views, C channels, H W height and width, K classes, N tokens, D feature width, A predicted boxes of an
image, M labelled boxes of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IntArray = NDArray[np.int64]

Terms = dict[str, Tensor]
"""Named scalar losses before weighting, so that runs with different weights can be compared."""

OutputKind = Literal["classes", "pixels", "boxes", "vector"]
"""What a network predicts, which decides the form of `Output.pred`:

classes: logits [B, K].
pixels: logits [B, K, H, W] at the resolution of the images.
boxes: [B, A, 4 + K]. Each of the A predictions is a box (left, top, right, bottom, relative to the image's width and
    height) and one logit per class, whose sigmoid is the score.
vector: embeddings [B, D].
"""

TargetKind = Literal["labels", "masks", "boxes"]
"""The annotation that a data set has, which decides the form of `Batch.target`:

labels: [B] int64, one class per image; -1 where the image is unlabelled.
masks: [B, H, W] int64, one class per pixel; -1 for void.
boxes: a dictionary, padded to the largest number of boxes M in the batch: `boxes` [B, M, 4] float32 relative to the
    image, `labels` [B, M] int64 with -1 for padding, `crowd` [B, M] bool for boxes around a group, `size` [B, 2] int64
    height and width of the image as stored, `known` [B] bool, False where the image was never annotated.
"""


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """The second component of images made by mixup or cutmix.

    Attributes:
        target: the target of the other image, in the same form as the batch's own.
        share: [B] float32 in 0.5..1, the proportion of the image that the batch's own target belongs to.
    """

    target: Any
    share: Tensor

    def map(self, change: Any) -> Mixed:
        """A copy with `change` applied to every tensor."""
        return replace(self, target=_map(self.target, change), share=change(self.share))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The input of one training or evaluation step.

    Attributes:
        images: [B, C, H, W] float in 0..1, *not normalised*: each network normalises its own input.
        target: see `TargetKind`. Read by the task, and by methods that treat the true class or the inside of a box
            separately.
        keys: [B] int64; equal keys mean equal pixels, so they may index a cache.
        views: further crops, each [B, C, h, w]; used by self-distillation only.
        mixed: the second image of each row where images are mixed, else None.
    """

    images: Tensor
    target: Any
    keys: Tensor
    views: tuple[Tensor, ...] = ()
    mixed: Mixed | None = None

    def __len__(self) -> int:
        return len(self.images)

    def map(self, change: Any) -> Batch:
        """A copy with `change` applied to every tensor."""
        return replace(
            self,
            images=change(self.images),
            target=_map(self.target, change),
            keys=change(self.keys),
            views=tuple(change(view) for view in self.views),
            mixed=None if self.mixed is None else self.mixed.map(change),
        )

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`, copied asynchronously where the memory is pinned.

        Keys stay where they are: they index a cache and take no part in computation.
        """
        return replace(self.map(lambda tensor: tensor.to(device, non_blocking=True)), keys=self.keys)

    def split(self, parts: int) -> Iterator[Batch]:
        """Split into `parts` batches of equal length, in order.

        Raises:
            ValueError: B is not a multiple of `parts`.
        """
        if len(self) % parts:
            raise ValueError(f"a batch of {len(self)} can't be split into {parts} equal parts")
        size = len(self) // parts
        for start in range(0, len(self), size):
            yield self.map(lambda tensor, at=slice(start, start + size): tensor[at])


@dataclass(frozen=True, kw_only=True)
class Output:
    """The output of a network: its prediction, and the intermediate features that were tapped.

    Networks, caches, metrics and exported files all exchange this type.

    Attributes:
        pred: see `OutputKind`.
        taps: name -> feature map [B, C, h, w], tokens [B, N, D] or vector [B, D].
    """

    pred: Tensor
    taps: dict[str, Tensor] = field(default_factory=dict)


PredictFn = Callable[[Tensor], Output]
"""From images [B, C, H, W] in 0..1 to an `Output`: a network, a `Predictor`, or a loaded exported file."""


def at_least_float32(x: Tensor) -> Tensor:
    """Cast float16 and bfloat16 to float32 and leave other types alone: exponentials and sums need the range."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _map(target: Any, change: Any) -> Any:
    if isinstance(target, Tensor):
        return change(target)
    if isinstance(target, dict):
        return {name: _map(value, change) for name, value in target.items()}
    return target
