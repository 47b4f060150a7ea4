"""A backbone as small as can be, for tests of what stands on one."""

from __future__ import annotations

from torch import nn


class Stages(nn.Module):
    """[B, 3, H, W] -> a map for each of the strides, of 12, 16, 20 ... channels."""

    def __init__(self, strides=(8, 16, 32)):
        super().__init__()
        self.strides, self.channels = strides, tuple(range(12, 12 + 4 * len(strides), 4))
        self.parts = nn.ModuleList(nn.Conv2d(3, c, 3, s, 1) for c, s in zip(self.channels, strides, strict=True))

    def forward(self, images):
        return [part(images) for part in self.parts]
