"""Targets of which some are hidden: their images are there, and count as unlabelled."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from stillroom.data.targets.target import Planes, Target, Targets
from stillroom.types import IntArray

VOID = -1


class FewLabels:
    """Targets of any kind without those of some items. What is not defined here is as in `targets`.

    Args:
        targets: all of them.
        hidden: [n] items that count as unlabelled.
    """

    def __init__(self, targets: Targets, hidden: IntArray):
        self._targets, self._items = targets, hidden

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy under construction has no `_targets` yet
            raise AttributeError(name)
        return getattr(self._targets, name)

    def take(self, items: IntArray, planes: Planes) -> Target:
        """The target of a batch: a hidden label is -1, a hidden mask void, hidden boxes are unknown."""
        target, hidden = self._targets.take(items, planes), torch.from_numpy(self._hidden(items))
        if isinstance(target, dict):
            labels = target["labels"].masked_fill(hidden[:, None], VOID)
            boxes = target["boxes"].masked_fill(hidden[:, None, None], 0.0)
            return target | {"labels": labels, "boxes": boxes, "known": target["known"] & ~hidden}
        return target.masked_fill(hidden.view(-1, *[1] * (target.ndim - 1)), VOID)

    def counts(self, items: IntArray) -> IntArray:
        """How many of each class, [K], without the hidden ones."""
        return self._targets.counts(items[~self._hidden(items)])

    def unlabelled(self, items: IntArray) -> NDArray[np.bool_]:
        """[B] whether each item is unlabelled or hidden."""
        found: NDArray[np.bool_] = self._targets.unlabelled(items) | self._hidden(items)
        return found

    def digest(self, items: IntArray, *, sampled: Collection[int]) -> bytes:
        """A hash of the annotations, and of which are hidden."""
        hidden = items[self._hidden(items)]
        return hashlib.sha256(self._targets.digest(items, sampled=sampled) + hidden.tobytes()).digest()

    def _hidden(self, items: IntArray) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = np.isin(items, self._items)
        return found


def few_labels(targets: Targets, hidden: IntArray) -> Targets:
    """The targets without those of `hidden`; the same ones where there are none."""
    return cast(Targets, FewLabels(targets, hidden)) if len(hidden) else targets
