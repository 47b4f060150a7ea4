"""The antialiased resize in operators that every runtime has."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class PlainResize(TorchFunctionMode):
    """Inside, every antialiased bilinear resize is computed by `resize`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.interpolate and kwargs.get("antialias") and kwargs.get("mode") == "bilinear":
            return resize(args[0], *(kwargs["size"] if "size" in kwargs else args[1]))
        return func(*args, **kwargs)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """[B, C, H, W] -> [B, C, height, width], as `F.interpolate(..., mode="bilinear", antialias=True)`, by matrices.

    The resize is linear and the two directions are independent: R images Cᵀ with R [height, H], C [width, W].
    """
    rows, columns = (_triangles(*sides) for sides in zip(images.shape[-2:], (height, width), strict=True))
    return rows @ images @ columns.T


def _triangles(old: int, new: int) -> Tensor:
    """[new, old]: each new pixel's weights, falling linearly from its centre to 0 at max(1, old / new) pixels away.

    By numpy: of a tensor that torch makes, an exporter would write down the making instead of the content.
    """
    scale = old / new
    centres = (np.arange(new)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - abs(np.arange(old) + 0.5 - centres) / max(1.0, scale))
    return torch.from_numpy((weights / weights.sum(1, keepdims=True)).astype(np.float32))
