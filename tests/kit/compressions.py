"""A compression of one's own, as a recipe names it: `kit.compressions:Same`."""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

from stillroom.compress.compression import CompressionContext
from stillroom.models.network import Network


class Same:
    """Makes nothing smaller: what is left of a chain is then what the chain itself does.

    Args:
        rounds: how often.
        interim_teacher: who teaches until the last round.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, rounds: int = 1, interim_teacher: Literal["teacher", "before"] = "before"):
        self.rounds, self.interim_teacher = rounds, interim_teacher

    def shrink(self, network: Network, view: CompressionContext, round: int) -> Network:
        """The network itself, copied."""
        return copy.deepcopy(network).eval()

    def finalize(self, network: Network) -> Network:
        """As it was trained."""
        return network
