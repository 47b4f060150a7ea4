"""A compression that makes nothing smaller: what further training alone does, to be told apart from rounding."""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

from stillroom.compress.compression import CompressionContext
from stillroom.models.network import Network


class Same:
    """One more training of the same network."""

    rounds = 1
    interim_teacher: Literal["teacher", "before"] = "teacher"
    needs: ClassVar[tuple[str, ...]] = ()

    def shrink(self, network: Network, view: CompressionContext, round: int) -> Network:
        """A copy."""
        return copy.deepcopy(network).eval()

    def finalize(self, network: Network) -> Network:
        """As it was trained."""
        return network
